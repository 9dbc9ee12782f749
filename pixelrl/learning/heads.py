"""The critic's head: from encodings and actions to Q, E critics side by side."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from pixelrl.learning.critic_forms import CriticForm, Scalar

Place = Literal["before", "after"]

FINAL_LAYER = 1e-4
"""COG starts its last layers near zero: uniform in +-1e-4."""


class CriticOutput(NamedTuple):
    """What E critics say of state-actions.

    Attributes:
        value: Q, float32 `[E, N, B]` for N actions a state (or `[E, B]` for one).
        features: phi, what the last linear layer multiplies, `[E, N, B, F]` (or `[E, B, F]`).
        outputs: what Q is made of, float32 `[E, N, B, K]` (or `[E, B, K]`), where it is more than a number.
    """

    value: Tensor
    features: Tensor
    outputs: Tensor | None = None


class EnsembleLinear(nn.Module):
    """E linear layers side by side: `[E | 1, R, in] -> [E, R, out]`."""

    def __init__(
        self, ensemble: int, inputs: int, outputs: int, *, bias: bool = True, bound: float | None = None
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs) if bound is None else bound
        self.weight = nn.Parameter(torch.empty(ensemble, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(ensemble, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member to its own rows, or all of them to the same rows where the leading size is 1."""
        x = x.expand(len(self.weight), -1, -1)
        if x.device.type == "cpu" and self.bias is not None and self.weight.shape[-1] == 1:
            return (x * self.weight.mT).sum(-1, keepdim=True) + self.bias  # a batched product of vectors is slow there
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """LayerNorm with a gain and a bias for each of E members: `[E, R, W] -> [E, R, W]`."""

    def __init__(self, ensemble: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(ensemble, 1, width))
        self.bias = nn.Parameter(torch.zeros(ensemble, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each row."""
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.gain + self.bias


class HeadOptions(TypedDict, total=False):
    """What may be said of a `CriticHead` beside its sizes; its own defaults stand for what is not."""

    layer_norm_place: Place
    feature_norm: bool
    form: CriticForm | None


class CriticHead(nn.Module):
    """E multi-layer perceptrons from (encoding, action) to Q.

    Args:
        features: of the encoding.
        actions: dimensions of the action.
        hidden: widths of the hidden layers.
        ensemble: E.
        layer_norm: normalise each hidden layer.
        layer_norm_place: before its non-linearity (SEEM, RLPD) or after it (ReBRAC, FQL): then phi has mean 0.
        feature_norm: divide phi by its length (arXiv 2211.15144), after which the last layer starts a thousand times
            larger, or Q could hardly grow.
        form: what is put out.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        hidden: tuple[int, ...],
        ensemble: int,
        layer_norm: bool,
        *,
        layer_norm_place: Place = "before",
        feature_norm: bool = False,
        form: CriticForm | None = None,
    ) -> None:
        super().__init__()
        self.form = Scalar() if form is None else form
        self.layer_norm_place, self.feature_norm = layer_norm_place, feature_norm
        bound = 1 / math.sqrt(features + actions)
        self.from_state = EnsembleLinear(ensemble, features, hidden[0], bound=bound)
        self.from_action = EnsembleLinear(ensemble, actions, hidden[0], bias=False, bound=bound)
        self.layers = nn.ModuleList(EnsembleLinear(ensemble, below, above) for below, above in pairwise(hidden))
        self.norms = nn.ModuleList(EnsembleNorm(ensemble, width) if layer_norm else nn.Identity() for width in hidden)
        bound = FINAL_LAYER * (1000 if feature_norm else 1)
        self.last = EnsembleLinear(ensemble, hidden[-1], self.form.outputs, bound=bound)
        if (start := self.form.start()) is not None and self.last.bias is not None:
            with torch.no_grad():
                self.last.bias.copy_(start.expand_as(self.last.bias))

    def forward(self, state: Tensor, action: Tensor) -> CriticOutput:
        """Judge N actions of each state.

        Args:
            state: the state's part of the first layer, `[E, B, H]`.
            action: `[N, B, A]`.
        """
        count, batch, _ = action.shape
        moved = self.from_action(action.reshape(1, count * batch, -1))
        x = (state.unsqueeze(1) + moved.unflatten(1, (count, batch))).flatten(1, 2)
        x = self._activated(x, self.norms[0], torch.relu)
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = self._activated(layer(x), norm, torch.relu_)  # in place: nobody wants what was there before
        with torch.autocast(x.device.type, enabled=False):  # bf16 has 8 bits: too few for values near 60
            if self.feature_norm:
                x = x.float()
                x = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            outputs = self.last(x.float()).unflatten(1, (count, batch))
            value = self.form.value(outputs)
        features = x.unflatten(1, (count, batch))
        return CriticOutput(value, features, outputs if self.form.outputs > 1 else None)

    def _activated(self, x: Tensor, norm: nn.Module, relu: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a hidden layer after its non-linearity."""
        activated: Tensor = norm(relu(x)) if self.layer_norm_place == "after" else relu(norm(x))
        return activated

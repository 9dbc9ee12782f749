"""The critic's head: from encodings and actions to Q, E critics side by side."""

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Literal, NamedTuple

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
        if len(x) != len(self.weight):
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


class CriticHead(nn.Module):
    """E multi-layer perceptrons from (encoding, action) to Q.

    Args:
        features: of the encoding.
        actions: dimensions of the action.
        hidden: widths of the hidden layers.
        ensemble: E.
        layer_norm: normalise each hidden layer.
        layer_norm_place: before its non-linearity (SEEM, RLPD) or after it (ReBRAC, FQL): then phi has mean 0.
        feature_norm: divide phi by its length (arXiv 2211.15144).
        last_layer_start: the last layer starts uniform in +- this. None: 1e-4, and a thousand times that with
            `feature_norm`, or Q could hardly grow.
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
        last_layer_start: float | None = None,
        form: CriticForm | None = None,
    ) -> None:
        super().__init__()
        self.form: CriticForm = Scalar() if form is None else form
        self.norm_after, self.feature_norm = layer_norm and layer_norm_place == "after", feature_norm
        bound = 1 / math.sqrt(features + actions)
        self.from_state = EnsembleLinear(ensemble, features, hidden[0], bound=bound)
        self.from_action = EnsembleLinear(ensemble, actions, hidden[0], bias=False, bound=bound)
        self.layers = nn.ModuleList(EnsembleLinear(ensemble, below, above) for below, above in pairwise(hidden))
        self.norms = nn.ModuleList(EnsembleNorm(ensemble, width) if layer_norm else nn.Identity() for width in hidden)
        bound = FINAL_LAYER * (1000 if feature_norm else 1) if last_layer_start is None else last_layer_start
        self.last = EnsembleLinear(ensemble, hidden[-1], self.form.outputs, bound=bound)
        if (start := self.form.start()) is not None and self.last.bias is not None:
            with torch.no_grad():
                self.last.bias.copy_(start.expand_as(self.last.bias))

    def forward(self, state: Tensor, action: Tensor, slow: "CriticHead | None" = None) -> CriticOutput:
        """Evaluate N actions of each state.

        Args:
            state: the state's part of the first layer, `[E, B, H]`.
            action: `[N, B, A]`.
            slow: a head whose last layer stands for this one's.
        """
        outputs, features = self.outputs(state, action, slow)
        return CriticOutput(self.form.value(outputs), features, outputs if self.form.outputs > 1 else None)

    def embed_state(self, encoding: Tensor) -> Tensor:
        """Return what all actions in a state share: its part of the first layer, `[E, B, H]`."""
        state: Tensor = self.from_state(encoding)
        return state

    def outputs(self, state: Tensor, action: Tensor, slow: "CriticHead | None" = None) -> tuple[Tensor, Tensor]:
        """Return what the last layer puts out, float32 `[E, N, B, K]`, and phi, `[E, N, B, F]`; see `forward`."""
        sizes, x = action.shape[:2], self.hidden(state, action)[-1]
        with torch.autocast(x.device.type, enabled=False):  # bf16 has 8 bits: too few for values near 60
            if self.feature_norm:
                x = x.float()
                x = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            outputs: Tensor = (slow or self).last(x.float()).view(len(x), *sizes, -1)
        return outputs, x.view(len(x), *sizes, -1)

    def hidden(self, state: Tensor, action: Tensor) -> list[Tensor]:
        """Return the hidden layers after their non-linearities, `[E, N B, W]` each; see `forward`."""
        layers = [self._activated(self._first(state, action), self.norms[0], torch.relu)]
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            layers.append(
                self._activated(layer(layers[-1]), norm, torch.relu_)
            )  # in place: a layer counts after it only
        return layers

    def activities(self, state: Tensor, action: Tensor) -> list[Tensor]:
        """Return what the non-linearities put out: the hidden layers, but before a LayerNorm that comes after."""
        if not self.norm_after:
            return self.hidden(state, action)
        active = [self._first(state, action).relu()]
        for layer, norm in zip(self.layers, self.norms[:-1], strict=True):
            active.append(layer(norm(active[-1])).relu())
        return active

    def _first(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the first layer before its non-linearity, `[E, N B, W]`."""
        count, batch, _ = action.shape
        moved: Tensor = self.from_action(action.reshape(1, count * batch, -1))
        if count == 1:
            return state + moved
        return (state.unsqueeze(1) + moved.view(-1, count, batch, moved.shape[-1])).flatten(1, 2)

    def _activated(self, x: Tensor, norm: nn.Module, relu: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a hidden layer after its non-linearity."""
        activated: Tensor = norm(relu(x)) if self.norm_after else relu(norm(x))
        return activated


class InjectedHead(nn.Module):
    """A head that can be injected with fresh plasticity: then Q = old + (trained - start), the last two equal at first.

    Attributes:
        trained: what learns; alone until the injection.
        old, start: frozen, and in use since the injection.
        injected: whether it has happened, as checkpoints hold it.
        active: the same, as code asks for it.
    """

    injected: Tensor

    def __init__(self, head: CriticHead) -> None:
        super().__init__()
        self.trained, self.old, self.start = head, deepcopy(head), deepcopy(head)
        self.freeze()
        self.register_buffer("injected", torch.zeros((), dtype=torch.bool))
        self.active = False
        self.register_load_state_dict_post_hook(lambda head, _: head.notice())  # type: ignore[no-untyped-call]
        self.form = head.form

    @property
    def last(self) -> EnsembleLinear:
        """Return the last layer of what learns."""
        return self.trained.last

    def freeze(self) -> None:
        """Let only `trained` have a gradient, whatever was said of all parameters."""
        for frozen in (self.old, self.start):
            frozen.requires_grad_(False)

    def notice(self) -> None:
        """See whether it was injected, after numbers were loaded."""
        self.active = not self.injected.is_meta and bool(self.injected)

    def inject(self, fresh: CriticHead) -> None:
        """Freeze what was learned, and learn on in a fresh head that changes nothing yet."""
        self.old.load_state_dict(self.trained.state_dict())
        for head in (self.trained, self.start):
            head.load_state_dict(fresh.state_dict())
        self.injected.fill_(True)
        self.active = True

    def embed_state(self, encoding: Tensor) -> Tensor:
        """Return what all actions in a state share, `[E, B, H]`, or of all three heads, `[E, B, 3 H]`."""
        heads = (self.trained, self.old, self.start) if self.active else (self.trained,)
        return torch.cat([head.embed_state(encoding) for head in heads], -1)

    def activities(self, state: Tensor, action: Tensor) -> list[Tensor]:
        """Return what the non-linearities of what learns put out; see `CriticHead.activities`."""
        return self.trained.activities(state.chunk(3, -1)[0] if self.active else state, action)

    def forward(self, state: Tensor, action: Tensor, slow: "InjectedHead | None" = None) -> CriticOutput:
        """Evaluate N actions of each state; see `CriticHead.forward`."""
        if not self.active:
            return self.trained(state, action, slow and slow.trained)  # type: ignore[no-any-return]
        lasts = slow or self
        heads = (self.trained, lasts.trained), (self.old, lasts.old), (self.start, lasts.start)
        parts = zip(heads, state.chunk(3, -1), strict=True)
        (new, features), (old, _), (start, _) = (head.outputs(part, action, last) for (head, last), part in parts)
        outputs = old + (new - start)  # the difference first: it is exactly 0 at first, and Q to the bit what it was
        return CriticOutput(self.form.value(outputs), features, outputs if self.form.outputs > 1 else None)

"""The critic ensemble and the squashed-Gaussian actor: encoders below, heads above.

Encoders and heads are apart so that each picture is encoded once: sampled actions meet only the critic's head,
whose first layer is split into a part for the state (`Critic.embed_state`, computed once) and a part for the action.
"""

import math
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.noise import Noise, draw
from pixelrl.runtime.errors import PixelrlError


class Encoder(Protocol):
    """A module that turns an observation into features `[B, D]`; `features` is D."""

    features: int

    def __call__(self, obs: Observation) -> Tensor:
        """Encode."""
        ...


class EncoderConfig(Protocol):
    """A frozen description of an encoder; `encoders/` holds several."""

    def build(self, spec: Spec) -> nn.Module:
        """Return a fresh `Encoder` for observations of these shapes."""
        ...


class CriticOutput(NamedTuple):
    """What E critics say of state-actions.

    Attributes:
        value: Q, float32 `[E, N, B]` for N actions a state (or `[E, B]` for one).
        features: phi, the last hidden layer, after its non-linearity, `[E, N, B, F]` (or `[E, B, F]`).
    """

    value: Tensor
    features: Tensor


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


FINAL_LAYER = 1e-4
"""COG starts its last layers near zero: uniform in +-1e-4."""


class CriticHead(nn.Module):
    """E multi-layer perceptrons from (encoding, action) to Q."""

    def __init__(self, features: int, actions: int, hidden: tuple[int, ...], ensemble: int, layer_norm: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(features + actions)
        self.from_state = EnsembleLinear(ensemble, features, hidden[0], bound=bound)
        self.from_action = EnsembleLinear(ensemble, actions, hidden[0], bias=False, bound=bound)
        self.layers = nn.ModuleList(EnsembleLinear(ensemble, below, above) for below, above in pairwise(hidden))
        self.norms = nn.ModuleList(EnsembleNorm(ensemble, width) if layer_norm else nn.Identity() for width in hidden)
        self.last = EnsembleLinear(ensemble, hidden[-1], 1, bound=FINAL_LAYER)

    def forward(self, state: Tensor, action: Tensor) -> CriticOutput:
        """Judge N actions of each state.

        Args:
            state: the state's part of the first layer, `[E, B, H]`.
            action: `[N, B, A]`.
        """
        count, batch, _ = action.shape
        moved = self.from_action(action.reshape(1, count * batch, -1))
        x = (state.unsqueeze(1) + moved.unflatten(1, (count, batch))).flatten(1, 2)
        x = torch.relu(self.norms[0](x))
        for layer, norm in zip(self.layers, self.norms[1:], strict=True):
            x = torch.relu_(norm(layer(x)))  # in place: nobody wants what was there before
        with torch.autocast(x.device.type, enabled=False):  # bf16 has 8 bits: too few for values near 60
            value = self.last(x.float()).reshape(-1, count, batch)
        return CriticOutput(value, x.reshape(-1, count, batch, x.shape[-1]))


class Critic(nn.Module):
    """E Q-functions of pictures: either one encoder for all of them or one each (as COG)."""

    def __init__(self, encoders: list[nn.Module], head: CriticHead) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.head = head

    def encode(self, obs: Observation) -> Tensor:
        """Encode the pictures, once: `[E, B, D]`, or `[1, B, D]` if the encoder is shared.

        Raises:
            PixelrlError: there are no critics.
        """
        if not self.encoders:
            raise PixelrlError("recipe: critic is (); a term of the actor that asks for Q needs terms that train one")
        encodings = [encoder(obs) for encoder in self.encoders]
        return torch.stack(encodings) if len(encodings) > 1 else encodings[0].unsqueeze(0)  # a view copies nothing

    def embed_state(self, encoding: Tensor) -> Tensor:
        """Return what all actions in a state share: its part of the head's first layer, `[E, B, H]`."""
        state: Tensor = self.head.from_state(encoding)
        return state

    def q_values(self, state: Tensor, action: Tensor) -> CriticOutput:
        """Judge `[N, B, A]` or `[B, A]` actions in states from `embed_state`."""
        if action.dim() == 3:
            return CriticOutput(*self.head(state, action))
        value, features = self.head(state, action.unsqueeze(0))
        return CriticOutput(value.squeeze(1), features.squeeze(1))


class SquashedGaussian:
    """The distribution of tanh(u), u ~ Normal(mean, std), over actions in (-1, 1); all float32 `[B, A]`."""

    CLIP = 1 - 1e-4  # recorded actions at the very border have infinite log-density in the limit

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    @property
    def mode(self) -> Tensor:
        """Return tanh(mean), the action for deployment, `[B, A]`."""
        return torch.tanh(self.mean)

    def sample(self, count: int, generator: Noise) -> tuple[Tensor, Tensor]:
        """Draw `[N, B, A]` reparameterised actions and their log-densities `[N, B]`."""
        before, noise = self._draw(count, generator)
        return torch.tanh(before), self._log_density(before, noise)

    def actions(self, count: int, generator: Noise) -> Tensor:
        """Draw `[N, B, A]` actions alone, the same as `sample`."""
        return torch.tanh(self._draw(count, generator)[0])

    def _draw(self, count: int, generator: Noise) -> tuple[Tensor, Tensor]:
        noise = draw(torch.randn, (count, *self.mean.shape), generator, rows=1)
        return self.mean + self.log_std.exp() * noise, noise

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-density of recorded actions `[B, A]`, `[B]`."""
        before = torch.atanh(action.float().clamp(-self.CLIP, self.CLIP))
        return self._log_density(before, (before - self.mean) * (-self.log_std).exp())

    def _log_density(self, before: Tensor, noise: Tensor) -> Tensor:
        # -log(1 - tanh(u)^2) = 2 softplus(2 u) - 2 u - log 4, which stays finite for large |u|
        squashed = (4 * nn.functional.softplus(before, beta=2)).sub(before, alpha=2)
        density = (squashed - self.log_std).addcmul(noise, noise, value=-0.5)
        return density.sum(-1) - before.shape[-1] * (0.5 * math.log(2 * math.pi) + math.log(4))


class Actor(nn.Module):
    """A squashed-Gaussian policy, on its own encoder (as COG) or on the critic's."""

    LOG_STD = (-5.0, 2.0)  # COG's range

    def __init__(self, features: int, actions: int, hidden: tuple[int, ...], encoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        widths = (features, *hidden)
        layers = [
            layer for below, above in pairwise(widths) for layer in (nn.Linear(below, above), nn.ReLU(inplace=True))
        ]
        self.trunk = nn.Sequential(*layers)
        self.last = nn.Linear(hidden[-1], 2 * actions)
        for parameter in self.last.parameters():
            nn.init.uniform_(parameter, -FINAL_LAYER, FINAL_LAYER)

    def forward(self, features: Tensor) -> SquashedGaussian:
        """Return the distribution of actions for features `[B, D]`."""
        hidden = self.trunk(features)
        with torch.autocast(hidden.device.type, enabled=False):
            mean, log_std = self.last(hidden.float()).chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std.clamp(*self.LOG_STD))


class Networks(nn.Module):
    """Everything that is learned by gradient: critic, its slow copy, and actor."""

    def __init__(
        self,
        spec: Spec,
        encoder: EncoderConfig,
        *,
        shared: bool,
        ensemble: int,
        critic_hidden: tuple[int, ...],
        actor_hidden: tuple[int, ...],
        layer_norm: bool,
    ) -> None:
        super().__init__()

        def critic() -> Critic:
            encoders = [encoder.build(spec) for _ in range(1 if shared else ensemble)]
            features = (encoders or [encoder.build(spec)])[0].features
            head = CriticHead(features, spec.action_dim, critic_hidden, ensemble, layer_norm)  # type: ignore[arg-type]
            return Critic(encoders, head)

        self.critic, self.target = critic(), critic()
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        own = None if shared else encoder.build(spec)
        features = (own or self.critic.encoders[0]).features
        self.actor = Actor(features, spec.action_dim, actor_hidden, own)  # type: ignore[arg-type]

    def policy(self, obs: Observation, encoding: Tensor | None = None) -> SquashedGaussian:
        """Return the policy's distribution in B states.

        Args:
            obs: the states.
            encoding: the critic's encoding of them `[1, B, D]`, if it is at hand and the encoder is shared.
        """
        if self.actor.encoder is not None:
            features = self.actor.encoder(obs)
        else:
            features = (self.critic.encode(obs) if encoding is None else encoding)[0]
        distribution: SquashedGaussian = self.actor(features)
        return distribution

"""Actors: from features to a distribution of actions, which is Gaussian, a point, or what a flow makes of noise."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelrl.learning.heads import FINAL_LAYER
from pixelrl.learning.noise import Noise, draw
from pixelrl.runtime.errors import PixelrlError


class ActionDistribution:
    """The actions of a policy in B states, in [-1, 1]; all float32 `[..., B, A]`."""

    shape: tuple[int, ...]
    """of one action a state, (B, A)"""
    has_density = False

    @property
    def mode(self) -> Tensor:
        """Return the one action that stands for all, `[B, A]`."""
        raise NotImplementedError

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        raise NotImplementedError

    def actions(self, count: int, generator: Noise) -> Tensor:
        """Draw actions, `[N, B, A]`, differentiable in the actor."""
        return self.of_noise(draw(torch.randn, (count, *self.shape), generator, rows=1))

    def reparameterised(self, generator: Noise) -> "Reparameterised":
        """Return actions that follow the actor's parameters."""
        return Reparameterised(self.actions(1, generator), None, None)

    def sample(self, count: int, generator: Noise) -> tuple[Tensor, Tensor]:
        """Draw `[N, B, A]` actions and their log-densities `[N, B]`.

        Raises:
            PixelrlError: there is no density.
        """
        raise PixelrlError("recipe: only --policy gaussian and hybrid have a density")

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-density of recorded actions `[B, A]`, `[B]`.

        Raises:
            PixelrlError: there is no density.
        """
        raise PixelrlError("recipe: only --policy gaussian and hybrid have a density")


class Reparameterised(NamedTuple):
    """Actions of a policy, differentiable in the actor, of which an expectation is taken.

    `actions` are `[M, B, A]`, `log_prob` their log-densities `[M, B]`, if there are any. `weight` is the chance of
    each, `[M, B]`, which adds up to 1 over M; None: there is one, drawn as it comes.
    """

    actions: Tensor
    log_prob: Tensor | None
    weight: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """Return the expectation, `[..., B]`, of what each action has, `[..., M, B]`."""
        return values[..., 0, :] if self.weight is None else (values * self.weight).sum(-2)


class SquashedGaussian(ActionDistribution):
    """The distribution of tanh(u), u ~ Normal(mean, std), over actions in (-1, 1); all float32 `[B, A]`."""

    has_density = True
    CLIP = 1 - 1e-4  # recorded actions at the very border have infinite log-density in the limit

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std, self.shape = mean, log_std, mean.shape

    @property
    def mode(self) -> Tensor:
        """Return tanh(mean), the action for deployment, `[B, A]`."""
        return torch.tanh(self.mean)

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        return torch.tanh(self.mean + self.log_std.exp() * noise)

    def reparameterised(self, generator: Noise) -> Reparameterised:
        """Return one action and its log-density."""
        return Reparameterised(*self.sample(1, generator), None)

    def sample(self, count: int, generator: Noise) -> tuple[Tensor, Tensor]:
        """Draw `[N, B, A]` reparameterised actions and their log-densities `[N, B]`."""
        noise = draw(torch.randn, (count, *self.shape), generator, rows=1)
        before = self.mean + self.log_std.exp() * noise
        return torch.tanh(before), self._log_density(before, noise)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-density of recorded actions `[B, A]`, `[B]`."""
        before = torch.atanh(action.float().clamp(-self.CLIP, self.CLIP))
        return self._log_density(before, (before - self.mean) * (-self.log_std).exp())

    def _log_density(self, before: Tensor, noise: Tensor) -> Tensor:
        # -log(1 - tanh(u)^2) = 2 softplus(2 u) - 2 u - log 4, which stays finite for large |u|
        squashed = (4 * nn.functional.softplus(before, beta=2)).sub(before, alpha=2)
        density = (squashed - self.log_std).addcmul(noise, noise, value=-0.5)
        return density.sum(-1) - before.shape[-1] * (0.5 * math.log(2 * math.pi) + math.log(4))


class PointAction(ActionDistribution):
    """One action a state, tanh(mean) `[B, A]`; where it is sampled, noise of at most `clip` is added (TD3)."""

    def __init__(self, mean: Tensor, noise: float, clip: float) -> None:
        self._mode, self._noise, self._clip, self.shape = torch.tanh(mean), noise, clip, mean.shape

    @property
    def mode(self) -> Tensor:
        """Return the action, `[B, A]`."""
        return self._mode

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        return (self._mode + (self._noise * noise).clamp(-self._clip, self._clip)).clamp(-1, 1)

    def reparameterised(self, generator: Noise) -> Reparameterised:
        """Return the action itself."""
        return Reparameterised(self._mode.unsqueeze(0), None, None)


class FlowActions(ActionDistribution):
    """What a flow makes of noise z ~ Normal(0, 1): x(0) = z moves along v(s, x, t) until t = 1, or mu(s, z) at once.

    Attributes:
        state: what all actions of a state share in v's first layer, `[B, H]`.
    """

    def __init__(self, actor: "FlowActor", features: Tensor) -> None:
        self.actor, self.features = actor, features
        self.state = actor.flow.embed_state(features)
        self.shape = (features.shape[0], actor.actions)

    @property
    def mode(self) -> Tensor:
        """Return the action of z = 0, `[B, A]`: between modes, where there are several; see `Acting`."""
        return self.of_noise(torch.zeros(1, *self.shape, device=self.features.device))[0]

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        noise = noise.expand(-1, self.shape[0], -1)
        one_step = self.actor.one_step
        moved = self.along_flow(noise) if one_step is None else self.at_once(noise)
        return moved.clamp(-1, 1)

    def at_once(self, noise: Tensor) -> Tensor:
        """Return mu(s, z) of noise `[N, B, A]`, not cut to [-1, 1].

        Raises:
            PixelrlError: the policy has no such network.
        """
        if self.actor.one_step is None:
            raise PixelrlError("recipe: a term wants the flow's one-step policy; give --policy.one-step")
        moved: Tensor = self.actor.one_step(self.actor.one_step.embed_state(self.features), noise)
        return moved

    def along_flow(self, noise: Tensor) -> Tensor:
        """Return where noise `[N, B, A]` arrives in Euler's steps along the flow, not cut to [-1, 1]."""
        x, steps = noise, self.actor.steps
        for step in range(steps):
            x = x + self.velocity(x, torch.full_like(x[..., :1], step / steps)) / steps
        return x

    def velocity(self, x: Tensor, time: Tensor) -> Tensor:
        """Return v(s, x, t), `[N, B, A]`, at x `[N, B, A]` and t `[N, B, 1]`."""
        velocity: Tensor = self.actor.flow(self.state, torch.cat([x, time], -1))
        return velocity


class Actor(nn.Module):
    """A policy on its own encoder (as COG) or, where that is None, on the critic's."""

    def __init__(self, encoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the distribution of actions for features `[B, D]`."""
        raise NotImplementedError

    def possible(self, action: Tensor) -> Tensor:
        """Return the actions that the policy can take in place of these, `[..., A]` in [-1, 1]: here they stay."""
        return action


class GaussianActor(Actor):
    """A squashed Gaussian.

    Args:
        features: D, of the encoding.
        actions: A.
        hidden: widths of the hidden layers.
        encoder: of its own, or None.
    """

    LOG_STD = (-5.0, 2.0)  # COG's range
    OUTPUTS = 2

    def __init__(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> None:
        super().__init__(encoder)
        self.trunk = nn.Sequential(*relu_layers((features, *hidden)))
        self.last = nn.Linear(hidden[-1], self.OUTPUTS * actions)
        for parameter in self.last.parameters():
            nn.init.uniform_(parameter, -FINAL_LAYER, FINAL_LAYER)

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the distribution of actions for features `[B, D]`."""
        mean, log_std = self.outputs(features).chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std.clamp(*self.LOG_STD))

    def outputs(self, features: Tensor) -> Tensor:
        """Return the last layer's numbers, float32 `[B, OUTPUTS A]`."""
        hidden = self.trunk(features)
        with torch.autocast(hidden.device.type, enabled=False):
            outputs: Tensor = self.last(hidden.float())
        return outputs


class PointActor(GaussianActor):
    """A policy of one action a state."""

    OUTPUTS = 1

    def __init__(
        self,
        features: int,
        actions: int,
        hidden: Sequence[int],
        encoder: nn.Module | None,
        *,
        noise: float,
        clip: float,
    ) -> None:
        super().__init__(features, actions, hidden, encoder)
        self.noise, self.clip = noise, clip

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the action for features `[B, D]`, and the noise that targets add to it."""
        return PointAction(self.outputs(features), self.noise, self.clip)


class FlowActor(Actor):
    """A policy that moves noise along a learned flow, and perhaps a second network that does so in one step.

    Both stand on one encoder. Departure from FQL's code, where each has its own.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        hidden: Sequence[int],
        encoder: nn.Module | None,
        *,
        steps: int,
        one_step: bool,
    ) -> None:
        super().__init__(encoder)
        self.actions, self.steps = actions, steps
        self.flow = NoiseNetwork(features, actions + 1, actions, hidden)
        self.one_step = NoiseNetwork(features, actions, actions, hidden) if one_step else None

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the distribution of actions for features `[B, D]`."""
        return FlowActions(self, features)


class NoiseNetwork(nn.Module):
    """A perceptron of a state and of N vectors in it; what they share is computed once (`embed_state`)."""

    def __init__(self, features: int, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.embed_state = nn.Linear(features, hidden[0])
        self.from_noise = nn.Linear(inputs, hidden[0], bias=False)
        layers = [layer for pair in pairwise(hidden) for layer in (nn.GELU(), nn.Linear(*pair))]
        self.trunk = nn.Sequential(*layers, nn.GELU())
        self.last = nn.Linear(hidden[-1], outputs)

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        """Return float32 `[N, B, outputs]` of states `[B, H]` from `embed_state` and vectors `[N, B, inputs]`."""
        hidden = self.trunk(state + self.from_noise(noise))
        with torch.autocast(hidden.device.type, enabled=False):
            outputs: Tensor = self.last(hidden.float())
        return outputs


def relu_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Return linear layers between these widths, each followed by a ReLU."""
    return [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU(inplace=True))]

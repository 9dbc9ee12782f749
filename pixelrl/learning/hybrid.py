"""A policy that is Gaussian in some dimensions of an action and switches the others on or off, as a gripper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pixelrl.learning.actors import ActionDistribution, GaussianActor, Reparameterised, SquashedGaussian
from pixelrl.learning.noise import Noise, draw


class HybridActions(ActionDistribution):
    """A squashed Gaussian in some dimensions, and a switch, on or off, in each of the others.

    A switch is `level` with chance sigmoid(logit), and -level otherwise. What is asked of a policy's own action is
    asked of all 2^k positions of its k switches, each weighed by its chance: the exact expectation, whose gradient
    crosses from one position to the other, as none along a continuous action does.

    Args:
        gaussian: over the other dimensions, `[B, A - k]`.
        logit: of each switch, `[B, k]`.
        order: for each of the A dimensions its place among the Gaussian's, then the switches'.
        level: what a switch puts out.
    """

    has_density = True

    def __init__(self, gaussian: SquashedGaussian, logit: Tensor, order: Tensor, level: float) -> None:
        self.gaussian, self.logit, self.order, self.level = gaussian, logit, order, level
        self.shape = (logit.shape[0], order.shape[0])

    @property
    def mode(self) -> Tensor:
        """Return the Gaussian's mode, and each switch in its likelier position, `[B, A]`."""
        return self._join(self.gaussian.mode, self.logit >= 0)

    def of_noise(self, noise: Tensor) -> Tensor:
        """Return the actions `[N, B, A]` that standard normal noise `[N, B | 1, A]` stands for."""
        mine, switches = self._apart(noise)
        share = torch.special.ndtr(switches)
        return self._join(self.gaussian.of_noise(mine), share < torch.sigmoid(self.logit))

    def reparameterised(self, generator: Noise) -> Reparameterised:
        """Return one action of the Gaussian with every position of the switches, their log-densities and chances."""
        actions, log_prob = self.gaussian.sample(1, generator)
        count, device = self.logit.shape[-1], self.logit.device
        on = (torch.arange(2**count, device=device)[:, None] >> torch.arange(count, device=device)) % 2 == 1
        on = on[:, None].expand(-1, self.logit.shape[0], -1)
        log_chance = self._log_chance(on)
        every = self._join(actions.expand(on.shape[0], -1, -1), on)
        return Reparameterised(every, log_prob + log_chance, log_chance.exp())

    def sample(self, count: int, generator: Noise) -> tuple[Tensor, Tensor]:
        """Draw `[N, B, A]` actions, reparameterised but for the switches, and their log-densities `[N, B]`."""
        actions, log_prob = self.gaussian.sample(count, generator)
        share = draw(torch.rand, (count, *self.logit.shape), generator, rows=1)
        on = share < torch.sigmoid(self.logit)
        return self._join(actions, on), log_prob + self._log_chance(on)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-density of recorded actions `[B, A]`, `[B]`; a switch counts by its sign."""
        gaussian, switches = self._apart(action[:, self.order.argsort()])
        return self.gaussian.log_prob(gaussian) + self._log_chance(switches > 0)

    def _apart(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        continuous = numbers.shape[-1] - self.logit.shape[-1]
        return numbers[..., :continuous], numbers[..., continuous:]

    def _log_chance(self, on: Tensor) -> Tensor:
        return nn.functional.logsigmoid(torch.where(on, self.logit, -self.logit)).sum(-1)

    def _join(self, gaussian: Tensor, on: Tensor) -> Tensor:
        switches = torch.where(on, self.level, -self.level).to(gaussian.dtype)
        return torch.cat([gaussian, switches], -1)[..., self.order]


class HybridActor(GaussianActor):
    """A squashed Gaussian in all dimensions but `switches`, which are on or off; see `HybridActions`."""

    order: Tensor

    def __init__(
        self,
        features: int,
        actions: int,
        hidden: Sequence[int],
        encoder: nn.Module | None,
        *,
        switches: Sequence[int],
        level: float,
    ) -> None:
        super().__init__(features, actions, hidden, encoder)
        places = [dim for dim in range(actions) if dim not in switches] + list(switches)
        self.register_buffer("order", torch.tensor(places).argsort(), persistent=False)
        self.level, self.continuous = level, actions - len(switches)

    def forward(self, features: Tensor) -> ActionDistribution:
        """Return the distribution of actions for features `[B, D]`."""
        mean, log_std = self.outputs(features).chunk(2, dim=-1)
        gaussian = SquashedGaussian(mean[:, : self.continuous], log_std[:, : self.continuous].clamp(*self.LOG_STD))
        return HybridActions(gaussian, mean[:, self.continuous :], self.order, self.level)

    def possible(self, action: Tensor) -> Tensor:
        """Return actions `[..., A]` with each switch in the position of its sign."""
        switch = self.order >= self.continuous
        return torch.where(switch, torch.where(action > 0, self.level, -self.level), action)

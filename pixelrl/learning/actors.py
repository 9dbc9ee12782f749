"""The actor: from features to a distribution of actions, a squashed Gaussian."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from pixelrl.learning.heads import FINAL_LAYER
from pixelrl.learning.noise import Noise, draw


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

"""Layers of encoders: flattening, a mixture of experts, a bottleneck of information, and mixing of places (A-LIX)."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from pixelrl.learning.heads import EnsembleLinear
from pixelrl.learning.noise import EncoderNoise, draw
from pixelrl.learning.objective import SelfTuned


class Flatten(nn.Module):
    """Lay all places one behind the other, `[B, C, H, W] -> [B, H W C]`: as they lie, with channels last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten."""
        return rearrange(x, "b c h w -> b (h w c)")


class SoftMixture(nn.Module):
    """Let N experts work on mixtures of places, `[B, C, H, W] -> [B, H W C]` (Soft MoE in values, arXiv 2402.08609).

    With the M = H W places as tokens X `[M, C]` and logits L = X phi `[M, N P]`, P = ceil(M / N): slots are
    softmax over M of L, transposed, times X; expert n is a perceptron C -> width -> C on its P slots; the result is
    softmax over N P of L times what they say. Departure: a linear layer follows where the encoder has one.

    Args:
        channels: C.
        places: M.
        experts: N.
        width: of each expert's hidden layer.
    """

    def __init__(self, channels: int, places: int, experts: int, width: int = 512) -> None:
        super().__init__()
        self.slots = math.ceil(places / experts)
        self.phi = nn.Parameter(torch.randn(channels, experts * self.slots) / math.sqrt(channels))
        self.first = EnsembleLinear(experts, channels, width)
        self.second = EnsembleLinear(experts, width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Share places out, let experts work, and put together what they say."""
        tokens = rearrange(x, "b c h w -> b (h w) c")
        logits = (tokens @ self.phi).float()
        slots = logits.softmax(1).mT.to(tokens.dtype) @ tokens
        shared = rearrange(slots, "b (n p) c -> n (b p) c", p=self.slots)
        said = rearrange(self.second(torch.relu(self.first(shared))), "n (b p) c -> b (n p) c", p=self.slots)
        result: Tensor = logits.softmax(2).to(said.dtype) @ said
        return result.flatten(1)


class NoisyLayer(nn.Module):
    """A layer that adds noise while a network learns; without noise it does what it does in the world."""

    def forward(self, x: Tensor, noise: EncoderNoise | None = None) -> Tensor:
        """Apply it."""
        raise NotImplementedError


class Bottleneck(NoisyLayer):
    """z ~ Normal(mean(x), std(x)^2), `[B, D] -> [B, Z]`; in the world z = mean(x) (arXiv 1612.00410).

    How far that is from Normal(0, 1) is noted, for `InformationBottleneck`. std starts near 0.14, which is ours.
    """

    LIMITS = (-5.0, 2.0)
    """of log std"""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.mean, self.log_std = nn.Linear(features, width), nn.Linear(features, width)
        nn.init.constant_(self.log_std.bias, -2.0)

    def forward(self, x: Tensor, noise: EncoderNoise | None = None) -> Tensor:
        """Pass, and note the information in nats, float32 `[B]`."""
        mean: Tensor = self.mean(x)
        if noise is None:
            return mean
        log_std = self.log_std(x).float().clamp(*self.LIMITS)
        noise.information.append(divergence_from_normal(mean.float(), log_std))
        if noise.source is None:
            return mean
        sample: Tensor = mean + log_std.exp() * draw(torch.randn, mean.shape, noise.source, rows=0)
        return sample


def divergence_from_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return KL(Normal(mean, std^2) || Normal(0, 1)) of `[B, Z]`, summed over Z, `[B]`, in nats."""
    return ((mean.square() + (2 * log_std).exp() - 1) / 2 - log_std).sum(-1)


class LocalMixing(NoisyLayer, SelfTuned):
    """Read maps `[B, C, H, W]` a little beside their places while a network learns (A-LIX, arXiv 2207.00986).

    All are moved by one (dx, dy) ~ U(-r, r)^2 a pass, between places by bilinear interpolation, the border repeated;
    r = `amount` x `reach`, and `amount`, between 0 and 1, grows while the gradient of the loss with respect to the
    result is less smooth than `goal` says, and shrinks while it is smoother; see `discontinuity`.

    Args:
        shape: (C, H, W) of the maps.
        goal: of the discontinuity (the authors: 0.535).

    Attributes:
        reach: the largest r: 2.5 places of the authors' 35, and as large a part of other maps.
    """

    rate, betas = 2e-3, (0.5, 0.999)

    def __init__(self, shape: tuple[int, int, int], goal: float) -> None:
        super().__init__()
        self.goal, self.reach = goal, min(shape[1:]) * 2.5 / 35
        self.amount = nn.Parameter(torch.tensor(0.5))
        self.probe = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, noise: EncoderNoise | None = None) -> Tensor:
        """Mix, if there is a source of noise."""
        if noise is None or noise.source is None:
            return x
        drawn = draw(torch.rand, (2,), noise.source, rows=None)
        away = (2 * drawn - 1) * self.amount.detach() * self.reach
        return moved(moved(x, away[0], 2), away[1], 3) + self.probe

    def slope(self, gradient: Tensor) -> Tensor:
        """Return what stands for the gradient of `amount`: goal - discontinuity."""
        return self.goal - discontinuity(gradient)


def moved(x: Tensor, by: Tensor, dim: int) -> Tensor:
    """Return x read at its places along `dim` plus a number, between two places linearly, the border repeated."""
    whole = by.floor()
    first = torch.arange(x.shape[dim], device=x.device) + whole.long()
    last = x.shape[dim] - 1
    one, two = (x.index_select(dim, place.clamp(0, last)) for place in (first, first + 1))
    return torch.lerp(one, two, (by - whole).to(x.dtype))


def discontinuity(gradient: Tensor) -> Tensor:
    """Return how unlike its neighbours each place of a gradient `[C, H, W]` is: A-LIX's score, in its authors' form.

    mean over all of log(1 + noise / signal), over the 8 neighbours, borders repeated: noise is the mean of
    (g_neighbour - g)^2, signal that of g_neighbour^2. It does not depend on the gradient's scale.
    """
    gradient = gradient.float()
    height, width = gradient.shape[1:]
    wide = nn.functional.pad(gradient.unsqueeze(0), (1, 1, 1, 1), mode="replicate")[0]
    places = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    around = torch.stack([wide[:, i : i + height, j : j + width] for i, j in places])
    noise, signal = (around - gradient).square().mean(0), around.square().mean(0)
    return (noise / (signal + 1e-20)).log1p().mean()

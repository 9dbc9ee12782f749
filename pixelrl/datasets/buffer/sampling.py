"""What a batch is drawn by, and what follows a transition: quotas, n-step returns, returns to go."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Quotas:
    """How many of B samples each source gives at a step: its exact part rounded up or down, and exact on average.

    Systematic sampling: the sources' exact parts lie end to end on a line, and every point `offset + integer` draws
    from the source it falls into. The offset runs through all multiples of 1 / period, so that over any `period`
    successive steps each source gives exactly its part; golden-ratio strides keep shorter runs close to it.
    """

    def __init__(self, shares: Sequence[float], batch_size: int) -> None:
        """Take relative shares, to three digits or so (as fractions whose denominators are at most 1000)."""
        parts = [Fraction(share).limit_denominator(1000) for share in shares]
        edges = [batch_size * edge / sum(parts) for edge in accumulate(parts, initial=Fraction(0))]
        self.period = math.lcm(*(edge.denominator for edge in edges))
        self._edges = np.array([int(edge * self.period) for edge in edges])
        near = round(self.period * (math.sqrt(5) - 1) / 2)
        self._stride = next(n for n in range(max(near, 1), near + self.period + 2) if math.gcd(n, self.period) == 1)

    def __call__(self, step: int) -> NDArray[np.int64]:
        """Return the counts, int64 `[sources]`, which sum to B."""
        offset = step * self._stride % self.period
        points: NDArray[np.int64] = -((offset - self._edges) // self.period)  # those before each edge
        return np.diff(points)


def fold(reward: Tensor, end: Tensor, last: Tensor, *, gamma: float, n_step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fold the next n steps of every transition into (reward, discount, steps), all `[T]`.

    A window of m <= n steps stops with the first step that ends the episode (discount 0) or is the last of its demo
    (discount gamma^m: a time-out bootstraps from the last frame). So each real reward is counted once.
    `reward` float `[T]`, `end` and `last` bool `[T]`; returns float32, float32 and int64.
    """
    steps = torch.zeros(len(reward), dtype=torch.int64)
    total = torch.zeros(len(reward), dtype=torch.float64)
    here = torch.arange(len(reward))
    running = torch.ones(len(reward), dtype=torch.bool)
    ended = torch.zeros(len(reward), dtype=torch.bool)
    for k in range(n_step):
        ahead = (here + k).clamp(max=len(reward) - 1)
        total += gamma**k * reward.double()[ahead] * running
        steps += running
        ended |= running & end[ahead]
        running = running & ~(end | last)[ahead]
    discount = (gamma ** steps.double()) * ~ended
    return total.float(), discount.float(), steps


def before_end(end: Tensor, demo: Tensor) -> NDArray[np.bool_]:
    """Return bool `[T]`: the transitions of each demo up to and with its first true end; `demo` is sorted."""
    ends_before = (end.cumsum(0) - end.long()).numpy()
    at_start = ends_before[np.searchsorted(demo.numpy(), demo.numpy())]
    live: NDArray[np.bool_] = ends_before == at_start
    return live


def steps_to_stop(stop: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many steps are between each step and the next one that stops, 0 where it does itself, `[T]`."""
    stops = np.flatnonzero(stop)
    here = np.arange(len(stop))
    return stops[np.searchsorted(stops, here)] - here


def return_to_go(reward: Tensor, end: Tensor, last: Tensor, *, gamma: float) -> Tensor:
    """Return the discounted rewards from each step to the first true end, or to the last step of its demo.

    Nothing is bootstrapped: what might have been paid after a time-out is missing. Arguments as `fold`'s;
    float32 `[T]`. Windows double in length: after k rounds each holds up to 2^k rewards.
    """
    ahead = steps_to_stop((end | last).numpy())  # steps after this one that count
    total: NDArray[np.float64] = reward.double().numpy()
    width = 1
    while (ahead >= width).any():
        further = np.flatnonzero(ahead >= width)
        longer = total.copy()
        longer[further] += gamma**width * total[further + width]
        total, width = longer, 2 * width
    return torch.from_numpy(total.astype(np.float32))

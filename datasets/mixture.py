"""A mixture of data sources, and its batches: each a pure function of the seed and the step.

What COG does by writing zeros into a buffer is a rule here: `Source.reward_scale` is 0 for prior data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.batch import Batch, Observation, Spec
from pixelrl.datasets.robomimic_hdf5 import read_contents
from pixelrl.datasets.store import ActionRange, Progress, Store, load
from pixelrl.errors import DataError
from pixelrl.seeding import derive

Ends = Literal["never", "goal", "dones"]
"""Which steps truly end an episode, so that nothing is bootstrapped beyond them.

- never: none, as in COG, whose rewards are paid at every step in the goal: values reach 1 / (1 - gamma).
- goal: those recorded with `done` set and a reward above 0, in sources whose rewards count. `done` alone will not
  do: robomimic may also set it at the last step of every demo, and a time-out is no end. A source whose rewards are
  scaled by 0 has no goal: to end there would say that nothing can follow, when reaching on is what it is there for.
  What was recorded after the first such step of a demo lies beyond its end and is not sampled.
- dones: those recorded with `done` set, in every source.
"""

STD_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files that are sampled and rewarded alike.

    Attributes:
        name: say "prior" or "task".
        files: robomimic HDF5 files.
        share: its part of every batch, relative to the other sources' shares; None in all sources: uniform over
            all transitions.
        reward_scale: the reward is `reward_scale * recorded + reward_shift`; 0 for prior data.
        reward_shift: see `reward_scale`.
        mask: a filter of the files, the subset of their demos to use.
    """

    name: str
    files: tuple[Path, ...]
    share: float | None = None
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    mask: str | None = None


class Mixture:
    """Batches from one or more sources, all held in memory.

    Attributes:
        spec: shapes and scales, read from the files; the standard deviations are at least 0.001.
        env_args: of the task: the first source whose rewards count, else the first one.
        store: the frames and transitions.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        batch_size: int,
        seed: int,
        gamma: float,
        n_step: int = 1,
        ends: Ends = "never",
        images: Sequence[str] | None = None,
        proprio: Sequence[str] | None = None,
        actions: ActionRange = "unit",
        pin: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Load the sources.

        `images` and `proprio` select keys as `read_contents` says, `actions` and `progress` are as `load` says, and
        `pin` puts batches into page-locked memory, for which CUDA must be there.

        Raises:
            DataError: sources that cannot be mixed, or files that cannot be read.
        """
        _check_sources(sources)
        contents = [
            [read_contents(path, mask=source.mask, images=images, proprio=proprio) for path in source.files]
            for source in sources
        ]
        self.store = load(contents, actions=actions, progress=progress)
        readings = self.store.proprio.numpy()
        self.spec = Spec(
            images={key: (c, h, w) for key, (h, w, c) in contents[0][0].pictures.items()},
            proprio=contents[0][0].vectors,
            action=self.store.dims,
            sources=tuple(source.name for source in sources),
            proprio_mean=tuple(readings.mean(axis=0, dtype=np.float64).tolist()),
            proprio_std=tuple(readings.std(axis=0, dtype=np.float64).clip(min=STD_FLOOR).tolist()),
        )
        task = next((index for index, source in enumerate(sources) if source.reward_scale), 0)
        self.env_args = contents[task][0].env_args
        scale = torch.tensor([source.reward_scale for source in sources])[self.store.source]
        shift = torch.tensor([source.reward_shift for source in sources])[self.store.source]
        end = _true_ends(self.store, scale, ends)
        self._reward, self._discount, self._steps = fold(
            self.store.reward * scale + shift, end, self.store.last, gamma=gamma, n_step=n_step
        )
        self._live: NDArray[np.int64] = np.flatnonzero(before_end(end, self.store.demo))
        self._edges = np.searchsorted(self.store.source.numpy()[self._live], np.arange(len(sources) + 1))
        self._quotas = None if sources[0].share is None else Quotas([s.share or 0 for s in sources], batch_size)
        self._batch_size = batch_size
        self._key = derive(seed, "batches")
        self._pin = pin

    def __len__(self) -> int:
        """Return the number of transitions that are sampled."""
        return len(self._live)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, the same whenever and wherever it is asked for; safe to call from threads."""
        index = torch.from_numpy(self._draw(step))
        frame = self.store.frame[index]
        frames = torch.cat([frame, frame + self._steps[index]])
        images = {key: self._take(pictures, frames) for key, pictures in self.store.images.items()}
        proprio = self._take(self.store.proprio, frames)
        now, later = slice(None, len(index)), slice(len(index), None)
        return Batch(
            obs=Observation(images={key: both[now] for key, both in images.items()}, proprio=proprio[now]),
            action=self._take(self.store.action, index),
            reward=self._take(self._reward, index),
            discount=self._take(self._discount, index),
            next_obs=Observation(images={key: both[later] for key, both in images.items()}, proprio=proprio[later]),
            source=self._take(self.store.source, index),
        )

    def _draw(self, step: int) -> NDArray[np.int64]:
        """Return the transitions of a step: with replacement, uniform within their source."""
        random = np.random.Generator(np.random.Philox(key=np.array([self._key, step], dtype=np.uint64)))
        if self._quotas is None:
            place = random.integers(len(self), size=self._batch_size)
        else:
            counts = self._quotas(step)
            place = random.integers(np.repeat(self._edges[:-1], counts), np.repeat(self._edges[1:], counts))
        return np.take(self._live, place)

    def _take(self, values: Tensor, index: Tensor) -> Tensor:
        """Gather rows, into pinned memory if asked for.

        NumPy's gather is as fast as `index_select` on one thread, and starts no others: those would wait for the
        learner's, which keep every core busy.
        """
        taken = torch.empty(len(index), *values.shape[1:], dtype=values.dtype, pin_memory=self._pin)
        np.take(values.numpy(), index.numpy(), axis=0, out=taken.numpy(), mode="clip")  # "raise" would buffer
        return taken


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


def _true_ends(store: Store, scale: Tensor, ends: Ends) -> Tensor:
    """Return bool `[T]`: the steps beyond which there is nothing to bootstrap; see `Ends`."""
    if ends == "never":
        return torch.zeros_like(store.done)
    if ends == "dones":
        return store.done
    return store.done & (store.reward > 0) & (scale != 0)


def _check_sources(sources: Sequence[Source]) -> None:
    """Raise unless the sources have files, different names, and either all a positive share or none."""
    names = [source.name for source in sources]
    shares = [source.share for source in sources]
    if not sources or len(set(names)) < len(names):
        raise DataError(f"the sources are named {names}; expected one or more, with different names")
    for source in sources:
        if not source.files:
            raise DataError(f"source {source.name!r} has no files; expected one or more")
        if (source.share is None) != (shares[0] is None) or (source.share is not None and source.share < 0.001):
            raise DataError(f"the shares are {shares}; expected a share of at least 0.001 in all sources, or in none")

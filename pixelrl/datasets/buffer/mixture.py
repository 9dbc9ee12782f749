"""A mixture of data sources, and its batches: each a pure function of the seed and the step.

What COG does by writing zeros into a buffer is a rule here: `Source.reward_scale` is 0 for prior data.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.datasets.buffer.corrupted import corrupted_actions, corrupted_views
from pixelrl.datasets.buffer.episodes import select_transitions
from pixelrl.datasets.buffer.frames import gather
from pixelrl.datasets.buffer.ledger import account
from pixelrl.datasets.buffer.memory_plan import MemoryPlan
from pixelrl.datasets.buffer.sources import Ends, Source
from pixelrl.datasets.buffer.transition_table import TransitionTable
from pixelrl.datasets.corruption import occlude
from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.seeding import derive

CPU = torch.device("cpu")
VIEWS = ("shown", "shaken")
"""What is seen in s where data are corrupted on purpose; with `_after`, in s'."""


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


class Mixture:
    """Batches from one or more sources; `load_dataset` makes one of files.

    Attributes:
        table: the frames and transitions of all sources.
        sources: what they were read from, and by which rules they are sampled and rewarded.
        spec: shapes and scales of the data.
        env_args: robomimic's description of the environment.
        plan: where its frames live.
        transitions: which steps are sampled, and what follows each.
        ledger: an account of what is learned from, and what is not.
        largest_reward: of one step, in size, as the sources' rules have it.
    """

    def __init__(
        self,
        table: TransitionTable,
        sources: Sequence[Source],
        *,
        spec: Spec,
        env_args: Mapping[str, Any],
        plan: MemoryPlan,
        ignored: Mapping[str, str] = MappingProxyType({}),
        batch_size: int,
        seed: int,
        gamma: float,
        n_step: int = 1,
        ends: Ends = "never",
        sarsa: bool = False,
        home: torch.device = CPU,
        pin: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Prepare to sample.

        Args:
            table: see above, as the next four.
            sources: see above.
            spec: see above.
            env_args: see above.
            plan: see above.
            ignored: observation keys that are not learned from, and why.
            batch_size: B, of all ranks together.
            seed: of the batches.
            gamma: discount per step.
            n_step: rewards summed before bootstrapping.
            ends: what ends an episode, where a source does not say it.
            sarsa: leave out steps in whose next state no action was recorded.
            home: where batches are put together: the GPU if the frames live there. Only indices travel then.
            pin: put batches into page-locked memory, for which CUDA must be there.
            rank: our share of every batch is the rows rank, rank + ranks, ...
            ranks: how many learners share a batch.

        Raises:
            DataError: a batch that cannot be shared, or a source of which nothing can be learned from.
        """
        if batch_size % ranks or not 0 <= rank < ranks:
            raise DataError(f"rank {rank} of {ranks} ranks, batch size {batch_size}; expected a multiple of the ranks")
        self.table, self.sources, self.spec, self.env_args, self.plan = table, tuple(sources), spec, env_args, plan
        self._quotas = None if sources[0].share is None else Quotas([s.share or 0 for s in sources], batch_size)
        self._batch_size, self._key, self._rank, self._ranks = batch_size, derive(seed, "batches"), rank, ranks
        self._home, self._pin = home, pin
        rules: dict[str, Any] = {"gamma": gamma, "n_step": n_step, "chunk": spec.chunk}
        self.transitions = chosen = select_transitions(table, sources, **rules, ends=ends, sarsa=sarsa, seed=seed)
        self.ledger = account(table, self.transitions, sources, spec, ignored)
        self.largest_reward = float(self.transitions.reward.abs().max())
        self._prepare(corrupted_actions(table, sources, seed))
        held_out = torch.isin(chosen.episode, chosen.episode[chosen.held_out])
        views = corrupted_views(table, chosen.first, chosen.after, held_out, sources, seed)
        self._views = {name: view.to(home) for name, view in views.items()}

    def _prepare(self, action: Tensor) -> None:
        """Bring actions, and what follows each transition, to where batches are put together."""
        table, transitions = self.table, self.transitions
        columns = {"action": action, "source": table.source, "proprio": table.proprio, "frame": table.frame}
        columns |= {"first": transitions.first, "after": transitions.after, "following": transitions.following}
        columns |= {"reward": transitions.folded, "discount": transitions.discount}
        columns |= {"return_to_go": transitions.return_to_go, "final": transitions.final}
        self._columns = {name: column.to(self._home) for name, column in columns.items()}
        self._back = torch.arange(1 - self.spec.history, 1, device=self._home)
        self._ahead = torch.arange(self.spec.chunk, device=self._home)
        self._live: NDArray[np.int64] = np.flatnonzero(transitions.sampled.numpy())
        self._edges = np.searchsorted(table.source.numpy()[self._live], np.arange(len(self.sources) + 1))

    def __len__(self) -> int:
        """Return the number of transitions that are sampled."""
        return len(self._live)

    def batch(self, step: int) -> Batch:
        """Return our share of a step's batch, the same whenever and wherever it is asked for; safe in threads."""
        return self.rows(self._draw(step)[self._rank :: self._ranks].copy())

    def rows(self, places: NDArray[np.int64]) -> Batch:
        """Return the transitions at these places of the table as a batch."""
        drawn = torch.from_numpy(places)
        index = (drawn.pin_memory() if self._pin else drawn).to(self._home, non_blocking=True)
        frame, first = self._column("frame", index), self._column("first", index)
        instants = torch.cat([frame, self._column("after", index)])
        shown, firsts, proprio = instants, first.repeat(2), self._column("proprio", instants)
        if self._views:
            shown, moved = (torch.cat([self._views[key][index] for key in (name, f"{name}_after")]) for name in VIEWS)
            firsts, proprio = self._views["first_of"][shown], proprio + moved
        # one gather for s and s': [2B, k] frames, none of them before the first of its episode
        windows = torch.maximum(shown[:, None] + self._back, firsts[:, None]).flatten()
        images = {key: self._stacked(frames.take(windows), len(instants)) for key, frames in self.table.images.items()}
        now, later = slice(None, len(index)), slice(len(index), None)
        seen = {key: both[now] for key, both in images.items()}
        if "occluded" in self._views:
            seen = {key: occlude(pictures, self._views["occluded"][index]) for key, pictures in seen.items()}
        return Batch(
            obs=Observation(images=seen, proprio=proprio[now]),
            action=self._actions(index),
            reward=self._column("reward", index),
            discount=self._column("discount", index),
            next_obs=Observation(images={key: both[later] for key, both in images.items()}, proprio=proprio[later]),
            next_action=self._actions(self._column("following", index)),
            return_to_go=self._column("return_to_go", index),
            source=self._column("source", index),
        )

    def probe(self, rows: int, seed: int, *, held_out: bool = False) -> NDArray[np.int64]:
        """Return the places of fixed transitions: as many of each source, without repetition, drawn by the seed.

        Sources are mixed, and one with too few gives all it has.

        Raises:
            DataError: nothing is held out.
        """
        usable = (self.transitions.held_out if held_out else self.transitions.sampled).numpy()
        if not usable.any():
            raise DataError("no episode is held out; train with --held-out 0.1, say")
        random, source = np.random.default_rng(derive(seed, "probe")), self.table.source.numpy()
        chosen = []
        for number in range(len(self.sources)):
            mine = np.flatnonzero(usable & (source == number))
            chosen.append(random.permutation(mine)[: -(-rows // len(self.sources))])
        return random.permutation(np.concatenate(chosen))

    def _actions(self, index: Tensor) -> Tensor:
        """Return the actions from these steps on, `[N, h A]`; after the last one of an episode that one is repeated."""
        if self.spec.chunk == 1:
            return self._column("action", index)
        steps = torch.minimum(index[:, None] + self._ahead, self._column("final", index)[:, None])
        return rearrange(self._column("action", steps.flatten()), "(n h) a -> n (h a)", h=self.spec.chunk)

    def _draw(self, step: int) -> NDArray[np.int64]:
        """Return the transitions of a step, `[B]`: with replacement, uniform within their source."""
        random = np.random.Generator(np.random.Philox(key=np.array([self._key, step], dtype=np.uint64)))
        if self._quotas is None:
            place = random.integers(len(self), size=self._batch_size)
        else:
            counts = self._quotas(step)
            place = random.integers(np.repeat(self._edges[:-1], counts), np.repeat(self._edges[1:], counts))
        return np.take(self._live, place)

    def _column(self, name: str, index: Tensor) -> Tensor:
        return gather(self._columns[name], index, pin=self._pin)

    def _stacked(self, frames: Tensor, instants: int) -> Tensor:
        """Lay the k frames of each instant one behind the other: `[N k, C, H, W]` to `[N, k C, H, W]`."""
        if len(frames) == instants:
            return frames
        apart = rearrange(frames, "(n k) c h w -> n h w k c", n=instants)
        pin = self._pin and frames.device.type == "cpu"
        stacked = torch.empty(apart.shape, dtype=frames.dtype, device=frames.device, pin_memory=pin)
        if frames.device.type == "cpu":  # NumPy copies: torch's threads would wait for the learner's
            np.copyto(stacked.numpy(), apart.numpy())
        else:
            stacked.copy_(apart)
        return rearrange(stacked, "n h w k c -> n (k c) h w")

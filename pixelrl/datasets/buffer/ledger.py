"""What a mixture learns from, and what it does not: `train` and `inspect` show the same account."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from pixelrl.datasets.buffer.episodes import Transitions
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.transition_table import TransitionTable
from pixelrl.datasets.hdf5.keys import EXPECTED
from pixelrl.learning.batch import Spec
from pixelrl.runtime.errors import DataError

CLOCK = "grows with every frame: a clock? --proprio without it leaves it out"

SMALL_PART = 0.2
"""Normalised actions leave so much of [-1, 1] somewhere; metres and radians a step hardly ever do."""


@dataclass(frozen=True, kw_only=True)
class SourceLedger:
    """One source.

    Attributes:
        name: of the source.
        demos, episodes, steps: how many were read.
        sampled: how many steps are learned from.
        repeated: how many of these have no frame after them, so that their own stands for it: goals are absorbing.
        left_out: reason -> how many steps are not.
        recorded: the sum of the rewards in its files.
        rewards: the sum of the rewards by the rule of the source, before scale and shift.
        kept: the part of it that lies in the steps that are learned from.
        returns: the lowest, the mean and the highest discounted return of an episode, scaled and shifted.
        bounds: the lowest and the highest return to go of a step that is learned from.
        motion: see `largest_motion`.
        corrupt: what is corrupted on purpose.
        rename: old -> new, names of observation keys.
    """

    name: str
    demos: int
    episodes: int
    steps: int
    sampled: int
    repeated: int
    left_out: Mapping[str, int]
    recorded: float
    rewards: float
    kept: float
    returns: tuple[float, float, float]
    bounds: tuple[float, float]
    motion: float
    corrupt: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield what to show."""
        within = "" if self.demos == self.episodes else f"{self.episodes} episodes in "
        demos = f"{within}{self.demos} demos"
        parts = [f"{self.name}: {demos}, {self.steps} steps, {self.sampled} learned from"]
        parts += [f"{count} left out: {reason}" for reason, count in self.left_out.items() if count]
        parts += [f"{self.repeated} without a frame after them: theirs is repeated"] if self.repeated else []
        parts += [f"corrupted on purpose: {self.corrupt}"] if self.corrupt else []
        yield "; ".join(parts)
        if self.rename:
            yield f"{self.name}: renamed: {', '.join(f'{old} is {new}' for old, new in self.rename.items())}"
        rule = "" if self.recorded == self.rewards else f", {self.rewards:.6g} by its rule"
        low, mean, high = self.returns
        yield (
            f"{self.name}: rewards sum to {self.recorded:.6g} in the files{rule}, {self.kept:.6g} in the steps "
            "that are learned from; returns from first steps, scaled and discounted as the critic sees them, "
            f"{low:.4g} to {high:.4g}, mean {mean:.4g}"
        )
        if self.motion < SMALL_PART:
            what = f"no action is beyond +-{self.motion:.2g}, switches aside: in the robot's units?"
            yield f"warning: {self.name}: {what} expected normalised actions (--actions min-max normalises them)"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All sources.

    Attributes:
        sources: in their order.
        learned: the observation keys that are learned from.
        ignored: observation key -> why it is not.
        clocks: keys that are learned from, and grow with every frame as time does.
    """

    sources: tuple[SourceLedger, ...]
    learned: tuple[str, ...]
    ignored: Mapping[str, str]
    clocks: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield what to show, a line each."""
        for source in self.sources:
            yield from source.lines()
        yield f"observations that are learned from: {', '.join(self.learned)}"
        for key, why in self.ignored.items():
            yield f"{'' if why in EXPECTED else 'warning: '}not learned from: {key} ({why})"
        for key in self.clocks:
            yield f"warning: {key} {CLOCK}"


def account(
    table: TransitionTable, transitions: Transitions, sources: Sequence[Source], spec: Spec, ignored: Mapping[str, str]
) -> Ledger:
    """Return the ledger of sources that were read into a table.

    Raises:
        DataError: nothing of a source can be learned from.
    """
    return Ledger(
        sources=tuple(_account_source(table, transitions, source, number) for number, source in enumerate(sources)),
        learned=(*spec.images, *spec.proprio),
        ignored=dict(ignored),
        clocks=table.clocks,
    )


def _account_source(table: TransitionTable, transitions: Transitions, source: Source, number: int) -> SourceLedger:
    mine = table.source == number
    sampled = transitions.sampled & mine
    left_out = {reason: int((rows & mine).sum()) for reason, rows in transitions.left_out.items()}
    if not sampled.any():
        left = ", ".join(f"{count} are {reason}" for reason, count in left_out.items() if count)
        raise DataError(f"source {source.name!r}: none of its {int(mine.sum())} steps can be learned from: {left}")
    starts = mine.clone()
    starts[1:] &= transitions.episode[1:] != transitions.episode[:-1]
    returns, togo = transitions.return_to_go[starts].double(), transitions.return_to_go[sampled]
    return SourceLedger(
        name=source.name,
        demos=len(np.unique(table.demo[mine].numpy())),
        episodes=int(starts.sum()),
        steps=int(mine.sum()),
        sampled=int(sampled.sum()),
        repeated=int((sampled & table.next_missing & (transitions.discount > 0)).sum()),
        left_out=left_out,
        recorded=float(table.recorded[mine].double().sum()),
        rewards=float(table.reward[mine].double().sum()),
        kept=float(table.reward[sampled].double().sum()),
        returns=(float(returns.min()), float(returns.mean()), float(returns.max())),
        bounds=(float(togo.min()), float(togo.max())),
        motion=largest_motion(table.action[mine]),
        corrupt=source.corrupt,
        rename=source.rename,
    )


def largest_motion(action: Tensor) -> float:
    """Return the largest |a| of actions `[N, A]`, but for dimensions of one or two values; infinite if none is left."""
    moving = [dim for dim in action.T if ((dim > dim.min()) & (dim < dim.max())).any()]
    return max((float(dim.abs().max()) for dim in moving), default=math.inf)

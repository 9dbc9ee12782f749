"""What a study asks: arms trained on replicates, how they are tried, and what may be concluded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared.

    Attributes:
        name: in file names and in comparisons.
        title: for people.
        recipe: of `pixelrl train`.
        train: its options, as words; {replicate} stands for the replicate's number.
        replicates: those of the study that it is trained on; None: all.
        of: another arm, whose runs this one takes; it trains nothing.
        stop_at_peak: a figure of the probe, say `q/data`; those runs count as stopped where it is highest.
    """

    name: str
    title: str
    recipe: str
    train: tuple[str, ...] = ()
    replicates: tuple[int, ...] | None = None
    of: str | None = None
    stop_at_peak: str | None = None

    def options(self, replicate: int) -> list[str]:
        """Return its options on a replicate."""
        return [word.replace("{replicate}", str(replicate)) for word in self.train]

    @property
    def label(self) -> str:
        """Return its name, and its title where there is one."""
        return self.name if self.title == self.name else f"{self.name} ({self.title})"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms whose difference is asked for; a confirmatory one has a verdict, adjusted for the number of these.

    Its outcome is the mean success at `steps` (none: the study's late ones), and `replicates` alone count (none: all).
    """

    first: str
    second: str
    confirmatory: bool
    steps: tuple[int, ...] = ()
    replicates: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Return what claims call it."""
        return f"{self.first} - {self.second}" + (f" at {', '.join(map(str, self.steps))}" if self.steps else "")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that may be said when each of some comparisons came to one of the given verdicts."""

    sentence: str
    when: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs, one for each replicate and arm; a replicate is a seed of data, training and starts."""

    name: str
    question: str
    replicates: tuple[int, ...]
    arms: Mapping[str, Arm]
    steps: tuple[int, ...]
    late: tuple[int, ...]
    episodes: int
    starts: str
    evaluate: tuple[str, ...]
    environment: str | None
    collect: Mapping[str, int]
    files: Mapping[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...]
    claims: tuple[Claim, ...]
    rows: int
    held_out: bool
    seed: int
    order: str
    alpha: float
    margin: float
    text: str

    @property
    def trained(self) -> list[Arm]:
        """Return the arms that are trained."""
        return [arm for arm in self.arms.values() if arm.of is None]

    def runs(self) -> list[tuple[int, Arm]]:
        """Return every run in the order in which they are to be made: at random, maybe within each replicate alone."""
        runs = [
            (replicate, arm)
            for replicate in self.replicates
            for arm in self.trained
            if arm.replicates is None or replicate in arm.replicates
        ]
        mixed = [runs[place] for place in np.random.default_rng(self.seed).permutation(len(runs))]
        if self.order == "replicates":
            mixed.sort(key=lambda run: self.replicates.index(run[0]))
        return mixed

    def design(self, arm: Arm) -> dict[str, Any]:
        """Return everything that decides what an arm's run is, as JSON values: records of another one are refused."""
        return {
            "recipe": arm.recipe,
            "train": list(arm.train),
            "evaluate": {"steps": list(self.steps), "episodes": self.episodes, "starts": self.starts},
            "evaluate_options": list(self.evaluate),
            "data": {"environment": self.environment, **self.collect}
            if self.environment
            else {key: list(names) for key, names in self.files.items()},
            "probe": {"rows": self.rows, "held_out": self.held_out},
        }

"""Statistics of a file's numbers, gathered demo by demo: ranges, histograms, moments, and what is kept of each demo."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect.demo_summary import DemoNumbers, DemoSummary
from pixelrl.runtime.actions import ActionDim

NEAR_EDGE = 0.999
"""An action at least this large counts as clipped."""

BINS = 40
"""Bars of a histogram of actions, from -1 to 1; what is outside falls into the outermost."""

HUGE = 1e30
"""Actions beyond it are damaged, and count as this, so that their squares stay finite."""

FEW_VALUES = 8
"""Notes with more values than this are not told."""

Range = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The lowest and the highest of each number of a vector, `[D]` each."""


@dataclass(frozen=True, kw_only=True)
class DemoRecord:
    """What is kept of one demo: its usable steps, the sum of their rewards, and whether one is above 0."""

    name: str
    steps: int
    total: float
    rewarded: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class ActionStatistics:
    """One dimension of the action: its recorded range and moments, the share of steps at or beyond +-1, its bars."""

    name: str
    unit: str
    low: float
    high: float
    mean: float
    std: float
    clipped: float
    histogram: tuple[int, ...]


class RunningStatistics:
    """Numbers of one file, added demo by demo; of the steps only the actions are kept.

    `ranges` are those of the observation keys, `notes` are note -> value as JSON -> how many demos have it.
    """

    def __init__(self, dims: Sequence[ActionDim]) -> None:
        size = len(dims)
        self.dims = dims
        self.records: list[DemoRecord] = []
        self.ranges: dict[str, Range] = {}
        self.notes: dict[str, Counter[str]] = {}
        self._actions = [np.zeros((0, size))]
        self._gripper = np.zeros((2, size))

    @property
    def rewarded(self) -> bool:
        """Return whether any demo is rewarded."""
        return any(record.rewarded for record in self.records)

    def add(self, numbers: DemoNumbers) -> None:
        """Add one demo."""
        rewards = numbers.rewards[: numbers.steps].astype(np.float64)
        self.records.append(
            DemoRecord(
                name=numbers.name,
                steps=numbers.steps,
                total=float(rewards.sum()),
                rewarded=bool((rewards > 0).any()),
                digest=digest_numbers(numbers),
            )
        )
        for note, value in numbers.notes.items():
            self.notes.setdefault(note, Counter())[json.dumps(value)] += 1
        for key, rows in numbers.vectors.items():
            finite = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
            if len(finite):
                low, high = self.ranges.get(key, (np.inf, -np.inf))
                self.ranges[key] = np.minimum(finite.min(axis=0), low), np.maximum(finite.max(axis=0), high)
        actions = numbers.actions[: numbers.steps]
        self._actions.append(actions[np.isfinite(actions).all(axis=1)].clip(-HUGE, HUGE))
        self._add_gripper(numbers)

    def actions(self) -> tuple[ActionStatistics, ...]:
        """Return the statistics of each dimension so far; nothing where no action was finite."""
        rows = np.concatenate(self._actions)
        bars = ((rows + 1) / 2 * BINS).clip(0, BINS - 1).astype(np.int64)
        return tuple(
            ActionStatistics(
                name=dim.name,
                unit=dim.unit,
                low=float(values.min()),
                high=float(values.max()),
                mean=float(values.mean(dtype=np.float64)),
                std=float(values.std(dtype=np.float64)),
                clipped=float((np.abs(values) >= NEAR_EDGE).mean()),
                histogram=tuple(np.bincount(bars[:, index], minlength=BINS).tolist()),
            )
            for index, (dim, values) in enumerate(zip(self.dims, rows.T, strict=True) if len(rows) else ())
        )

    def gripper(self) -> NDArray[np.float64]:
        """Return, for each action dimension `[A]`, whether the gripper opens when it is positive: 1, or closes: -1.

        The sum of action times change of the opening, relative to the sum of its absolute values: steps in which the
        gripper does not move weigh nothing. 0 where no sensor measures the opening.
        """
        agreement, weight = self._gripper
        share: NDArray[np.float64] = np.divide(agreement, weight, out=np.zeros_like(agreement), where=weight > 0)
        return share

    def few_notes(self) -> dict[str, dict[str, int]]:
        """Return the notes that have few values."""
        return {note: dict(sorted(held.items())) for note, held in self.notes.items() if len(held) <= FEW_VALUES}

    def _add_gripper(self, numbers: DemoNumbers) -> None:
        keys = [key for key in numbers.vectors if "gripper" in key and "vel" not in key]
        if not keys:
            return
        opening = np.concatenate([np.abs(numbers.vectors[key].astype(np.float64)) for key in keys], axis=1).sum(axis=1)
        steps = numbers.steps
        product = numbers.actions[:steps].astype(np.float64) * np.diff(opening)[:steps, None]
        product = product[np.isfinite(product).all(axis=1)]
        self._gripper += np.stack([product.sum(axis=0), np.abs(product).sum(axis=0)])


def digest_numbers(numbers: DemoNumbers) -> str:
    """Return a checksum of what a demo did: its actions and vectors, as float32."""
    found = hashlib.blake2b(digest_size=16)
    for rows in (numbers.actions, *(numbers.vectors[key] for key in sorted(numbers.vectors))):
        found.update(np.ascontiguousarray(rows, np.float32).tobytes())
    return found.hexdigest()


def digest_demo(summary: DemoSummary) -> str:
    """Return a checksum of a demo's numbers and pictures; rewards may differ, as in data that were labelled anew."""
    found = hashlib.blake2b(digest_numbers(summary.numbers).encode(), digest_size=16)
    for key in sorted(summary.pictures):
        found.update(summary.pictures[key].checksums.tobytes())
    return found.hexdigest()


def position_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that tell best where the robot is: of its hand, else of its joints, else all but speeds."""
    still = [key for key in keys if "vel" not in key]
    for part in ("eef_pos", "joint_pos"):
        if chosen := [key for key in still if part in key and not key.endswith(("_sin", "_cos"))]:
            return tuple(chosen)
    return tuple(still)


def shared_ranges(ranges: Sequence[Mapping[str, Range]]) -> dict[str, Range]:
    """Return the range of every key that all files share, over all of them."""
    result: dict[str, Range] = {}
    for key in ranges[0] if ranges else ():
        held = [each[key] for each in ranges if key in each]
        if len(held) == len(ranges) and len({low.shape for low, _ in held}) == 1:
            result[key] = np.min([low for low, _ in held], axis=0), np.max([high for _, high in held], axis=0)
    return result

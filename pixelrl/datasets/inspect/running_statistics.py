"""Statistics of a file's numbers, gathered demo by demo: ranges, histograms, moments, and what is kept of each demo."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect.demo_summary import DemoSummary, DemoNumbers

NEAR_EDGE = 0.999
"""An action at least this large counts as clipped."""

BINS = 40
"""Bars of a histogram of actions, from -1 to 1; what is outside falls into the outermost."""


@dataclass(frozen=True, kw_only=True)
class DemoRecord:
    """What is kept of one demo.

    Attributes:
        name: say `demo_3`.
        steps: its usable transitions.
        total: the undiscounted sum of their rewards; NaN if one of them is.
        rewarded: whether any reward is above 0.
        digest: of its actions and vectors.
    """

    name: str
    steps: int
    total: float
    rewarded: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Statistics of the A dimensions of the actions over T steps; all `[A]` but the histogram `[A, BINS]`.

    `clipped` is the share of steps at or beyond +-1. Rows that are not finite are left out.
    """

    count: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    clipped: NDArray[np.float64]
    histogram: NDArray[np.int64]


class RunningStatistics:
    """DemoNumbers of one file, added demo by demo; memory does not grow with the steps.

    Attributes:
        records: of the demos, in order.
        low, high: observation key -> the range of its numbers `[D]`.
        notes: note -> value as JSON -> how many demos bear it.
    """

    def __init__(self, size: int) -> None:
        """Take the number of action dimensions."""
        self.records: list[DemoRecord] = []
        self.low: dict[str, NDArray[np.float64]] = {}
        self.high: dict[str, NDArray[np.float64]] = {}
        self.notes: dict[str, Counter[str]] = {}
        self._count = 0
        self._low, self._high = np.full(size, np.inf), np.full(size, -np.inf)
        self._sum, self._squares, self._clipped = np.zeros(size), np.zeros(size), np.zeros(size)
        self._histogram = np.zeros((size, BINS), np.int64)
        self._gripper = np.zeros((2, size))

    def add(self, numbers: DemoNumbers) -> None:
        """Add one demo."""
        steps = numbers.steps
        rewards = numbers.rewards[:steps].astype(np.float64)
        self.records.append(
            DemoRecord(
                name=numbers.name,
                steps=steps,
                total=float(rewards.sum()),
                rewarded=bool((rewards > 0).any()),
                digest=digest(numbers),
            )
        )
        for note, value in numbers.notes.items():
            self.notes.setdefault(note, Counter())[json.dumps(value)] += 1
        for key, rows in numbers.vectors.items():
            finite = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
            if len(finite):
                self.low[key] = np.minimum(finite.min(axis=0), self.low.get(key, np.inf))
                self.high[key] = np.maximum(finite.max(axis=0), self.high.get(key, -np.inf))
        self._add_actions(numbers.actions[:steps].astype(np.float64))
        self._add_gripper(numbers, steps)

    def actions(self) -> Actions:
        """Return the statistics of the actions so far."""
        count = max(1, self._count)
        mean = self._sum / count
        return Actions(
            count=self._count,
            low=self._low,
            high=self._high,
            mean=mean,
            std=np.sqrt(np.maximum(0, self._squares / count - mean**2)),
            clipped=self._clipped / count,
            histogram=self._histogram,
        )

    def gripper(self) -> NDArray[np.float64]:
        """Return, for each action dimension `[A]`, whether the gripper opens when it is positive: 1, or closes: -1.

        The sum of action times change of the opening, relative to the sum of its absolute values: steps in which the
        gripper does not move weigh nothing. 0 where nobody measures the opening.
        """
        agreement, weight = self._gripper
        share: NDArray[np.float64] = np.divide(agreement, weight, out=np.zeros_like(agreement), where=weight > 0)
        return share

    def few_notes(self) -> dict[str, dict[str, int]]:
        """Return the notes that have at most eight values."""
        return {note: dict(sorted(values.items())) for note, values in self.notes.items() if len(values) <= 8}

    def _add_actions(self, actions: NDArray[np.float64]) -> None:
        actions = actions[np.isfinite(actions).all(axis=1)]
        if not len(actions):
            return
        self._count += len(actions)
        self._low, self._high = np.minimum(self._low, actions.min(axis=0)), np.maximum(self._high, actions.max(axis=0))
        self._sum += actions.sum(axis=0)
        self._squares += (actions**2).sum(axis=0)
        self._clipped += (np.abs(actions) >= NEAR_EDGE).sum(axis=0)
        bars = ((actions + 1) / 2 * BINS).clip(0, BINS - 1).astype(np.int64)
        for dim in range(actions.shape[1]):
            self._histogram[dim] += np.bincount(bars[:, dim], minlength=BINS)

    def _add_gripper(self, numbers: DemoNumbers, steps: int) -> None:
        keys = [key for key in numbers.vectors if "gripper" in key and "vel" not in key]
        if not keys:
            return
        opening = np.concatenate([np.abs(numbers.vectors[key].astype(np.float64)) for key in keys], axis=1).sum(axis=1)
        product = numbers.actions[:steps].astype(np.float64) * np.diff(opening)[:steps, None]
        product = product[np.isfinite(product).all(axis=1)]
        self._gripper += np.stack([product.sum(axis=0), np.abs(product).sum(axis=0)])


def digest(numbers: DemoNumbers) -> str:
    """Return a checksum of what a demo did: its actions and vectors, as float32."""
    found = hashlib.blake2b(digest_size=16)
    for rows in (numbers.actions, *(numbers.vectors[key] for key in sorted(numbers.vectors))):
        found.update(np.ascontiguousarray(rows, np.float32).tobytes())
    return found.hexdigest()


def content(glance: DemoSummary) -> str:
    """Return a checksum of a demo's numbers and pictures; rewards may differ, as in data that were labelled anew."""
    found = hashlib.blake2b(digest(glance.numbers).encode(), digest_size=16)
    for key in sorted(glance.pictures):
        found.update(glance.pictures[key].checksums.tobytes())
    return found.hexdigest()


def position_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that tell best where the robot is: of its hand, else of its joints, else all but speeds."""
    still = [key for key in keys if "vel" not in key]
    for part in ("eef_pos", "joint_pos"):
        if chosen := [key for key in still if part in key and not key.endswith(("_sin", "_cos"))]:
            return tuple(chosen)
    return tuple(still)


def union(
    lows: Sequence[Mapping[str, NDArray[Any]]], highs: Sequence[Mapping[str, NDArray[Any]]]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the range of every key that all files share, over all of them."""
    shared = [key for key in lows[0] if all(key in low and low[key].shape == lows[0][key].shape for low in lows)]
    return {
        key: (np.min([low[key] for low in lows], axis=0), np.max([high[key] for high in highs], axis=0))
        for key in shared
    }

"""TQ and SACo: how good the trajectories of a data set are, and how much of states and actions it covers.

"A Dataset Perspective on Offline Reinforcement Learning" (Schweighofer et al., CoLLAs 2022, arXiv 2111.04714) defines

    TQ(D) = (g(D) - g(D_min)) / (g(D_max) - g(D_min)),    g(D) = mean over trajectories of sum_t gamma^t r_t
    SACo(D) = u(D) / u(D_ref),                            u(D) = number of unique state-action pairs in D

There D_min is sampled by a random policy, D_max by an expert, and D_ref is the replay of an online run. (The formulas
are those of the authors' own summary of the paper; their numbers in the paper were not looked up.)

Departures. gamma is 1, as in the authors' code. Recorded files come without a random policy, an expert or a replay:

- g(D_min) is the lowest return of any demo of all files given, and g(D_max) the highest: TQ is 1 if all demos are as
  good as the best one. With a reference file g(D_max) is *its mean* return; with known returns they are used.
- D_ref is all files given together, so SACo is the part of all pairs that a file has; or the reference file.

Discretisation. The paper's states are small; pictures and continuous actions never repeat, so they are binned first:

- pictures: grey, the means of a 4 x 4 grid, in 4 levels each (64 of 255 grey levels wide);
- proprioception: position of the hand (else of the joints) and gripper, each number in 5 bins of its range over all
  files;
- actions: each dimension in 3 bins, cut at -1/3 and 1/3.

Bins this coarse keep u(D) below the number of transitions, and so informative; the report gives both. u(D) counts
64-bit hashes; among a million pairs two that differ share one less than once in a million files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect.demo_summary import DemoSummary, shrink
from pixelrl.datasets.inspect.running_statistics import Range, position_keys

CELLS, LEVELS = 4, 4
"""Of a picture: cells along each side, and levels of grey."""

READING_BINS, ACTION_BINS = 5, 3


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of states and actions a file covers.

    Attributes:
        unique: u(D), the number of unique discretised state-action pairs.
        counted: the transitions that were looked at.
        saco: u(D) / u(D_ref).
        reference: what D_ref is.
        growth: (transitions seen, unique pairs among them) at evenly spaced points: flat means that more of the same
            adds nothing.
    """

    unique: int
    counted: int
    saco: float
    reference: str
    growth: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good the trajectories are.

    Attributes:
        tq: the trajectory quality; None where the lowest return is the expert's: then it says nothing.
        mean: g(D).
        lowest: g(D_min).
        expert: g(D_max).
        reference: where the two come from.
    """

    tq: float | None
    mean: float
    lowest: float
    expert: float
    reference: str


def trajectory_quality(returns: Sequence[float], lowest: float, expert: float, reference: str) -> Quality:
    """Return TQ of a data set with these returns, one for each trajectory."""
    mean = float(np.mean(returns))
    tq = (mean - lowest) / (expert - lowest) if expert > lowest else None
    return Quality(tq=tq, mean=mean, lowest=lowest, expert=expert, reference=reference)


def coverage(pairs: NDArray[np.uint64], of: int, reference: str, points: int = 50) -> Coverage:
    """Return SACo of pairs `[T]` in the order in which they were recorded; `of` is u(D_ref)."""
    first = np.sort(np.unique(pairs, return_index=True)[1])
    seen = np.unique(np.linspace(0, len(pairs), min(points, len(pairs)) + 1).round().astype(int))
    growth = tuple((int(n), int(np.searchsorted(first, n))) for n in seen)
    return Coverage(
        unique=len(first), counted=len(pairs), saco=len(first) / of if of else 0.0, reference=reference, growth=growth
    )


def state_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the vectors that count as state: where the robot is, and the gripper."""
    grippers = tuple(key for key in keys if "gripper" in key and "vel" not in key)
    return tuple(dict.fromkeys((*position_keys(keys), *grippers)))


def pair_hashes(summary: DemoSummary, cameras: Sequence[str], ranges: Mapping[str, Range]) -> NDArray[np.uint64]:
    """Return a hash of the discretised state and action of each transition of a demo, uint64 `[N]`.

    `ranges` holds the range of every vector that counts as state.
    """
    numbers, steps = summary.numbers, summary.numbers.steps
    columns = [levels(summary.pictures[key].thumbnails[:steps]) for key in cameras]
    columns += [bins(numbers.vectors[key][:steps], *ranges[key], READING_BINS) for key in state_keys(tuple(ranges))]
    columns.append(bins(numbers.actions[:steps], -1.0, 1.0, ACTION_BINS))
    return hashes(np.concatenate(columns, axis=1))


def levels(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the grey levels of a coarse grid: uint8 `[N, G, G, C]` -> uint8 `[N, CELLS * CELLS]`, 0 to LEVELS - 1."""
    colours = thumbnails[..., :3] if thumbnails.shape[-1] >= 3 else thumbnails[..., :1]
    grey = colours.mean(axis=-1, keepdims=True).astype(np.uint8)
    return (shrink(grey, CELLS).reshape(len(grey), -1) // (256 // LEVELS)).astype(np.uint8)


def bins(rows: NDArray[Any], low: Any, high: Any, count: int) -> NDArray[np.uint8]:
    """Return in which of `count` equal bins of [low, high] each number lies; outside counts as the edge, NaN as 0."""
    width = np.maximum(np.asarray(high, np.float64) - low, 1e-12)
    place = np.nan_to_num((rows.astype(np.float64) - low) / width * count, nan=0.0)
    # a hair of tolerance, so that 0.2 in [0, 1] lies in the second of five bins whatever the rounding
    found: NDArray[np.uint8] = np.floor(place + 1e-6).clip(0, count - 1).astype(np.uint8)
    return found


def hashes(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a hash of each row `[N, K]` -> uint64 `[N]`: multilinear, modulo 2^64, with fixed random odd weights."""
    weights = np.random.default_rng(2111_04714).integers(0, 2**63, rows.shape[1], dtype=np.uint64) * 2 + 1
    hashed: NDArray[np.uint64] = (rows.astype(np.uint64) * weights.astype(np.uint64)).sum(axis=1, dtype=np.uint64)
    return hashed

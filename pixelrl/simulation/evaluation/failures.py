"""When an episode went wrong, as its critics saw it: no knowledge of the task is needed."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

SPAN = 3
"""Steps over which a fall is measured: a missed grasp takes about so many at 5 Hz."""

MEANING = (
    f"the {SPAN} steps over which Q fell most: the lowest critic's Q of the policy's own action, "
    "median of 3 steps, so that a single low value does not count"
)
"""What the moment is, for people who look at a picture of it."""


class ValueFall(NamedTuple):
    """Where Q fell most.

    Attributes:
        start, end: steps, counted as the pictures are: 0 is the start of the episode.
        before, after: Q there.
    """

    start: int
    end: int
    before: float
    after: float


def lowest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the lowest of E critics thought, float32 `[T]`, of values `[T, E]`."""
    least: NDArray[np.float32] = values.min(axis=1)
    return least


def steepest_fall(values: NDArray[np.float32]) -> ValueFall | None:
    """Return the steps over which Q fell most, or None if it never fell.

    Args:
        values: what E critics thought before each step, float32 `[T, E]`.
    """
    q = median_filter(lowest(values), size=3, mode="nearest")
    span = min(SPAN, len(q) - 1)
    falls = q[: len(q) - span] - q[span:]
    start = int(falls.argmax())
    if falls[start] <= 0:
        return None
    return ValueFall(start, start + span, float(q[start]), float(q[start + span]))

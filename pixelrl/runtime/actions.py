"""What each number of an action means, and the one map between [-1, 1] and the robot's units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ActionRange = Literal["unit", "min-max"]
"""Recorded actions are normalised to [-1, 1] already, or are to be, by their range in the data."""

ROUNDING = 1e-5
"""How far beyond [-1, 1] float arithmetic may have brought an action; it is clipped."""


@dataclass(frozen=True, kw_only=True)
class ActionDim:
    """One dimension of the robot's action: the normalised range [-1, 1] maps linearly to [low, high] `unit`."""

    name: str
    low: float = -1.0
    high: float = 1.0
    unit: str = "1"

    def __str__(self) -> str:
        """Return name, range and unit."""
        return f"{self.name} [{self.low}, {self.high}] {self.unit}"

    def means(self, other: "ActionDim") -> bool:
        """Tell whether another one means the same, but for a hundredth of the range."""
        slack = 0.01 * (self.high - self.low)
        near = abs(self.low - other.low) <= slack and abs(self.high - other.high) <= slack
        return near and (self.name, self.unit) == (other.name, other.unit)


def unnamed_dims(size: int) -> tuple[ActionDim, ...]:
    """Return so many dimensions of which nothing is known."""
    return tuple(ActionDim(name=f"action_{index}") for index in range(size))


def action_limits(dims: Sequence[ActionDim]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what -1 and 1 mean in each dimension, `[A]` each."""
    return np.array([dim.low for dim in dims]), np.array([dim.high for dim in dims])


def to_units(action: Any, low: Any, high: Any) -> Any:
    """Return actions in [-1, 1], `[..., A]` of numpy or torch, in the robot's units."""
    return low + (action + 1) / 2 * (high - low)


def from_units(action: Any, low: Any, high: Any) -> Any:
    """Return actions in the robot's units in [-1, 1]; the inverse of `to_units`, where low < high."""
    return 2 * (action - low) / (high - low) - 1

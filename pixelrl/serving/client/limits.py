"""What an action may be: range, rate, acceleration, workspace and times, as a contract tells or a person sets them."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, fields
from typing import Any, Mapping, Sequence

MARGIN = 1.2
"""Limits are so many times the largest step that was recorded."""

MOVING = ("delta", "velocity", "torque")
"""Actions that say how to move; all others say where to be."""

UNKNOWN_STEP = 0.1
"""The largest step where none was recorded, as a part of the range."""


class GuardError(Exception):
    """The guard was set up wrongly: it does not begin."""


@dataclass(frozen=True)
class Limits:
    """What an action may be, `A` numbers each, in the action's own units.

    Attributes:
        low, high: range.
        step: largest change from one tick to the next.
        change: largest change of that change; infinite: none. It gives way to the range.
        hold: the action that keeps the arm where it is; NaN: the one that was measured, or given last.
        box_low, box_high: workspace of position dimensions; infinite: none.
        relative: True where the action is added to the position, False where it is the position.
        max_age: oldest observation that is acted on [s].
        deadline: how long the policy may take [s].
        stop_after: ticks in a row without a good action, after which the guard stops for good.
        ramp: how long it takes from rest to the policy's full action [s].
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    step: tuple[float, ...]
    change: tuple[float, ...]
    hold: tuple[float, ...]
    box_low: tuple[float, ...]
    box_high: tuple[float, ...]
    relative: tuple[bool, ...]
    max_age: float = 0.2
    deadline: float = 0.1
    stop_after: int = 10
    ramp: float = 1.0

    def __post_init__(self) -> None:
        size = len(self.low)
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, tuple) and len(value) != size:
                raise GuardError(f"{each.name} has {len(value)} numbers; the action has {size}")
        if not all(-math.inf < low <= high < math.inf for low, high in zip(self.low, self.high)):
            raise GuardError("every dimension of the action needs a finite range, low <= high")
        if not all(step > 0 or low == high for step, low, high in zip(self.step, self.low, self.high)):
            raise GuardError("step must be above 0 in every dimension that moves")
        if not all(change > 0 for change in self.change):
            raise GuardError("change must be above 0")
        if not all(math.isnan(hold) or low <= hold <= high for hold, low, high in zip(self.hold, self.low, self.high)):
            raise GuardError("the hold action must lie within the range")
        if not all(low <= high for low, high in zip(self.box_low, self.box_high)):
            raise GuardError("box_low must not be above box_high")
        if not (self.max_age > 0 and self.deadline > 0 and self.stop_after >= 1 and self.ramp >= 0):
            raise GuardError("max_age and deadline must be above 0, stop_after at least 1, ramp not below 0")

    @staticmethod
    def of_contract(contract: Mapping[str, Any], **changes: Any) -> Limits:
        """Return the limits that follow from a contract, with changes of your own.

        Steps are 1.2 times the largest recorded ones; where the contract tells none, a tenth of the range. Observations
        may be two periods old, and the policy may take one.

        Raises:
            GuardError: limits that cannot be; or nobody says whether a number is a step or a position, so that an arm
                that is to hold might go on moving: then `relative` must.
        """
        action = contract["outputs"]["action"]
        dims: Sequence[Mapping[str, Any]] = action["dims"]
        control = action.get("control") or {}
        low, high = tuple(float(dim["low"]) for dim in dims), tuple(float(dim["high"]) for dim in dims)
        size = len(low)
        spans = [b - a for a, b in zip(low, high)]
        steps = control.get("largest_step") or [None] * size
        bends = control.get("largest_change") or [None] * size
        modes = control.get("mode") or _modes(dims)
        if None in modes and "relative" not in changes:
            name = dims[list(modes).index(None)]["name"]
            raise GuardError(
                f"nobody says whether {name!r} of the action is a step or a position: give relative (of each number, "
                "true: a step), or name the action's numbers in the data (pixelrl convert --action-names)"
            )
        relative = tuple(mode in MOVING for mode in modes)
        rests = [0.0 if moves and a <= 0.0 <= b else None for moves, a, b in zip(relative, low, high)]
        period = 1.0 / (contract.get("control_freq") or 10.0)
        values: dict[str, Any] = {
            "low": low,
            "high": high,
            "step": tuple(_limit(step, span) for step, span in zip(steps, spans)),
            "change": tuple(math.inf if bend is None else _limit(bend, span) for bend, span in zip(bends, spans)),
            "hold": tuple(math.nan if each is None else float(each) for each in control.get("hold") or rests),
            "box_low": (-math.inf,) * size,
            "box_high": (math.inf,) * size,
            "relative": relative,
            "max_age": 2 * period,
            "deadline": period,
        }
        return Limits(**{**values, **changes})

    @staticmethod
    def read(path: str | os.PathLike[str], contract: Mapping[str, Any]) -> Limits:
        """Return the contract's limits with the changes in a JSON file: field -> number, or a list of A numbers.

        Raises:
            GuardError: a field that limits do not have, or that has another type.
        """
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (a path may be a text here)
            changes = json.load(file)
        known = {each.name for each in fields(Limits)}
        if not isinstance(changes, dict) or set(changes) - known:
            raise GuardError(f"{os.fspath(path)}: expected an object with some of {', '.join(sorted(known))}")
        lists = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        try:
            return Limits.of_contract(contract, **lists)
        except TypeError as error:
            raise GuardError(f"{os.fspath(path)}: {error}") from None


def _limit(recorded: float | None, span: float) -> float:
    """Return the largest step to allow in a dimension with a range of this width."""
    step = UNKNOWN_STEP * span if recorded is None else MARGIN * float(recorded)
    return step if step > 0 else max(1e-3 * span, 1e-9)


def _modes(dims: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """Return what each dimension is taken for where the contract does not tell: `dx` moves, all else is a position."""
    return ["delta" if str(dim["name"]).rpartition("_")[2].startswith("d") else "absolute" for dim in dims]

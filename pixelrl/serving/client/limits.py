"""What an action may be: range, rate, acceleration, workspace and times, as a contract tells or a person sets them."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Callable, Mapping, Sequence

MARGIN = 1.2
"""Limits are so many times the largest step that was recorded."""

MOVING = ("delta", "velocity", "torque")
"""Actions that say how to move; all others say where to be."""

UNKNOWN_STEP = 0.1
"""The largest step where none was recorded, as a part of the range."""

KNOWN_NAME = re.compile(r"(?:robot\d+_)?(?:(?:right|left)_)?(?:(d)r?[xyz]|r?[xyz]|(?:gripper_)?gripper)")
"""Names of which we know what they say without a contract's `control`: with a `d`, a step; else a position."""

NULLS = {"hold": math.nan, "box_low": -math.inf, "box_high": math.inf}
"""Field -> what null means in a file."""


class GuardError(Exception):
    """The guard was set up wrongly: it does not begin."""


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _number(value) and -sys.float_info.max <= value <= sys.float_info.max


_LISTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "low": (_finite, "finite numbers"),
    "high": (_finite, "finite numbers"),
    "step": (lambda each: _finite(each) and each >= 0, "finite numbers, not below 0"),
    "change": (lambda each: _number(each) and each > 0, "numbers above 0"),
    "hold": (lambda each: _finite(each) or (_number(each) and math.isnan(each)), "finite numbers, or NaN"),
    "box_low": (lambda each: _number(each) and not math.isnan(each), "numbers"),
    "box_high": (lambda each: _number(each) and not math.isnan(each), "numbers"),
    "relative": (lambda each: isinstance(each, bool), "truth values (true or false)"),
}
_SINGLE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "max_age": (lambda value: _finite(value) and value > 0, "a finite number above 0"),
    "deadline": (lambda value: _finite(value) and value > 0, "a finite number above 0"),
    "stop_after": (lambda value: type(value) is int and value >= 1, "a whole number, at least 1"),
    "ramp": (lambda value: _finite(value) and value >= 0, "a finite number, not below 0"),
    "period": (lambda value: _finite(value) and value >= 0, "a finite number, not below 0"),
}
"""Field -> whether a value (of a list: one of its values) is right, and what would be."""


@dataclass(frozen=True)
class Limits:
    """What an action may be, `A` numbers each, in the action's own units.

    Attributes:
        low, high: range.
        step: largest change from one tick to the next.
        change: largest change of that change; infinite: none. It gives way to the range.
        hold: the action that keeps the arm where it is; NaN, of positions only: the one that was measured, or given
            last.
        box_low, box_high: workspace of position dimensions; infinite: none.
        relative: True where the action is added to the position, False where it is the position.
        max_age: oldest observation that is acted on [s].
        deadline: how long the policy may take [s].
        stop_after: ticks in a row without a good action, after which the guard stops for good.
        ramp: how long it takes from rest to the policy's full action [s].
        period: of the policy's control rate: what comes less than half of it after an action is held [s]; 0: unknown.
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
    period: float = 0.0

    def __post_init__(self) -> None:
        size = len(self.low) if isinstance(self.low, tuple) else 1
        for each in fields(self):
            _check(each.name, getattr(self, each.name), size)
        if not all(low <= high for low, high in zip(self.low, self.high)):
            raise GuardError("every dimension of the action needs a finite range, low <= high")
        if not all(step > 0 or low == high for step, low, high in zip(self.step, self.low, self.high)):
            raise GuardError("step must be above 0 in every dimension that moves")
        if not all(math.isnan(hold) or low <= hold <= high for hold, low, high in zip(self.hold, self.low, self.high)):
            raise GuardError("the hold action must lie within the range")
        if not all(low <= high for low, high in zip(self.box_low, self.box_high)):
            raise GuardError("box_low must not be above box_high")
        rows = zip(self.relative, self.low, self.high, self.hold, self.box_low, self.box_high)
        for number, row in enumerate(rows):
            _check_dimension(number, *row)

    @staticmethod
    def of_contract(contract: Mapping[str, Any], **changes: Any) -> Limits:
        """Return the limits that follow from a contract, with changes of your own.

        Steps are 1.2 times the largest recorded ones; where the contract tells none, a tenth of the range. Observations
        may be two periods old, and the policy may take one. A step or speed rests at 0, a position stays.

        Raises:
            GuardError: limits that cannot be; nobody says whether a number is a step or a position, so that an arm
                that is to hold might go on moving: then `relative` must; nobody says which torque holds the arm: then
                `hold` must; the contract tells no control rate: then `deadline` and `max_age` must be given.
        """
        action = contract["outputs"]["action"]
        dims: Sequence[Mapping[str, Any]] = action["dims"]
        control = action.get("control") or {}
        low, high = tuple(float(dim["low"]) for dim in dims), tuple(float(dim["high"]) for dim in dims)
        size = len(low)
        for name, value in changes.items():
            _check(name, value, size)
        spans = [b - a for a, b in zip(low, high)]
        steps = control.get("largest_step") or [None] * size
        bends = control.get("largest_change") or [None] * size
        modes = control.get("mode") or _modes(dims)
        relative = changes.get("relative") or _relative(dims, modes)
        rate = contract.get("control_freq")
        if not rate and not {"deadline", "max_age"} <= set(changes):
            raise GuardError("the contract tells no control rate (control_freq): give deadline and max_age")
        period = 1.0 / rate if rate else 0.0
        values: dict[str, Any] = {
            "low": low,
            "high": high,
            "step": tuple(_limit(step, span) for step, span in zip(steps, spans)),
            "change": tuple(math.inf if bend is None else _limit(bend, span) for bend, span in zip(bends, spans)),
            "hold": changes.get("hold") or _holds(dims, modes, control.get("hold") or [None] * size, relative),
            "box_low": (-math.inf,) * size,
            "box_high": (math.inf,) * size,
            "relative": relative,
            "max_age": 2 * period,
            "deadline": period,
            "period": period,
        }
        return Limits(**{**values, **changes})

    @staticmethod
    def read(path: str | os.PathLike[str], contract: Mapping[str, Any]) -> Limits:
        """Return the contract's limits with the changes in a JSON file: field -> number, or a list of A numbers.

        In `hold`, null is a position that stays; in a box, no limit.

        Raises:
            GuardError: no such file, or no JSON; a field that limits do not have, or twice, or of another type; limits
                that `of_contract` refuses.
        """
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 (a path may be a text here)
                changes = json.load(file, object_pairs_hook=_once)
            known = {each.name for each in fields(Limits)}
            if not isinstance(changes, dict) or set(changes) - known:
                raise GuardError(f"expected an object with some of {', '.join(sorted(known))}")
            return Limits.of_contract(contract, **{name: _value(name, value) for name, value in changes.items()})
        except OSError as error:
            raise GuardError(f"{os.fspath(path)}: cannot be read ({error.strerror or error})") from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GuardError(f"{os.fspath(path)}: no JSON ({error})") from None
        except GuardError as error:
            raise GuardError(f"{os.fspath(path)}: {error}") from None


def _check(name: str, value: Any, size: int) -> None:
    """Raise a `GuardError` unless a field is of its kind; a list, `size` of it."""
    if name in _LISTS:
        right, kind = _LISTS[name]
        if not (isinstance(value, tuple) and len(value) == size and all(right(each) for each in value)):
            raise GuardError(f"{name} is {value!r:.200}; expected {size} {kind}")
    elif name in _SINGLE:
        right, kind = _SINGLE[name]
        if not right(value):
            raise GuardError(f"{name} is {value!r:.200}; expected {kind}")


def _check_dimension(
    number: int, relative: bool, low: float, high: float, hold: float, box_low: float, box_high: float
) -> None:
    """Raise a `GuardError` unless one dimension can be held, and kept in its box."""
    what = f"number {number} of the action (from 0)"
    if relative and math.isnan(hold):
        why = "" if low <= 0.0 <= high else " and 0 lies outside its range"
        raise GuardError(f"{what} is a step{why}, so nothing says what holds it: give hold")
    if relative and not low <= 0.0 <= high and (math.isfinite(box_low) or math.isfinite(box_high)):
        raise GuardError(f"{what} is a step that cannot be 0: no box can keep it, give it none")
    if not relative and max(low, box_low) > min(high, box_high):
        raise GuardError(
            f"{what} is a position in {low:g}..{high:g}, and its box {box_low:g}..{box_high:g} lies outside: give "
            "box_low and box_high in the action's unit"
        )


def _limit(recorded: float | None, span: float) -> float:
    """Return the largest step to allow in a dimension with a range of this width."""
    step = UNKNOWN_STEP * span if recorded is None else MARGIN * float(recorded)
    return step if step > 0 else max(1e-3 * span, 1e-9)


def _modes(dims: Sequence[Mapping[str, Any]]) -> Sequence[str | None]:
    """Return what each dimension is taken for where the contract does not tell; None: its name does not say it."""
    found = [KNOWN_NAME.fullmatch(str(dim["name"])) for dim in dims]
    return [None if match is None else "delta" if match[1] else "absolute" for match in found]


def _relative(dims: Sequence[Mapping[str, Any]], modes: Sequence[str | None]) -> tuple[bool, ...]:
    """Return which dimensions are added to the position, or raise a `GuardError` if nobody says it of one."""
    if None in modes:
        name = dims[list(modes).index(None)]["name"]
        raise GuardError(
            f"nobody says whether {name!r} of the action is a step or a position: give relative (of each number, "
            "true: a step), or name the action's numbers in the data (pixelrl convert --action-names)"
        )
    return tuple(mode in MOVING for mode in modes)


def _holds(
    dims: Sequence[Mapping[str, Any]],
    modes: Sequence[str | None],
    told: Sequence[float | None],
    relative: Sequence[bool],
) -> tuple[float, ...]:
    """Return what holds each dimension: the contract's word where its mode still holds, else 0 of steps; NaN: the last.

    Of a torque, somebody must say it.
    """
    holds = []
    for dim, mode, hold, moves in zip(dims, modes, told, relative):
        if hold is not None and mode is not None and moves == (mode in MOVING):
            holds.append(float(hold))
        elif mode == "torque":
            name = dim["name"]
            raise GuardError(
                f"{name!r} of the action is a torque, and nobody says which one holds the arm: give hold (0 where its "
                "controller compensates gravity)"
            )
        else:
            holds.append(0.0 if moves and dim["low"] <= 0.0 <= dim["high"] else math.nan)
    return tuple(holds)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object none of whose keys comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise GuardError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
    return found


def _value(name: str, value: Any) -> Any:
    """Return what a field of a file means."""
    if not isinstance(value, list):
        return value
    return tuple(NULLS.get(name) if each is None else each for each in value)

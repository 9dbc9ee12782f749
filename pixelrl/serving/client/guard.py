"""What stands between a policy and an arm: limits, time-outs, and a stop that stays. Not a safety-rated function.

`step` is a pure function of limits, state and what is known at a tick; `Guard` adds a clock and a policy. Whatever the
policy gives, NaN, nothing, or too late, the action that comes out is finite, within its range, and no further from the
one before than the limit; only the workspace box may brake harder.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from .limits import GuardError, Limits


@dataclass(frozen=True)
class State:
    """What a guard remembers.

    Attributes:
        last: the action that it gave last; None: none yet.
        velocity: how much that differed from the one before.
        misses: ticks in a row without a good action.
        began: when the arm began to move after a rest [s]; None: it rests.
        stopped: why it stopped for good; None: it has not.
    """

    last: tuple[float, ...] | None = None
    velocity: tuple[float, ...] | None = None
    misses: int = 0
    began: float | None = None
    stopped: str | None = None


@dataclass(frozen=True)
class Tick:
    """What is known at a tick.

    Attributes:
        now: the time [s].
        action: what the policy gave, whatever that is; None: nothing.
        fault: why it gave nothing.
        age: of the observation [s].
        latency: how long the policy took [s].
        deadman: whether a person holds the switch.
        measured: where the arm is in the action's units, `A` numbers; None: nobody knows.
    """

    now: float
    action: Any = None
    fault: str | None = None
    age: float = 0.0
    latency: float = 0.0
    deadman: bool = True
    measured: Sequence[float] | None = None


@dataclass(frozen=True)
class Report:
    """What the guard did.

    Attributes:
        mode: `act`, `hold`, `stop`, or `dry run`.
        reason: why it did not act, or what it changed; empty if nothing.
        wanted: the policy's action, if it was a good one.
        limited: numbers of the dimensions in which the action differs from it.
    """

    mode: str
    reason: str = ""
    wanted: tuple[float, ...] | None = None
    limited: tuple[int, ...] = field(default=())


def step(limits: Limits, state: State, tick: Tick) -> tuple[State, Any, Report]:
    """Return the next state, an action that is safe as far as the limits say, float32 `[A]`, and what was done.

    Raises:
        GuardError: an action is a position, and nobody has ever said where the arm is.
    """
    rest = _rest(limits, state, tick)
    last = rest if state.last is None else np.array(state.last)
    wanted, fault = _accepted(limits, tick, rest)
    misses = state.misses + 1 if fault else 0
    stopped = state.stopped
    if stopped is None and misses >= limits.stop_after and tick.deadman:
        stopped = f"{misses} ticks without a good action, the last one: {fault}"
    if wanted is None or stopped is not None or not tick.deadman:
        target, began, mode = rest, None, "stop" if stopped is not None else "hold"
        misses = misses if tick.deadman else 0  # a person who lets go is no fault of the policy
    else:
        began, mode = tick.now if state.began is None else state.began, "act"
        share = 1.0 if limits.ramp == 0 else min(max((tick.now - began) / limits.ramp, 0.0), 1.0)
        target = rest + share * (wanted - rest)
    action = _limited(limits, state, tick, last, target)
    given = tuple(float(each) for each in action)
    state = State(last=given, velocity=tuple(action - last), misses=misses, began=began, stopped=stopped)
    reason = stopped or ("" if tick.deadman else "nobody holds the deadman's switch") or fault or ""
    differs = (
        () if wanted is None else tuple(int(k) for k in np.flatnonzero(np.abs(action - wanted) > 1e-6 * _span(limits)))
    )
    report = Report(mode, reason, None if wanted is None else tuple(float(each) for each in wanted), differs)
    return state, action.astype(np.float32), report


def _rest(limits: Limits, state: State, tick: Tick) -> Any:
    """Return the action that keeps the arm where it is."""
    hold = np.array(limits.hold)
    open_ = np.isnan(hold)
    if open_.any():
        known = state.last if state.last is not None else _numbers(tick.measured, len(hold))
        if known is None:
            raise GuardError("an action is a position: say where the arm is (measured) before the first one")
        hold = np.where(open_, known, hold)
    return np.clip(hold, limits.low, limits.high)


def _accepted(limits: Limits, tick: Tick, rest: Any) -> tuple[Any, str | None]:
    """Return the policy's action if it may be acted on, else why not."""
    if tick.fault is not None or tick.action is None:
        return None, tick.fault or "the policy gave nothing"
    if not tick.latency <= limits.deadline:
        return None, f"the action is late: {tick.latency * 1e3:.0f} ms, at most {limits.deadline * 1e3:.0f} ms"
    if not -limits.deadline <= tick.age <= limits.max_age:
        return None, f"the observation is {tick.age * 1e3:.0f} ms old, at most {limits.max_age * 1e3:.0f} ms"
    wanted = _numbers(tick.action, len(rest))
    if wanted is None:
        return None, f"the policy's action is not {len(rest)} finite numbers"
    if _boxed(limits) and any(limits.relative) and _numbers(tick.measured, len(rest)) is None:
        return None, "a workspace box is set, and nobody says where the arm is (measured)"
    return wanted, None


def _limited(limits: Limits, state: State, tick: Tick, last: Any, target: Any) -> Any:
    """Return the target, as near as range, box, rate and acceleration allow; float64 `[A]`."""
    low, high = np.array(limits.low), np.array(limits.high)
    target = np.clip(target, low, high)
    velocity = np.zeros(len(low)) if state.velocity is None else np.array(state.velocity)
    change, rate = np.array(limits.change), np.array(limits.step)
    wished = np.clip(target - last, velocity - change, velocity + change)
    action = np.clip(last + np.clip(wished, -rate, rate), low, high)
    if _boxed(limits):
        floor, ceiling = np.array(limits.box_low), np.array(limits.box_high)
        measured = _numbers(tick.measured, len(low))
        if measured is not None:  # an arm outside may come back, or stay
            moves = np.array(limits.relative)
            floor = np.where(moves, np.minimum(floor - measured, 0.0), floor)
            ceiling = np.where(moves, np.maximum(ceiling - measured, 0.0), ceiling)
            action = np.clip(np.clip(action, floor, ceiling), low, high)
        else:
            absolute = ~np.array(limits.relative)
            action = np.where(absolute, np.clip(np.clip(action, floor, ceiling), low, high), action)
    return action


def _boxed(limits: Limits) -> bool:
    return bool(np.isfinite(limits.box_low).any() or np.isfinite(limits.box_high).any())


def _span(limits: Limits) -> Any:
    return np.maximum(np.array(limits.high) - np.array(limits.low), 1e-9)


def _numbers(value: Any, size: int) -> Any:
    """Return `size` finite numbers, the first row of `[H, A]`; None if the value is anything else."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    array = array[0] if array.ndim == 2 and len(array) else array
    return array if array.shape == (size,) and np.isfinite(array).all() else None


class Guard:
    """A policy whose actions are safe to the extent that limits can make them so; it runs beside the arm.

    Args:
        limits: of the action.
        deadman: tells whether a person holds the switch; asked at every tick. If it fails, nobody does.
        dry_run: always rest, and report what would have been done.
        clock: tells the time [s].
    """

    def __init__(
        self,
        limits: Limits,
        *,
        deadman: Callable[[], bool] | None = None,
        dry_run: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits, self.state = limits, State()
        self._deadman, self._dry_run, self._clock = deadman, dry_run, clock

    def __call__(
        self,
        policy: Any,
        sensors: Mapping[str, Any],
        stamp: float | None = None,
        measured: Sequence[float] | None = None,
    ) -> tuple[Any, Report]:
        """Ask a policy and return what the arm may do now, float32 `[A]`, and what was done to it.

        Args:
            policy: a `RemotePolicy`, or anything with `act(sensors)`; it may fail in any way.
            sensors: the observation.
            stamp: when it was taken, by the guard's clock [s]; None: now.
            measured: where the arm is, in the action's units `[A]`; needed where an action is a position.
        """
        begin = self._clock()
        fault, action = None, None
        held = self._held()
        if held and self.state.stopped is None:
            try:
                action = policy.act(sensors)
            except Exception as error:  # whatever a policy does, the arm gets an action
                fault = f"{type(error).__name__}: {error}"
        now = self._clock()
        tick = Tick(
            now=now,
            action=action,
            fault=fault,
            age=0.0 if stamp is None else begin - stamp,
            latency=now - begin,
            deadman=held and self._held(),
            measured=measured,
        )
        if not self._dry_run:
            self.state, action, report = step(self.limits, self.state, tick)
            return action, report
        resting = np.asarray(_rest(self.limits, self.state, tick), np.float32)
        _, would, report = step(self.limits, replace(self.state, began=-math.inf), tick)
        text = f"would {report.mode}: {np.array2string(would, precision=4)} {report.reason}".rstrip()
        return resting, replace(report, mode="dry run", reason=text)

    def reset(self) -> None:
        """Begin anew, also after a stop: a person has seen that the arm may move."""
        self.state = State()

    def _held(self) -> bool:
        try:
            return self._deadman is None or bool(self._deadman())
        except Exception:
            return False

"""What stands between a policy and an arm: limits, time-outs, and a stop that stays. Not a safety-rated function.

`step` is a pure function of limits, state and what is known at a tick; `Guard` adds a clock and a policy. Whatever the
policy gives, NaN, nothing, or too late, the action that comes out is finite, within its range, and no further from the
one before than the limit (a position that begins: from where the arm is); only the workspace box may brake harder.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from .limits import GuardError, Limits
from .motion import allowed, approach, boxed, numbers, span


@dataclass(frozen=True)
class State:
    """What a guard remembers.

    Attributes:
        last: the action that it gave last; None: none yet.
        velocity: how much that differed from the one before.
        misses: ticks in a row without a good action.
        began: when the arm began to move after a rest [s]; None: it rests.
        stopped: why it stopped for good; None: it has not.
        acted: when the last action was asked for that was acted on [s]; None: none yet.
        released: whether the deadman's switch was let go, and the arm may have been moved by hand since.
    """

    last: tuple[float, ...] | None = None
    velocity: tuple[float, ...] | None = None
    misses: int = 0
    began: float | None = None
    stopped: str | None = None
    acted: float | None = None
    released: bool = False


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
    limited: tuple[int, ...] = ()


def step(limits: Limits, state: State, tick: Tick) -> tuple[State, Any, Report]:
    """Return the next state, an action that is safe as far as the limits say, float32 `[A]`, and what was done.

    Raises:
        GuardError: an action is a position, and nobody has ever said where the arm is, or at the first tick it is
            outside what is allowed.
    """
    state, outside = _begun(limits, state, tick)
    rest = _rest(limits, state)
    wanted, fault = _accepted(limits, tick)
    soon = None if fault else _too_soon(limits, state, tick)
    barred = outside or soon if tick.deadman else "nobody holds the deadman's switch"
    misses, stopped = state.misses + 1 if fault else 0, state.stopped
    if barred is not None:  # not by the policy's fault
        misses = state.misses if tick.deadman else 0
    elif stopped is None and misses >= limits.stop_after:
        stopped = f"{misses} ticks without a good action, the last one: {fault}"
    acts = wanted is not None and stopped is None and barred is None
    early = barred is not None and barred == soon
    began = state.began if acts or early else None
    target, mode = rest, "hold" if stopped is None else "stop"
    if acts:
        began = tick.now if began is None else began
        share = 1.0 if limits.ramp == 0 else min(max((tick.now - began) / limits.ramp, 0.0), 1.0)
        target, mode = rest + share * (wanted - rest), "act"
    before = np.zeros(len(rest)) if state.velocity is None else np.array(state.velocity)
    action, velocity = approach(
        limits, np.array(state.last), before, numbers(tick.measured, len(rest)), target, acts=acts
    )
    if early:  # a position goes on as fast as before when it is time
        velocity = np.where(limits.relative, velocity, before)
    state = State(
        last=tuple(action.tolist()),
        velocity=tuple(velocity.tolist()),
        misses=misses,
        began=began,
        stopped=stopped,
        acted=tick.now - tick.latency if acts else state.acted,
        released=not tick.deadman or outside is not None,
    )
    report = Report(mode, stopped or barred or fault or "")
    if wanted is not None:
        differs = np.flatnonzero(np.abs(action - wanted) > 1e-6 * span(limits))
        report = replace(report, wanted=tuple(wanted.tolist()), limited=tuple(differs.tolist()))
    return state, action.astype(np.float32), report


def _begun(limits: Limits, state: State, tick: Tick) -> tuple[State, str | None]:
    """Return the state, of an arm that begins or was moved by hand from where it is, and why it may not go on there.

    Raises:
        GuardError: it begins, and nobody says where it is, or it is too far outside.
    """
    measured, positions = numbers(tick.measured, len(limits.low)), ~np.array(limits.relative)
    last, hold, outside = state.last, np.array(limits.hold), None
    if last is not None:
        if not (state.released and tick.deadman):
            return state, None
        if measured is None:
            blind = f"since the switch was let go {_unmeasured(tick, len(hold))}"
            return state, blind if np.isnan(hold).any() else None
        if not (positions & (np.abs(measured - last) > limits.step)).any():
            return state, None
    elif measured is None and np.isnan(hold).any():
        raise GuardError(f"an action is a position, and {_unmeasured(tick, len(hold))}: say it before the first one")
    if measured is not None:
        low, high = allowed(limits)
        far = np.flatnonzero(positions & (np.abs(measured - np.clip(measured, low, high)) > limits.step))
        if len(far):
            k = int(far[0])
            where = f"the arm is at {measured[k]:g} in number {k} of the action (from 0)"
            outside = f"{where}, outside {low[k]:g}..{high[k]:g}: bring it inside by hand"
            if last is None:
                raise GuardError(outside)
        hold = np.where(positions, np.clip(measured, low, high), hold if last is None else last)
    return replace(state, last=tuple(float(each) for each in hold), velocity=None), outside


def _rest(limits: Limits, state: State) -> Any:
    """Return the action that keeps the arm where it is, of a guard that has begun."""
    hold = np.array(limits.hold)
    return np.clip(np.where(np.isnan(hold), np.array(state.last), hold), *allowed(limits))


def _too_soon(limits: Limits, state: State, tick: Tick) -> str | None:
    """Return why it is too early to act again; None: it is not, or the clock was set back."""
    since = math.inf if state.acted is None else tick.now - tick.latency - state.acted
    if not 0.0 <= since < limits.period / 2:
        return None
    return f"called too soon: {since * 1e3:.0f} ms after the last action, the period is {limits.period * 1e3:.0f} ms"


def _accepted(limits: Limits, tick: Tick) -> tuple[Any, str | None]:
    """Return the policy's action if it may be acted on, else why not."""
    size = len(limits.low)
    if tick.fault is not None or tick.action is None:
        return None, tick.fault or "the policy gave nothing"
    if not math.isfinite(tick.now):
        return None, f"the clock says {tick.now}"
    if not tick.latency <= limits.deadline:
        return None, f"the action is late: {tick.latency * 1e3:.0f} ms, at most {limits.deadline * 1e3:.0f} ms"
    if math.isnan(tick.age):
        return None, "the observation's stamp is no number; expected seconds of the guard's clock (time.monotonic)"
    if tick.age < -limits.deadline:
        return None, "the observation is of the future: its stamp is of another clock than the guard's (time.monotonic)"
    if not tick.age <= limits.max_age:
        return None, f"the observation is {tick.age * 1e3:.0f} ms old, at most {limits.max_age * 1e3:.0f} ms"
    wanted = numbers(tick.action, size)
    if wanted is None:
        return None, f"the policy's action is not {size} finite numbers"
    if boxed(limits) and any(limits.relative) and numbers(tick.measured, size) is None:
        return None, f"a workspace box is set, and {_unmeasured(tick, size)}"
    return wanted, None


def _unmeasured(tick: Tick, size: int) -> str:
    """Return why nobody knows where the arm is."""
    if tick.measured is None:
        return "nobody says where the arm is (measured)"
    return f"measured, where the arm is, is not {size} finite numbers"


def _age(now: float, stamp: Any) -> float:
    """Return how old what was taken at a stamp is [s]; NaN, which is held, if the stamp is no number."""
    try:
        return 0.0 if stamp is None else float(now - stamp)
    except Exception:  # a robot's object may raise anything, and the arm still gets an action
        return math.nan


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

        Raises:
            GuardError: at the first tick, nobody says where the arm is, or it is too far outside what is allowed.
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
            age=_age(begin, stamp),
            latency=now - begin,
            deadman=held and self._held(),
            measured=measured,
        )
        if not self._dry_run:
            self.state, action, report = step(self.limits, self.state, tick)
            return action, report
        resting = np.asarray(_rest(self.limits, _begun(self.limits, self.state, tick)[0]), np.float32)
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

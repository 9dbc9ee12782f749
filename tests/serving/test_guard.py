"""The guard: within its limits whatever the policy gives, and a stop that stays."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrl.serving.client import Guard, GuardError, Limits, State, Tick, step
from pixelrl.serving.client.remote import LateError

INF = math.inf
DELTAS = Limits(
    low=(-0.05, -0.5, -1.0),
    high=(0.05, 1.5, 1.0),
    step=(0.02, 0.5, 2.0),
    change=(INF, INF, INF),
    hold=(0.0, 0.0, math.nan),
    box_low=(-INF,) * 3,
    box_high=(INF,) * 3,
    relative=(True, True, False),
    max_age=0.2,
    deadline=0.1,
    stop_after=3,
    ramp=0.0,
)
START = State(last=(0.0, 0.0, -1.0))


def tick(now: float = 0.0, action: Any = None, **known: Any) -> Tick:
    return Tick(now=now, action=action, **known)


def test_good_action_passes() -> None:
    state, action, report = step(DELTAS, START, tick(action=[[0.01, 0.2, 1.0], [9, 9, 9]]))
    np.testing.assert_allclose(action, [0.01, 0.2, 1.0])
    assert action.dtype == np.float32 and report.mode == "act" and report.reason == "" and report.limited == ()
    assert state.misses == 0 and report.wanted == (0.01, 0.2, 1.0)


def test_action_is_brought_into_range_and_rate() -> None:
    state, action, report = step(DELTAS, START, tick(action=[0.09, 9.0, 0.0]))
    np.testing.assert_allclose(action, [0.02, 0.5, 0.0])
    assert report.limited == (0, 1) and report.mode == "act"
    for _ in range(5):
        state, action, report = step(DELTAS, state, tick(action=[0.09, 9.0, 0.0]))
    np.testing.assert_allclose(action, [0.05, 1.5, 0.0])


def test_acceleration_is_limited() -> None:
    limits = replace(DELTAS, change=(0.005, INF, INF))
    state, moved = START, []
    for _ in range(7):
        state, action, _ = step(limits, state, tick(action=[0.05, 0.0, -1.0]))
        moved.append(float(action[0]))
    braking = [0.03 + 0.035 / 3, 0.03 + 0.055 / 3, 0.05, 0.05]  # 11.7, 6.7 and 1.7 mm: each 5 mm less than before
    np.testing.assert_allclose(moved, [0.005, 0.015, 0.03, *braking], atol=1e-7)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({"action": None}, "the policy gave nothing"),
        ({"action": [1.0, 2.0]}, "not 3 finite numbers"),
        ({"action": [0.0, math.nan, 0.0]}, "not 3 finite numbers"),
        ({"action": [0.0, math.inf, 0.0]}, "not 3 finite numbers"),
        ({"action": "help"}, "not 3 finite numbers"),
        ({"action": [0.0, 0.0, 0.0], "latency": 0.11}, "the action is late: 110 ms, at most 100 ms"),
        ({"action": [0.0, 0.0, 0.0], "latency": math.nan}, "the action is late"),
        ({"action": [0.0, 0.0, 0.0], "age": 0.3}, "the observation is 300 ms old, at most 200 ms"),
        ({"action": [0.0, 0.0, 0.0], "age": -5.0}, "its stamp is of another clock than the guard's"),
        ({"action": None, "fault": "the server is gone"}, "the server is gone"),
    ],
    ids=str,
)
def test_bad_action_holds_and_several_stop_for_good(known: dict[str, Any], says: str) -> None:
    state, action, _ = step(DELTAS, START, tick(action=[0.01, 0.2, 1.0]))
    for misses in (1, 2, 3):
        state, action, report = step(DELTAS, state, tick(**known))
        np.testing.assert_allclose(action, [0.0, 0.0, 1.0], err_msg="deltas rest, the gripper stays")
        assert report.mode == ("hold" if misses < 3 else "stop") and says in report.reason
    for _ in range(3):
        state, action, report = step(DELTAS, state, tick(action=[0.01, 0.2, -1.0]))
        np.testing.assert_allclose(action, [0.0, 0.0, 1.0])
        assert report.mode == "stop" and "3 ticks without a good action" in report.reason


def test_one_bad_action_is_forgiven() -> None:
    state, _, _ = step(DELTAS, START, tick())
    state, action, report = step(DELTAS, state, tick(action=[0.01, 0.0, 0.0]))
    assert report.mode == "act" and state.misses == 0 and action[0] == pytest.approx(0.01)


def test_ramp_begins_from_rest_and_again_after_a_hold() -> None:
    limits = replace(DELTAS, ramp=1.0, step=(1.0, 1.0, 2.0))
    state = START
    for now, share in ((5.0, 0.0), (5.25, 0.25), (5.5, 0.5), (6.5, 1.0)):
        state, action, _ = step(limits, state, tick(now, [0.04, 0.4, -1.0]))
        np.testing.assert_allclose(action, [0.04 * share, 0.4 * share, -1.0], atol=1e-7)
    state, _, _ = step(limits, state, tick(6.6))
    state, action, _ = step(limits, state, tick(6.7, [0.04, 0.4, -1.0]))
    np.testing.assert_allclose(action, [0, 0, -1.0], atol=1e-7)


def test_box_keeps_moves_and_positions_inside() -> None:
    limits = replace(DELTAS, box_low=(0.0, -INF, -INF), box_high=(0.3, INF, INF))
    good = [0.02, 0.0, 0.0]
    for where, expected in ((0.1, 0.02), (0.29, 0.01), (0.3, 0.0), (0.5, 0.0)):
        _, action, _ = step(limits, START, tick(action=good, measured=[where, 0, 0]))
        assert action[0] == pytest.approx(expected, abs=1e-7)
    _, action, _ = step(limits, START, tick(action=[-0.02, 0.0, 0.0], measured=[0.5, 0, 0]))
    assert action[0] == pytest.approx(-0.02), "an arm outside may come back"
    _, _, report = step(limits, START, tick(action=good))
    assert report.mode == "hold" and "nobody says where the arm is" in report.reason
    absolute = replace(limits, relative=(False,) * 3, low=(-1.0,) * 3, high=(1.0,) * 3, step=(2.0,) * 3)
    _, action, _ = step(absolute, START, tick(action=[0.9, 0.0, 0.0]))
    assert action[0] == pytest.approx(0.3)


def test_positions_begin_where_the_arm_is() -> None:
    limits = replace(DELTAS, relative=(False,) * 3, hold=(math.nan,) * 3)
    with pytest.raises(GuardError, match=r"nobody says where the arm is \(measured\): say it before the first one"):
        step(limits, State(), tick(action=[0.0, 0.0, 0.0]))
    for measured in ([0.03, 0.2], [0.03, 0.2, math.nan]):
        with pytest.raises(GuardError, match="measured, where the arm is, is not 3 finite numbers"):
            step(limits, State(), tick(action=[0.0, 0.0, 0.0], measured=measured))
    state, action, _ = step(limits, State(), tick(measured=[0.03, 0.2, 0.5]))
    np.testing.assert_allclose(action, [0.03, 0.2, 0.5])
    _, action, _ = step(limits, state, tick(action=[-0.05, 0.2, 0.5]))
    np.testing.assert_allclose(action, [0.01, 0.2, 0.5], atol=1e-7)


anything = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.floats(),
    st.lists(st.floats() | st.none() | st.integers(), max_size=5),
    st.lists(st.floats(-10, 10), min_size=3, max_size=3),
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=2),
    st.just(np.full((2, 3), np.nan)),
    st.just({"actions": 1}),
)
ticks = st.builds(
    Tick,
    now=st.floats(0, 1e6),
    action=anything,
    fault=st.none() | st.just("gone"),
    age=st.just(0.0) | st.floats(),
    latency=st.just(0.0) | st.floats(),
    deadman=st.booleans() | st.just(True),
    measured=st.none() | st.lists(st.floats(-2, 2), min_size=3, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ticks, max_size=12),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([INF, 0.01, 3.0]),
    st.sampled_from([(0.0, 0.0, math.nan), (0.0, 0.0, 0.0)]),
)
def test_whatever_comes_the_action_is_in_range_and_within_its_rate(
    story: list[Tick], ramp: float, change: float, hold: tuple[float, ...]
) -> None:
    limits = replace(DELTAS, ramp=ramp, change=(change,) * 3, hold=hold)
    low, high, rate = (np.array(each) for each in (limits.low, limits.high, limits.step))
    state, last, stopped = START, np.array(START.last), False
    for each in story:
        begins = state.released and each.deadman and each.measured is not None
        if begins and abs(each.measured[2] - last[2]) > rate[2]:
            last[2] = np.clip(each.measured[2], low[2], high[2])  # a position begins anew where the arm is
        held = np.where(np.isnan(hold), last, hold)
        state, action, report = step(limits, state, each)
        assert action.shape == (3,) and action.dtype == np.float32 and np.isfinite(action).all()
        assert (action >= low - 1e-6).all() and (action <= high + 1e-6).all()
        assert (np.abs(action - last) <= rate + 1e-6).all()
        assert report.mode != "act" or (each.deadman and not stopped)
        stopped = stopped or report.mode == "stop"
        assert not stopped or report.mode == "stop"
        if report.mode != "act":  # steps go to rest, and never further
            assert (np.abs(action - held)[:2] <= np.maximum(np.abs(last - held) - rate, 0)[:2] + 1e-6).all()
        last = action


@settings(max_examples=200, deadline=None)
@given(st.lists(ticks, max_size=12))
def test_whatever_comes_an_arm_that_follows_stays_in_its_box(story: list[Tick]) -> None:
    limits = replace(DELTAS, box_low=(-0.03, -INF, -INF), box_high=(0.04, INF, INF))
    state, where = START, 0.0
    for each in story:
        state, action, _ = step(limits, state, replace(each, measured=[where, 0.0, 0.0]))
        where += float(action[0])
        assert -0.03 - 1e-6 <= where <= 0.04 + 1e-6


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Policy:
    """Gives or raises what it was told, after some time."""

    def __init__(self, clock: Clock, answer: Any = (0.01, 0.0, 0.0), takes: float = 0.0) -> None:
        self.clock, self.answer, self.takes, self.asked = clock, answer, takes, 0

    def act(self, sensors: Any) -> Any:
        self.asked += 1
        self.clock.now += self.takes
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


LIMITS = replace(DELTAS, hold=(0.0, 0.0, 0.0))


def test_guard_asks_the_policy_and_tells_time() -> None:
    clock = Clock()
    guard, policy = Guard(LIMITS, clock=clock), Policy(clock)
    action, report = guard(policy, {}, stamp=clock.now - 0.1)
    assert report.mode == "act" and action[0] == pytest.approx(0.01)
    _, report = guard(policy, {}, stamp=clock.now - 0.3)
    assert report.mode == "hold" and "observation is 300 ms old" in report.reason
    for stamp in (object(), "12.5", np.datetime64("now"), math.nan, np.zeros(2)):
        guard.reset()
        _, report = guard(policy, {}, stamp=stamp)  # type: ignore[arg-type]
        assert report.mode == "hold" and "the observation's stamp is no number; expected seconds" in report.reason
    policy.takes = 0.15
    _, report = guard(policy, {}, stamp=clock.now)
    assert report.mode == "hold" and "late: 150 ms" in report.reason
    policy.answer = LateError("no action within 40 ms")
    action, report = guard(policy, {})
    assert report.mode == "stop" and "LateError: no action within 40 ms" in report.reason and not action.any()
    asked = policy.asked
    assert guard(policy, {})[1].mode == "stop" and policy.asked == asked, "nobody asks a policy after the stop"
    guard.reset()
    policy.answer, policy.takes = (0.01, 0.0, 0.0), 0.0
    assert guard(policy, {})[1].mode == "act"


def test_deadman_stops_the_arm_at_once_and_is_no_fault_of_the_policy() -> None:
    clock, held = Clock(), [True]
    guard, policy = Guard(LIMITS, clock=clock, deadman=lambda: held[0]), Policy(clock)
    assert guard(policy, {})[1].mode == "act"
    held[0] = False
    for _ in range(10):
        action, report = guard(policy, {})
        assert report.mode == "hold" and "nobody holds" in report.reason and not action.any()
    held[0] = True
    assert guard(policy, {})[1].mode == "act"

    def broken() -> bool:
        raise OSError("unplugged")

    assert Guard(LIMITS, clock=clock, deadman=broken)(policy, {})[1].mode == "hold"


def test_dry_run_rests_and_tells_what_it_would_do() -> None:
    clock = Clock()
    guard = Guard(replace(LIMITS, ramp=1.0), clock=clock, dry_run=True)
    action, report = guard(Policy(clock), {})
    assert not action.any() and report.mode == "dry run"
    assert report.reason == "would act: [0.01 0.   0.  ]" and report.wanted == (0.01, 0.0, 0.0)

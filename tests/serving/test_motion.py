"""How the guard moves an arm: from where it is, never past what is wanted, at the agreed rate, and to rest at once."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrl.serving.client import Guard, GuardError, Limits, State, Tick, step

INF = math.inf
JOINT = Limits(
    low=(-1.0,),
    high=(1.0,),
    step=(0.1,),
    change=(INF,),
    hold=(math.nan,),
    box_low=(-INF,),
    box_high=(INF,),
    relative=(False,),
    stop_after=3,
    ramp=0.0,
)
DELTA = replace(JOINT, relative=(True,), hold=(0.0,))


def moves(limits: Limits, state: State, count: int, **known: Any) -> tuple[State, list[float]]:
    """Return the state after so many ticks, and the actions."""
    actions = []
    for _ in range(count):
        state, action, _ = step(limits, state, Tick(now=0.0, **known))
        actions.append(float(action[0]))
    return state, actions


def test_position_under_an_acceleration_limit_brakes_before_what_is_wanted() -> None:
    limits = replace(JOINT, change=(0.04,))
    _, actions = moves(limits, State(last=(0.0,)), 6, action=[0.3])
    # 0.04, 0.08, then 0.18 is left: 0.1 would do, of 0.12 that may be; 0.08 is left: 0.06, then 0.02
    np.testing.assert_allclose(actions, [0.04, 0.12, 0.22, 0.28, 0.3, 0.3], atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.5), st.floats(0.0005, 0.5), st.booleans(), st.floats(0, 0.5)
)
def test_action_from_rest_comes_to_what_is_wanted_and_never_passes_it(
    begin: float, wanted: float, rate: float, change: float, relative: bool, ramp: float
) -> None:
    limits = replace(DELTA if relative else JOINT, step=(rate,), change=(change,), ramp=ramp)
    state, last, velocity, count = State(last=(begin,)), begin, 0.0, 0
    while abs(last - wanted) > 1e-9 and count < 20_000:
        state, _, _ = step(limits, state, Tick(now=0.02 * count, action=[wanted]))
        assert state.last is not None
        action = state.last[0]
        if not (relative and ramp):  # there the target goes from rest, 0, to what is wanted
            assert min(begin, wanted) - 1e-9 <= action <= max(begin, wanted) + 1e-9
            assert abs(action - last - velocity) <= change + 1e-9
        assert abs(action - last) <= rate + 1e-9
        last, velocity, count = action, action - last, count + 1
    assert abs(last - wanted) <= 1e-9


def test_steps_are_held_at_once_whatever_the_acceleration_limit_is() -> None:
    limits = replace(DELTA, change=(0.01,))
    state, actions = moves(limits, State(last=(0.0,)), 6, action=[1.0])
    np.testing.assert_allclose(actions[-2:], [0.15, 0.21], atol=1e-6)
    state, actions = moves(limits, state, 2, fault="gone")
    np.testing.assert_allclose(actions, [0.11, 0.01], atol=1e-6)
    _, actions = moves(limits, state, 2, action=[1.0])
    np.testing.assert_allclose(actions, [0.02, 0.04], atol=1e-6)  # from there on, without the speed of the fall
    _, actions = moves(limits, state, 3, fault="gone")
    np.testing.assert_allclose(actions, [0.0, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("known", [{"deadman": False}, {"fault": "gone"}], ids=str)
def test_position_stays_in_the_tick_in_which_it_is_held(known: dict[str, Any]) -> None:
    limits = replace(JOINT, change=(0.01,))
    state, actions = moves(limits, State(last=(-1.0,)), 8, action=[1.0])
    assert actions[-1] - actions[-2] == pytest.approx(0.08)
    state, held = moves(limits, state, 5, **known)  # the third fault stops it for good
    assert held == actions[-1:] * 5
    state, parked = moves(replace(limits, hold=(1.0,)), state, 2, **known)
    np.testing.assert_allclose(np.diff([held[-1], *parked]), [0.01, 0.02], atol=1e-6)


def test_box_that_brakes_a_step_does_not_throw_the_arm_back() -> None:
    limits = replace(DELTA, change=(0.02,), box_high=(0.5,))
    _, actions = moves(limits, State(last=(0.2,), velocity=(0.0,)), 2, action=[0.2], measured=[0.49])
    np.testing.assert_allclose(actions, [0.01, 0.01], atol=1e-6)
    state, _ = moves(limits, State(last=(0.2,), velocity=(0.0,)), 1, action=[0.2], measured=[0.49])
    _, actions = moves(limits, state, 2, action=[0.2], measured=[0.5])
    np.testing.assert_allclose(actions, [0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("held", [True, False])
def test_arm_that_begins_far_outside_is_refused(held: bool) -> None:
    says = r"the arm is at -1.2 in number 0 of the action \(from 0\), outside -1..1: bring it inside by hand"
    with pytest.raises(GuardError, match=says):
        step(JOINT, State(), Tick(now=0.0, action=[0.0], measured=[-1.2], deadman=held))
    boxed = replace(JOINT, box_low=(-0.5,), box_high=(0.5,))
    with pytest.raises(GuardError, match=r"at 0.7 in number 0 .*, outside -0.5..0.5"):
        step(boxed, State(), Tick(now=0.0, action=[0.0], measured=[0.7], deadman=held))
    _, actions = moves(boxed, State(), 2, action=[0.0], measured=[0.55])  # within a step
    np.testing.assert_allclose(actions, [0.4, 0.3], atol=1e-6)
    guard = Guard(JOINT)
    guard.state = State(last=(0.0,))
    guard.reset()
    with pytest.raises(GuardError, match="bring it inside by hand"):
        guard(None, {}, measured=[-1.2])


def test_position_begins_where_the_arm_is_whatever_holds_it() -> None:
    _, actions = moves(replace(JOINT, hold=(0.0,)), State(), 2, action=[1.0], measured=[0.6])
    np.testing.assert_allclose(actions, [0.7, 0.8], atol=1e-6)


def test_arm_that_was_moved_while_nobody_held_the_switch_begins_anew_from_where_it_is() -> None:
    state, _ = moves(JOINT, State(last=(0.5,)), 2, deadman=False, measured=[-0.3])
    _, actions = moves(JOINT, state, 2, action=[-0.25], measured=[-0.3])
    np.testing.assert_allclose(actions, [-0.25, -0.25], atol=1e-6)
    _, actions = moves(JOINT, state, 2, action=[0.0], measured=[0.45])  # less than a step: it was not moved
    np.testing.assert_allclose(actions, [0.4, 0.3], atol=1e-6)
    for _ in range(5):  # no fault of the policy
        state, action, report = step(JOINT, state, Tick(now=0.0, action=[0.0], measured=[1.3]))
        assert report.mode == "hold" and "at 1.3 in number 0" in report.reason and action[0] == 1.0
    state, action, report = step(JOINT, state, Tick(now=0.0, action=[0.0]))
    assert report.mode == "hold" and "nobody says where the arm is" in report.reason and action[0] == 1.0
    assert state.misses == 0
    _, action, report = step(JOINT, state, Tick(now=0.0, action=[0.7], measured=[0.8]))
    assert report.mode == "act" and action[0] == pytest.approx(0.7)


def test_tick_that_comes_too_soon_is_held_and_is_no_miss() -> None:
    limits = replace(DELTA, period=0.05, step=(1.0,), ramp=0.04)
    state, _, _ = step(limits, State(misses=1, began=0.0), Tick(now=1.0, action=[0.5]))
    assert state.misses == 0
    for now, latency, mode in ((1.02, 0.0, "hold"), (1.03, 0.01, "hold"), (1.03, 0.0, "act")):
        after, action, report = step(limits, state, Tick(now=now, latency=latency, action=[0.5]))
        assert report.mode == mode and action[0] == (0.5 if mode == "act" else 0.0)  # no new ramp either
        assert after.misses == 0 and after.began == 0.0
    _, _, report = step(limits, state, Tick(now=1.02, action=[0.5]))
    assert report.reason == "called too soon: 20 ms after the last action, the period is 50 ms"
    after, _, report = step(limits, state, Tick(now=1.02, fault="gone"))
    assert report.reason == "gone" and after.misses == 1
    for now in (0.5, 1.05):  # a clock that was set back; the rate that was agreed on
        assert step(limits, state, Tick(now=now, action=[0.5]))[2].mode == "act"


def test_position_waits_for_its_tick_and_goes_on_as_fast() -> None:
    limits = replace(JOINT, change=(0.01,), period=0.05)
    state, actions = State(last=(0.0,)), []
    for now in (0.0, 0.05, 0.1, 0.11, 0.15):
        state, action, _ = step(limits, state, Tick(now=now, action=[1.0]))
        actions.append(float(action[0]))
    np.testing.assert_allclose(np.diff([0.0, *actions]), [0.01, 0.02, 0.03, 0.0, 0.04], atol=1e-6)


def test_nothing_that_a_policy_gives_escapes() -> None:
    class Wild:
        def __array__(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("cannot be read")

    class Policy:
        def act(self, sensors: Any) -> Any:
            return Wild()

    action, report = Guard(DELTA)(Policy(), {})
    assert report.mode == "hold" and report.reason == "the policy's action is not 1 finite numbers" and not action.any()
    for now in (math.nan, INF):
        state, action, report = step(replace(DELTA, ramp=1.0), State(), Tick(now=now, action=[0.5]))
        assert report.reason == f"the clock says {now}" and not action.any() and state.began is None

"""Limits as a contract tells them and as a person changes them: what nobody can know is refused in one line."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.serving.client import GuardError, Limits, State, Tick, step

INF, NAN = math.inf, math.nan


def contract(rate: float | None = 20.0, names: tuple[str, str] = ("dx", "x"), **control: Any) -> dict[str, Any]:
    dims = [
        {"name": names[0], "unit": "m", "low": -0.05, "high": 0.05},
        {"name": names[1], "unit": "rad", "low": -3.0, "high": 3.0},
    ]
    return {"control_freq": rate, "outputs": {"action": {"dims": dims, **({"control": control} if control else {})}}}


def test_limits_follow_from_the_contract() -> None:
    plain = Limits.of_contract(contract())
    assert plain.low == (-0.05, -3.0) and plain.relative == (True, False)
    np.testing.assert_allclose(plain.step, (0.01, 0.6))
    assert plain.hold[0] == 0.0 and math.isnan(plain.hold[1]) and plain.change == (INF, INF)
    assert (plain.deadline, plain.max_age, plain.period) == (0.05, 0.1, 0.05)
    told = Limits.of_contract(
        contract(mode=["delta", "velocity"], largest_step=[0.02, 0.0], largest_change=[0.01, None], hold=[0.0, 0.5]),
        stop_after=7,
    )
    np.testing.assert_allclose(told.step, (0.024, 0.006))
    np.testing.assert_allclose(told.change, (0.012, INF))
    assert told.relative == (True, True) and told.hold == (0.0, 0.5) and told.stop_after == 7


def test_action_of_which_nobody_says_whether_it_is_a_step_is_refused() -> None:
    """Held as a position, a step would be taken again and again."""
    unknown = contract(mode=["delta", None])
    with pytest.raises(GuardError, match=r"whether 'x' of the action is a step or a position: give relative"):
        Limits.of_contract(unknown)
    assert Limits.of_contract(unknown, relative=(True, True)).relative == (True, True)
    for name in ("joint", "delta_x", "vel_x", "gripper_velocity"):  # a contract of the first format says less
        with pytest.raises(GuardError, match=f"whether {name!r} of the action"):
            Limits.of_contract(contract(names=("robot0_right_drz", name)))
    plain = Limits.of_contract(contract(names=("robot0_dx", "robot0_right_gripper_gripper")))
    assert plain.relative == (True, False)


@pytest.mark.parametrize(
    ("modes", "told", "relative", "holds"),
    [
        ([None, None], [None, None], (True, True), (0.0, 0.0)),
        ([None, None], [None, None], (True, False), (0.0, NAN)),
        (["delta", "delta"], [0.01, 0.5], (True, False), (0.01, NAN)),  # the contract's 0.5 was that of a step
        (["absolute", "absolute"], [0.01, None], (False, True), (0.01, 0.0)),
        (["torque", "delta"], [0.01, 0.0], (True, True), (0.01, 0.0)),
    ],
)
def test_what_holds_follows_from_what_a_number_is_in_the_end(
    modes: list[str | None], told: list[float | None], relative: tuple[bool, bool], holds: tuple[float, ...]
) -> None:
    limits = Limits.of_contract(contract(mode=modes, hold=told), relative=relative, ramp=0.0)
    np.testing.assert_equal(limits.hold, holds)
    assert Limits.of_contract(contract(mode=modes, hold=told), relative=relative, hold=(0.02, 1.0)).hold == (0.02, 1.0)


def test_steps_of_a_person_s_word_are_not_taken_again_when_the_server_dies() -> None:
    limits = Limits.of_contract(contract(mode=[None, None]), relative=(True, True), step=(0.05, 3.0), ramp=0.0)
    state, action, _ = step(limits, State(), Tick(now=0.0, action=[0.04, -0.5], measured=[0.4, 0.3]))
    np.testing.assert_allclose(action, [0.04, -0.5])
    _, action, report = step(limits, state, Tick(now=0.05, fault="gone", measured=[0.4, 0.3]))
    assert report.mode == "hold" and not action.any()


def test_what_nobody_can_hold_is_refused() -> None:
    deltas = contract(mode=["delta", "delta"], hold=[None, 0.0])
    deltas["outputs"]["action"]["dims"][0]["low"] = 0.001
    with pytest.raises(GuardError, match=r"number 0 of the action .* is a step and 0 lies outside its range, .* hold"):
        Limits.of_contract(deltas)
    held = Limits.of_contract(deltas, hold=(0.001, 0.0))
    with pytest.raises(GuardError, match=r"number 0 of the action .* cannot be 0: no box can keep it"):
        replace(held, box_high=(0.3, INF))
    with pytest.raises(GuardError, match=r"'x' of the action is a torque, .* give hold"):
        Limits.of_contract(contract(mode=["delta", "torque"], hold=[0.0, None]))
    assert Limits.of_contract(contract(mode=["delta", "torque"]), hold=(0.0, 0.0)).hold == (0.0, 0.0)


def test_contract_without_a_rate_wants_times() -> None:
    with pytest.raises(GuardError, match=r"no control rate \(control_freq\): give deadline and max_age"):
        Limits.of_contract(contract(None), deadline=0.1)
    limits = Limits.of_contract(contract(None), deadline=0.1, max_age=0.3)
    assert (limits.deadline, limits.max_age, limits.period) == (0.1, 0.3, 0.0)


def test_limits_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    file.write_text(
        '{"step": [0.001, 0.1], "ramp": 2, "box_low": [-1, null], "box_high": [1e999, 2], "hold": [0, null]}'
    )
    limits = Limits.read(file, contract())
    assert limits.step == (0.001, 0.1) and limits.ramp == 2
    assert (limits.box_low, limits.box_high) == ((-1, -INF), (INF, 2)) and math.isnan(limits.hold[1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"steps": 1}, "expected an object with some of"),
        ([1], "expected an object with some of"),
        ({"step": [1.0]}, "step is (1.0,); expected 2 finite numbers"),
        ({"step": [0.0, 1.0]}, "step must be above 0"),
        ({"step": 3}, "step is 3; expected 2 finite numbers"),
        ({"step": [0.01, None]}, "step is (0.01, None); expected 2 finite numbers"),
        ({"step": [INF, 1.0]}, "step is (inf, 1.0); expected 2 finite numbers"),
        ({"low": ["-1", -1]}, "low is ('-1', -1); expected 2 finite numbers"),
        ({"low": [0.1, 0.1]}, "finite range"),
        ({"change": [0, 1]}, "change is (0, 1); expected 2 numbers above 0"),
        ({"hold": [1.0, 0.0]}, "hold action must lie within"),
        ({"hold": [None, 0.0]}, "number 0 of the action (from 0) is a step, so nothing says what holds it"),
        ({"box_low": "ab"}, "box_low is 'ab'; expected 2 numbers"),
        ({"box_low": [1, 1], "box_high": [0, 0]}, "box_low must not be above"),
        ({"box_low": [-9, 300], "box_high": [9, 700]}, "a position in -3..3, and its box 300..700 lies outside"),
        ({"relative": [1, 0]}, "relative is (1, 0); expected 2 truth values"),
        ({"relative": ["false", "false"]}, "relative is ('false', 'false'); expected 2 truth values"),
        ({"relative": True}, "relative is True; expected 2 truth values"),
        ({"stop_after": 0}, "stop_after is 0; expected a whole number, at least 1"),
        ({"stop_after": 2.5}, "stop_after is 2.5; expected a whole number"),
        ({"ramp": True}, "ramp is True; expected a finite number"),
        ({"ramp": INF}, "ramp is inf; expected a finite number"),
        ({"max_age": None}, "max_age is None; expected a finite number above 0"),
        ({"period": -1}, "period is -1; expected a finite number, not below 0"),
        ("{", "no JSON"),
        ('{"ramp": 1, "ramp": 2}', "ramp is there twice"),
    ],
    ids=str,
)
def test_file_that_is_wrong_is_named_with_its_field(content: Any, says: str, tmp_path: Path) -> None:
    file = tmp_path / "limits.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(GuardError, match=re.escape(f"{file}: ") + ".*" + re.escape(says)):
        Limits.read(file, contract())


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match=r"limits\.json: cannot be read \(No such file"):
        Limits.read(tmp_path / "limits.json", contract())

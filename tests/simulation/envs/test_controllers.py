"""Controllers of robosuite 1.4, in the words of 1.5."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pixelrl.runtime.env_args import is_before_1_5
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.controllers import composite, reorder, translated

OSC: dict[str, Any] = {
    "type": "OSC_POSE",
    "kp": 150,
    "damping": 1,
    "damping_limits": [0, 10],
    "impedance_mode": "fixed",
    "control_delta": True,
    "ramp_ratio": 0.3,
}
NEW = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "kp": 99}}}


def test_arm_of_1_4_is_a_part_of_a_robot_in_1_5() -> None:
    (robot,) = composite(OSC, "Panda", old=True)
    assert robot == {
        "type": "BASIC",
        "body_parts": {
            "right": {
                "type": "OSC_POSE",
                "kp": 150,
                "damping_ratio": 1,
                "damping_ratio_limits": [0, 10],
                "impedance_mode": "fixed",
                "input_type": "delta",
                "input_ref_frame": "world",
                "interpolation": None,
                "ramp_ratio": 0.3,
                "gripper": {"type": "GRIP"},
            }
        },
    }
    assert OSC["control_delta"] is True, "the recording's own configuration stays as it was"


def test_absolute_commands_and_joint_controllers() -> None:
    (robot,) = composite(OSC | {"control_delta": False}, ["Panda"], old=True)
    assert robot["body_parts"]["right"]["input_type"] == "absolute"
    velocity = {"type": "JOINT_VELOCITY", "kp": 3.0, "velocity_limits": [-1, 1]}
    (robot,) = composite(velocity, ["Panda"], old=True)
    extra = {"interpolation": None, "ramp_ratio": 0.2, "gripper": {"type": "GRIP"}}
    assert robot["body_parts"]["right"] == velocity | extra


def test_controllers_of_two_robots_and_of_two_arms() -> None:
    soft = OSC | {"kp": 50}

    def gains(robots: list[Any]) -> list[dict[str, int]]:
        return [{arm: part["kp"] for arm, part in robot["body_parts"].items()} for robot in robots]

    assert gains(composite(OSC, ["Panda", "Sawyer"], old=True)) == [{"right": 150}, {"right": 150}]
    assert gains(composite([OSC, soft], ["Panda", "Panda"], old=True)) == [{"right": 150}, {"right": 50}]
    assert gains(composite(OSC, "Baxter", old=True)) == [{"right": 150, "left": 150}]
    for arms in ([OSC, soft], [[OSC, soft]], {"right": OSC, "left": soft}):
        assert gains(composite(arms, ["Baxter"], old=True)) == [{"right": 150, "left": 50}]


def test_recording_of_1_5_means_what_1_5_takes_it_for() -> None:
    assert composite(NEW, "Panda", old=False) == [NEW]
    (robot,) = composite(OSC, "Panda", old=False)
    assert robot["body_parts"]["right"] == OSC | {"gripper": {"type": "GRIP"}}


@pytest.mark.parametrize(
    ("version", "configs", "old"),
    [
        ("1.4.1", NEW, True),
        ("1.2.0", None, True),
        ("0.3.0", OSC, True),
        ("1.5.0", OSC, False),
        ("1.10.2", OSC, False),
        ("2.0", None, False),
        (None, OSC, True),
        (None, [OSC, OSC], True),
        (None, NEW, False),
        (None, None, False),
    ],
)
def test_age_of_a_recording(version: str | None, configs: Any, old: bool) -> None:
    args: dict[str, Any] = {"env_name": "Lift", "env_kwargs": {"controller_configs": configs}}
    assert is_before_1_5(args | ({"env_version": version} if version else {})) == old


def test_translated_arguments_are_of_this_version_and_need_no_second_translation() -> None:
    args = {
        "env_name": "Lift",
        "env_version": "1.4.1",
        "env_kwargs": {"robots": "Panda", "controller_configs": OSC, "horizon": 7},
    }
    once = translated(args)
    assert once["env_version"].startswith("1.5")
    assert once["env_kwargs"]["lite_physics"] is False and once["env_kwargs"]["horizon"] == 7
    assert once["env_kwargs"]["controller_configs"]["body_parts"]["right"]["input_ref_frame"] == "world"
    assert translated(once) == once
    assert translated({"env_name": "Lift", "env_version": "1.5.1"})["env_kwargs"] == {"lite_physics": True}


def test_grippers_of_a_robot_with_two_arms_come_last() -> None:
    two = SimpleNamespace(
        arms=("right", "left"),
        action_dim=6,
        _action_split_indexes={"right": (0, 2), "left": (2, 4), "right_gripper": (4, 5), "left_gripper": (5, 6)},
    )
    one = SimpleNamespace(
        arms=("right",), action_dim=2, _action_split_indexes={"right": (0, 1), "right_gripper": (1, 2)}
    )
    # right arm 1 2, right gripper 3, left arm 4 5, left gripper 6, then the other robot
    recorded = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8]])
    env = SimpleNamespace(robots=[two, one], action_dim=8)
    assert reorder(recorded, env).tolist() == [[1, 2, 4, 5, 3, 6, 7, 8]]
    with pytest.raises(SimulationError, match=r"two-armed actions of 7 numbers .*; the task takes 8: "):
        reorder(recorded[:, :7], env)
    alone = SimpleNamespace(robots=[one], action_dim=2)
    assert reorder(recorded[:, :3], alone).tolist() == [[1, 2, 3]], "one arm's order is the same in both"


@pytest.mark.parametrize(
    ("configs", "robots", "message"),
    [
        (OSC, "Pandaa", "no robot 'Pandaa'; there are: .*Panda"),
        (OSC, None, "no robot None"),
        ([OSC, OSC, OSC], ["Panda", "Panda"], "3 controllers for 2 robots"),
        ([[OSC]], ["Baxter"], "Baxter has the arms right, left; its controllers are"),
    ],
)
def test_controllers_that_cannot_be_translated_are_named(configs: Any, robots: Any, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        composite(configs, robots, old=True)

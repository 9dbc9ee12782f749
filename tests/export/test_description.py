"""What a contract tells of the actions."""

from typing import Any

import numpy as np
import pytest

from pixelrl.export.description import Recorded, control_of, largest_steps
from pixelrl.runtime.actions import ActionDim

POSE = [ActionDim(name=name, low=-0.05, high=0.05, unit="m") for name in ("dx", "robot0_dy")]
GRIPPER = ActionDim(name="gripper")


def test_largest_steps_by_hand() -> None:
    episodes = [np.array([[0.0, -1.0], [0.5, -1.0], [0.4, 1.0]], np.float32), np.array([[9.0, 0.0]], np.float32)]
    step, change = largest_steps(episodes, 2)
    np.testing.assert_allclose(step, (0.5, 2.0), atol=1e-7)
    np.testing.assert_allclose(change, (0.6, 2.0), atol=1e-7)
    assert largest_steps([], 2) == ((0.0, 0.0), (0.0, 0.0))


def test_deltas_of_robosuite_rest_at_zero_and_its_gripper_where_it_is() -> None:
    config = {"type": "OSC_POSE", "input_ref_frame": "base"}
    env_args = {"type": 1, "env_kwargs": {"controller_configs": {"body_parts": {"arms": {"right": config}}}}}
    dims = [*POSE, ActionDim(name="drz", low=-0.5, high=0.5, unit="rad"), GRIPPER]
    recorded = Recorded(largest_step=(0.1, 0.2, 0.3, 2.0))
    assert control_of(dims, env_args, recorded) == {
        "mode": ["delta", "delta", "delta", "absolute"],
        "frame": "base",
        "rotation": "axis-angle",
        "gripper": "-1 opens, 1 closes",
        "hold": [0.0, 0.0, 0.0, None],
        "largest_step": [0.1, 0.2, 0.3, 2.0],
        "largest_change": [None] * 4,
    }


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"type": "JOINT_VELOCITY"}, "velocity"),
        ({"type": "JOINT_TORQUE"}, "torque"),
        ({"type": "JOINT_POSITION"}, "delta"),
        ({"type": "JOINT_POSITION", "input_type": "absolute"}, "absolute"),
        ({"type": "JOINT_POSITION", "control_delta": False}, "absolute"),
        (None, None),
        ("damaged", None),
    ],
)
def test_joints_are_what_their_controller_says(config: Any, mode: str | None) -> None:
    env_args = {"type": 1, "env_kwargs": {"controller_configs": [config]}}
    control = control_of([ActionDim(name="right_0")], env_args, Recorded())
    assert control["mode"] == [mode] and control["hold"] == [0.0 if mode in ("delta", "velocity") else None]


def test_nothing_is_made_up_where_nobody_knows() -> None:
    control = control_of([ActionDim(name="action_0"), GRIPPER], {}, Recorded())
    assert control["mode"] == [None, "absolute"] and control["hold"] == [None, None]
    assert control["frame"] is control["rotation"] is control["gripper"] is None


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("delta_x", "delta"),
        ("x_delta", "delta"),
        ("vel_x", "velocity"),
        ("ee_vel_z", "velocity"),
        ("eeVelZ", "velocity"),
        ("twist.linear.x", "velocity"),
        ("gripper_velocity", "velocity"),
        ("torque_x", "torque"),
        ("joint1/effort", "torque"),
        ("linear_x", None),  # of a twist, or of a rail
        ("delta_velocity_x", None),
        ("level_x", "absolute"),
        ("x", "absolute"),
    ],
)
def test_word_of_a_name_decides_before_its_end(name: str, mode: str | None) -> None:
    control = control_of([ActionDim(name=name)], {}, Recorded())
    assert control["mode"] == [mode] and control["hold"] == [0.0 if mode in ("delta", "velocity") else None]

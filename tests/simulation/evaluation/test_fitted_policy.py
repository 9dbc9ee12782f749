"""A loaded policy acts in the order, the units, the bounds and at the rate of the environment that it is tried in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.runtime.actions import ActionDim, unnamed_dims
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.make import make_env
from pixelrl.simulation.evaluation.fitted_policy import check_control_rate, fitted_policy
from tests.simulation.envs.test_robosuite_env import ROBOMIMIC_LIFT

LIFT = {"env_name": "Lift"}
DATA = ActionDim(name="dx", low=-0.02, high=0.02, unit="m")
ROBOT = ActionDim(name="dx", low=-0.05, high=0.05, unit="m")
PLAIN = ActionDim(name="joint")


@dataclass
class Env:
    """What is asked of an environment."""

    action_dims: tuple[ActionDim, ...]
    control_freq: float | None = None

    @property
    def action_space(self) -> Box:
        return Box(-1.0, 1.0, (len(self.action_dims),), np.float32)


def full_speed(sensors: Sensors) -> NDArray[np.float32]:
    return np.array([[1.0], [-0.5]], np.float32)


def loaded(*action: ActionDim, policy: Any = full_speed, **options: Any) -> LoadedPolicy:
    return LoadedPolicy(policy=policy, env_args={}, pictures={}, action=action, origin={}, **options)


def fit(policy: LoadedPolicy, *dims: ActionDim) -> Any:
    return fitted_policy(policy, Env(dims), LIFT)  # type: ignore[arg-type]


def test_actions_are_converted_from_units_of_data_to_units_of_environment() -> None:
    # The data's 1 is 2 cm, the environment's 1 is 5 cm: full speed in the data is 0.4 in the environment.
    np.testing.assert_allclose(fit(loaded(DATA), ROBOT)({}), [[0.4], [-0.2]], atol=1e-6)
    assert fit(loaded(DATA), DATA) is full_speed
    with pytest.raises(PixelrlError, match="gives 1 actions and its environment takes 2"):
        fit(loaded(DATA), ROBOT, ROBOT)


def test_recorded_number_is_the_environments_where_units_differ() -> None:
    assert fit(loaded(ActionDim(name="action_0")), ROBOT) is full_speed
    half = ActionDim(name="action_0", low=-0.5, high=0.5)  # nameless data, rescaled: 1 was recorded as 0.5
    np.testing.assert_allclose(fit(loaded(half, rescaled=True), ROBOT)({}), [[0.5], [-0.25]])
    assert fit(loaded(ROBOT), PLAIN) is full_speed, "action 1 became 0.05"
    with pytest.raises(PixelrlError, match="dx is in m in the policy's data, and Lift has joint in 1: after"):
        fit(loaded(DATA, rescaled=True), PLAIN)


def test_control_rates_must_agree_unless_unknown() -> None:
    for policy, env in ((None, 5.0), (5.0, None), (20.0, 20.000001)):
        check_control_rate(policy, env, "Lift")
    with pytest.raises(PixelrlError, match=r"the policy acts at 10 Hz and Lift at 20 Hz; .*control_freq=10"):
        fitted_policy(loaded(DATA, control_freq=10.0), Env((DATA,), 20.0), LIFT)  # type: ignore[arg-type]


def constant(values: Sequence[float]) -> Any:
    return lambda sensors: np.array([values], np.float32)


def test_absolute_poses_reach_the_controller_unclipped() -> None:
    """Metres and rotation vectors, trained with --actions min-max: z is above 1, and a rotation is of about pi."""
    options = ROBOMIMIC_LIFT["env_kwargs"]
    controller = options["controller_configs"] | {"control_delta": False}
    env = make_env(ROBOMIMIC_LIFT | {"env_kwargs": options | {"controller_configs": controller}})
    meant = [0.02, -0.01, 1.1, 3.05, 0.1, 0.05, 1.0]
    own = tuple(replace(dim, low=value - 1, high=value + 1) for dim, value in zip(unnamed_dims(7), meant, strict=True))
    action = fitted_policy(loaded(*own, policy=constant([0] * 6 + [0.5]), rescaled=True), env, LIFT)({})[0]
    np.testing.assert_allclose(action, meant, atol=1e-6)
    env.reset(seed=0)
    env.step(action)
    arm = env.robosuite.robots[0].part_controllers["right"]  # type: ignore[union-attr]
    np.testing.assert_allclose(arm.goal_pos, meant[:3], atol=1e-6)
    assert [dim.unit for dim in env.action_dims] == ["m"] * 3 + ["rad"] * 3 + ["1"]
    env.close()


def test_order_of_a_two_armed_robots_actions_is_that_of_this_robosuite() -> None:
    """Until 1.4: right arm, right gripper, left arm, left gripper."""
    options = ROBOMIMIC_LIFT["env_kwargs"] | {"robots": ["Baxter"], "env_configuration": "bimanual"}
    args = ROBOMIMIC_LIFT | {"env_name": "TwoArmLift", "env_kwargs": options}
    env = make_env(args)
    policy = loaded(*unnamed_dims(14), policy=constant([*range(6), 0.5, *range(6), -0.5]))
    assert fitted_policy(policy, env, args)({})[0].tolist() == policy.policy({})[0].tolist()
    action = fitted_policy(replace(policy, env_args=args), env, args)({})[0]
    named = {dim.name: value for dim, value in zip(env.action_dims, action.tolist(), strict=True)}
    axes = ("dx", "dy", "dz", "drx", "dry", "drz")
    for side, gripper in (("right", 0.5), ("left", -0.5)):
        assert [named[f"robot0_{side}_{axis}"] for axis in axes] == [0, 1, 1, 1, 1, 1]
        assert named[f"robot0_{side}_gripper_gripper"] == gripper
    env.close()

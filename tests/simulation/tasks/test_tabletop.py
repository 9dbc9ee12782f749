"""The controller's law without its layers: the same torques as robosuite's own call, bit for bit."""

import numpy as np
import pytest

from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.tasks.tabletop import steer


@pytest.mark.parametrize("task", ["pick-place-tray", "drawer-grasp"])
def test_torques_are_robosuites(task: str) -> None:
    env = make_robosuite_env(default_env_args(task, size=16))
    try:
        env.reset(seed=1)
        sim, robot = env.robosuite.sim, env.robosuite.robots[0]
        goal = np.array([0.05, -0.05, 1.0, *env.robosuite.downward, 1.0])
        for action in np.random.default_rng(0).uniform(-1, 1, (5, 4)):
            env.step(action)  # ends amid a movement
            robot.control(goal, policy_step=True)
            expected = sim.data.ctrl.copy()
            sim.data.ctrl[:7] = 0
            steer(robot)
            np.testing.assert_array_equal(sim.data.ctrl, expected)
        assert np.abs(expected).min() > 0
    finally:
        env.close()

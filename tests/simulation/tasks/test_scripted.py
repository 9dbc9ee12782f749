"""The scripts of the drawer tasks: how often they succeed, where they end, and what they may do."""

import numpy as np
import pytest

from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.tasks.scripted.collect import record_episode, scripts


def test_every_task_has_the_three_parts_and_no_other_task_has_any() -> None:
    for name in TASK_NAMES.values():
        parts = scripts(name)
        assert list(parts) == ["prior", "task", "oracle"]
        assert parts["prior"].start == parts["oracle"].start != parts["task"].start
    with pytest.raises(SimulationError, match=r"for pick-place-tray, .*drawer-blocked-object only, not for Lift"):
        scripts("Lift")


def test_drawer_scripts_err_as_they_should_and_end_where_the_task_data_begin() -> None:
    """Loose bounds about the rates in the docstring of `scripted.drawers`."""
    env = make_robosuite_env(default_env_args("drawer-grasp", use_camera_obs=False))
    neutral = env.robosuite.neutral_pos
    try:
        prior = [record_episode(env, "prior", seed) for seed in range(12)]
        task = [record_episode(env, "task", seed) for seed in range(12)]
    finally:
        env.close()
    assert 4 <= sum(e.notes["success"] for e in prior) <= 11
    assert 4 <= sum(e.notes["success"] for e in task) <= 11
    for episode in prior:
        assert episode.rewards.sum() == 0 and len(episode) == 30
        if episode.notes["success"]:
            end = episode.sensors["robot0_eef_pos"][-1]
            assert np.linalg.norm(end - neutral) < 0.06 and episode.sensors["robot0_gripper_opening"][-1] > 0.07
    assert all(np.abs(e.actions).max() <= np.float32(0.9) for e in prior + task)
    assert not any(e.notes["whole_task"] for e in prior + task)
    assert any(np.diff(np.sign(e.actions[:12, 3])).any() for e in task), "a grasp opens, then closes"

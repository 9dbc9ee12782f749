"""The tray task: what counts as success, what cannot, and where the arm may go."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.tasks.pick_place_tray import CUBE_AREA, CUBE_GAP, TRAY_CENTRE, TRAY_HALF
from pixelrl.simulation.tasks.scripted.pick_place_tray import oracle
from pixelrl.simulation.tasks.tabletop import MOVE, TABLE_TOP


@pytest.fixture(scope="module")
def env() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(default_env_args("pick-place-tray", distractor=True))
    yield env
    env.close()


def go(env: RobosuiteEnv, goal: tuple[float, float, float], gripper: float, steps: int) -> bool:
    """Move towards a point; return whether the task was ever solved on the way."""
    solved = False
    for _ in range(steps):
        move = np.clip((np.array(goal) - env.robosuite.eef_pos) / MOVE, -1, 1)
        solved |= env.step(np.array([*move, gripper]))[2]
    return solved


def test_oracle_solves_the_task_from_any_start(env: RobosuiteEnv) -> None:
    solved = 0
    for seed in range(20):
        env.reset(seed=seed)
        actions = oracle(env.robosuite, np.random.default_rng(seed))
        solved += any(env.step(next(actions))[2] for _ in range(env.horizon))
    assert solved >= 19


@pytest.mark.parametrize("height", [0.815, 0.822, 0.83])
def test_pushing_along_the_table_never_succeeds(env: RobosuiteEnv, height: float) -> None:
    for seed in range(3):
        env.reset(seed=seed)
        x, y, _ = env.robosuite.cube_pos
        assert not go(env, (x, y - 0.09, TABLE_TOP + 0.2), 1, 6)
        assert not go(env, (x, y - 0.09, height), 1, 5)
        assert not go(env, (x, 0.2, height), 1, 25)
        assert env.robosuite.cube_pos[1] > y + 0.02, "the push did not push"
        assert env.robosuite.cube_pos[2] < TABLE_TOP + 0.03, "the cube climbed"


def test_success_needs_the_cube_released_and_lying_in_the_tray(env: RobosuiteEnv) -> None:
    env.reset(seed=3, options={"start": "held"})
    x, y, _ = TRAY_CENTRE
    assert not go(env, (x, y, 0.95), 1, 8), "held above the tray is not success"
    assert not go(env, (x, y, 0.833), 1, 6), "still held in the tray is not success"
    assert np.abs(env.robosuite.cube_pos - TRAY_CENTRE).max() < TRAY_HALF
    assert go(env, (x, y, 0.95), -1, 5)
    _, reward, terminated, _, info = env.step(np.array([0, 0, 0, -1.0]))
    assert (reward, terminated, info["success"]) == (1.0, True, True)


def test_cube_released_beside_the_tray_is_no_success(env: RobosuiteEnv) -> None:
    env.reset(seed=3, options={"start": "held"})
    assert not go(env, (-0.05, -0.05, 0.83), 1, 8)
    assert not go(env, (-0.05, -0.05, 0.95), -1, 6)


def test_arm_stays_in_its_box_and_off_the_table(env: RobosuiteEnv) -> None:
    env.reset(seed=0)
    workspace = env.robosuite.workspace
    seen = []
    for corner in product((-1.0, 1.0), repeat=3):  # full speed, and through the tray where it is in the way
        for _ in range(12):
            env.step(np.array([*corner, 1.0]))
            seen.append(env.robosuite.eef_pos)
    low, high = np.min(seen, 0), np.max(seen, 0)
    assert (low > workspace[0] - 0.05).all() and (high < workspace[1] + 0.05).all()
    assert low[2] > TABLE_TOP + 0.008
    assert (high - low > 0.9 * (workspace[1] - workspace[0])).all(), "the box was not explored"


def test_gripper_closes_and_opens_within_two_steps(env: RobosuiteEnv) -> None:
    env.reset(seed=0)
    assert env.robosuite.gripper_opening == pytest.approx(0.08, abs=1e-3)
    go(env, tuple(env.robosuite.eef_pos), 1, 2)
    assert env.robosuite.gripper_opening < 0.005
    go(env, tuple(env.robosuite.eef_pos), -1, 2)
    assert env.robosuite.gripper_opening > 0.075


def test_starts_are_varied_and_as_promised(env: RobosuiteEnv) -> None:
    cubes, poses = [], []
    for seed in range(20):
        env.reset(seed=seed)
        first, second = env.robosuite.cube_positions
        assert np.linalg.norm(first - second) > CUBE_GAP
        cubes.append(first[:2])
        poses.append(env.robosuite.eef_pos)
        env.reset(seed=seed, options={"start": "held"})
        assert env.robosuite.holds_object()
        assert np.linalg.norm(env.robosuite.eef_pos - env.robosuite.neutral_pos) < 0.06
    assert (np.min(cubes, 0) >= CUBE_AREA[0]).all() and (np.max(cubes, 0) <= CUBE_AREA[1]).all()
    assert (np.ptp(cubes, 0) > 0.1).all()
    assert (np.std(poses, 0) > 0.002).all() and (np.std(poses, 0) < 0.03).all()

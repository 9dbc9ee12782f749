"""Tasks of robosuite: gymnasium's interface, exact seeds, robomimic's conventions, and readable errors."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from robosuite.renderers.context import egl_context

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.simulation.workers.process_pool import WorkerPool

ROBOMIMIC_LIFT: dict[str, Any] = {
    "env_name": "Lift",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {
        "has_renderer": False,
        "has_offscreen_renderer": True,
        "ignore_done": True,
        "use_object_obs": True,
        "use_camera_obs": True,
        "control_freq": 20,
        "controller_configs": {
            "type": "OSC_POSE",
            "input_max": 1,
            "input_min": -1,
            "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
            "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
            "kp": 150,
            "damping": 1,
            "impedance_mode": "fixed",
            "kp_limits": [0, 300],
            "damping_limits": [0, 10],
            "position_limits": None,
            "orientation_limits": None,
            "uncouple_pos_ori": True,
            "control_delta": True,
            "interpolation": None,
            "ramp_ratio": 0.2,
        },
        "robots": ["Panda"],
        "camera_depths": False,
        "camera_heights": 32,
        "camera_widths": 40,
        "camera_names": ["agentview"],
        "render_gpu_device_id": 0,
        "reward_shaping": False,
    },
}


@pytest.fixture(scope="module")
def tray() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(default_env_args("pick-place-tray"))
    yield env
    env.close()


@pytest.fixture(scope="module")
def lift() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(ROBOMIMIC_LIFT)
    yield env
    env.close()


def play(env: RobosuiteEnv, seed: int, steps: int) -> str:
    """Return a digest of all that happens after a seed: observations, states and rewards."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    digest = hashlib.sha256()
    for _ in range(steps):
        digest.update(env.state().tobytes())
        for key in sorted(observation):
            digest.update(observation[key].tobytes())
        observation, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
        digest.update(np.float64(reward).tobytes())
    return digest.hexdigest()


def test_tray_has_gymnasiums_interface(tray: RobosuiteEnv) -> None:
    observation, info = tray.reset(seed=1)
    shapes = {key: (value.dtype.name, value.shape) for key, value in observation.items()}
    assert shapes == {
        "agentview_image": ("uint8", (48, 48, 3)),
        "robot0_eef_pos": ("float32", (3,)),
        "robot0_gripper_opening": ("float32", (1,)),
    }
    assert tray.observation_space.contains(observation)
    assert info == {"success": False}
    assert (tray.control_freq, tray.horizon) == (5.0, 40)
    assert [tray.step(np.zeros(4))[3] for _ in range(40)] == [False] * 39 + [True]
    assert [(d.name, d.low, d.high, d.unit) for d in tray.action_dims] == [
        ("dx", -0.05, 0.05, "m"),
        ("dy", -0.05, 0.05, "m"),
        ("dz", -0.05, 0.05, "m"),
        ("gripper", -1.0, 1.0, "1"),
    ]
    assert tray.state().dtype == np.float64


def test_unit_action_moves_about_five_centimetres(tray: RobosuiteEnv) -> None:
    for axis in range(3):
        before = tray.reset(seed=2)[0]["robot0_eef_pos"]
        after = tray.step(np.eye(4)[axis])[0]["robot0_eef_pos"]
        assert (after - before)[axis] == pytest.approx(0.05, abs=0.01)


def test_pictures_are_upright_and_show_the_scene(tray: RobosuiteEnv) -> None:
    red, _, blue = tray.reset(seed=1)[0]["agentview_image"].astype(int).transpose(2, 0, 1)
    assert (red[:6] < blue[:6]).mean() > 0.3, "the sky is above"
    assert (red[-6:] > blue[-6:]).all(), "the table is below"
    assert tray.picture(96).shape == (96, 96, 3)


def assert_up_to_date(env: RobosuiteEnv) -> None:
    """Compare what a step showed with what is to be seen in the state that it ended in."""
    env.reset(seed=5)
    for action in np.random.default_rng(5).uniform(-1, 1, (6, *env.action_space.shape)):
        observation, reward, success, *_ = env.step(action)
    again = env.restore(env.state())
    for key in again:
        if key != "robot0_joint_acc":  # depends on forces
            np.testing.assert_array_equal(observation[key], again[key], key)
    assert (reward, success) == (env.robosuite.reward(action), env.robosuite._check_success())


def test_observation_and_reward_belong_to_the_state_that_the_step_ended_in(tray: RobosuiteEnv) -> None:
    """MuJoCo's step alone leaves poses and contacts a substep behind: by 0.4 mm here."""
    assert_up_to_date(tray)


def test_state_of_another_size_is_refused(tray: RobosuiteEnv) -> None:
    with pytest.raises(SimulationError, match=r"a state of 3 numbers; the model has 32: time, qpos, qvel"):
        tray.restore(np.zeros(3))


def test_seed_is_one_episode_whatever_came_before(tray: RobosuiteEnv) -> None:
    first = play(tray, 7, 8)
    tray.reset(seed=3, options={"start": "held"})
    tray.step(np.ones(4))
    tray.picture(128)
    assert play(tray, 8, 8) != first
    assert play(tray, 7, 8) == first


def test_environments_of_one_process_draw_their_own_pictures(tray: RobosuiteEnv, lift: RobosuiteEnv) -> None:
    alone = tray.reset(seed=7)[0]["agentview_image"]
    for disturb in (
        lambda: lift.reset(seed=1),
        lambda: lift.step(np.zeros(7)),
        lambda: make_robosuite_env(ROBOMIMIC_LIFT).close(),
    ):
        disturb()
        np.testing.assert_array_equal(tray.reset(seed=7)[0]["agentview_image"], alone)


def test_hard_resets_are_exact_too(lift: RobosuiteEnv) -> None:
    first = play(lift, 7, 3)
    size = lift.robosuite.cube.size[0]
    play(lift, 8, 1)
    assert lift.robosuite.cube.size[0] != size, "Lift's cube has a random size"
    assert play(lift, 7, 3) == first


def test_tasks_of_robosuite_are_up_to_date_too(lift: RobosuiteEnv) -> None:
    assert_up_to_date(lift)


def test_unseeded_resets_go_on_from_the_seed(tray: RobosuiteEnv) -> None:
    tray.reset(seed=4)
    tray.reset()
    state = tray.state()
    tray.reset()
    assert not np.array_equal(tray.state(), state)
    tray.reset(seed=4)
    tray.reset()
    assert np.array_equal(tray.state(), state)


def test_robomimics_environment_of_robosuite_1_4_is_understood(lift: RobosuiteEnv) -> None:
    observation, _ = lift.reset(seed=0)
    assert observation["agentview_image"].shape == (32, 40, 3)
    assert {"object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"} <= set(observation)
    assert not lift.robosuite.lite_physics
    assert [d.name for d in lift.action_dims] == ["dx", "dy", "dz", "drx", "dry", "drz", "gripper"]
    assert [(d.high, d.unit) for d in lift.action_dims] == [(0.05, "m")] * 3 + [(0.5, "rad")] * 3 + [(1.0, "1")]


def test_env_name_among_the_options_is_dropped() -> None:
    """robosuite 1.5's collector leaves it there, and so does robomimic's conversion of its files."""
    args = default_env_args("pick-place-tray", size=16)
    args["env_kwargs"]["env_name"] = "PickPlaceTray"
    make_robosuite_env(args).close()


def test_task_of_another_package_is_made_if_the_user_allows_its_import() -> None:
    """In a process of its own: once it is imported, the task is registered for good."""
    args = {**default_env_args("pick-place-tray", size=16), "env_name": "StrangeTray"}
    refused = WorkerPool(1).run(partial(opened, args, ()), [("a job", 0)])
    with pytest.raises(SimulationError, match=r"no task 'StrangeTray'.*--allow-import PACKAGE, or --env PACKAGE:Stran"):
        next(refused)
    assert next(WorkerPool(1).run(partial(opened, args, ("tests.toy_suite",)), [("a job", 0)])).result == "StrangeTray"
    with pytest.raises(SimulationError, match=r"no task 'tests.toy_suite:StrangeTray'"):
        next(WorkerPool(1).run(partial(opened, args | {"env_name": "tests.toy_suite:StrangeTray"}, ()), [("a job", 0)]))


@contextmanager
def opened(args: dict[str, Any], allow_import: tuple[str, ...]) -> Iterator[Callable[[int, Heartbeat], str]]:
    """Make an environment, and tell the name of its task."""
    with closing(make_robosuite_env(args, allow_import)) as env:
        yield lambda job, heartbeat: type(env.robosuite).__name__


def test_defaults_of_a_robosuite_task() -> None:
    args = default_env_args("Stack", size=64, horizon=100)
    assert (args["env_name"], args["type"]) == ("Stack", 1)
    assert args["env_kwargs"]["camera_names"] == ["agentview", "robot0_eye_in_hand"]
    assert (args["env_kwargs"]["camera_heights"], args["env_kwargs"]["horizon"]) == (64, 100)


def test_options_are_those_of_all_classes_that_a_task_hands_them_on_to() -> None:
    """robomimic's Can and Square take any, and hand them on."""
    with pytest.raises(SimulationError, match=r"PickPlaceCan has no option 'colour'; it has: .*control_freq"):
        make_robosuite_env(default_env_args("PickPlaceCan", colour="red"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_name": "Lifft"}, "no task 'Lifft'.*Lift"),
        ({"type": 2}, "type 2, but only 1"),
        ({"env_kwargs": {"camera_names": ["front"]}}, "no camera 'front'; it has: .*agentview"),
        ({"env_kwargs": {"colour": "red"}}, "no option 'colour'; it has: .*distractor.*horizon"),
    ],
)
def test_environment_that_cannot_be_made_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        make_robosuite_env(default_env_args("pick-place-tray") | change)


def test_action_or_start_that_does_not_fit_is_named(tray: RobosuiteEnv) -> None:
    with pytest.raises(SimulationError, match=r"action has shape \(7,\), not \(4,\)"):
        tray.step(np.zeros(7))
    with pytest.raises(SimulationError, match=r"no start 'drawer'; it has: table, held"):
        tray.reset(options={"start": "drawer"})


def test_error_where_nothing_can_be_drawn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ImportError("no libEGL")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(egl_context, "EGLGLContext", fail)
    with pytest.raises(SimulationError, match=r"MUJOCO_GL=egl.*no libEGL.*libegl1 and libgl1-mesa-dri"):
        make_robosuite_env(default_env_args("pick-place-tray"))


def test_error_without_a_display_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glx")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(SimulationError, match=r"MUJOCO_GL=glx .*needs a display.*; set MUJOCO_GL=egl"):
        make_robosuite_env(default_env_args("pick-place-tray"))

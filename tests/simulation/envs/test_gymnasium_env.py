"""Environments of Gymnasium: observations and actions are of the same form as robosuite's."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

import tests.toy_gym  # noqa: F401 (what is registered already may be named)
from pixelrl.runtime.env_args import control_freq_of
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.gymnasium_env import GymnasiumEnv, resized
from pixelrl.simulation.envs.make import make_env, named_env_args, with_cameras

TOY = "gym:tests.toy_gym:Toy/Reach-v0"


def toy(name: str = TOY, cameras: dict[str, Any] | None = None, **options: Any) -> GymnasiumEnv:
    env = make_env(named_env_args(name, **options) | ({"cameras": cameras} if cameras else {}))
    assert isinstance(env, GymnasiumEnv)
    return env


def shapes(env: GymnasiumEnv) -> dict[str, tuple[str, tuple[int, ...]]]:
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation) and info == {"success": False}
    return {key: (value.dtype.name, value.shape) for key, value in observation.items()}


def test_pictures_and_vectors_get_names_and_are_upright() -> None:
    env = toy()
    assert shapes(env) == {"pos": ("float32", (2,)), "pixels_front_image": ("uint8", (8, 16, 3))}
    picture = env.reset(seed=3)[0]["pixels_front_image"]
    assert picture[0].tolist() == [[10, 20, 30]] * 16 and (picture[1:] == picture[1]).all()
    assert shapes(toy(kind="bare")) == {"pixels_image": ("uint8", (8, 16, 3))}
    assert shapes(toy(kind="blind")) == {"state": ("float32", (2,)), "render_image": ("uint8", (20, 40, 3))}


def test_environment_says_how_to_make_it_again() -> None:
    env = toy(kind="bare")
    assert env.env_args["cameras"] == {"pixels": {"source": "pixels", "height": 8, "width": 16}}
    assert control_freq_of(env.env_args) == env.control_freq == 5
    again = make_env(env.env_args)
    np.testing.assert_array_equal(again.reset(seed=9)[0]["pixels_image"], env.reset(seed=9)[0]["pixels_image"])
    assert env.picture(30).shape == (30, 30, 3)
    assert env.picture(30)[:7].max() == 0 < env.picture(30)[8:22].max(), "bars above and below"


def test_cameras_are_chosen_renamed_and_resized() -> None:
    sizes = {"agentview_image": (4, 8), "wrist_image": (10, 20)}
    args = with_cameras(named_env_args(TOY), sizes, {"agentview": "pixels_front", "wrist": "render"})
    observation, _ = make_env(args).reset(seed=3)
    assert {key: value.shape for key, value in observation.items() if value.ndim == 3} == {
        "agentview_image": (4, 8, 3),
        "wrist_image": (10, 20, 3),
    }
    block = np.arange(16, dtype=np.uint8).reshape(2, 8)[..., None].repeat(3, axis=2)
    # the mean of 0, 1, 8, 9 is 4.5, of 2, 3, 10, 11 is 6.5, ...; halves go up
    assert resized(block, 1, 4)[0, :, 0].tolist() == [5, 7, 9, 11]
    kept = with_cameras(toy().env_args, {"pixels_front_image": (8, 16)}, {})
    assert kept["cameras"]["pixels_front"] == {"source": "pixels_front", "height": 8, "width": 16}


def test_actions_are_in_the_units_of_the_box() -> None:
    env = toy(kind="blind")
    assert [(dim.low, dim.high) for dim in env.action_dims] == [(-2, 2), (0, 4)]
    env.reset(seed=0)
    env.step(np.array([0.5, -1.0]))
    assert env._env.unwrapped.action.tolist() == [1.0, 0.0]  # type: ignore[attr-defined]
    env.step(np.array([7.0, 0.25]))
    assert env._env.unwrapped.action.tolist() == [2.0, 2.5]  # type: ignore[attr-defined]
    with pytest.raises(SimulationError, match=r"Toy/Reach-v0: the action has shape \(3,\), not \(2,\)"):
        env.step(np.zeros(3))


class Buffered(gymnasium.Env[Any, Any]):
    """An environment that uses its buffers again, bounds its actions on one side, and pays in arrays."""

    observation_space = Dict({"top": Box(0, 255, (8, 8, 3), np.uint8), "clock": Box(0, 255, (1,))})
    action_space = Box(np.array([0, -np.inf, -np.inf], np.float32), np.array([np.inf, 0.5, np.inf], np.float32))

    def __init__(self, reward: Any = (1.0,)) -> None:
        self.picture, self.clock = np.zeros((8, 8, 3), np.uint8), np.zeros(1, np.float32)
        self.reward = np.array(reward)

    def reset(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self.picture[:], self.clock[:] = 0, 0
        return {"top": self.picture, "clock": self.clock}, {}

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        self.action = action
        self.picture += 1
        self.clock += 1
        return {"top": self.picture, "clock": self.clock}, self.reward, True, False, {}


def test_what_was_observed_stays_where_an_environment_uses_its_buffers_again() -> None:
    env = GymnasiumEnv(Buffered(), {"env_name": "buffered"})
    seen = [env.reset()[0], *(env.step(np.zeros(3))[0] for _ in range(2))]
    assert [(int(each["top_image"][0, 0, 0]), float(each["clock"][0])) for each in seen] == [(0, 0), (1, 1), (2, 2)]


def test_action_stays_within_the_one_bound_that_there_is() -> None:
    env = GymnasiumEnv(made := Buffered(), {"env_name": "half"})
    env.step(np.array([-1.0, 1.0, 1.0]))
    assert made.action.tolist() == [0.0, 0.5, 1.0] and made.action_space.contains(made.action)


def test_reward_is_one_number_whatever_its_shape() -> None:
    _, reward, _, _, info = GymnasiumEnv(Buffered(), {"env_name": "array"}).step(np.zeros(3))
    assert (reward, info) == (1.0, {"success": True}) and type(reward) is float
    with pytest.raises(SimulationError, match=r"gym:two: the reward has shape \(2,\); expected one number"):
        GymnasiumEnv(Buffered((1.0, 2.0)), {"env_name": "two"}).step(np.zeros(3))


@pytest.mark.parametrize("says", ["is_success", "success", "nothing"])
def test_success_ends_the_episode_however_it_is_told(says: str) -> None:
    env = toy(says=says)
    env.reset(seed=1)
    ends = []
    while not ends or not (ends[-1][0] or ends[-1][1]):
        _, _, terminated, truncated, info = env.step(np.array([1.0, -1.0]))
        assert info == {"success": terminated}
        ends.append((terminated, truncated))
    assert ends[-1] == (True, False) and 3 <= len(ends) <= 8  # 0.2 a step, from between -0.5 and 0.5 to 1
    env.reset(seed=1)
    assert [env.step(np.array([-1.0, 0.0]))[2:4] for _ in range(12)][-1] == (False, True)


def test_environment_without_an_end_gets_one() -> None:
    env = toy("gym:tests.toy_gym:Toy/Endless-v0", kind="bare")
    env.reset(seed=0)
    for step in range(1000):
        truncated = env.step(np.array([-0.1, 0.0]))[3]
        assert truncated == (step == 999)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gym:Nope-v3", {}, "gym:Nope-v3: cannot be made: .*exist.*gym:PACKAGE:ID"),
        ("gym:tests.toy_gym:Toy/Rich-v0", {}, "Did you mean: `Reach`"),
        ("gym:no_such_package:A-v0", {}, "No module named 'no_such_package'; install the package"),
        ("gym:CartPole-v1", {}, r"takes actions of Discrete\(2\); a policy gives those of a Box"),
        ("gym:tests.toy_gym:Toy/Screen-v0", {}, "cannot draw here .No available video device.; set MUJOCO_GL=egl"),
        (TOY, {"env_kwargs": {"colour": "red"}}, "unexpected keyword argument 'colour'"),
        (TOY, {"env_kwargs": {"kind": "blind", "render_mode": None}}, "shows no picture"),
        (TOY, {"cameras": {"wrist": {}}}, "has no camera 'wrist'; it has: pixels_front, render"),
        ("gym:Lift", {"type": 3}, "type 3, but only 1"),
    ],
)
def test_environment_that_cannot_be_made_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        make_env(named_env_args(name) | change, allow_import=("tests.toy_gym", "no_such_package"))


def test_cameras_that_nobody_has_are_named() -> None:
    for args, sources, message in (
        (named_env_args(TOY), {"wrist": "render"}, "no camera 'wrist' to find a source for, but: front"),
        (
            named_env_args("Lift"),
            {"front": "agentview"},
            "Lift: the cameras of robosuite's tasks go by their own names",
        ),
    ):
        with pytest.raises(SimulationError, match=message):
            with_cameras(args, {"front_image": (8, 8)}, sources)
    with pytest.raises(SimulationError, match="rgb: not a camera"):
        with_cameras(named_env_args(TOY), {"rgb": (8, 8)}, {})


@pytest.mark.parametrize(
    ("package", "name", "options", "expected"),
    [
        (
            "gymnasium",
            "gym:Reacher-v5",
            {"width": 32, "height": 24},
            {"render_image": (24, 32, 3), "state": (10,)},
        ),
        (
            "gym_pusht",
            "gym:gym_pusht:gym_pusht/PushT-v0",
            {"obs_type": "pixels_agent_pos"},
            {"pixels_image": (96, 96, 3), "agent_pos": (2,)},
        ),
        (
            "gymnasium_robotics",
            "gym:gymnasium_robotics:FetchReach-v4",
            {"width": 32, "height": 32},
            {"render_image": (32, 32, 3), "observation": (10,), "achieved_goal": (3,), "desired_goal": (3,)},
        ),
    ],
)
def test_environments_of_other_packages(
    package: str, name: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    pytest.importorskip(package)
    env = toy(name, **options)
    try:
        assert {key: shape for key, (_, shape) in shapes(env).items()} == expected
        observation, *_ = env.step(np.zeros(env.action_space.shape))
        again = env.reset(seed=4)[0], env.reset(seed=4)[0]
        for key in expected:
            np.testing.assert_array_equal(again[0][key], again[1][key])
        assert env.observation_space.contains(observation) and env.control_freq
        assert env.picture(40).std() > 0
    finally:
        env.close()


def test_control_rate_is_where_either_kind_says_it() -> None:
    for args, expected in (
        ({"env_kwargs": {"control_freq": 20}}, 20.0),
        ({"env_kwargs": {}, "control_freq": 5.0}, 5.0),
        ({"env_kwargs": {"control_freq": "fast"}}, None),
        ({"env_kwargs": None, "control_freq": None}, None),
        ({}, None),
    ):
        assert control_freq_of(args) == expected

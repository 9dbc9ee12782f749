"""Recorded states, seen again: the same pictures, and the same futures."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.controllers import translated
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.playback.replay import RawEpisode, render_raw_episode, straying
from pixelrl.simulation.tasks.scripted.collect import record_episode
from tests import ROOT

OLD = ROOT / "tests/data/two_arm_lift_1_4_1.json.gz"
"""Nine states and eight random actions, recorded with robosuite 1.4.1 and MuJoCo 2.3.7."""


@pytest.fixture(scope="module")
def tray() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(default_env_args("pick-place-tray", size=32))
    yield env
    env.close()


@pytest.fixture(scope="module")
def placed(tray: RobosuiteEnv) -> Episode:
    """A placing that succeeds."""
    episodes = (record_episode(tray, "task", seed) for seed in range(9))
    return next(episode for episode in episodes if episode.dones.any())


def recording(episode: Episode, **changes: Any) -> RawEpisode:
    """Return what robomimic would have kept of an episode."""
    assert episode.states is not None
    plain = RawEpisode(
        states=episode.states[:-1], actions=episode.actions.astype(np.float64), notes={"seed": episode.notes["seed"]}
    )
    return replace(plain, **changes)


def played(env: RobosuiteEnv, seed: int, steps: int) -> tuple[RawEpisode, list[Any], list[float]]:
    """Record as robosuite's collecting script does: the scene is written down, and rebuilt from that."""
    env.reset(seed=seed)
    scene, state = env.robosuite.sim.model.get_xml(), env.state()
    env.robosuite.reset_from_xml_string(scene)
    observations, states, actions, rewards = [env.restore(state)], [state], [], []
    random = np.random.default_rng(seed)
    for _ in range(steps):
        action = random.uniform(-1, 1, env.action_space.shape)
        observation, reward, *_ = env.step(action)
        actions.append(action)
        observations.append(observation)
        states.append(env.state())
        rewards.append(reward)
    return RawEpisode(states=np.stack(states[:-1]), actions=np.stack(actions), scene=scene), observations, rewards


def assert_sees(episode: Episode, observations: list[Any]) -> None:
    """Compare every number and pixel."""
    for key in observations[0]:
        if not key.endswith("_joint_acc"):
            np.testing.assert_array_equal(episode.sensors[key], np.stack([each[key] for each in observations]), key)
    assert set(episode.sensors) == {key for key in observations[0] if not key.endswith("_joint_acc")}


def test_episode_of_the_tray_is_redrawn_to_the_last_bit(tray: RobosuiteEnv, placed: Episode) -> None:
    record_episode(tray, "prior", 3)
    episode = render_raw_episode(tray, recording(placed))
    for key in placed.sensors:
        np.testing.assert_array_equal(episode.sensors[key], placed.sensors[key], key)
    for name in ("states", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(episode, name), getattr(placed, name), name)
    facts = episode.notes["render"]
    assert facts["exact"] and facts["qpos_max"] == facts["eef_max"] == facts["qpos_mean"] == facts["eef_mean"] == 0
    assert facts["instants"] == len(placed) - 1
    assert facts["rewards"] == "computed" and episode.notes["seed"] == placed.notes["seed"]


def test_replay_without_its_seed_strays_but_no_picture_of_a_recorded_state_does(
    tray: RobosuiteEnv, placed: Episode
) -> None:
    assert placed.states is not None
    episode = render_raw_episode(tray, recording(placed, notes={}, states=placed.states))
    for key in placed.sensors:
        np.testing.assert_array_equal(episode.sensors[key], placed.sensors[key], key)
    facts = episode.notes["render"]
    assert not facts["exact"] and 0 < facts["eef_mean"] < facts["eef_max"] < 0.01
    assert facts["instants"] == len(placed)


def test_other_actions_lead_elsewhere(tray: RobosuiteEnv, placed: Episode) -> None:
    wrong = recording(placed, actions=-placed.actions.astype(np.float64))
    episode = render_raw_episode(tray, wrong)
    assert episode.notes["render"]["eef_max"] > 0.1
    last = np.diff(episode.sensors["robot0_eef_pos"], axis=0)[-1]
    assert np.linalg.norm(last) < 0.09, "the last step begins in the last recorded state, wherever the replay is"
    np.testing.assert_array_equal(
        episode.sensors["agentview_image"][:-1],
        placed.sensors["agentview_image"][:-1],
        "the states decide, not actions",
    )
    assert (episode.sensors["agentview_image"][-1] != placed.sensors["agentview_image"][-1]).any()


def test_last_action_goes_without_a_replay(tray: RobosuiteEnv, placed: Episode) -> None:
    episode = render_raw_episode(tray, recording(placed), replay=False)
    np.testing.assert_array_equal(episode.sensors["agentview_image"], placed.sensors["agentview_image"][:-1])
    np.testing.assert_array_equal(episode.dones, placed.dones[:-1])
    assert len(episode) == len(placed) - 1
    assert "qpos_max" not in episode.notes["render"]
    assert placed.states is not None
    with pytest.raises(SimulationError, match=r"one state, and no replay"):
        render_raw_episode(tray, recording(placed, states=placed.states[:1], actions=np.zeros((1, 4))), replay=False)


def test_recorded_rewards_are_kept_and_dones_are_judged(tray: RobosuiteEnv, placed: Episode) -> None:
    rewards = np.linspace(0, 1, len(placed), dtype=np.float32)
    episode = render_raw_episode(tray, recording(placed, rewards=rewards))
    np.testing.assert_array_equal(episode.rewards, rewards)
    np.testing.assert_array_equal(episode.dones, placed.dones)
    assert episode.notes["render"]["rewards"] == "recorded"


def test_written_scene_of_the_tray_serves_too(tray: RobosuiteEnv) -> None:
    made, observations, rewards = played(tray, 2, 5)
    episode = render_raw_episode(tray, made)
    assert_sees(episode, observations)
    assert episode.notes["render"]["exact"] and episode.rewards.tolist() == rewards
    assert episode.attributes == {"model_file": made.scene}


def test_recording_that_does_not_fit_is_named(tray: RobosuiteEnv) -> None:
    made, observations, _ = played(tray, 2, 1)
    assert made.scene is not None
    for change, message in (
        ({"scene": made.scene.replace('"agentview"', '"above"')}, r"no camera 'agentview'; it has: .*above"),
        (
            {"scene": made.scene.replace('"robot0_joint1"', '"j"')},
            r"not make a scene of PickPlaceTray \(.*robot0_joint1",
        ),
        ({"scene": "<mujoco><worldbody><thing/></worldbody></mujoco>"}, r"does not make a scene of PickPlaceTray"),
        ({"states": made.states[:, 1:]}, r"a state of 31 numbers; the model has 32: time, qpos, qvel"),
        ({"actions": made.actions[:, 1:]}, r"actions of 3 numbers; the task takes 4"),
    ):
        with pytest.raises(SimulationError, match=message):
            render_raw_episode(tray, replace(made, **change))
    assert_sees(render_raw_episode(tray, made), observations)  # none of that was left behind


def test_lift_is_redrawn_to_the_last_bit_in_its_own_scene() -> None:
    env = make_robosuite_env(default_env_args("Lift", size=32))
    try:
        one, observations, rewards = played(env, 1, 4)
        env.reset(seed=2)  # another scene: the cube has another size
        episode = render_raw_episode(env, one)
        assert_sees(episode, observations)
        assert episode.notes["render"]["exact"] and episode.rewards.tolist() == rewards
        with pytest.raises(SimulationError, match=r"no model_file; Lift needs its MJCF"):
            render_raw_episode(env, replace(one, scene=None))
    finally:
        env.close()


def test_recording_of_robosuite_1_4_is_understood() -> None:
    """Its robots face each other, so actions read in the wrong frame would lead elsewhere at once (by 4 rad)."""
    held = json.loads(gzip.decompress(OLD.read_bytes()))
    options = held["env_info"] | {"control_freq": 20, "camera_names": ["agentview"], "camera_heights": 32}
    del options["env_name"]
    args = {"env_name": held["env"], "env_version": held["repository_version"], "env_kwargs": options}
    old = RawEpisode(
        states=np.array(held["states"]), actions=np.array(held["actions"]), scene=held["model_file"], old=True
    )
    env = make_robosuite_env(translated(args))
    try:
        episode = render_raw_episode(env, old)
        facts = episode.notes["render"]
        assert 0 < facts["eef_max"] < 0.001 and facts["qpos_max"] < 0.02
        assert episode.states is not None
        np.testing.assert_array_equal(episode.states[:-1], old.states)
        np.testing.assert_allclose(episode.states[-1][1:26], held["last"][1:26], atol=0.01)
        again = RawEpisode(
            states=old.states, actions=episode.actions.astype(np.float64), scene=episode.attributes["model_file"]
        )
        np.testing.assert_array_equal(
            render_raw_episode(env, again).sensors["agentview_image"][:-1], episode.sensors["agentview_image"][:-1]
        )
    finally:
        env.close()


def test_tasks_with_a_memory_of_their_own_are_refused(tray: RobosuiteEnv, placed: Episode) -> None:
    tray.robosuite.wiped_markers = []
    try:
        with pytest.raises(SimulationError, match=r"outside of MuJoCo's state"):
            render_raw_episode(tray, recording(placed))
    finally:
        del tray.robosuite.wiped_markers


def test_distances_by_hand() -> None:
    recorded = np.zeros((3, 5))  # time, two joints, two velocities
    reached = np.array([[0, 9, 9, 9, 9], [1, 3, 4, 7, 7], [2, 0, 1, 0, 0]], float)
    hands = np.zeros((3, 2, 3))
    moved = np.array([[[9, 9, 9]] * 2, [[0.3, 0, 0.4], [0, 0, 0.1]], [[0, 0, 0], [0.1, 0, 0]]])
    assert straying(reached, recorded, moved, hands, slice(1, 3)) == {
        "instants": 2,
        "exact": False,
        "qpos_max": 5.0,
        "qpos_mean": 3.0,
        "eef_max": 0.5,
        "eef_mean": pytest.approx(0.3),
    }
    alone = straying(reached[:1], reached[:1], moved[:1], moved[:1], slice(1, 3))
    assert alone == {"instants": 0, "exact": True, "qpos_max": 0, "qpos_mean": 0, "eef_max": 0, "eef_mean": 0}


def test_digest_knows_everything(placed: Episode) -> None:
    base = recording(placed)
    assert base.digest() == recording(placed).digest()
    changes: list[dict[str, Any]] = [
        {"states": base.states + 1e-12},
        {"actions": base.actions * 0.5},
        {"rewards": np.zeros(len(placed), np.float32)},
        {"scene": "<mujoco/>"},
        {"meta": {"lang": "x"}},
        {"old": True},
        {"notes": {}},
    ]
    assert len({base.digest(), *(replace(base, **change).digest() for change in changes)}) == 8

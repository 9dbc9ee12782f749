"""Scripted data: as good and as bad as they should be, and the same for any number of workers."""

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.launch.commands.collect import Collect
from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.tasks.scripted.collect import collect, record_episode
from tests.dots import ACTION, dot_episodes

ARGS = default_env_args("pick-place-tray", size=32)


@pytest.fixture(scope="module")
def env() -> Iterator[RobosuiteEnv]:
    env = make_robosuite_env(ARGS)
    yield env
    env.close()


def assert_same(one: Episode, other: Episode) -> None:
    assert one.notes == other.notes
    for name in ("actions", "rewards", "dones", "states"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for key in one.sensors:
        np.testing.assert_array_equal(one.sensors[key], other.sensors[key])


def test_episodes_do_not_depend_on_workers_process_or_history(env: RobosuiteEnv) -> None:
    alone = list(collect(ARGS, "task", episodes=5, seed=1, workers=1))
    endless = collect(ARGS, "task", episodes=10**6, seed=1, workers=2, start=2)
    together = list(islice(endless, 3))
    assert len(multiprocessing.active_children()) == 2
    endless.close()
    assert not multiprocessing.active_children(), "closing the iterator ends the workers"
    assert [e.notes["seed"] for e in alone] == [derive(1, "task", i) for i in range(5)]
    for one, other in zip(alone[2:], together, strict=True):
        assert_same(one, other)
    record_episode(env, "prior", 0)
    assert_same(record_episode(env, "task", derive(1, "task", 3)), alone[3])


def test_prior_picks_mostly_but_not_always_and_is_never_rewarded(env: RobosuiteEnv) -> None:
    episodes = [record_episode(env, "prior", seed) for seed in range(30)]
    assert 15 <= sum(e.notes["success"] for e in episodes) <= 28
    assert all(e.rewards.sum() == 0 and not e.dones.any() and len(e) == 24 for e in episodes)
    for episode in episodes:
        if episode.notes["success"]:  # what is lifted comes to where the task data begin
            back = np.linalg.norm(episode.sensors["robot0_eef_pos"][6:] - env.robosuite.neutral_pos, axis=1)
            assert back.min() < 0.05


def test_task_places_mostly_and_goes_on_after_success(env: RobosuiteEnv) -> None:
    episodes = [record_episode(env, "task", seed) for seed in range(30)]
    successes = [e for e in episodes if e.notes["success"]]
    assert 20 <= len(successes) <= 29
    assert all(len(e) <= 16 + 3 for e in episodes)
    for episode in successes:
        first = int(episode.dones.argmax())
        assert len(episode) == first + 4
        np.testing.assert_array_equal(episode.rewards, episode.dones.astype(np.float32))


def test_episode_has_the_promised_shapes(env: RobosuiteEnv) -> None:
    episode = record_episode(env, "task", 0)
    n = len(episode)
    assert episode.actions.dtype == np.float32 and episode.actions.shape == (n, 4)
    assert np.abs(episode.actions).max() <= np.float32(0.9)
    assert episode.sensors["agentview_image"].shape == (n + 1, 32, 32, 3)
    assert episode.states is not None
    assert episode.states.shape == (n + 1, env.state().size) and episode.states.dtype == np.float64
    assert episode.rewards.dtype == np.float32 and episode.dones.dtype == np.bool_


def test_worker_that_dies_is_replaced_and_changes_no_episode(env: RobosuiteEnv) -> None:
    episodes = collect(ARGS, "prior", episodes=1000, seed=0, workers=1)
    next(episodes)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    assert_same(next(episodes), record_episode(env, "prior", derive(0, "prior", 1)))
    assert_same(next(episodes), record_episode(env, "prior", derive(0, "prior", 2)))
    episodes.close()
    assert not multiprocessing.active_children()


def test_error_in_a_worker_arrives_as_it_was() -> None:
    broken = default_env_args("pick-place-tray", camera_names=["front"])
    with pytest.raises(SimulationError, match=r"a worker cannot be started: .*no camera 'front'"):
        list(collect(broken, "prior", episodes=2, seed=0, workers=1))
    assert not multiprocessing.active_children()


def test_collection_that_cannot_be_made_is_named() -> None:
    with pytest.raises(SimulationError, match=r"no part 'placing'.*prior, task, oracle"):
        next(collect(ARGS, "placing", episodes=1, seed=0))
    with pytest.raises(SimulationError, match=r"for pick-place-tray, drawer-grasp, .* only, not for Lift"):
        next(collect(default_env_args("Lift"), "prior", episodes=1, seed=0))
    with pytest.raises(SimulationError, match=r"workers is 0"):
        next(collect(ARGS, "prior", episodes=1, seed=0, workers=0))


def test_interrupted_collection_goes_on_and_becomes_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With episodes that need no simulator: that real ones depend on seed, part and index alone is tested above."""
    monkeypatch.setenv("COLUMNS", "300")
    straight = Collect(
        task="pick-place-tray", part="task", out=tmp_path / "a.hdf5", episodes=5, seed=1, workers=2, size=(32, 32)
    )
    resumed = replace(straight, out=tmp_path / "b.hdf5")
    stop_after = 5

    def dots(_: Any, part: str, *, episodes: int, seed: int, start: int, **others: Any) -> Iterator[Episode]:
        for index in range(start, episodes):
            if index == start + stop_after:
                raise KeyboardInterrupt
            episode = next(dot_episodes("task", 1, seed=derive(seed, part, index)))
            notes = {"seed": derive(seed, part, index), "part": part, "held_at_start": index < 2, "whole_task": False}
            yield replace(episode, notes={**episode.notes, **notes})

    env = SimpleNamespace(action_dims=ACTION, close=lambda: None)
    monkeypatch.setattr("pixelrl.simulation.envs.robosuite_env.make_robosuite_env", lambda _: env)
    monkeypatch.setattr("pixelrl.simulation.tasks.scripted.collect.collect", dots)
    straight()

    stop_after = 2
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            resumed()
        assert not resumed.out.exists()
    stop_after = 5
    assert "b.hdf5.parts: holds 4 episodes; the same command goes on with it" in capsys.readouterr().out

    for part, other, message in (
        ("task", {"seed": 2}, r"b\.hdf5\.parts: episode 0 is of seed \d+; the one to be collected, of \d+: give"),
        ("prior", {}, r"b\.hdf5\.parts: episode 0 is of part task; the one to be collected, of prior: give"),
        ("task", {"size": (40, 40)}, r"b\.hdf5\.parts: was begun with another env_args"),
        ("task", {"episodes": 3}, r"b\.hdf5\.parts: holds 4 episodes already; expected at most --episodes 3"),
    ):
        with pytest.raises(PixelrlError, match=message):
            replace(resumed, part=part, **other)()

    replace(resumed, workers=1)()
    assert "goes on behind the 4 episodes that it holds" in capsys.readouterr().out
    assert resumed.out.read_bytes() == straight.out.read_bytes()
    first, second = (json.loads(each.out.with_suffix(".collection.json").read_text()) for each in (straight, resumed))
    assert second["resumed_behind"] == 4
    counts = ("episodes", "successes", "held_at_start", "rewarded", "whole_task", "transitions")
    assert {key: second[key] for key in counts} == {key: first[key] for key in counts}
    assert sorted(each.name for each in tmp_path.glob("b*")) == ["b.collection.json", "b.hdf5"]

"""Rollouts: every episode counts once, whichever worker plays it, and failures have names."""

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.make import named_env_args
from pixelrl.simulation.evaluation.rollout import EpisodeJob, EpisodePlayer, Outcome, evaluate, rollout
from pixelrl.simulation.workers import process_pool
from pixelrl.simulation.workers.pool import Done
from pixelrl.simulation.workers.process_pool import WorkerPool
from tests.simulation.workers.test_process_pool import first


class Walk(gymnasium.Env[Any, Any]):
    """Walk along a line from a random start to beyond 1 within 12 steps; some starts are hopeless."""

    observation_space = gymnasium.spaces.Dict(
        {
            "camera_image": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "position": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-2, 1)
        self.steps = 0
        return self.sense(), {}

    def step(self, action: NDArray[np.float32]) -> Any:
        assert self.steps < 12, "stepped beyond the end"
        self.steps += 1
        self.position += 0.2 * float(action[0])
        success = self.position > 1
        return self.sense(), float(success), success, self.steps == 12, {"success": success, "note": "ignored"}

    def sense(self) -> dict[str, NDArray[Any]]:
        shade = np.uint8(np.clip(60 * (self.position + 2), 0, 255))
        return {
            "camera_image": np.full((4, 4, 3), shade),
            "position": np.array([self.position], np.float32),
        }

    def picture(self, size: int) -> NDArray[np.uint8]:
        return np.full((size, size, 3), self.steps, np.uint8)


class Undrawable(Walk):
    """An environment that says why it cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no GL context")


class Unpicklable(Exception):
    """What breaks naive transport between processes: it cannot be rebuilt from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("100 % wrong")


class Crash(Walk):
    def step(self, action: NDArray[np.float32]) -> Any:
        if self.steps == 2:
            raise Unpicklable(1, 2)
        return super().step(action)


class Fail(Walk):
    """At its third step the worker dies, hangs, or senses nonsense: always, or only where a marker file is not yet."""

    def __init__(self, how: str, marker: Path | None = None) -> None:
        self.how, self.marker = how, marker

    def step(self, action: NDArray[np.float32]) -> Any:
        if self.steps == 2 and first(self.marker):
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                threading.Event().wait()
            if self.how == "nan":
                self.position = np.nan
        sensors, reward, *rest = super().step(action)
        return sensors, np.inf if self.how == "inf" else reward, *rest


def walk(sensors: Sensors) -> NDArray[np.float32]:
    """Walk faster the brighter the picture."""
    speed = 0.6 + sensors["camera_image"][..., -3:].mean(axis=(1, 2, 3)) / 510
    return np.stack([speed, 0 * speed], axis=1, dtype=np.float32, casting="same_kind")


@dataclass(frozen=True)
class Spy:
    """Walks, and writes the shades of the pictures that it sees into a file, a line a step."""

    path: Path

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        stack = sensors["camera_image"]
        assert stack.shape == (1, 4, 4, 9)
        with self.path.open("a") as file:
            file.write(json.dumps(stack[0, 0, 0, ::3].tolist()) + "\n")
        return walk(sensors)


@dataclass(frozen=True)
class Constant:
    """Acts always alike."""

    actions: NDArray[np.float32]

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        return self.actions


def without_torch(sensors: Sensors) -> NDArray[np.float32]:
    """Fail if torch was imported."""
    assert "torch" not in sys.modules and "onnxruntime" not in sys.modules
    return walk(sensors)


def positions(sensors: Sensors) -> NDArray[np.float32]:
    """Be two critics."""
    assert sensors["position"].shape == (1, 1)
    return np.concatenate([sensors["position"], -sensors["position"]], axis=1)


def play(make: Any = Walk, policy: Any = walk, **options: Any) -> list[Outcome]:
    outcomes = list(rollout(policy, make, **{"episodes": 7, "seed": 3, "workers": 1} | options))
    return sorted(outcomes, key=lambda outcome: outcome.index)


def test_outcomes_depend_on_policy_seed_and_index_alone() -> None:
    alone = play(workers=1)
    assert alone == play(workers=3)
    assert [outcome.index for outcome in alone] == list(range(7))
    assert [outcome.seed for outcome in alone] == [derive(3, "evaluate", index) for index in range(7)]
    assert {outcome.success for outcome in alone} == {True, False}
    for outcome in alone:
        env = Walk()
        sensors, _ = env.reset(seed=outcome.seed)
        terminated = truncated = False
        while not (terminated or truncated):
            rows = {key: value[None] for key, value in sensors.items()}
            sensors, reward, terminated, truncated, _ = env.step(walk(rows)[0])
        assert (outcome.length, outcome.return_, outcome.success) == (env.steps, reward, terminated)


def test_policy_with_a_history_sees_its_own_episode_only(tmp_path: Path) -> None:
    outcomes = play(policy=Spy(tmp_path / "seen"), history=3)
    assert outcomes == play(workers=2)
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    for outcome in outcomes:
        env = Walk()
        shades = [int(env.reset(seed=outcome.seed)[0]["camera_image"][0, 0, 0])]
        for _ in range(outcome.length - 1):
            rows = np.full((1, 4, 4, 3), shades[-1])
            shades.append(int(env.step(walk({"camera_image": rows})[0])[0]["camera_image"][0, 0, 0]))
        expected = [[shades[max(0, step - back)] for back in (2, 1, 0)] for step in range(outcome.length)]
        assert seen[: outcome.length] == expected, "the first picture stands for those that are missing"
        del seen[: outcome.length]
    assert not seen


def test_frames_are_kept_of_the_first_episodes_from_the_start_to_the_end() -> None:
    outcomes = play(workers=2, videos=2, video_size=6, episodes=4)
    assert [outcome.frames is not None for outcome in outcomes] == [True, True, False, False]
    for outcome in outcomes[:2]:
        assert outcome.frames is not None
        assert outcome.frames.shape == (outcome.length + 1, 6, 6, 3)
        assert outcome.frames[:, 0, 0, 0].tolist() == list(range(outcome.length + 1))


def test_episodes_played_again_are_the_same_ones() -> None:
    outcomes = play(workers=2)
    again = play(only=[5, 2], videos=7, video_size=4, workers=3)
    assert [outcome.index for outcome in again] == [2, 5]
    for outcome in again:
        assert outcome.frames is not None and len(outcome.frames) == outcome.length + 1
        assert replace(outcome, frames=None) == outcomes[outcome.index]


def test_critics_see_what_the_policy_sees_and_change_nothing() -> None:
    outcomes = play(workers=2, critics=positions)
    assert [replace(outcome, values=None) for outcome in outcomes] == play(workers=1)
    for outcome in outcomes:
        assert outcome.values is not None and outcome.values.shape == (outcome.length, 2)
        env = Walk()
        assert outcome.values[0].tolist() == [start := env.reset(seed=outcome.seed)[0]["position"][0], -start]


def test_crash_in_an_environment_names_the_episode_and_ends_the_workers() -> None:
    seed = derive(3, "evaluate", 0)
    with pytest.raises(SimulationError, match=rf"episode 0 \(seed {seed}\): after 2 steps: .*100 % wrong") as crash:
        play(Crash)
    assert "raise Unpicklable(1, 2)" in crash.value.__notes__[0]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("how", ["die", "hang"])
def test_lost_worker_changes_no_outcome(how: str, tmp_path: Path) -> None:
    whole = play(workers=2, videos=7, video_size=4)
    outcomes = play(partial(Fail, how, tmp_path / how), workers=2, videos=7, video_size=4, time_limit=3)
    for outcome, other in zip(outcomes, whole, strict=True):
        np.testing.assert_array_equal(outcome.frames, other.frames)
        assert replace(outcome, frames=None) == replace(other, frames=None)
    assert (sum(each.restarts for each in outcomes), sum(each.restarts for each in whole)) == (1, 0)
    assert multiprocessing.active_children() == []


def test_worker_that_cannot_make_its_environment_says_why() -> None:
    with pytest.raises(SimulationError, match=r"cannot be started: RuntimeError: no GL context") as crash:
        play(Undrawable)
    assert "raise RuntimeError" in crash.value.__notes__[0]


def test_episode_that_loses_every_worker_is_named() -> None:
    seed = derive(3, "evaluate", 0)
    with pytest.raises(SimulationError, match=rf"episode 0 \(seed {seed}\): .* died.*exit code -9; .* begun 3 times"):
        play(partial(Fail, "die"))
    assert multiprocessing.active_children() == []


def test_nonsense_from_an_environment_is_refused() -> None:
    with pytest.raises(SimulationError, match=r"episode 0 .*after 2 steps: .*'position' holds NaN or an infinity"):
        play(partial(Fail, "nan"))
    with pytest.raises(SimulationError, match=r"episode 0 .*after 0 steps: .*reward is inf; expected a finite"):
        play(partial(Fail, "inf"))


def test_options_out_of_range_are_refused() -> None:
    for options, message in (({"time_limit": 0}, "limit of a step is 0 s"), ({"workers": 0}, "got 7 and 0")):
        with pytest.raises(SimulationError, match=message):
            play(**options)


@dataclass(frozen=True)
class Backwards:
    """Another pool, say a cluster: it does the jobs elsewhere and in another order."""

    def run(self, open_worker: Any, jobs: Iterable[tuple[str, Any]], **options: Any) -> Iterator[Done[Any]]:
        for index, (name, job) in reversed(list(enumerate(jobs))):
            for done in WorkerPool(1).run(open_worker, [(name, job)], **options):
                yield replace(done, index=index)


def test_pool_that_is_given_gets_the_jobs() -> None:
    assert play(pool=Backwards(), episodes=2) == play(episodes=2)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((1, 2), np.nan, np.float32), r"episode 0 .*not finite: \[nan, nan\]"),
        (np.zeros((1, 3), np.float32), r"shape \(1, 3\), not \(1, 2\)"),
    ],
)
def test_bad_action_is_refused(actions: NDArray[np.float32], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        play(policy=Constant(actions))


def test_policy_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(SimulationError, match="policy and environment cannot be sent to worker processes"):
        play(policy=lambda sensors: walk(sensors))


def test_closing_the_rollout_ends_the_workers() -> None:
    outcomes = rollout(walk, Walk, episodes=7, seed=3, workers=2)
    next(outcomes)
    assert len(multiprocessing.active_children()) == 2
    outcomes.close()
    assert multiprocessing.active_children() == []


def test_worker_imports_neither_torch_nor_onnxruntime_unless_its_policy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cost seconds and hundreds of megabytes in every one of them."""
    monkeypatch.setattr(process_pool, "START_METHOD", "spawn")
    assert play(policy=without_torch, workers=2) == play()


def test_evaluate_makes_the_environment_of_env_args() -> None:
    toy = named_env_args("gym:tests.toy_gym:Toy/Reach-v0")
    policy = Constant(np.array([[0.9, -1.0]], np.float32))
    outcomes = evaluate(policy, toy, episodes=3, seed=1, workers=2, allow_import=["tests.toy_gym"])
    assert [(outcome.index, outcome.success) for outcome in outcomes] == [(0, True), (1, True), (2, True)]
    with pytest.raises(PixelrlError, match="give its env_args"):
        evaluate(policy)


def test_evaluate_imports_no_module_that_only_env_args_name() -> None:
    toy = named_env_args("gym:tests.toy_gym:Toy/Reach-v0")
    with pytest.raises(
        SimulationError, match=r"would import the module 'tests.toy_gym'; .*--allow-import tests.toy_gym"
    ):
        evaluate(Constant(np.zeros((1, 2), np.float32)), toy, episodes=1)


class Chunks:
    """A policy of five successive actions, which remembers how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        self.asked += 1
        return np.array([[[0.5, 0], [-0.5, 0], [self.asked % 2, 0], [0.5, 0], [0, 0]]], np.float32)


def test_chunk_of_actions_is_carried_out_before_the_policy_is_asked_again() -> None:
    policy = Chunks()
    player = EpisodePlayer(policy, None, Walk(), 1)
    lengths = [player(EpisodeJob(index=index, seed=index), lambda: None).length for index in range(6)]
    # what is left of a chunk does not reach into the next episode
    assert policy.asked == sum(math.ceil(length / 5) for length in lengths)
    assert max(lengths) == 12 and any(length % 5 for length in lengths)

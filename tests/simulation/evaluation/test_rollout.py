"""Rollouts: every episode counts once, whoever plays it, and failures have names."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.evaluation.rollout import ROWS, Job, Outcome, rollout
from pixelrl.simulation.evaluation.rollout import play as play_here


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


class Unmakable(Walk):
    """An environment that can be made in the parent only, say for want of a driver."""

    def __init__(self) -> None:
        if multiprocessing.parent_process() is not None:
            os._exit(1)


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

    def first(self) -> bool:
        """Set the marker; tell whether nobody had, even if two workers come at once."""
        with suppress(FileExistsError):
            if self.marker:
                self.marker.touch(exist_ok=False)
            return True
        return False

    def step(self, action: NDArray[np.float32]) -> Any:
        if self.steps == 2 and self.first():
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                threading.Event().wait()
            if self.how == "nan":
                self.position = np.nan
        sensors, reward, *rest = super().step(action)
        return sensors, np.inf if self.how == "inf" else reward, *rest


def go(sensors: Sensors) -> NDArray[np.float32]:
    """Walk faster the brighter the picture; every row of the batch counts."""
    speed = 0.6 + sensors["camera_image"].mean(axis=(1, 2, 3)) / 510
    assert speed.shape == (ROWS,)
    return np.stack([speed, 0 * speed], axis=1, dtype=np.float32, casting="same_kind")


def play(make: Any = Walk, policy: Any = go, **options: Any) -> list[Outcome]:
    outcomes = list(rollout(policy, make, **{"episodes": 7, "seed": 3, "workers": 1} | options))
    return sorted(outcomes, key=lambda outcome: outcome.index)


def test_one_worker_and_three_give_the_same_outcomes_and_every_episode_counts_once() -> None:
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
            rows = {key: np.repeat(value[None], ROWS, axis=0) for key, value in sensors.items()}
            sensors, reward, terminated, truncated, _ = env.step(go(rows)[0])
        assert (outcome.length, outcome.return_, outcome.success) == (env.steps, reward, terminated)


def test_more_workers_than_rows_are_served_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelrl.simulation.evaluation.rollout.ROWS", 2)
    calls: list[int] = []

    def approach(sensors: Sensors) -> NDArray[np.float32]:
        calls.append(len(sensors["position"]))
        return np.repeat(1.1 - sensors["position"], 2, axis=1)

    assert play(policy=approach, workers=3) == play(policy=approach, workers=1)
    assert set(calls) == {2}


def test_a_policy_with_a_history_sees_its_own_episode_only() -> None:
    seen: list[NDArray[np.uint8]] = []

    def look(sensors: Sensors) -> NDArray[np.float32]:
        stack = sensors["camera_image"]
        assert stack.shape == (ROWS, 4, 4, 9)
        seen.append(stack[:, 0, 0, ::3].copy())
        return go({"camera_image": stack[..., -3:]})

    outcomes = play(policy=look, workers=2, history=3)
    assert outcomes == play(workers=2)
    for outcome in outcomes:
        env = Walk()
        shades = [env.reset(seed=outcome.seed)[0]["camera_image"][0, 0, 0]]
        for _ in range(outcome.length - 1):
            rows = np.full((ROWS, 4, 4, 3), shades[-1])
            shades.append(env.step(go({"camera_image": rows})[0])[0]["camera_image"][0, 0, 0])
        for step in range(outcome.length):
            expected = [shades[max(0, step - back)] for back in (2, 1, 0)]
            assert any((rows == expected).all(axis=1).any() for rows in seen)
    assert all(len(set(rows[row])) == 1 for rows in seen[:1] for row in range(2)), "the first picture stands for all"


def test_only_the_first_episodes_are_filmed_from_the_start_to_the_end() -> None:
    outcomes = play(workers=2, films=2, film_size=6, episodes=4)
    assert [outcome.frames is not None for outcome in outcomes] == [True, True, False, False]
    for outcome in outcomes[:2]:
        assert outcome.frames is not None
        assert outcome.frames.shape == (outcome.length + 1, 6, 6, 3)
        assert outcome.frames[:, 0, 0, 0].tolist() == list(range(outcome.length + 1))


def test_some_episodes_played_again_are_the_same_ones() -> None:
    outcomes = play(workers=2)
    again = play(only=[5, 2], films=7, film_size=4, workers=3)
    assert [outcome.index for outcome in again] == [2, 5]
    for outcome in again:
        assert outcome.frames is not None and len(outcome.frames) == outcome.length + 1
        assert replace(outcome, frames=None) == outcomes[outcome.index]


def test_critics_see_what_the_policy_sees_and_change_nothing() -> None:
    def judge(sensors: Sensors) -> NDArray[np.float32]:
        assert len(sensors["position"]) == ROWS
        return np.concatenate([sensors["position"], -sensors["position"]], axis=1)

    judged = play(workers=2, judge=judge)
    assert [replace(outcome, values=None) for outcome in judged] == play(workers=1)
    for outcome in judged:
        assert outcome.values is not None and outcome.values.shape == (outcome.length, 2)
        env = Walk()
        assert outcome.values[0].tolist() == [start := env.reset(seed=outcome.seed)[0]["position"][0], -start]


def test_a_crash_in_an_environment_names_the_episode_and_ends_the_workers() -> None:
    seed = derive(3, "evaluate", 0)
    with pytest.raises(SimulationError, match=rf"episode 0 \(seed {seed}\), after 2 .*100 % wrong") as crash:
        play(Crash)
    assert "raise Unpicklable(1, 2)" in crash.value.__notes__[0]
    assert multiprocessing.active_children() == []


def test_a_worker_that_cannot_make_its_environment_ends_the_evaluation() -> None:
    with pytest.raises(SimulationError, match=r"3 workers in a row died while they made .*; the last one: exit code 1"):
        play(Unmakable, workers=2)


@pytest.mark.parametrize("how", ["die", "hang"])
def test_a_worker_that_is_lost_is_replaced_and_its_episode_begun_anew(how: str, tmp_path: Path) -> None:
    whole = play(workers=2, films=7, film_size=4)
    outcomes = play(partial(Fail, how, tmp_path / how), workers=2, films=7, film_size=4, time_limit=2)
    for outcome, other in zip(outcomes, whole, strict=True):
        np.testing.assert_array_equal(outcome.frames, other.frames)
        assert replace(outcome, frames=None) == replace(other, frames=None)
    assert (sum(each.restarts for each in outcomes), sum(each.restarts for each in whole)) == (1, 0)
    assert multiprocessing.active_children() == []


def test_a_worker_that_cannot_make_its_environment_says_why() -> None:
    with pytest.raises(SimulationError, match=r"cannot make its environment: .* RuntimeError: no GL context") as crash:
        play(Undrawable)
    assert "raise RuntimeError" in crash.value.__notes__[0]


def test_an_episode_that_loses_every_worker_is_named() -> None:
    seed = derive(3, "evaluate", 0)
    with pytest.raises(
        SimulationError, match=rf"episode 0 \(seed {seed}\), after 2 .* died.*exit code -9; .* begun 3 times"
    ):
        play(partial(Fail, "die"))
    assert multiprocessing.active_children() == []


def test_nonsense_from_an_environment_is_refused() -> None:
    with pytest.raises(SimulationError, match=r"episode 0 .*after 2 steps: .*'position' holds NaN or an infinity"):
        play(partial(Fail, "nan"))
    with pytest.raises(SimulationError, match=r"episode 0 .*after 0 steps: .*reward is inf; expected a finite"):
        play(partial(Fail, "inf"))


def test_what_cannot_be_asked_for() -> None:
    for options, message in (({"time_limit": 0}, "limit of a step is 0 s"), ({"workers": 0}, "got 7 and 0")):
        with pytest.raises(SimulationError, match=message):
            play(**options)


def test_another_engine_gets_the_jobs() -> None:
    """Say a cluster: it plays what it is given, elsewhere, and the outcomes are the same."""

    def backwards(policy: Any, make: Any, jobs: Sequence[Job], **options: Any) -> Iterator[Outcome]:
        for job in reversed(jobs):
            yield from play_here(policy, make, [job], workers=1, **options)

    assert play(engine=backwards, episodes=2) == play(episodes=2)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.full((ROWS, 2), np.nan, np.float32), r"episode 0 .*not finite: \[nan, nan\]"),
        (np.zeros((ROWS, 3), np.float32), rf"shape \({ROWS}, 3\), not \({ROWS}, 2\)"),
    ],
)
def test_a_bad_action_is_refused(actions: NDArray[np.float32], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        play(policy=lambda sensors: actions)


def test_closing_the_generator_ends_the_workers() -> None:
    outcomes = rollout(go, Walk, episodes=7, seed=3, workers=2)
    next(outcomes)
    assert len(multiprocessing.active_children()) == 2
    outcomes.close()
    assert multiprocessing.active_children() == []


def test_a_worker_does_not_import_torch() -> None:
    """It would cost seconds and hundreds of megabytes in every one of them."""
    modules = ", ".join(f"pixelrl.simulation.evaluation.{name}" for name in ("rollout", "statistics", "video"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

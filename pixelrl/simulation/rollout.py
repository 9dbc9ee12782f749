"""Try a policy: whole episodes, in parallel worker processes, from a fixed set of starts."""

import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from numpy.typing import NDArray

from pixelrl.errors import SimulationError
from pixelrl.history import History
from pixelrl.interfaces import Policy, Sensors
from pixelrl.seeding import derive

ROWS = 16
"""How many rows a policy sees in a call, whatever the number of workers.

Matrix products round differently for different batch sizes, and a contact-rich episode amplifies the last bit: with
a fixed size, one worker and fifty give the same outcomes.
"""

AnyEnv = gymnasium.Env[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one episode went.

    Attributes:
        index: its number in the evaluation, from 0.
        seed: what its environment was reset with: `derive(evaluation's seed, "evaluate", index)`.
        success: `info["success"]` of its last step.
        return_: the undiscounted sum of its rewards.
        length: its steps.
        frames: uint8 `[length + 1, S, S, 3]`, from the start to the end, if it was filmed.
        values: float32 `[length, E]`, what E critics thought before each step, if any were asked.
    """

    index: int
    seed: int
    success: bool
    return_: float
    length: int
    frames: NDArray[np.uint8] | None = None
    values: NDArray[np.float32] | None = None


def rollout(
    policy: Policy,
    make: Callable[[], AnyEnv],
    *,
    episodes: int,
    seed: int,
    workers: int,
    history: int = 1,
    films: int = 0,
    film_size: int = 256,
    only: Sequence[int] | None = None,
    judge: Callable[[Sensors], NDArray[np.float32]] | None = None,
) -> Generator[Outcome, None, None]:
    """Play `episodes` episodes and yield each one's outcome when it ends, so not in the order of their indices.

    Episode i starts from the same seed whichever worker plays it, and every episode that starts is finished and
    yielded: the set of outcomes depends neither on the number of workers nor on which episodes are short.
    The policy must be a function of what it is given: its rows change owners, and their histories are kept here.

    Args:
        policy: acts for `ROWS` rows at once, in this process; some rows may be idle.
        make: makes an environment in a worker, and once in this process, to read its spaces.
        episodes: how many to play.
        seed: the evaluation's seed.
        workers: how many processes play them.
        history: how many pictures of each camera the policy sees, the last ones of the episode, along the channels.
        films: the first so many episodes are filmed, by the environment's `picture(film_size)`.
        film_size: height and width of the films [px].
        only: play these of the episodes again, and no others.
        judge: critics who look on, float32 `[ROWS, E]` for the policy's rows; the actions do not depend on them.

    Raises:
        SimulationError: an environment failed, a worker died, or an action is not finite or of the wrong shape.
    """
    if episodes < 1 or workers < 1:
        raise SimulationError(f"episodes and workers must be at least 1; got {episodes} and {workers}")
    chosen = range(episodes) if only is None else only
    workers = min(workers, len(chosen))
    plan = iter([_Take(index=index, seed=derive(seed, "evaluate", index)) for index in chosen])
    with _open(partial(_Stage, make, seed=seed, films=films, film_size=film_size), workers) as envs:
        playing: dict[int, _Take] = {}  # worker -> its episode
        past = History(history)
        while True:
            free = [worker for worker in range(workers) if worker not in playing]
            fresh = dict(zip(free, plan, strict=False))
            playing |= fresh
            if not playing:
                return
            if fresh:
                sensors = _begin(envs, fresh)
            begins = np.array([worker in fresh for worker in range(workers)])
            seen = past(sensors, begins)
            actions = _act(policy, seen, playing, envs.action_space.shape or ())
            if judge is not None:
                values = np.concatenate([judge(rows)[:count] for _, count, rows in _batches(seen, workers)])
                for worker, take in playing.items():
                    take.values.append(values[worker])
            with _naming_the_dead(envs, playing):
                sensors, rewards, terminated, truncated, infos = envs.step(actions)
            _raise_reports(infos, playing)
            for worker, take in playing.items():
                take.add(float(rewards[worker]), _picture(infos, worker))
            for worker in [worker for worker in playing if terminated[worker] or truncated[worker]]:
                yield playing.pop(worker).outcome(success=bool(infos["success"][worker]))


@dataclass(kw_only=True)
class _Take:
    """An episode that is being played."""

    index: int
    seed: int
    return_: float = 0.0
    length: int = 0
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"episode {self.index} (seed {self.seed}), after {self.length} steps"

    def add(self, reward: float, picture: NDArray[np.uint8] | None) -> None:
        """Count one step."""
        self.return_ += reward
        self.length += 1
        if picture is not None:
            self.frames.append(picture)

    def outcome(self, *, success: bool) -> Outcome:
        """Close the books."""
        return Outcome(
            index=self.index,
            seed=self.seed,
            success=success,
            return_=self.return_,
            length=self.length,
            frames=np.stack(self.frames) if self.frames else None,
            values=np.stack(self.values) if self.values else None,
        )


class _Stage(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A worker's environment: starts an episode by its index, films the first ones, rests when one is over.

    Its infos hold `success` (after a step), `picture` (if filmed) and `error`. An exception travels as such a text
    since gymnasium's own way hangs on one that cannot be pickled and trips over a percent sign in a traceback.
    """

    def __init__(self, make: Callable[[], AnyEnv], *, seed: int, films: int, film_size: int) -> None:
        super().__init__(make())
        self._seed = seed
        self._films = films
        self._film_size = film_size
        self._index = 0
        self._last: tuple[Any, float, bool, bool, dict[str, Any]] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `seed` is its index, since only seeds reach the workers one by one."""
        assert seed is not None
        self._index, self._last = seed, None
        try:
            sensors, _ = self.env.reset(seed=derive(self._seed, "evaluate", seed))
            return sensors, self._film()
        except Exception as error:
            return self.observation_space.sample(), _report(error)

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step, or none where the episode is over: in lock-step, others may still be playing."""
        if self._last is not None:
            return self._last
        try:
            sensors, reward, terminated, truncated, info = self.env.step(action)
            result = sensors, float(reward), terminated, truncated, {"success": bool(info["success"]), **self._film()}
        except Exception as error:
            return self.observation_space.sample(), 0.0, False, False, _report(error)
        if terminated or truncated:
            self._last = result
        return result

    def _film(self) -> dict[str, Any]:
        """Return the picture of this instant, if this episode is filmed."""
        if self._index >= self._films:
            return {}
        return {"picture": self.env.get_wrapper_attr("picture")(self._film_size)}


@contextmanager
def _open(make: Callable[[], AnyEnv], workers: int) -> Iterator[AsyncVectorEnv[Any, Any]]:
    """Start the workers; end them all, whatever happens."""
    try:
        # Renderers and threads do not survive a fork: spawn. The policy's rows are copies, so the buffer need not be.
        envs = AsyncVectorEnv[Any, Any](
            [make] * workers, copy=False, context="spawn", autoreset_mode=AutoresetMode.DISABLED
        )
    except (EOFError, ConnectionError) as error:
        raise SimulationError("a worker died while it made its environment; its own message is above") from error
    try:
        yield envs
        envs.close()
    finally:
        for process in envs.processes:
            process.kill()  # at once, even amid a call: a worker owns nothing but memory
        for process in envs.processes:
            process.join()
        envs.closed = True  # or its finaliser would talk to the dead


def _begin(envs: AsyncVectorEnv[Any, Any], fresh: Mapping[int, _Take]) -> Sensors:
    """Reset the workers of these episodes, and no other; return what all workers sense."""
    mask = np.array([worker in fresh for worker in range(envs.num_envs)])
    indices = [fresh[worker].index if worker in fresh else None for worker in range(envs.num_envs)]
    with _naming_the_dead(envs, fresh):
        sensors, infos = envs.reset(seed=indices, options={"reset_mask": mask})
    _raise_reports(infos, fresh)
    for worker, take in fresh.items():
        if (picture := _picture(infos, worker)) is not None:
            take.frames.append(picture)
    return dict(sensors)


def _act(policy: Policy, sensors: Sensors, playing: Mapping[int, _Take], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Ask for the action of every worker, `shape` = `[workers, A]`, in batches of `ROWS` padded with zeros."""
    workers = shape[0]
    actions = np.zeros(shape, np.float32)
    for start, count, rows in _batches(sensors, workers):
        answer = np.asarray(policy(rows))
        if answer.shape != (ROWS, *shape[1:]):
            raise SimulationError(f"the policy's actions have shape {answer.shape}, not {(ROWS, *shape[1:])}")
        actions[start : start + count] = answer[:count]
    for worker, take in playing.items():
        if not np.isfinite(actions[worker]).all():
            raise SimulationError(f"{take}: the policy's action is not finite: {actions[worker].tolist()}")
    return actions


def _batches(sensors: Sensors, workers: int) -> Iterator[tuple[int, int, Sensors]]:
    """Yield the workers' readings in batches of `ROWS`, padded with zeros: the first worker, how many, the rows."""
    for start in range(0, workers, ROWS):
        count = min(ROWS, workers - start)
        rows = {key: np.zeros((ROWS, *value.shape[1:]), value.dtype) for key, value in sensors.items()}
        for key, value in sensors.items():
            rows[key][:count] = value[start : start + count]
        yield start, count, rows


@contextmanager
def _naming_the_dead(envs: AsyncVectorEnv[Any, Any], playing: Mapping[int, _Take]) -> Iterator[None]:
    """Turn a broken pipe into a SimulationError that names the episode whose worker died."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        # The pipe breaks a little before the process can be seen to be dead.
        sentinels = wait([process.sentinel for process in envs.processes], timeout=10)
        victims = []
        for worker, process in enumerate(envs.processes):
            if process.sentinel in sentinels:
                process.join()
                victims.append(f"{playing.get(worker, 'between episodes')} (exit code {process.exitcode})")
        raise SimulationError(f"a worker died, of a crash or for want of memory: {'; '.join(victims)}") from error


def _report(error: Exception) -> dict[str, Any]:
    """Return an info that tells the parent of an exception."""
    return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _raise_reports(infos: Mapping[str, Any], playing: Mapping[int, _Take]) -> None:
    """Raise the first exception that a worker told of, under the name of its episode."""
    for worker, take in playing.items():
        if "error" in infos and infos["_error"][worker]:
            failure = SimulationError(f"{take}: the environment raised {infos['error'][worker]}")
            failure.add_note(f"In the worker:\n{infos['traceback'][worker]}")
            raise failure


def _picture(infos: Mapping[str, Any], worker: int) -> NDArray[np.uint8] | None:
    """Return a copy of a worker's picture, if it sent one."""
    if "picture" not in infos or not infos["_picture"][worker]:
        return None
    return np.array(infos["picture"][worker], dtype=np.uint8)

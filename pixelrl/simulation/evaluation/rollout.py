"""Evaluate a policy: whole episodes, played by parallel workers, from a fixed set of initial states.

An episode is the unit: a worker holds an environment and the policy, and plays one episode after another. Episode i is
a function of policy, seed and i, so neither the number of workers nor their deaths can change its outcome.
"""

import math
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.export.loaded_policy import LoadedPolicy, load_policy
from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.interfaces import History, Policy, Sensors
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.make import make_env, with_cameras
from pixelrl.simulation.envs.state import State
from pixelrl.simulation.evaluation.fitted_policy import fitted_policy
from pixelrl.simulation.workers.pool import TIME_LIMIT, Heartbeat, Pool
from pixelrl.simulation.workers.process_pool import WorkerPool

AnyEnv = gymnasium.Env[Any, Any]

Critics = Callable[[Sensors], NDArray[np.float32]]
"""The Q values of E critics for the action of the policy: `[B]` sensor readings in, float32 `[B, E]` out."""


@dataclass(frozen=True, kw_only=True)
class EpisodeJob:
    """An episode to be played.

    Attributes:
        index: its number in the evaluation, from 0.
        seed: what its environment is reset with.
        initial_state: the state that it begins in, if not in one that the seed decides.
        video_size: height and width of the pictures that are kept of it for people [px]; 0: none.
        keep: whether to keep what was sensed and done.
    """

    index: int
    seed: int
    initial_state: State | None = None
    video_size: int = 0
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one episode went.

    Attributes:
        index: its number in the evaluation, from 0.
        seed: what its environment was reset with: `derive(evaluation's seed, "evaluate", index)`.
        success: `info["success"]` of its last step.
        return_: the undiscounted sum of its rewards.
        length: its steps.
        frames: uint8 `[length + 1, S, S, 3]`, from the start to the end, if a video of it was wanted.
        values: float32 `[length, E]`, the Q values of E critics before each step, if they were wanted.
        episode: what was sensed and done, if that was to be kept; its rewards are those of the environment.
        restarts: how often its worker was lost, and it was begun anew; that changes nothing else.
    """

    index: int
    seed: int
    success: bool
    return_: float
    length: int
    frames: NDArray[np.uint8] | None = None
    values: NDArray[np.float32] | None = None
    episode: Episode | None = field(default=None, compare=False)
    restarts: int = field(default=0, compare=False)


def evaluate(
    policy: Policy | LoadedPolicy | Path | str,
    env_args: Mapping[str, Any] | None = None,
    *,
    episodes: int = 100,
    seed: int = 0,
    workers: int = 1,
    allow_import: Collection[str] = (),
    **options: Any,
) -> list[Outcome]:
    """Play episodes and return their outcomes by index: `statistics.summarise` makes figures of them.

    Args:
        policy: acts; or the directory of a training run or of an exported policy. Workers are fresh processes, so
            a policy of your own must pickle, and a script that calls this wants `if __name__ == "__main__":`.
        env_args: robomimic's description of the environment; default: that of the data of a loaded policy, whose
            cameras it takes in any case.
        episodes: how many.
        seed: of their starts.
        workers: how many processes play them.
        allow_import: modules that a Gymnasium environment named `MODULE:ID` may import.
        options: as of `rollout`.

    Raises:
        PixelrlError: no such policy or environment, or as of `rollout`.
    """
    loaded = load_policy(policy) if isinstance(policy, Path | str) else policy
    env_args = env_args or getattr(loaded, "env_args", None)
    if not env_args:
        raise PixelrlError("the policy tells no environment; give its env_args")
    if isinstance(loaded, LoadedPolicy):
        env_args = with_cameras(env_args, loaded.pictures, {})
        options = {"history": loaded.history, **options}
        with closing(make_env(env_args, allow_import)) as env:
            loaded = fitted_policy(loaded, env, env_args)
    make = partial(make_env, env_args, allow_import=allow_import)
    played = rollout(loaded, make, episodes=episodes, seed=seed, workers=workers, **options)
    return sorted(played, key=lambda outcome: outcome.index)


def rollout(
    policy: Policy,
    make: Callable[[], AnyEnv],
    *,
    episodes: int,
    seed: int,
    workers: int = 1,
    history: int = 1,
    videos: int = 0,
    video_size: int = 256,
    only: Sequence[int] | None = None,
    keep: bool = False,
    critics: Critics | None = None,
    initial_states: Sequence[State] = (),
    time_limit: float = TIME_LIMIT,
    pool: Pool | None = None,
) -> Generator[Outcome, None, None]:
    """Play `episodes` episodes and yield each one's outcome when it ends, so not in the order of their indices.

    Every episode that is begun is finished and yielded: the set of outcomes does not depend on which ones are short.
    The policy must be a function of what it is given. It is sent to each worker by value, with its weights.

    Args:
        policy: acts for one row at a time.
        make: makes an environment in a worker.
        episodes: how many to play.
        seed: the evaluation's seed.
        workers: how many processes play them.
        history: how many pictures of each camera the policy sees, the last ones of the episode, along the channels.
        videos: keep frames of the first so many episodes, by the environment's `picture(video_size)`.
        video_size: height and width of these frames [px].
        only: play these of the episodes again, and no others.
        keep: keep what was sensed and done.
        critics: also note their Q values before each step; the actions do not depend on them.
        initial_states: to begin in, one an episode, of a `RobosuiteEnv`; their seeds are then the episodes'.
        time_limit: how long a step or a reset may take before its worker is replaced [s].
        pool: plays the episodes instead of `workers` processes on this machine.

    Raises:
        SimulationError: an environment failed, an episode lost its worker time and again, or an action is not finite
            or of the wrong shape.
    """
    if episodes < 1 or workers < 1:
        raise SimulationError(f"episodes and workers must be at least 1; got {episodes} and {workers}")
    if not time_limit > 0:
        raise SimulationError(f"the time limit of a step is {time_limit:g} s; it must be above 0")
    if initial_states and episodes > len(initial_states):
        message = f"{episodes} episodes are to begin from {len(initial_states)} starts"
        raise SimulationError(f"{message}; ask for at most so many")
    jobs = []
    for index in range(episodes) if only is None else only:
        state = initial_states[index] if initial_states else None
        begun_with = state.seed if state else derive(seed, "evaluate", index)
        size = video_size if index < videos else 0
        jobs.append(EpisodeJob(index=index, seed=begun_with, initial_state=state, video_size=size, keep=keep))
    named = ((f"episode {job.index} (seed {job.seed})", job) for job in jobs)
    open_worker = partial(open_player, policy, critics, make, history)
    with closing((pool or WorkerPool(workers)).run(open_worker, named, time_limit=time_limit)) as played:
        for done in played:
            yield replace(done.result, restarts=done.restarts)


@contextmanager
def open_player(
    policy: Policy, critics: Critics | None, make: Callable[[], AnyEnv], history: int
) -> Iterator["EpisodePlayer"]:
    """Make an environment in a worker, and yield what plays episodes in it."""
    with closing(make()) as env:
        yield EpisodePlayer(policy, critics, env, history)


class EpisodePlayer:
    """An environment and a policy in one process: calling it plays an episode."""

    def __init__(self, policy: Policy, critics: Critics | None, env: AnyEnv, history: int) -> None:
        space: Any = env.observation_space
        if not isinstance(space, Dict):
            raise SimulationError(f"the environment observes a {space}; expected a Dict of pictures and vectors")
        self._policy, self._critics, self._env, self._space = policy, critics, env, space
        self._history = History(history)
        self._left: list[NDArray[np.float32]] = []  # of a chunk of actions

    def __call__(self, job: EpisodeJob, heartbeat: Heartbeat) -> Outcome:
        """Play an episode.

        Raises:
            SimulationError: whatever went wrong, and after how many steps.
        """
        episode = _Episode()
        try:
            self._play(job, episode, heartbeat)
        except PixelrlError as error:
            raise SimulationError(f"after {episode.length} steps: {error}") from error
        except Exception as error:
            raise SimulationError(f"after {episode.length} steps: {type(error).__name__}: {error}") from error
        return Outcome(
            index=job.index,
            seed=job.seed,
            success=episode.success,
            return_=episode.return_,
            length=episode.length,
            frames=np.stack(episode.frames) if job.video_size else None,
            values=np.concatenate(episode.values) if self._critics else None,
            episode=episode.whole() if job.keep else None,
        )

    def _play(self, job: EpisodeJob, episode: "_Episode", heartbeat: Heartbeat) -> None:
        self._history.reset()
        self._left = []
        options = None if job.initial_state is None else {"state": job.initial_state}
        sensors, _ = self._env.reset(seed=job.seed, options=options)
        self._check_sensors(sensors)
        over = False
        while True:
            heartbeat()
            if job.video_size:
                episode.frames.append(self._env.get_wrapper_attr("picture")(job.video_size))
            if job.keep:
                episode.sensors.append({key: np.array(value) for key, value in sensors.items()})
            if over:
                return
            seen = self._history({key: value[np.newaxis] for key, value in sensors.items()})
            if self._critics is not None:
                episode.values.append(np.asarray(self._critics(seen)))
            action = self._action(seen)
            sensors, reward, terminated, truncated, info = self._env.step(action)
            self._check_sensors(sensors)
            if not math.isfinite(reward):
                raise SimulationError(f"the environment's reward is {reward}; expected a finite number")
            if job.keep:
                episode.steps.append((np.array(action), float(reward), bool(terminated)))
            episode.return_ += float(reward)
            episode.length += 1
            episode.success, over = bool(info["success"]), bool(terminated or truncated)

    def _check_sensors(self, sensors: Sensors) -> None:
        """Raise if what is sensed is not what the observation space promises, or no number."""
        for key, space in self._space.items():
            value = sensors[key]
            if value.shape != space.shape or value.dtype != space.dtype:
                came, promised = (f"{each.dtype} {list(each.shape or ())}" for each in (value, space))
                raise SimulationError(f"the environment's {key!r} is {came}; its observation space says {promised}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise SimulationError(f"the environment's {key!r} holds NaN or an infinity; expected finite numbers")

    def _action(self, seen: Sensors) -> NDArray[np.float32]:
        """Return the next action, `[A]`; ask the policy for a chunk, `[1, h, A]` or `[1, A]`, if none is left."""
        if not self._left:
            actions = np.asarray(self._policy(seen))
            expected = (1, *(self._env.action_space.shape or ()))
            if actions.shape != expected and (actions.ndim != 3 or (1, *actions.shape[2:]) != expected):
                raise SimulationError(f"the policy's actions have shape {actions.shape}, not {expected}")
            if not np.isfinite(actions).all():
                raise SimulationError(f"the policy's action is not finite: {actions[0].tolist()}")
            self._left = [*actions] if actions.shape == expected else [*actions[0]]
        return self._left.pop(0)


@dataclass(kw_only=True)
class _Episode:
    """An episode that is being played."""

    return_: float = 0.0
    length: int = 0
    success: bool = False
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)
    sensors: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    steps: list[tuple[NDArray[np.float32], float, bool]] = field(default_factory=list)

    def whole(self) -> Episode:
        """Return what was sensed and done."""
        actions, rewards, dones = zip(*self.steps, strict=True)
        sensors = {key: np.stack([each[key] for each in self.sensors]) for key in self.sensors[0]}
        numbers = np.array(rewards, np.float32)
        return Episode(sensors=sensors, actions=np.stack(actions), rewards=numbers, dones=np.array(dones))

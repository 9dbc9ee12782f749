"""Collect scripted episodes in parallel; what comes out does not depend on how many processes work."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, make_robosuite_env
from pixelrl.simulation.tasks.scripted.drawers import drawer_scripts
from pixelrl.simulation.tasks.scripted.moves import Script
from pixelrl.simulation.tasks.scripted.pick_place_tray import tray_scripts
from pixelrl.simulation.workers.pool import Heartbeat, Pool
from pixelrl.simulation.workers.process_pool import WorkerPool

AFTER_SUCCESS = 3
"""Steps that an episode goes on after its first success, so that goal states are seen as observations too."""


def collect(
    env_args: Mapping[str, Any],
    part: str,
    *,
    episodes: int,
    seed: int,
    workers: int = 2,
    start: int = 0,
    pool: Pool | None = None,
) -> Generator[Episode, None, None]:
    """Yield the episodes of one part of the data, in order; episode i is a pure function of (seed, part, i).

    Closing the iterator, an error or Ctrl-C ends the workers.

    Args:
        env_args: of one of our tasks, as `make_robosuite_env` takes them.
        part: `prior`, `task` or `oracle`.
        episodes: how many the whole collection has.
        seed: of the whole collection.
        workers: how many processes.
        start: the first one to yield; those before it are there already.
        pool: records them instead of `workers` processes on this machine.

    Raises:
        SimulationError: if there is no script for the task or the part, or a worker fails.
    """
    known = scripts(env_args["env_name"])
    if part not in known:
        raise SimulationError(f"there is no part {part!r} of the data; there are: {', '.join(known)}")
    jobs = ((f"episode {index} of part {part}", derive(seed, part, index)) for index in range(start, episodes))
    open_worker = partial(_open_recorder, dict(env_args), part)
    with closing((pool or WorkerPool(workers)).run(open_worker, jobs, ordered=True)) as recorded:
        for done in recorded:
            yield done.result


def record_episode(env: RobosuiteEnv, part: str, seed: int, heartbeat: Heartbeat = lambda: None) -> Episode:
    """Play one scripted episode of a part of the data; the seed decides its start and the script's noise."""
    script = scripts(type(env.robosuite).__name__)[part]
    observation, _ = env.reset(seed=seed, options={"start": script.start})
    held = env.robosuite.holds_object()
    rng = np.random.default_rng(derive(seed, "script"))
    observations, states = [observation], [env.state()]
    actions: list[NDArray[np.float32]] = []
    rewards: list[float] = []
    dones: list[bool] = []
    last, succeeded = script.steps, False
    for action in script.act(env.robosuite, rng):
        heartbeat()
        observation, reward, success, _, _ = env.step(action)
        if success and not any(dones):
            last = len(actions) + 1 + AFTER_SUCCESS
        observations.append(observation)
        states.append(env.state())
        actions.append(action)
        rewards.append(reward)
        dones.append(success)
        succeeded = succeeded or bool(script.succeeded(env.robosuite))
        if len(actions) == last:
            break
    whole = any(dones) and script.start == env.robosuite.starts[0]
    return Episode(
        sensors={key: np.stack([each[key] for each in observations]) for key in observation},
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        dones=np.array(dones, np.bool_),
        states=np.stack(states),
        notes={"seed": seed, "part": part, "success": succeeded, "held_at_start": held, "whole_task": whole},
    )


def scripts(env_name: str) -> dict[str, Script]:
    """Return the scripts of a task, named as in `env_args`, by the part of the data: prior, task, oracle.

    Raises:
        SimulationError: there are no scripts for the task.
    """
    if env_name not in TASK_NAMES.values():
        raise SimulationError(f"there are scripted policies for {', '.join(TASK_NAMES)} only, not for {env_name}")
    return tray_scripts() if env_name == TASK_NAMES["pick-place-tray"] else drawer_scripts(env_name)


@contextmanager
def _open_recorder(env_args: Mapping[str, Any], part: str) -> Iterator[Callable[[int, Heartbeat], Episode]]:
    """Make an environment in a worker, and yield what records the episode of a seed."""
    with closing(make_robosuite_env(env_args)) as env:
        yield partial(record_episode, env, part)

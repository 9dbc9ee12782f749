"""Collect scripted episodes in parallel; what comes out does not depend on how many processes work."""

import signal
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.episode import Episode
from pixelrl.errors import PixelrlError, SimulationError
from pixelrl.seeding import derive
from pixelrl.simulation.environment import RobosuiteEnv, make_env
from pixelrl.simulation.scripted import scripts

AFTER_SUCCESS = 3
"""Steps that an episode goes on after its first success, so that goal states are seen as observations too."""


def collect(
    env_args: Mapping[str, Any], part: str, *, episodes: int, seed: int, workers: int = 2, start: int = 0
) -> Generator[Episode, None, None]:
    """Yield the episodes of one part of the data, in order; episode i is a pure function of (seed, part, i).

    Each worker is a spawned process with an environment of its own, which records every `workers`-th episode and
    waits until it is fetched. Closing the iterator, an error or Ctrl-C ends the workers.

    Args:
        env_args: of one of our tasks, as `make_env` takes them.
        part: `prior`, `task` or `oracle`.
        episodes: how many the whole collection has.
        seed: of the whole collection.
        workers: how many processes.
        start: the first one to yield; those before it are there already.

    Raises:
        SimulationError: if there is no script for the task or the part, or a worker fails or dies.
    """
    known = scripts(env_args["env_name"])
    if part not in known:
        raise SimulationError(f"there is no part {part!r} of the data; there are: {', '.join(known)}")
    if workers < 1:
        raise SimulationError(f"workers is {workers}; it must be at least 1")
    first = range(start, min(start + workers, episodes))
    team = [_hire(_Job(dict(env_args), part, seed, range(index, episodes, workers))) for index in first]
    try:
        for index in range(start, episodes):
            process, connection = team[(index - start) % workers]
            yield _fetch(connection, process, f"episode {index} of part {part}")
    finally:
        for process, connection in team:
            connection.close()
            process.terminate()
            process.join()


def record(env: RobosuiteEnv, part: str, seed: int) -> Episode:
    """Play one scripted episode.

    Args:
        env: of one of our tasks.
        part: `prior`, `task` or `oracle`.
        seed: decides the start and the script's noise.
    """
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


@dataclass(frozen=True)
class _Job:
    """What one worker does: the environment, the part of the data, the collection's seed, the episodes' indices."""

    env_args: dict[str, Any]
    part: str
    seed: int
    indices: range


def _hire(job: _Job) -> tuple[BaseProcess, Connection]:
    """Start a worker, and return it with the end of the pipe from which its episodes come."""
    context = get_context("spawn")  # a renderer does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the worker's death is seen here as the end of the pipe
    return process, ours


def _work(job: _Job, out: Connection) -> None:
    """Record episodes and send them one by one; send an error instead where one occurs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then ends the workers
    try:
        env = make_env(job.env_args)
        try:
            for index in job.indices:
                out.send(record(env, job.part, derive(job.seed, job.part, index)))
        finally:
            env.close()
    except BrokenPipeError:
        return  # the parent is gone
    except PixelrlError as error:
        out.send(error)
    except Exception as error:
        out.send(SimulationError(f"{type(error).__name__}: {error}"))


def _fetch(connection: Connection, process: BaseProcess, what: str) -> Episode:
    """Return the next episode of a worker, or raise what stopped it."""
    try:
        message = connection.recv()
    except EOFError:
        process.join()
        raise SimulationError(f"{what}: its worker died with exit code {process.exitcode}") from None
    if isinstance(message, Episode):
        return message
    raise SimulationError(f"{what}: {message}") from message

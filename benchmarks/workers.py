"""Rollouts by one and by several workers in turn: what `pixelrl evaluate` pays a step beside the simulation."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.robosuite_env import make_robosuite_env
from pixelrl.simulation.evaluation.rollout import rollout


class Walker:
    """A policy that costs nothing: random actions."""

    def __init__(self, size: int) -> None:
        self._random, self._size = np.random.default_rng(0), size

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Act, `[B, A]`."""
        rows = len(next(iter(sensors.values())))
        return self._random.uniform(-1, 1, (rows, self._size)).astype(np.float32)


def _clocks() -> tuple[float, float]:
    """Return the seconds of the wall, and those of the processor that all processes took."""
    return time.perf_counter(), time.process_time() + _seconds_of_children()


def _seconds_of_children() -> float:
    """Return the processor seconds of the worker processes, where the system tells; else 0."""
    ticks = 0
    for process in active_children():
        path = Path(f"/proc/{process.pid}/stat")
        if path.exists():
            ticks += sum(map(int, path.read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0


def together(
    env_args: Mapping[str, Any], action_dim: int, *, workers: Sequence[int], turns: int, progress: Callable[[str], None]
) -> dict[int, dict[str, float]]:
    """Roll out episodes by so many workers in turn, and return what a step takes: number of workers -> medians.

    Resets count, as one waits for them too; the policy costs nothing. `wall_seconds` are those of a turn, divided by
    the steps of the episodes that end in it; `cpu_seconds` those of all processes.

    Args:
        env_args: of the environment.
        action_dim: size of its actions.
        workers: the numbers of workers that take turns.
        turns: of each: as many episodes as workers.
        progress: called with who is on.
    """
    make = partial(make_robosuite_env, env_args)
    playing = {
        count: rollout(Walker(action_dim), make, episodes=count * (turns + 1), seed=0, workers=count)
        for count in workers
    }
    taken: dict[int, list[tuple[float, float]]] = {count: [] for count in workers}
    try:
        for turn in range(turns + 1):  # the first one warms up
            for count, played in playing.items():
                progress(f"workers: {count}, turn {turn}")
                before, steps = _clocks(), 0
                for _ in range(count):
                    steps += next(played).length
                if turn:
                    wall, cpu = ((now - then) / steps for now, then in zip(_clocks(), before, strict=True))
                    taken[count].append((wall, cpu))
    finally:
        for played in playing.values():
            played.close()
    result = {}
    for count, pairs in taken.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        result[count] = {"wall_seconds": wall, "cpu_seconds": cpu, "per_second": 1 / wall}
    return result

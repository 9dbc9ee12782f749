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

from pixelrl.interfaces import Sensors
from pixelrl.simulation.environment import make_env
from pixelrl.simulation.rollout import rollout


class Walker:
    """A policy that costs nothing: random actions, and the clocks at each call."""

    def __init__(self, size: int) -> None:
        self._random, self._size = np.random.default_rng(0), size
        self.marks: list[tuple[float, float]] = []

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Act, `[B, A]`."""
        self.marks.append((time.perf_counter(), time.process_time() + _seconds_of_children()))
        rows = len(next(iter(sensors.values())))
        return self._random.uniform(-1, 1, (rows, self._size)).astype(np.float32)


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

    Resets do not count, and the policy costs nothing. `wall_seconds` are those of all workers' steps, divided by the
    number of steps; `cpu_seconds` those of all processes.

    Args:
        env_args: of the environment.
        action_dim: size of its actions.
        workers: the numbers of workers that take turns.
        turns: of each: an episode of every worker.
        progress: called with who is on.
    """
    make = partial(make_env, env_args)
    walkers = {count: Walker(action_dim) for count in workers}
    playing = {
        count: rollout(walker, make, episodes=count * (turns + 1), seed=0, workers=count)
        for count, walker in walkers.items()
    }
    taken: dict[int, list[tuple[float, float]]] = {count: [] for count in workers}
    try:
        for turn in range(turns + 1):  # the first one warms up
            for count, played in playing.items():
                progress(f"workers: {count}, turn {turn}")
                marks = walkers[count].marks
                marks.clear()
                for _ in range(count):
                    next(played)
                steps = count * (len(marks) - 1)
                wall, cpu = np.subtract(marks[-1], marks[0]) / steps
                if turn:
                    taken[count].append((float(wall), float(cpu)))
    finally:
        for played in playing.values():
            played.close()
    result = {}
    for count, pairs in taken.items():
        wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        result[count] = {"wall_seconds": wall, "cpu_seconds": cpu, "per_second": 1 / wall}
    return result

"""`python -m benchmarks.simulation`: control steps beside stock robosuite's, and rollouts by several workers."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tyro.conf import OmitArgPrefixes, Positional

from benchmarks.ledger import case_record, command_line, print_case, write_ledger
from benchmarks.turns import DEFAULTS, Contender, Options, Work, take_turns
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.imports import robosuite
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.evaluation.rollout import rollout

DRAWINGS = {"robosuite": None, "stock": "stock", "fast": "fast"}
"""Contenders, and how pixelrl draws in them; None: robosuite's own environment."""

PAIRS = {"fast / robosuite": ("fast", "robosuite"), "fast / stock": ("fast", "stock")}

COLUMNS = {"steps/s": "per_second", "wall s": "wall_seconds", "CPU s": "cpu_seconds"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is simulated: a task by our name or robosuite's, pictures of `size` pixels, episodes of `steps` steps."""

    task: str
    size: int
    steps: int

    def env_args(self, drawing: str) -> dict[str, Any]:
        """Return the description of pixelrl's environment: one camera."""
        view = {"camera_names": ["agentview"], "horizon": self.steps}
        return default_env_args(self.task, size=self.size, drawing=drawing, **view)


def main(
    tasks: Positional[tuple[str, ...]] = (*TASK_NAMES, "Lift"),
    /,
    options: OmitArgPrefixes[Options] = DEFAULTS,
    size: int = 48,
    workers: int = 2,
) -> None:
    """Measure control steps: pixelrl's beside stock robosuite's, same task, control rate and camera; random actions.

    Args:
        tasks: names of ours or of robosuite's.
        options: how it is measured.
        size: height and width of the pictures [px].
        workers: rollouts by so many workers are compared with rollouts by one, by the wall, resets included.
    """
    provenance, clock = Provenance(seed=0), options.clock or "cpu"
    if workers < 2:
        raise PixelrlError(f"--workers is {workers}; it must be at least 2, which one is compared with")
    if options.quick:
        options = replace(options, rounds=1, turn_seconds=0.01)
    scenes = [Scene(task=task, size=size, steps=4 if options.quick else 40) for task in tasks]
    described = [scene.env_args("fast") for scene in scenes]  # a task that there is not is told now
    records = {}
    for scene, env_args in zip(scenes, described, strict=True):
        contenders = {
            name: Contender(make=step_environment, arguments=(scene, drawing), rehearsal=(None, None))
            for name, drawing in DRAWINGS.items()
        }
        results = take_turns(scene.task, contenders, options)
        rollouts = time_rollouts(env_args, (1, workers), options.rounds)
        record = case_record(results, PAIRS, clock) | {"case": asdict(scene)}
        for number, seconds in rollouts.items():
            record["contenders"][f"rollouts by {number}"] = {"wall_seconds": seconds, "per_second": 1 / seconds}
        record["ratios"][f"{workers} workers / 1 (wall)"] = rollouts[workers] / rollouts[1]
        print_case(f"{scene.task}, {size} px: one control step", record, COLUMNS)
        records[scene.task] = record
    write_ledger("simulation", records, options, clock, provenance, workers=workers)


def step_environment(scene: Scene | None, drawing: str | None) -> Work:
    """Step an environment with random actions, from the same start again and again.

    Args:
        scene: what; None only loads the libraries.
        drawing: of pixelrl's environment; None: robosuite's, with its own observations of the same camera.
    """
    suite = robosuite()
    if scene is None:
        return Work(unit=lambda: None)
    if drawing is None:
        args = scene.env_args("stock")
        options = args["env_kwargs"] | {"has_renderer": False, "renderer": "mujoco", "ignore_done": True, "seed": 0}
        env = raw = suite.make(args["env_name"], **options)
        env.reset()
    else:
        env = make_robosuite_env(scene.env_args(drawing))
        raw = env.robosuite
        env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (scene.steps, raw.action_dim))
    start, steps = raw.sim.get_state().flatten(), count()

    def unit() -> None:
        index = next(steps) % scene.steps
        if index == 0:
            raw.sim.set_state_from_flattened(start)
        env.step(actions[index])

    return Work(unit=unit)


class RandomPolicy:
    """A policy that costs nothing: random actions."""

    def __init__(self, action_dim: int) -> None:
        self._random, self._action_dim = np.random.default_rng(0), action_dim

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Act, `[B, A]`."""
        rows = len(next(iter(sensors.values())))
        return self._random.uniform(-1, 1, (rows, self._action_dim)).astype(np.float32)


def time_rollouts(env_args: dict[str, Any], workers: Sequence[int], rounds: int) -> dict[int, float]:
    """Return what a step of an episode costs so many workers: number of workers -> seconds of the wall.

    Args:
        env_args: of the environment.
        workers: the numbers of workers, one after another.
        rounds: as many episodes of each worker are timed, after one that warms it up; their resets count.
    """
    make = partial(make_robosuite_env, env_args)
    env = make()
    policy = RandomPolicy(env.robosuite.action_dim)
    env.close()
    result = {}
    for number in workers:
        played = rollout(policy, make, episodes=number * (rounds + 1), seed=0, workers=number)
        for _ in range(number):
            next(played)
        began = time.perf_counter()
        steps = sum(outcome.length for outcome in played)
        result[number] = (time.perf_counter() - began) / steps
    return result


if __name__ == "__main__":
    command_line(main)

"""Make a bank of starts, and find the one that an evaluation asks for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelrl.runtime.env_args import GYMNASIUM_TYPE
from pixelrl.datasets.hdf5.reader import read_contents
from pixelrl.simulation.evaluation.initial_states import (
    InitialStates,
    read_initial_states,
    record_initial_states,
    write_initial_states,
)
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.simulation.envs.make import PREFIX, named_env_args
from pixelrl.simulation.workers.pool import WorkerPool
from pixelrl.simulation.workers.ray import RayPool


def starts(
    task: str,
    out: Path,
    *,
    episodes: int,
    seed: int,
    workers: int,
    options: Mapping[str, Any],
    cluster: RayPool | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write the starts that an evaluation with this seed has to the HDF5 file `out`, and `OUT.starts.json` beside it.

    Raises:
        PixelrlError: no such task, one of Gymnasium's, or a file that exists.
    """
    if out.exists():
        raise PixelrlError(f"{out}: exists already; choose another --out, or remove it")
    if episodes < 1:
        raise PixelrlError(f"--episodes is {episodes}; it must be at least 1")
    provenance = Provenance(seed=seed)
    env_args = _env_args(task, options)
    if env_args.get("type", 1) == GYMNASIUM_TYPE:
        raise PixelrlError(f"{task}: a Gymnasium environment keeps its state where nobody sees it; evaluate by --seed")
    pool = cluster or WorkerPool(workers)
    states = []
    with progress_bar(console) as bar:
        job = bar.add_task("starts", total=episodes, note="")
        for state in record_initial_states(env_args, episodes=episodes, seed=seed, pool=pool):
            states.append(state)
            bar.update(job, advance=1)
    digest = write_initial_states(out, InitialStates(env_args=env_args, seed=seed, states=tuple(states)))
    result = {"file": out.name, "starts": episodes, "sha256": digest, "env_args": env_args}
    result |= nodes_of(cluster) | provenance.record()
    write_json(out.with_suffix(".starts.json"), result)
    console.print(f"{out}: {episodes} starts of {env_args['env_name']}, sha256 {digest[:16]}...")
    return result


def chosen(
    path: Path | None, episodes: int | None, seed: int | None, *others: object
) -> tuple[InitialStates | None, int, int]:
    """Return the bank that an evaluation begins from, if it does, how many episodes it has, and its seed.

    `others` are the options that choose an environment, which is the bank's business too.

    Raises:
        PixelrlError: no bank there, or options that contradict it.
    """
    if path is None:
        return None, 100 if episodes is None else episodes, 0 if seed is None else seed
    if seed is not None or any(others):
        raise PixelrlError(
            f"--starts {path} has its own seed and environment; leave --seed, --env, --env-options, --drawing away"
        )
    bank = read_initial_states(path)
    return bank, len(bank.states) if episodes is None else episodes, bank.seed


def _env_args(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of an environment by its name, or by a data set that was recorded in it."""
    if task.startswith(PREFIX) or not Path(task).is_file():
        return named_env_args(task, **options)
    env_args = dict(read_contents(Path(task)).env_args)
    if not env_args:
        raise PixelrlError(f"{task}: names no environment (no env_args)")
    return env_args | {"env_kwargs": {**env_args.get("env_kwargs", {}), **options}}

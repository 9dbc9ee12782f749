"""`pixelrl starts`: a file of initial states that any policy can be tried on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from pixelrl.launch.console import plain_console, progress_bar
from pixelrl.launch.options import WorkerOptions, key_values, nodes_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.env_args import GYMNASIUM_TYPE
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import check_writable, write_json


@dataclass(frozen=True, kw_only=True)
class Starts(WorkerOptions):
    """Make a file of starts that any policy can be tried on: `pixelrl evaluate RUN --starts OUT`.

    Each start is the simulator's whole state. The same seed gives the starts that `evaluate --seed` has; in a file they
    stay what they are even where another version of the task would place things otherwise.
    """

    task: Positional[str]
    """name of a task, say pick-place-tray or Lift, or MODULE:TASK, where importing the module registers the task with
    robosuite; or a data set, for the environment that it names"""
    out: Path
    """HDF5 file to write"""
    episodes: int = 100
    """how many"""
    seed: int = 0
    """of the starts"""
    env_options: tuple[str, ...] = ()
    """of the environment, say distractor=true"""
    allow_import: tuple[str, ...] = ()
    """modules that may be imported to register the task of a data set; that of MODULE:TASK always may"""

    def __call__(self) -> None:
        """Write the starts that an evaluation with this seed has, and `OUT.starts.json` beside the file.

        Raises:
            PixelrlError: no such task, one of Gymnasium's, or a file that exists.
        """
        from pixelrl.simulation.envs.make import modules_of
        from pixelrl.simulation.evaluation.initial_states import (
            InitialStates,
            record_initial_states,
            write_initial_states,
        )

        if self.out.exists():
            raise PixelrlError(f"{self.out}: exists already; choose another --out, or remove it")
        if self.episodes < 1:
            raise PixelrlError(f"--episodes is {self.episodes}; it must be at least 1")
        provenance, console = Provenance(seed=self.seed), plain_console()
        env_args = env_args_of(self.task, key_values("--env-options", self.env_options))
        if env_args.get("type", 1) == GYMNASIUM_TYPE:
            raise PixelrlError(
                f"{self.task}: a Gymnasium environment keeps its state where nobody sees it; evaluate by --seed"
            )
        check_writable(self.out)
        states, allowed = [], (*self.allow_import, *modules_of(self.task))
        with self.pool(console) as pool, progress_bar(console) as bar:
            job = bar.add_task("starts", total=self.episodes, note="")
            wanted = {"episodes": self.episodes, "seed": self.seed}
            for state in record_initial_states(env_args, **wanted, pool=pool, allow_import=allowed):
                states.append(state)
                bar.update(job, advance=1)
        whole = InitialStates(env_args=env_args, seed=self.seed, states=tuple(states))
        digest = write_initial_states(self.out, whole)
        result = {"file": self.out.name, "starts": self.episodes, "sha256": digest, "env_args": env_args}
        write_json(self.out.with_suffix(".starts.json"), result | nodes_of(pool) | provenance.record())
        console.print(f"{self.out}: {self.episodes} starts of {env_args['env_name']}, sha256 {digest[:16]}...")


def env_args_of(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of an environment by its name, or by a data set that was recorded in it."""
    from pixelrl.datasets.hdf5.reader import read_contents
    from pixelrl.simulation.envs.make import PREFIX, named_env_args

    if task.startswith(PREFIX) or not Path(task).is_file():
        return named_env_args(task, **options)
    env_args = dict(read_contents(Path(task)).env_args)
    if not env_args:
        raise PixelrlError(f"{task}: names no environment (no env_args)")
    return env_args | {"env_kwargs": {**env_args.get("env_kwargs", {}), **options}}

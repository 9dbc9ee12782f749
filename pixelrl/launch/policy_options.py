"""What the options of commands that take a policy have in common: which networks, and in which environment."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from pixelrl.launch.options import Drawing, WorkerOptions, key_values
from pixelrl.runtime.env_args import GYMNASIUM_TYPE, drawing_of
from pixelrl.runtime.errors import PixelrlError

if TYPE_CHECKING:
    from pixelrl.export.loaded_policy import LoadedPolicy

Select = Literal["last", "q_peak", "td_error"]
"""Which checkpoint of a run is used, by rules that need no simulator and are reported with the result.

- last: the last one.
- q_peak: the snapshot where the mean Q of recorded actions is highest (arXiv 2109.10813): later it unlearns.
- td_error: the snapshot whose TD error on held-out episodes is least (arXiv 2304.10466); takes `train --held-out`.
"""


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Which networks of a run, and how they act."""

    step: int | None = None
    """use the snapshot of this step, not the last checkpoint"""
    select: Select = "last"
    """the checkpoint to use: the last; the snapshot where Q of recorded actions peaks; that of the least TD error on
    held-out episodes"""
    acting: Literal["mode", "sample", "best"] | None = None
    """how the policy acts: by its mode, a sample, or the best of several by Q; default: as its recipe says"""

    def chosen_step(self, run: Path) -> int | None:
        """Return the step of a run's snapshot to use, None for the last checkpoint.

        Raises:
            PixelrlError: --select beside --step, or a run without what the rule needs.
        """
        if self.select == "last":
            return self.step
        if self.step is not None:
            what = f"--select {self.select} chooses the step, and --step {self.step} names one"
            raise PixelrlError(f"{what}; give one of them")
        from pixelrl.training.run_directory import snapshot_steps

        steps = snapshot_steps(run)
        if not steps:
            raise PixelrlError(f"{run}: has no snapshots to choose from; train with --snapshot-every 1000, say")
        return q_peak(run, steps) if self.select == "q_peak" else least_error(run, steps)


@dataclass(frozen=True, kw_only=True)
class SimulationOptions(CheckpointOptions, WorkerOptions):
    """A policy, and the environment to try it in."""

    run: Annotated[Positional[str | Path], arg(metavar="DIRECTORY|URL")]
    """directory of a training run, or of an exported policy; or ws://HOST:PORT, where `pixelrl serve` serves one, which
    8 workers ask at most unless --workers says otherwise"""
    token_file: Path | None = None
    """with ws://: a file with the server's token"""
    env: str | None = None
    """environment to use, say pick-place-tray, drawer-grasp or Lift, or gym:ID; MODULE:TASK or gym:MODULE:ID, where
    importing the module registers it; default: the one that the data came from"""
    env_options: tuple[str, ...] = ()
    """of the environment, say distractor=true, or obs_type=pixels for gymnasium.make"""
    camera_sources: tuple[str, ...] = ()
    """where a Gymnasium environment has the policy's pictures, say agentview=pixels; render: what it draws for people;
    default: they have the same names"""
    drawing: Drawing | None = None
    """stock (as robosuite draws) or fast (simple shapes, flat colours); default: as the data were drawn"""
    allow_import: tuple[str, ...] = ()
    """modules that may be imported to register the data's environment; that of --env always may"""
    out: Annotated[Path | None, arg(metavar="PATH")] = None
    """directory to write to; default: the policy's"""

    @property
    def is_served(self) -> bool:
        """Whether the policy is on a server."""
        return str(self.run).startswith(("ws://", "wss://"))

    @property
    def usual_workers(self) -> int:
        """Return how many workers there are where nobody says it: no more than a server lets in by default."""
        if not self.is_served:
            return super().usual_workers
        from pixelrl.serving.admission import Limits

        return min(super().usual_workers, Limits().connections)

    def policy(self) -> "LoadedPolicy":
        """Return the policy to try.

        Raises:
            PixelrlError: there is none, or options that do not go with one that is served elsewhere.
        """
        from pixelrl.export.loaded_policy import load_policy

        if self.is_served:
            return self._served()
        if self.token_file is not None:
            raise PixelrlError(f"--token-file goes with ws://HOST:PORT; {self.run} is none")
        run = Path(self.run)
        loaded = load_policy(run, self.chosen_step(run), acting=self.acting)
        rule = {} if self.select == "last" else {"selected_by": self.select}
        return replace(loaded, origin={**loaded.origin, **rule})

    def env_args(self, loaded: "LoadedPolicy") -> Mapping[str, Any]:
        """Return the description of the environment to try a policy in; see `environment_for`."""
        sources = {camera: str(name) for camera, name in key_values("--camera-sources", self.camera_sources).items()}
        return environment_for(loaded, self.env, key_values("--env-options", self.env_options), sources, self.drawing)

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """Modules that may be imported to register the environment."""
        from pixelrl.simulation.envs.make import modules_of

        return (*self.allow_import, *modules_of(self.env))

    def _served(self) -> "LoadedPolicy":
        """Connect to a server and return its policy."""
        if self.out is None or self.step is not None or self.select != "last" or self.acting is not None:
            what = "a server has no --step, no --select and no --acting"
            raise PixelrlError(f"{self.run}: give --out DIRECTORY, where to write; {what}")
        from pixelrl.serving.admission import read_token
        from pixelrl.serving.remote_policy import load_served

        return load_served(str(self.run), None if self.token_file is None else read_token(self.token_file))


def q_peak(run: Path, steps: list[int]) -> int:
    """Return the step with the highest mean Q of recorded actions over the reports since the step before it."""
    from pixelrl.training.metrics_log import read_figures

    reports = read_figures(run / "metrics.csv").get("q/data", {}).items()
    means: dict[int, float] = {}
    for before, step in zip([0, *steps], steps, strict=False):
        found = [value for at, value in reports if before < at <= step and math.isfinite(value)]
        if found:
            means[step] = sum(found) / len(found)
    if not means:
        raise PixelrlError(f"{run}: metrics.csv has no q/data to choose a snapshot by; its recipe has no critic")
    return max(means, key=lambda step: means[step])


def least_error(run: Path, steps: list[int]) -> int:
    """Return the step with the least TD error on the episodes that were held out."""
    from pixelrl.launch.commands.probe import Probe

    found = Probe(run=run, step=tuple(steps), on_held_out=True).measure(Console(quiet=True))
    errors = {step: value for step, each in found.items() if (value := each.get("q/td_error")) is not None}
    if not errors:
        raise PixelrlError(f"{run}: no snapshot has a finite TD error; its recipe has no critic")
    return min(errors, key=lambda step: errors[step])


def environment_for(
    loaded: "LoadedPolicy",
    env: str | None,
    options: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    drawing: str | None = None,
) -> dict[str, Any]:
    """Return the description of the environment to use: its cameras are those that the policy takes.

    Args:
        loaded: the policy.
        env: name of the environment; None: the one of its data.
        options: of the environment, instead of the usual ones, or of those of the data.
        sources: camera -> what a Gymnasium environment calls it.
        drawing: `stock` or `fast`; None: as its data, or as usual for `env`.

    Raises:
        PixelrlError: none is known, or a camera is not one of a simulator.
    """
    from pixelrl.simulation.envs.make import named_env_args, with_cameras

    env_args = loaded.env_args if env is None else named_env_args(env)
    if not env_args:
        raise PixelrlError(
            "the policy's data name no environment (no env_args), as a robot's do not; name one, say --env Lift, or "
            "go on with pixelrl export: a robot's policy is tried on the robot"
        )
    env_args = {**env_args, "env_kwargs": {**(env_args.get("env_kwargs") or {}), **(options or {})}}
    if drawing is not None and env_args.get("type", 1) == GYMNASIUM_TYPE:
        raise PixelrlError(f"--drawing {drawing}: {env_args['env_name']} is Gymnasium's, and draws in its own way")
    if drawing is not None:
        env_args["drawing"] = drawing
    return with_cameras(env_args, loaded.pictures, sources or {})


def warn_about_drawing(loaded: "LoadedPolicy", env_args: Mapping[str, Any], console: Console) -> None:
    """Warn if the policy is shown pictures of another kind than its data's."""
    known = loaded.env_args.get("type") == env_args.get("type") == 1  # else they are no simulator's, or nobody knows
    if known and (data := drawing_of(loaded.env_args)) != (now := drawing_of(env_args)):
        console.print(
            f"warning: the policy's data are drawn {data}, and what it is shown now {now}: that looks otherwise",
            style="bold yellow",
        )

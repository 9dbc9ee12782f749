"""What the options of commands that take a policy have in common: which networks, and in which environment."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from pixelrl.launch.checkpoint_selection import Select, select_step
from pixelrl.launch.options import Drawing, WorkerOptions, key_values
from pixelrl.runtime.errors import PixelrlError

if TYPE_CHECKING:
    from pixelrl.export.loaded_policy import LoadedPolicy


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
        """Return the step of the snapshot to use, None for the last checkpoint; see `select_step`."""
        return select_step(run, self.select, self.step)


@dataclass(frozen=True, kw_only=True)
class SimulationOptions(CheckpointOptions, WorkerOptions):
    """A policy, and the environment to try it in."""

    run: Annotated[Positional[str | Path], arg(metavar="DIRECTORY|URL")]
    """directory of a training run, or of an exported policy; or ws://HOST:PORT, where `pixelrl serve` serves one"""
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

    def policy(self) -> "LoadedPolicy":
        """Return the policy to try.

        Raises:
            PixelrlError: there is none, or options that do not go with one that is served elsewhere.
        """
        from pixelrl.export.loaded_policy import load_policy

        if is_url(self.run):
            return self._served()
        if self.token_file is not None:
            raise PixelrlError(f"--token-file goes with ws://HOST:PORT; {self.run} is none")
        run = Path(self.run)
        loaded = load_policy(run, self.chosen_step(run), acting=self.acting)
        rule = {} if self.select == "last" else {"selected_by": self.select}
        return replace(loaded, origin={**loaded.origin, **rule})

    def env_args(self, loaded: "LoadedPolicy") -> Mapping[str, Any]:
        """Return the description of the environment to try a policy in; see `environment_for`."""
        from pixelrl.launch.environment import environment_for

        sources = {camera: str(name) for camera, name in key_values("--camera-sources", self.camera_sources).items()}
        return environment_for(loaded, self.env, key_values("--env-options", self.env_options), sources, self.drawing)

    @property
    def allowed_modules(self) -> tuple[str, ...]:
        """Modules that may be imported to register the environment."""
        from pixelrl.simulation.envs.make import modules_of

        return (*self.allow_import, *modules_of(self.env))

    def _served(self) -> "LoadedPolicy":
        """Connect to a server and return its policy.

        Raises:
            PixelrlError: there is no server, or options that do not go with one.
        """
        if self.out is None or self.step is not None or self.select != "last" or self.acting is not None:
            what = "a server has no --step, no --select and no --acting"
            raise PixelrlError(f"{self.run}: give --out DIRECTORY, where to write; {what}")
        from pixelrl.serving.admission import read_token
        from pixelrl.serving.remote_policy import load_served

        return load_served(str(self.run), None if self.token_file is None else read_token(self.token_file))


def is_url(name: str | Path) -> bool:
    """Tell whether a policy is served elsewhere."""
    return str(name).startswith(("ws://", "wss://"))

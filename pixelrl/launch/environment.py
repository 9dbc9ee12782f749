"""The environment in which a loaded policy is tried."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.runtime.env_args import GYMNASIUM_TYPE, drawing_of
from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.envs.make import named_env_args, with_cameras


def environment_for(
    loaded: LoadedPolicy,
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


def warn_about_drawing(loaded: LoadedPolicy, env_args: Mapping[str, Any], console: Console) -> None:
    """Warn if the policy is shown pictures of another kind than its data's."""
    known = loaded.env_args.get("type") == env_args.get("type") == 1  # else they are no simulator's, or nobody knows
    if known and (data := drawing_of(loaded.env_args)) != (now := drawing_of(env_args)):
        console.print(
            f"warning: the policy's data are drawn {data}, and what it is shown now {now}: that looks otherwise",
            style="bold yellow",
        )

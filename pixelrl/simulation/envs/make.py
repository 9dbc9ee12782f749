"""Make any environment from its `env_args`: robosuite's tasks, ours among them, and what Gymnasium can make."""

import copy
import importlib.metadata
from collections.abc import Collection, Mapping
from typing import Any

from pixelrl.runtime.env_args import GYMNASIUM_TYPE, ROBOSUITE_TYPE, gymnasium_env_args
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.gymnasium_env import SUFFIX, GymnasiumEnv, check_registered, make_gymnasium_env
from pixelrl.simulation.envs.imports import import_allowed, robosuite
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env

PREFIX = "gym:"


def make_env(env_args: Mapping[str, Any], allow_import: Collection[str] = ()) -> RobosuiteEnv | GymnasiumEnv:
    """Make the environment that a data set was recorded in; see `make_robosuite_env` and `make_gymnasium_env`.

    Args:
        env_args: robomimic's description of it. It may come from a file that anybody has written.
        allow_import: modules that may be imported, to register the environment.

    Raises:
        SimulationError: it does not exist, cannot be made with these options, or cannot be drawn here.
    """
    if env_args.get("type", ROBOSUITE_TYPE) == GYMNASIUM_TYPE:
        return make_gymnasium_env(env_args, allow_import)
    return make_robosuite_env(env_args, allow_import)


def named_env_args(name: str, **options: Any) -> dict[str, Any]:
    """Return the `env_args` of an environment by name.

    Args:
        name: `gym:ID` or `gym:MODULE:ID`, the module being one that registers the id; else a task of ours or
            robosuite's, or `MODULE:TASK`, where the module, which is imported, registers the task with robosuite.
        options: for `gymnasium.make`, or of the task.

    Raises:
        SimulationError: if robosuite has no such task.
    """
    if not name.startswith(PREFIX):
        robosuite()  # without its complaints, which a module of the user's would bring
        for module in modules_of(name):
            import_allowed(module, (module,), name)
        return default_env_args(name.rpartition(":")[2], **options)
    version = importlib.metadata.version("gymnasium")
    return gymnasium_env_args(name.removeprefix(PREFIX), options) | {"env_version": version}


def check_named(name: str) -> None:
    """Raise a `SimulationError` unless there is an environment of that name; nothing is made or drawn."""
    env_args = named_env_args(name)
    if name.startswith(PREFIX):
        check_registered(env_args["env_name"], modules_of(name))


def modules_of(name: str | None) -> tuple[str, ...]:
    """Return the module that the name of an environment allows to be imported: of gym:MODULE:ID, or of MODULE:TASK."""
    module = (name or "").removeprefix(PREFIX).rpartition(":")[0]
    return (module,) if module else ()


def with_cameras(
    env_args: Mapping[str, Any], pictures: Mapping[str, tuple[int, int]], sources: Mapping[str, str]
) -> dict[str, Any]:
    """Return the `env_args` of the same environment with other cameras.

    Args:
        env_args: of the environment.
        pictures: observation key, `NAME_image`, -> (height, width). [px]
        sources: camera -> what the environment calls it, where the names differ. Gymnasium's environments only.

    Raises:
        SimulationError: a key is not a camera's, or a source is none of the pictures'.
    """
    result = copy.deepcopy(dict(env_args))
    for key in pictures:
        if not key.endswith(SUFFIX):
            raise SimulationError(f"{key}: not a camera of a simulator, whose pictures are called NAME{SUFFIX}")
    sizes = {key.removesuffix(SUFFIX): size for key, size in pictures.items()}
    if unknown := set(sources) - set(sizes):
        raise SimulationError(f"there is no camera {min(unknown)!r} to find a source for, but: {', '.join(sizes)}")
    if result.get("type", 1) == GYMNASIUM_TYPE:
        known = result.get("cameras") or {}
        result["cameras"] = {
            name: {**known.get(name, {}), **({"source": sources[name]} if name in sources else {})}
            | {"height": height, "width": width}
            for name, (height, width) in sizes.items()
        }
        return result
    if sources:
        raise SimulationError(f"{result['env_name']}: the cameras of robosuite's tasks go by their own names")
    options = result.setdefault("env_kwargs", {})
    options["use_camera_obs"] = True
    options["camera_names"] = list(sizes)
    options["camera_heights"] = [height for height, _ in sizes.values()]
    options["camera_widths"] = [width for _, width in sizes.values()]
    return result

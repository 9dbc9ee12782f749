"""What environments are of: robosuite, without its complaints about optional packages, and modules of a user's own."""

import difflib
import importlib
import logging
import sys
from collections.abc import Collection
from typing import Any

from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.extras import missing_extra
from pixelrl.simulation.envs.opengl import cannot_draw


def robosuite() -> Any:
    """Return robosuite, with what it imports itself: tasks, robots, controllers.

    Raises:
        SimulationError: it cannot be imported here.
    """
    logger = logging.getLogger("robosuite_logs")
    if _is_serious not in logger.filters:
        logger.addFilter(_is_serious)
    try:
        import robosuite
    except Exception as error:  # mujoco loads the OpenGL library while it is imported
        raise cannot_import(error) from error
    return robosuite


def task_class(name: str, allow_import: Collection[str] = ()) -> Any:
    """Return the class of a robosuite task: ours, its own, or one that a module of the user's registers.

    Raises:
        SimulationError: there is none.
    """
    tasks = robosuite().environments.base.REGISTERED_ENVS
    import pixelrl.simulation.tasks.drawers
    import pixelrl.simulation.tasks.pick_place_tray  # noqa: F401 (they register themselves with robosuite)

    for module in allow_import if name not in tasks else ():
        import_allowed(module, allow_import, f"{module}:{name}")
    if name not in tasks:
        near = difflib.get_close_matches(name, {*tasks, *TASK_NAMES}, n=3)
        guess = f"did you mean {' or '.join(near)}?" if near else "a robot's own data may have no simulator."
        raise SimulationError(
            f"there is no task {name!r} in robosuite; {guess} If another package registers it with robosuite, name "
            f"that: --allow-import PACKAGE, or --env PACKAGE:{name}"
        )
    return tasks[name]


def import_allowed(module: str, allow_import: Collection[str], env: str) -> None:
    """Import a module, unless it is there already.

    Args:
        module: its name. It may come from a file that anybody has written, and a file must not run any code.
        allow_import: modules that may be imported.
        env: what `--env` would call the environment that needs it.

    Raises:
        SimulationError: it may not be imported, or cannot be.
    """
    if module in sys.modules:
        return
    if module not in allow_import:
        raise SimulationError(
            f"{env} comes from a file and would import the module {module!r}; if you trust it, "
            f"name it yourself: --allow-import {module}, or --env {env}"
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a stranger's module may raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        advice = "; install the package that has it" if isinstance(error, ModuleNotFoundError) else ""
        raise SimulationError(f"{env}: the module {module!r} cannot be imported: {reason}{advice}") from error


def cannot_import(error: Exception) -> SimulationError:
    """Return the error that tells a user what keeps robosuite from being imported."""
    if extra := missing_extra(error):
        return SimulationError(extra)
    text = f"{type(error).__name__}: {error}"
    if "cannot cache function" in text:  # numba's words
        advice = "numba can write its cache neither beside robosuite nor in HOME: set NUMBA_CACHE_DIR to another folder"
        return SimulationError(f"robosuite cannot be imported ({text}); {advice}")
    if "gl" in text.lower():  # EGL, OpenGL, MUJOCO_GL, libGL, ...
        return cannot_draw(error)
    return SimulationError(f"robosuite cannot be imported ({text})")


def _is_serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR

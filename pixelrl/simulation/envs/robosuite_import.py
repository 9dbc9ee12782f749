"""robosuite itself: imported when it is needed, without its complaints about optional packages."""

import importlib
import logging
import os
from contextlib import suppress
from typing import Any

from pixelrl.runtime.errors import SimulationError


def robosuite(module: str = "") -> Any:
    """Return robosuite, or one of its modules, say `environments.base`.

    Raises:
        SimulationError: it cannot be imported here.
    """
    logger = logging.getLogger("robosuite_logs")
    if _is_serious not in logger.filters:
        logger.addFilter(_is_serious)
    try:
        return importlib.import_module(f"robosuite.{module}" if module else "robosuite")
    except Exception as error:  # mujoco loads the OpenGL library while it is imported
        raise cannot_draw(error) from error


def before_drawing() -> None:
    """Load triton (torch's compiler), where it is installed, before anything is drawn.

    Mesa and triton each bring an LLVM. Loaded in this order both live; in the other, whoever imports torch's
    optimisers after drawing dies of a segmentation fault.
    """
    with suppress(ImportError):
        importlib.import_module("triton")


def cannot_draw(error: Exception) -> SimulationError:
    """Return the error that tells a user what to install."""
    return SimulationError(
        f"nothing can be drawn here with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({type(error).__name__}: {error});"
        " set MUJOCO_GL=egl and install the Debian packages libegl1 and libgl1-mesa-dri"
    )


def _is_serious(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR

"""Modules of a user's own that register environments: imported by name, if the user said so on the command line."""

import importlib
import sys
from collections.abc import Collection

from pixelrl.runtime.errors import SimulationError


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

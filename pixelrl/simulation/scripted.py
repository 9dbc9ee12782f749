"""The scripted policies that collect COG's data sets, by task."""

from pixelrl.errors import SimulationError
from pixelrl.simulation.environment import TASK_NAMES
from pixelrl.simulation.moves import Script
from pixelrl.simulation.scripted_drawers import drawer_scripts
from pixelrl.simulation.scripted_tray import tray_scripts


def scripts(env_name: str) -> dict[str, Script]:
    """Return a task's scripts by the name of the part of the data: prior, task, oracle.

    Args:
        env_name: as in `env_args`: the name of the task's class.

    Raises:
        SimulationError: if nobody has written scripts for the task.
    """
    if env_name not in TASK_NAMES.values():
        raise SimulationError(f"there are scripted policies for {', '.join(TASK_NAMES)} only, not for {env_name}")
    return tray_scripts() if env_name == TASK_NAMES["pick-place-tray"] else drawer_scripts(env_name)

"""The scripted policies that collect COG's data sets, by task."""

from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.tasks.scripted.drawers import drawer_scripts
from pixelrl.simulation.tasks.scripted.moves import Script
from pixelrl.simulation.tasks.scripted.pick_place_tray import tray_scripts


def scripts(env_name: str) -> dict[str, Script]:
    """Return a task's scripts by the name of the part of the data: prior, task, oracle.

    Args:
        env_name: as in `env_args`: the name of the task's class.

    Raises:
        SimulationError: there are no scripts for the task.
    """
    if env_name not in TASK_NAMES.values():
        raise SimulationError(f"there are scripted policies for {', '.join(TASK_NAMES)} only, not for {env_name}")
    return tray_scripts() if env_name == TASK_NAMES["pick-place-tray"] else drawer_scripts(env_name)

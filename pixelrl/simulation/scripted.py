"""The scripted policies that collect COG's data sets, by task."""

from pixelrl.errors import SimulationError
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
    if env_name == "PickPlaceTray":
        return tray_scripts()
    if env_name.startswith("Drawer"):
        return drawer_scripts(env_name)
    raise SimulationError(f"there is no script")

"""A stranger's package: importing it registers a task with robosuite that is none of robosuite's own."""

from pixelrl.simulation.tasks.pick_place_tray import PickPlaceTray


class StrangeTray(PickPlaceTray):
    """The tray under another name."""

"""What robomimic's `env_args` say of an environment, read without a simulator."""

from collections.abc import Mapping
from typing import Any

TASK_NAMES = {
    "pick-place-tray": "PickPlaceTray",
    "drawer-grasp": "DrawerGrasp",
    "drawer-blocked-drawer": "DrawerBlockedDrawer",
    "drawer-blocked-object": "DrawerBlockedObject",
}
"""pixelrl's own tasks: the name that a user types -> `env_name`. robosuite's own tasks keep robosuite's names."""

ROBOSUITE_TYPE, GYMNASIUM_TYPE = 1, 2
"""robomimic's `type` of an environment of robosuite, and of one of Gymnasium."""


def drawing_of(env_args: Mapping[str, Any]) -> str:
    """Return how an environment is drawn: `env_args["drawing"]`, else `fast` for our tasks, `stock` for all others."""
    return str(env_args.get("drawing", "fast" if env_args.get("env_name") in TASK_NAMES.values() else "stock"))


def control_freq_of(env_args: Mapping[str, Any]) -> float | None:
    """Return how often an environment acts [Hz], or None where its description does not tell."""
    options = env_args.get("env_kwargs")
    frequency = env_args.get("control_freq", options.get("control_freq") if isinstance(options, Mapping) else None)
    return float(frequency) if isinstance(frequency, int | float) else None

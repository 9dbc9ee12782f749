"""What robomimic's `env_args` say of an environment, read without a simulator."""

import re
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

FLAT_TYPES = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")
"""The controllers of one arm: what robosuite 1.4 had, and 1.5 still has."""


def gymnasium_env_args(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of an environment of Gymnasium's, or of anything else that is not robosuite's."""
    return {"env_name": name, "type": GYMNASIUM_TYPE, "env_kwargs": options}


def drawing_of(env_args: Mapping[str, Any]) -> str:
    """Return how an environment is drawn: `env_args["drawing"]`, else `fast` for our tasks, `stock` for all others."""
    return str(env_args.get("drawing", "fast" if env_args.get("env_name") in TASK_NAMES.values() else "stock"))


def control_freq_of(env_args: Mapping[str, Any]) -> float | None:
    """Return how often an environment acts [Hz], or None where its description does not tell."""
    options = env_args.get("env_kwargs")
    frequency = env_args.get("control_freq", options.get("control_freq") if isinstance(options, Mapping) else None)
    return float(frequency) if type(frequency) in (int, float) else None


def is_before_1_5(env_args: Mapping[str, Any]) -> bool:
    """Tell whether a recording is older than robosuite 1.5: by its version, else by the form of its controllers."""
    version = re.match(r"(\d+)\.(\d+)", str(env_args.get("env_version") or ""))
    if version is not None:
        return (int(version[1]), int(version[2])) < (1, 5)
    configs = (env_args.get("env_kwargs") or {}).get("controller_configs")
    return any(is_flat(config) for config in (configs if isinstance(configs, list | tuple) else [configs]))


def is_flat(config: Any) -> bool:
    """Tell whether a controller's configuration is one arm's, as robosuite had it before 1.5."""
    return isinstance(config, dict) and config.get("type") in FLAT_TYPES and "body_parts" not in config


def order_of_arms(env_args: Mapping[str, Any]) -> str | None:
    """Return in which order a robot of two arms takes its numbers, which robosuite 1.5 changed; None for other robots.

    Before 1.5 there was one such robot; two robots of one arm each have kept their order.
    """
    options = env_args.get("env_kwargs")
    robots = options.get("robots") if isinstance(options, Mapping) else None
    if env_args.get("type") != ROBOSUITE_TYPE or not isinstance(robots, str | list) or "Baxter" not in robots:
        return None
    return "arm, gripper, arm, gripper" if is_before_1_5(env_args) else "arms, grippers"

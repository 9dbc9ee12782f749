"""Controllers of robosuite 1.4 in the words of robosuite 1.5, so that recorded actions mean what they meant.

Until 1.4 a controller was one flat dictionary for an arm; since 1.5 it is one for the whole robot, with the arms among
its `body_parts`. robosuite's own translation moves the dictionary there and leaves its words as they were, although
1.5 reads others, and ignores those that it does not know. Ours (compared with the sources of 1.4.1 and 1.5.2):

| until 1.4 | since 1.5 |
|---|---|
| OSC: changes of position and orientation are in the world's axes | `input_ref_frame`: "base" unless it says "world" |
| `control_delta`: true or false | `input_type`: "delta" or "absolute" |
| `damping`, `damping_limits` (until 1.2) | `damping_ratio`, `damping_ratio_limits` |
| `interpolation` and `ramp_ratio` may be missing | both are looked up |
| a robot of two arms: one dictionary, or [right, left] | `right` and `left` among `body_parts` |

Two differences of OSC are in its code, and no configuration undoes them: 1.4 kept the last commanded orientation while
the commanded rotation was exactly zero, and its OSC_POSITION held the gripper downward; 1.5 keeps the orientation that
the arm has at each step. IK_POSE was solved by pybullet then, and by MuJoCo's kinematics now. How much that matters
for a recording, its replay shows.
"""

import copy
import importlib
import re
from collections.abc import Mapping
from typing import Any

from pixelrl.errors import SimulationError

FLAT_TYPES = ("JOINT_VELOCITY", "JOINT_TORQUE", "JOINT_POSITION", "OSC_POSITION", "OSC_POSE", "IK_POSE")
"""The controllers of one arm: what robosuite 1.4 had, and 1.5 still has."""

OLD_NAMES = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}


def is_before_1_5(env_args: Mapping[str, Any]) -> bool:
    """Tell whether a recording is older than robosuite 1.5: by its version, else by the form of its controllers."""
    version = re.match(r"(\d+)\.(\d+)", str(env_args.get("env_version") or ""))
    if version is not None:
        return (int(version[1]), int(version[2])) < (1, 5)
    configs = env_args.get("env_kwargs", {}).get("controller_configs")
    return any(_is_flat(config) for config in (configs if isinstance(configs, list | tuple) else [configs]))


def composite(configs: Any, robots: Any, *, old: bool) -> list[Any]:
    """Return robosuite 1.5's controllers, one a robot.

    Args:
        configs: one for all robots, or one for each; of the old form, or of the new one, which stays as it is.
        robots: the names of the robots, or of the only one.
        old: whether the old form is to be read as robosuite 1.4 did; else it means what robosuite 1.5 takes it for.

    Raises:
        SimulationError: an unknown robot, or controllers that are not one for each robot or arm.
    """
    known = importlib.import_module("robosuite.models.robots.robot_model").REGISTERED_ROBOTS
    names = list(robots) if isinstance(robots, list | tuple) else [robots]
    for name in names:
        if name not in known:
            raise SimulationError(f"there is no robot {name!r}; there are: {', '.join(sorted(known))}")
    if not isinstance(configs, list | tuple):
        configs = [configs] * len(names)
    elif len(names) == 1 and len(configs) == 2:  # the arms of one robot, though 1.4 wanted them in a list of their own
        configs = [configs]
    if len(configs) != len(names):
        raise SimulationError(f"controller_configs holds {len(configs)} controllers for {len(names)} robots")
    return [_robot(config, name, list(known[name].arms), old) for config, name in zip(configs, names, strict=True)]


def _robot(config: Any, name: str, arms: list[str], old: bool) -> Any:
    """Return the controller of one robot."""
    by_arm = _by_arm(config, name, arms)
    if by_arm is None:
        return copy.deepcopy(config)
    factory = importlib.import_module("robosuite.controllers.composite.composite_controller_factory")
    # robosuite's own translation brings what moves besides the arms: base, torso, head.
    whole: dict[str, Any] = factory.refactor_composite_controller_config(by_arm[arms[0]], name, arms)
    for arm, part in by_arm.items():
        whole["body_parts"][arm] = {**(_arm(part) if old else part), "gripper": {"type": "GRIP"}}
    return whole


def _by_arm(config: Any, name: str, arms: list[str]) -> dict[str, dict[str, Any]] | None:
    """Return arm -> its flat controller; None where the configuration is not of the old form."""
    if _is_flat(config):
        return dict.fromkeys(arms, config)
    if isinstance(config, list | tuple):
        if len(config) != len(arms) or not all(_is_flat(part) for part in config):
            raise SimulationError(f"{name} has the arms {', '.join(arms)}; its controllers are {config!r:.200}")
        return dict(zip(arms, config, strict=True))  # 1.4 and 1.5 name the right arm first
    if isinstance(config, dict) and set(config) == set(arms) and all(_is_flat(part) for part in config.values()):
        return {arm: config[arm] for arm in arms}
    return None


def _is_flat(config: Any) -> bool:
    return isinstance(config, dict) and config.get("type") in FLAT_TYPES and "body_parts" not in config


def _arm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an arm's controller in the words of 1.5."""
    part = {"interpolation": None, "ramp_ratio": 0.2, **copy.deepcopy(dict(config))}
    for old, new in OLD_NAMES.items():
        if old in part:
            part.setdefault(new, part.pop(old))
    if "control_delta" in part and part["type"].startswith("OSC"):
        part.setdefault("input_type", "delta" if part.pop("control_delta") else "absolute")
    if part["type"].startswith("OSC"):
        part.setdefault("input_ref_frame", "world")
    return part

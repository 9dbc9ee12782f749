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
| its action: right arm, right gripper, left arm, left gripper | both arms, then both grippers |

Two differences of OSC are in its code, and no configuration undoes them: 1.4 kept the last commanded orientation while
the commanded rotation was exactly zero, and its OSC_POSITION held the gripper downward; 1.5 keeps the orientation that
the arm has at each step. IK_POSE was solved by pybullet then, and by MuJoCo's kinematics now. How much that matters
for a recording, its replay shows.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.export.contract import MOVES, PLACES
from pixelrl.runtime.env_args import is_before_1_5, is_flat
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.envs.imports import robosuite

OLD_NAMES = {"damping": "damping_ratio", "damping_limits": "damping_ratio_limits"}


def translated(env_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recording's `env_args` in the words of robosuite 1.5; those of an older one become this version's.

    The `env_name` that collectors leave among `env_kwargs` is dropped, as robomimic does.
    `lite_physics` becomes explicit: recordings from before 1.5 replay only with their order of physics calls.

    Raises:
        SimulationError: see `composite`.
    """
    old, options = is_before_1_5(env_args), copy.deepcopy(dict(env_args.get("env_kwargs") or {}))
    options.pop("env_name", None)
    configs = options.get("controller_configs")
    if configs is not None:
        robots = composite(configs, options.get("robots"), old=old)
        options["controller_configs"] = robots if isinstance(configs, list | tuple) or len(robots) > 1 else robots[0]
    options.setdefault("lite_physics", not old)
    result = {**env_args, "env_kwargs": options}
    if old:
        result["env_version"] = robosuite().__version__
    return result


def composite(configs: Any, robots: Any, *, old: bool) -> list[Any]:
    """Return robosuite 1.5's controllers, one a robot.

    Args:
        configs: one for all robots, or one for each; of the old form, or of the new one, which stays as it is.
        robots: the names of the robots, or of the only one.
        old: whether the old form is to be read as robosuite 1.4 did; else it means what robosuite 1.5 takes it for.

    Raises:
        SimulationError: an unknown robot, or controllers that are not one for each robot or arm.
    """
    known = robosuite().models.robots.robot_model.REGISTERED_ROBOTS
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
    by_arm = _by_arm(config, name, arms)
    if by_arm is None:
        return copy.deepcopy(config)
    factory = robosuite().controllers.composite.composite_controller_factory
    # robosuite's own translation brings what moves besides the arms: base, torso, head.
    whole: dict[str, Any] = factory.refactor_composite_controller_config(by_arm[arms[0]], name, arms)
    for arm, part in by_arm.items():
        whole["body_parts"][arm] = {**(_arm(part) if old else part), "gripper": {"type": "GRIP"}}
    return whole


def _by_arm(config: Any, name: str, arms: list[str]) -> dict[str, dict[str, Any]] | None:
    """Return arm -> its flat controller; None where the configuration is not of the old form."""
    if is_flat(config):
        return dict.fromkeys(arms, config)
    if isinstance(config, list | tuple):
        if len(config) != len(arms) or not all(is_flat(part) for part in config):
            raise SimulationError(f"{name} has the arms {', '.join(arms)}; its controllers are {config!r:.200}")
        return dict(zip(arms, config, strict=True))  # 1.4 and 1.5 name the right arm first
    if isinstance(config, dict) and set(config) == set(arms) and all(is_flat(part) for part in config.values()):
        return {arm: config[arm] for arm in arms}
    return None


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


def reorder(actions: NDArray[Any], robosuite_env: Any) -> NDArray[Any]:
    """Return actions `[N, A]` of robosuite 1.4 in the order of 1.5, for the robots of an environment.

    A two-armed robot's action was right arm, right gripper, left arm, left gripper; now the grippers come last.

    Raises:
        SimulationError: two-armed actions of another size than the environment's: nobody knows whose each number is.
    """
    size = robosuite_env.action_dim
    if actions.shape[1] != size:
        if all(len(robot.arms) == 1 for robot in robosuite_env.robots):
            return actions  # in the same order, under another controller
        raise SimulationError(
            f"two-armed actions of {actions.shape[1]} numbers in the order of robosuite 1.4; the task takes {size}: "
            "they can be brought into the order of 1.5 only with their own controllers"
        )
    taken: list[int] = []
    offset = 0
    for robot in robosuite_env.robots:
        parts = robot._action_split_indexes
        for arm in robot.arms:
            for part in (arm, f"{arm}_gripper"):
                taken += range(*(offset + bound for bound in parts.get(part, (0, 0))))
        offset += robot.action_dim
    return np.take(actions, np.argsort(taken), axis=1)


def action_ranges(robosuite_env: Any) -> list[tuple[str, float, float, str]]:
    """Return name, low, high and unit of each dimension of an environment's action."""
    if hasattr(robosuite_env, "action_ranges"):
        return list(robosuite_env.action_ranges)
    rows: list[tuple[str, float, float, str]] = []
    for label, part, controller, numbers in _parts(robosuite_env):
        rows += _ranges(label, part, controller, numbers.stop - numbers.start)
    return rows


def takes_units(robosuite_env: Any) -> NDArray[np.bool_]:
    """Return which dimensions of an action, `[A]`, the controllers take in their own units, not in [-1, 1].

    Absolute poses and joint angles, and the gains where they vary; the controllers bound them as far as they do.
    """
    result = np.zeros(robosuite_env.action_dim, np.bool_)
    if not hasattr(robosuite_env, "action_ranges"):
        for _, _, controller, numbers in _parts(robosuite_env):
            absolute = getattr(controller, "input_type", "delta") == "absolute"
            result[numbers] = absolute or getattr(controller, "impedance_mode", "fixed") != "fixed"
    return result


def _parts(robosuite_env: Any) -> Iterator[tuple[str, str, Any, slice]]:
    """Yield the parts of an environment's robots that act: label, name, controller, and its numbers of the action."""
    offset = 0
    for robot in robosuite_env.robots:
        several = len(robosuite_env.robots) > 1 or len(robot.arms) > 1
        for part, (start, stop) in robot._action_split_indexes.items():
            label = f"{robot.robot_model.naming_prefix}{part}_" if several else ""
            yield label, part, robot.part_controllers[part], slice(offset + start, offset + stop)
        offset += robot.action_dim


def _ranges(label: str, part: str, controller: Any, size: int) -> list[tuple[str, float, float, str]]:
    """Return the ranges of one part of a robot: metres and radians for a pose, else plain numbers."""
    units = ("m", "m", "m", "rad", "rad", "rad")
    if controller.name.startswith("OSC") and controller.impedance_mode == "fixed":
        if controller.input_type == "absolute":
            rows = zip(PLACES[:size], units, strict=False)
            return [(label + name, -1.0, 1.0, unit) for name, unit in rows]
        bounds = zip(MOVES[:size], controller.output_min, controller.output_max, units, strict=False)
        return [(label + name, float(low), float(high), unit) for name, low, high, unit in bounds]
    name = "gripper" if "gripper" in part else part
    return [(f"{label}{name}" if size == 1 else f"{label}{name}_{k}", -1.0, 1.0, "1") for k in range(size)]

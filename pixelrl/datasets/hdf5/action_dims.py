"""What the actions of a file mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import h5py

from pixelrl.datasets.hdf5.access import json_attribute, where
from pixelrl.runtime.actions import ActionDim, unnamed_dims
from pixelrl.runtime.errors import DataError

AXES = ("dx", "dy", "dz", "drx", "dry", "drz")


def read_action_dims(data: h5py.Group, env_args: Mapping[str, Any], size: int) -> tuple[ActionDim, ...]:
    """Return what the actions of a file mean: as it says, else as its controller's configuration does, else nameless.

    Raises:
        DataError: what it says is not understood.
    """
    recorded = json_attribute(data, "action_dims", None, list)
    if recorded is None:
        return _controller_dims(env_args, size) or unnamed_dims(size)
    if len(recorded) != size:
        raise DataError(f"{where(data)}: action_dims describes {len(recorded)} dimensions; the actions have {size}")
    if wrong := [dim for dim in recorded if not _describes(dim)]:
        said = f"{where(data)}: action_dims holds {str(wrong[0])[:120]!a}"
        raise DataError(f"{said}; expected name, low, high and unit, low below high")
    return tuple(ActionDim(**dim) for dim in recorded)


def _describes(dim: Any) -> bool:
    """Tell whether a JSON value describes a dimension of the action."""
    if not isinstance(dim, dict) or not {"name"} <= set(dim) <= {"name", "low", "high", "unit"}:
        return False
    texts, bounds = (dim["name"], dim.get("unit", "")), (dim.get("low", -1.0), dim.get("high", 1.0))
    named = all(isinstance(text, str) and text.isprintable() for text in texts)
    return named and _are_numbers(bounds) and bounds[0] < bounds[1]


def _are_numbers(values: Sequence[Any]) -> bool:
    """Tell whether all of these are numbers that float32 can hold."""
    return all(type(value) in (int, float) and abs(value) < 1e38 for value in values)


def _controller_dims(env_args: Any, size: int) -> tuple[ActionDim, ...]:
    """Return the dimensions of one arm under robosuite's OSC_POSE or OSC_POSITION and a gripper, else nothing.

    Only of commands that are differences: for absolute poses the output range says nothing about what was recorded.
    """
    match env_args:
        case {"env_kwargs": {"controller_configs": {"body_parts": {"right": {**controller}}}}}:  # robosuite 1.5
            pass
        case {"env_kwargs": {"controller_configs": {**controller}}}:
            pass
        case _:
            return ()
    match controller:
        case {"control_delta": False}:
            return ()
        case {"type": "OSC_POSITION" | "OSC_POSE" as kind, "output_min": [*lows], "output_max": [*highs]}:
            axes = AXES[: 3 if kind == "OSC_POSITION" else 6]
        case _:
            return ()
    fits = size - 1 == len(axes) == len(lows) == len(highs) and _are_numbers([*lows, *highs])
    if not fits or controller.get("input_type", "delta") != "delta":
        return ()
    bounds: list[Any] = [*zip(lows, highs, strict=True)]
    arm = (
        ActionDim(name=name, low=low, high=high, unit="rad" if name.startswith("dr") else "m")
        for name, (low, high) in zip(axes, bounds, strict=True)
    )
    return (*arm, ActionDim(name="gripper"))

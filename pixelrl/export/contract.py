"""The contract of an exported policy, `policy.json`, and its inputs: read and checked without torch or onnxruntime.

Format 2 adds how actions move the robot (`outputs.action.control`), `chunk`, `precision`, `task`, `evaluation` (the
last one), and `latency` (as measured); cameras have `encoding` and `mount`; `pt2` tells inputs, outputs and parity of
`policy.pt2`, where there is one. Policies of format 1 still run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors

MODEL, CONTRACT, PROGRAM = "policy.onnx", "policy.json", "policy.pt2"
FORMAT, FORMATS = 2, (1, 2)
"""The version of `policy.json` that is written, and those that are read."""

MODES = ("absolute", "delta", "velocity", "torque")
"""What a number of an action is: a position or a setting, a step from where the robot is, a speed, a torque."""

MOVES = ("dx", "dy", "dz", "drx", "dry", "drz")
PLACES = ("x", "y", "z", "rx", "ry", "rz")
"""Ends of the names of dimensions that step a hand, or say where it is to be."""

PRECISIONS = ("fp32", "fp16", "int8")

LARGEST = (2 - 2.0**-23) * 2.0**127
"""The largest number of float32, as which networks and robots take it."""


def read_contract(path: Path) -> dict[str, Any]:
    """Return the content of a `policy.json`."""
    if not path.is_file():
        hint = "; give the folder that holds it" if path.parent.name == path.name else ""
        raise PixelrlError(f"{path.parent}: not an exported policy: it has no {path.name}{hint}")
    try:
        contract = dict(json.loads(path.read_text(encoding="utf-8")))
        if contract["format"] not in FORMATS:
            known = " and ".join(map(str, FORMATS))
            found = f"{path}: has format {contract['format']!r}"
            raise PixelrlError(f"{found}; this version of pixelrl reads {known}: export the run again")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PixelrlError(f"{path}: not the contract of an exported policy, or damaged ({error!r})") from error
    check_contract(contract, path)
    return contract


def check_contract(contract: Mapping[str, Any], origin: object) -> None:
    """Raise a `PixelrlError` unless a contract says all that we read in it, in the types that we expect."""
    try:
        _check_contract(contract)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PixelrlError(f"{origin}: not the contract of an exported policy, or damaged ({error!r})") from error


def _check_contract(contract: Mapping[str, Any]) -> None:
    """Raise one of several errors unless all is there and of its type."""

    def expect(right: bool, what: str) -> None:
        if not right:
            raise ValueError(what)

    history, chunk, rate = contract.get("history", 1), contract.get("chunk", 1), contract.get("control_freq")
    expect(type(chunk) is int and chunk >= 1, f"chunk is {chunk!r}")
    expect(type(history) is int and history >= 1, f"history is {history!r}")
    expect(rate is None or (_is_number(rate) and rate > 0), f"control_freq is {rate!r:.200}")
    expect(isinstance(contract["env_args"], dict), "env_args is no object")
    expect(isinstance(contract["sha256"][MODEL], str), "sha256 is no text")
    expect(bool(contract["inputs"]), "inputs is empty")
    for key, each in contract["inputs"].items():
        kind, shape = each["dtype"], [*each["shape"][1:]]
        sizes = all(type(size) is int and size >= 1 for size in shape)
        expect(sizes and len(shape) == {"uint8": 3, "float32": 1}.get(kind), f"{key} is {kind} {shape}")
        expect(kind != "uint8" or shape[2] % history == 0, f"{key} has {shape[-1]} channels for {history} pictures")
    dims = contract["outputs"]["action"]["dims"]
    expect(bool(dims), "the action has no dimensions")
    for dim in dims:
        words = isinstance(dim["name"], str) and isinstance(dim["unit"], str) and len(dim) == 4
        expect(words and is_range(dim["low"], dim["high"]), f"a dimension of the action is {dim!r:.300}")
    for name, right in _CHECKS.items():
        value = contract.get(name)
        expect(value is None or right(value), f"{name} is {value!r:.200}")
    control = contract["outputs"]["action"].get("control")
    expect(control is None or _is_control(control, dims), f"control is {control!r:.300}")


def is_rescaled(contract: Mapping[str, Any]) -> bool:
    """Tell whether a policy's [-1, 1] is the range of the recorded actions (`--actions min-max`)."""
    return (contract.get("provenance") or {}).get("actions") == "min-max"


def is_range(low: Any, high: Any) -> bool:
    """Tell whether two values can be the ends of a range: numbers in order, within float32 as their difference is."""
    return _is_number(low) and _is_number(high) and low <= high and high - low <= LARGEST


def _is_number(value: Any, low: float = -LARGEST) -> bool:
    return type(value) in (int, float) and low <= value <= LARGEST


def _is_control(value: Any, dims: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a value says how actions move the robot (`pixelrl.export.description`)."""

    def rows(name: str, right: Callable[[Any, Mapping[str, Any]], bool]) -> bool:
        row = value[name]
        fits = isinstance(row, list) and len(row) == len(dims)
        return fits and all(each is None or right(each, dim) for each, dim in zip(row, dims, strict=True))

    texts = all(value[name] is None or isinstance(value[name], str) for name in ("frame", "rotation", "gripper"))
    return (
        texts
        and rows("mode", lambda each, _: each in MODES)
        and rows("hold", lambda each, dim: _is_number(each) and dim["low"] <= each <= dim["high"])
        and rows("largest_step", lambda each, _: _is_number(each, 0))
        and rows("largest_change", lambda each, _: _is_number(each, 0))
    )


def _is_latency(value: Any) -> bool:
    times = all(_is_number(value[name], 0) for name in ("p50_ms", "p95_ms", "p99_ms"))
    counts = all(type(value[name]) is int and value[name] >= 1 for name in ("calls", "threads"))
    machine = value["machine"]
    return times and counts and isinstance(value["provider"], str) and (machine is None or isinstance(machine, dict))


_EVALUATION: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "episodes": lambda each: type(each["episodes"]) is int,
    "successes": lambda each: type(each["successes"]) is int and 0 <= each["successes"] <= each["episodes"],
    "success_rate": lambda each: each.get("success_rate") is None or 0 <= each["success_rate"] <= 1,
    "success_interval_95": lambda each: 0 <= each["success_interval_95"][0] <= each["success_interval_95"][1] <= 1,
}


def evaluation_fault(value: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the figures of an evaluation, as `successes is 50`; None: nothing."""
    for name, right in _EVALUATION.items():
        try:
            fits = right(value)
        except (LookupError, TypeError):
            fits = False
        if not fits:
            return f"{name} is {value.get(name, 'missing')!r:.100}"
    return None


def _is_program(value: Any) -> bool:
    names = all(isinstance(name, str) for name in (*value["inputs"], *value["outputs"], value["torch"]))
    return names and isinstance(value["parity"], dict) and value["precision"] in PRECISIONS


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "provenance": lambda value: isinstance(value, dict),
    "precision": lambda value: value in PRECISIONS,
    "task": lambda value: isinstance(value, str),
    "latency": _is_latency,
    "evaluation": lambda value: evaluation_fault(value) is None,
    "pt2": _is_program,
}
"""What contracts may say beyond the rest; None where nobody knows."""


@dataclass(frozen=True)
class InputSpec:
    """What a policy takes under one observation key.

    Attributes:
        dtype: `uint8` for pictures, `float32` for everything else.
        shape: of one reading, without the batch: (H, W, C) or (D,).
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join(str(size) for size in self.shape)
        meaning = "bytes from 0 to 255, RGB, upright" if self.dtype == "uint8" else "finite, in the robot's units"
        return f"{self.dtype} [B, {sizes}] ({meaning})"


def check_sensors(
    sensors: Sensors, inputs: Mapping[str, InputSpec], *, single: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the readings that a policy takes, `[B, ...]` each, and no others; `single`: they came without B.

    Raises:
        PixelrlError: a key is missing, or an array has another shape or type, or is not finite.
    """
    rows: int | None = None
    for key, spec in inputs.items():
        if key not in sensors:
            raise PixelrlError(f"the policy needs {key!r}, {spec}; it was given {', '.join(sensors) or 'nothing'}")
    for key, spec in inputs.items():
        value = sensors[key]
        if not isinstance(value, np.ndarray):
            raise PixelrlError(f"{key} is a {type(value).__name__}; the policy takes a NumPy array, {spec}")
        expected = spec.shape if single else (*value.shape[:1], *spec.shape)
        if value.dtype != spec.dtype or value.shape != expected:
            raise PixelrlError(f"{key} is {value.dtype} {list(value.shape)}; the policy takes {spec}")
        if not single and rows is not None and len(value) != rows:
            raise PixelrlError(f"{key} has {len(value)} rows and {next(iter(inputs))} has {rows}; give both the same")
        rows = len(value)
        if spec.dtype != "uint8" and not np.isfinite(value).all():  # bytes always are, and asking takes its time
            raise PixelrlError(f"{key} holds NaN or an infinity; the policy takes {spec}")
    return {key: sensors[key][np.newaxis] if single else sensors[key] for key in inputs}

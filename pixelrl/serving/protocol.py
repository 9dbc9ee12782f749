"""What a server tells of its policy, and what it takes for an observation."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelrl.export.contract import CONTRACT, MOVES, PLACES, is_rescaled
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.serving.client.wire import WireError, one_line, pack, unpack

SLACK = 2**20
"""Bytes of a message beyond what the policy takes: keys, a prompt, numbers, another camera."""

PRIVATE = ("provenance", "checkpoint")
"""What the contract says of the machine that trained the policy; a peer need not know."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """An observation.

    Attributes:
        sensors: the arrays that came, under the policy's names.
        seq: the peer's number of it, repeated in the reply; None: it has none.
        stamp_ns: when the peer took it, repeated in the reply [ns of its own clock].
        reset: an episode begins: what was seen before is forgotten.
        only_reset: nothing is to be inferred (RoboArena's `endpoint: reset`).
    """

    sensors: Sensors
    seq: int | None = None
    stamp_ns: int | None = None
    reset: bool = False
    only_reset: bool = False


def read_request(message: bytes | str, names: Mapping[str, str]) -> Request:
    """Return the observation in a message; `names`: peer's key -> policy's key. Keys that nobody knows are ignored.

    Raises:
        WireError: it is not one; `seq N:` comes first where the message has a number.
    """
    content = unpack(message, flat=True)
    seq = _number(content, "pixelrl/seq")
    try:
        stamp, reset = _number(content, "pixelrl/stamp_ns"), content.get("pixelrl/reset", False)
        if type(reset) is not bool:
            raise WireError("pixelrl/reset is no truth value")
        endpoint = content.get("endpoint", "infer")
        if not isinstance(endpoint, str) or endpoint not in ("infer", "reset"):
            raise WireError("endpoint is neither 'infer' nor 'reset'")
        sensors = _sensors(content, names)
    except WireError as error:
        raise WireError(labelled(seq, error)) from None
    only = endpoint == "reset"
    return Request(sensors=sensors, seq=seq, stamp_ns=stamp, reset=reset or only, only_reset=only)


def _sensors(content: Mapping[str, Any], names: Mapping[str, str]) -> Sensors:
    """Return the arrays in a message under the policy's names, or raise a `WireError` if two of them have one name."""
    keys: dict[str, str] = {}
    for key in (key for key, value in content.items() if hasattr(value, "dtype")):
        if (other := keys.setdefault(names.get(key, key), key)) != key:
            raise WireError(f"{other} and {key} are both the policy's {names.get(key, key)}; send one of them")
    return {ours: content[key] for ours, key in keys.items()}


def labelled(seq: int | None, message: object) -> str:
    """Return an error with the number of the request that it is about."""
    return f"{message}" if seq is None else f"seq {seq}: {message}"


def _number(content: Mapping[str, Any], key: str) -> int | None:
    """Return a number of the peer's, if it gave one."""
    value = content.get(key)
    if value is None or (type(value) is int and 0 <= value < 2**63):
        return value
    raise WireError(f"{key} is no integer from 0 to 2^63 - 1")


def largest_message(policy: ExportedPolicy) -> int:
    """Return how many bytes a message with everything that the policy takes can have."""
    sizes = {"uint8": 1, "float32": 4}
    arrays = sum(math.prod(spec.shape) * sizes[spec.dtype] for spec in policy.inputs.values())
    return arrays + SLACK


def check_names(names: Mapping[str, str], inputs: Iterable[str]) -> None:
    """Raise a `PixelrlError` unless names are for inputs, one for each, and leave every input a name."""
    inputs, found = [*inputs], dict[str, str]()
    for theirs, ours in names.items():
        option = f"--rename {theirs}={ours}"
        if ours not in inputs:
            raise PixelrlError(f"{option}: the policy takes {', '.join(inputs)}")
        if (other := found.setdefault(ours, theirs)) != theirs:
            raise PixelrlError(f"{option}: peers call {ours} {other!r} already; give one name")
        if theirs in inputs and theirs not in names.values():
            raise PixelrlError(f"{option}: {theirs} is an input, too; say what peers call it, KEY={theirs}")


def greeting(policy: ExportedPolicy, names: Mapping[str, str]) -> bytes:
    """Return what a peer is told on connecting: the contract, and what clients of RoboArena look for.

    Raises:
        PixelrlError: names that do not fit the policy's inputs, or a contract with what no message can hold.
    """
    check_names(names, policy.inputs)
    contract = {key: value for key, value in policy.contract.items() if key not in PRIVATE}
    cameras = {key: spec.shape[:2] for key, spec in policy.inputs.items() if spec.dtype == "uint8"}
    wrist = [key for key in cameras if "wrist" in key or "hand" in key]
    told = contract | {
        "rescaled": is_rescaled(policy.contract),
        "names": dict(names),
        "largest_message": largest_message(policy),
        "image_resolution": next(iter(cameras.values())) if len(set(cameras.values())) == 1 else None,
        "needs_wrist_camera": bool(wrist),
        "n_external_cameras": len(cameras) - len(wrist),
        "needs_stereo_camera": False,
        "needs_session_id": False,
        "action_space": action_space(policy.contract),
    }
    try:
        return pack(told)
    except (WireError, ValueError) as error:
        raise PixelrlError(f"{CONTRACT}: holds what cannot be sent to peers ({one_line(error)})") from error


def action_space(contract: Mapping[str, Any]) -> str:
    """Return RoboArena's word for what an action moves, as far as the names of its dimensions tell."""
    names = [dim["name"] for dim in contract["outputs"]["action"]["dims"]]
    hand = any(name.rpartition("_")[2] in (*MOVES, *PLACES) for name in names)
    space = "cartesian" if hand else "joint"
    moves = any(name.rpartition("_")[2].startswith("d") or "vel" in name for name in names)
    return f"{space}_{'velocity' if moves else 'position'}"

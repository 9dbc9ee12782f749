"""What a server tells of its policy, and what it takes for an observation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pixelrl.export.contract import MOVES, PLACES
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.serving.client.wire import WireError, unpack

SLACK = 4096
"""Bytes of a message beyond its arrays: keys, a prompt, numbers."""

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
    """Return the observation in a message; keys that nobody knows are ignored.

    Args:
        message: as it came.
        names: peer's key -> policy's key, where they differ.

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
        if endpoint not in ("infer", "reset"):
            raise WireError("endpoint is neither 'infer' nor 'reset'")
    except WireError as error:
        raise WireError(labelled(seq, error)) from None
    sensors = {names.get(key, key): value for key, value in content.items() if hasattr(value, "dtype")}
    only = endpoint == "reset"
    return Request(sensors=sensors, seq=seq, stamp_ns=stamp, reset=reset or only, only_reset=only)


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


def metadata(policy: ExportedPolicy, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what a peer is told on connecting: the contract, and what clients of RoboArena look for.

    Raises:
        PixelrlError: a name is for an input that the policy has not.
    """
    for name in names.values():
        if name not in policy.inputs:
            raise PixelrlError(f"--rename ...={name}: the policy takes {', '.join(policy.inputs)}")
    contract = {key: value for key, value in policy.contract.items() if key not in PRIVATE}
    rescaled = policy.contract.get("provenance", {}).get("actions") == "min-max"
    cameras = {key: spec.shape[:2] for key, spec in policy.inputs.items() if spec.dtype == "uint8"}
    wrist = [key for key in cameras if "wrist" in key or "hand" in key]
    return contract | {
        "rescaled": rescaled,
        "names": dict(names),
        "largest_message": largest_message(policy),
        "image_resolution": next(iter(cameras.values())) if len(set(cameras.values())) == 1 else None,
        "needs_wrist_camera": bool(wrist),
        "n_external_cameras": len(cameras) - len(wrist),
        "needs_stereo_camera": False,
        "needs_session_id": False,
        "action_space": action_space(policy.contract),
    }


def action_space(contract: Mapping[str, Any]) -> str:
    """Return RoboArena's word for what an action moves, as far as the names of its dimensions tell."""
    names = [dim["name"] for dim in contract["outputs"]["action"]["dims"]]
    hand = any(name.rpartition("_")[2] in (*MOVES, *PLACES) for name in names)
    space = "cartesian" if hand else "joint"
    moves = any(name.rpartition("_")[2].startswith("d") or "vel" in name for name in names)
    return f"{space}_{'velocity' if moves else 'position'}"

"""What a contract tells of a policy: inputs, outputs, how actions move the robot, and how long one takes."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.export.contract import FORMAT, MOVES, PLACES
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.learning.batch import Spec
from pixelrl.learning.networks import Networks
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.env_args import ROBOSUITE_TYPE
from pixelrl.runtime.interfaces import Sensors
from pixelrl.version import __version__

Sizes = Mapping[str, tuple[int, int]]
"""Observation key of a camera -> (height, width) of its pictures [px]."""

CALLS = 200
"""How often an action is timed, after a tenth as many that are not."""

CONTROLLERS = {"JOINT_VELOCITY": "velocity", "JOINT_TORQUE": "torque"}

WORDS: Mapping[str, str | None] = {
    "delta": "delta",
    **dict.fromkeys(("vel", "velocity", "twist", "speed"), "velocity"),
    **dict.fromkeys(("torque", "effort"), "torque"),
    **dict.fromkeys(("linear", "angular"), None),
}
"""Word of a dimension's name, wherever it stands -> what the number is; None: a speed or a place, so nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What is known of the data and of the policy, beyond shapes.

    Attributes:
        largest_step: largest change of the action from one instant to the next, in the robot's units, `A` numbers.
        largest_change: largest change of that change.
        task: what the robot is to do, in words.
        evaluation: how the policy did when it was last tried: episodes, successes, success_interval_95, ...
    """

    largest_step: tuple[float, ...] | None = None
    largest_change: tuple[float, ...] | None = None
    task: str | None = None
    evaluation: Mapping[str, Any] | None = None


def own_statistics(spec: Spec, networks: Networks) -> Spec:
    """Return a spec with the statistics that the policy normalises readings by: those of the run that it began with."""
    critic, actor = networks.that_act
    encoder = critic.encoders[0] if actor.encoder is None else actor.encoder
    mean, std = getattr(encoder, "mean", None), getattr(encoder, "std", None)
    if not (isinstance(mean, Tensor) and isinstance(std, Tensor) and mean.shape == std.shape == (spec.proprio_dim,)):
        return spec  # an encoder of somebody's own
    own = replace(spec, proprio_mean=tuple(mean.tolist()), proprio_std=tuple(std.tolist()))
    read = [torch.tensor(numbers).to(mean) for numbers in (spec.proprio_mean, spec.proprio_std)]
    return spec if torch.equal(mean, read[0]) and torch.equal(std, read[1]) else own


def largest_steps(episodes: Iterable[NDArray[np.floating]], size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return `largest_step` and `largest_change` of recorded actions in the robot's units, `[N, A]` an episode."""
    steps = changes = np.zeros(size)
    for actions in episodes:
        step = np.diff(actions, axis=0)
        steps = np.maximum(steps, np.abs(step).max(0, initial=0))
        changes = np.maximum(changes, np.abs(np.diff(step, axis=0)).max(0, initial=0))
    return tuple(map(float, steps)), tuple(map(float, changes))


def control_of(dims: Sequence[ActionDim], env_args: Mapping[str, Any], recorded: Recorded) -> dict[str, Any]:
    """Return how actions move the robot, as far as names and the environment's description tell; None: unknown."""
    config = _controller(env_args)
    modes = [_mode(dim, config) for dim in dims]
    holds = [
        0.0 if mode in ("delta", "velocity") and dim.low <= 0 <= dim.high else None
        for mode, dim in zip(modes, dims, strict=True)
    ]
    robosuite = env_args.get("type", 0) == ROBOSUITE_TYPE
    turns = any(dim.name.rpartition("_")[2] in (*MOVES[3:], *PLACES[3:]) for dim in dims)
    grips = any("gripper" in dim.name for dim in dims)
    frame = config.get("input_ref_frame")
    return {
        "mode": modes,
        "frame": frame if isinstance(frame, str) else None,
        "rotation": "axis-angle" if robosuite and turns else None,
        "gripper": "-1 opens, 1 closes" if robosuite and grips else None,
        "hold": holds,
        "largest_step": list(recorded.largest_step or [None] * len(dims)),
        "largest_change": list(recorded.largest_change or [None] * len(dims)),
    }


def _mode(dim: ActionDim, config: Mapping[str, Any]) -> str | None:
    """Return what a number of the action is; None: nobody knows."""
    words = [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", dim.name)]
    if said := [WORDS[word] for word in words if word in WORDS]:
        kinds = {kind for kind in said if kind is not None}
        return kinds.pop() if len(kinds) == 1 else None
    name = dim.name.rpartition("_")[2]
    if name in MOVES:
        return "delta"
    if name in PLACES or "gripper" in dim.name:
        return "absolute"
    kind = config.get("type")
    if kind == "JOINT_POSITION":
        moves = config.get("input_type", "delta") == "delta" and config.get("control_delta", True)
        return "delta" if moves else "absolute"
    return CONTROLLERS.get(kind) if isinstance(kind, str) else None


def _controller(env_args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the first arm's controller, of robosuite 1.4 or 1.5; empty if there is none."""
    config = (env_args.get("env_kwargs") or {}).get("controller_configs")
    config = config[0] if isinstance(config, list) and config else config
    if isinstance(config, Mapping) and isinstance(parts := config.get("body_parts"), Mapping):
        arms = parts.get("arms", parts)
        config = next((each for each in arms.values() if isinstance(each, Mapping)), None)
    return config if isinstance(config, Mapping) else {}


def measure_latency(directory: Path, frames: Sensors, sizes: Sizes, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Time single actions of an exported policy on one thread, on this machine."""
    policy = ExportedPolicy(directory)
    one = {
        key: np.zeros((1, *spec.shape), spec.dtype) if key in sizes else np.ascontiguousarray(frames[key][:1])
        for key, spec in policy.inputs.items()
    }
    times = []
    for _ in range(CALLS + CALLS // 10):
        begin = time.perf_counter()
        policy(one)
        times.append(1e3 * (time.perf_counter() - begin))
    names = ("p50_ms", "p95_ms", "p99_ms")
    figures = dict(zip(names, np.round(np.percentile(times[CALLS // 10 :], [50, 95, 99]), 4).tolist(), strict=True))
    return {**figures, "calls": CALLS, "threads": 1, "provider": "cpu", "machine": provenance.get("machine")}


def describe(spec: Spec, sizes: Sizes, env_args: Mapping[str, Any], recorded: Recorded) -> dict[str, Any]:
    """Return the part of the contract that follows from the data: what goes in and what comes out."""
    inputs: dict[str, Any] = {}
    for key, (c, h, w) in spec.stacks.items():
        inputs[key] = {
            "dtype": "uint8",
            "shape": ["B", *sizes[key], c],
            "range": [0, 255],
            "colour": "RGB",
            "encoding": "rgb8" if spec.images[key][0] == 3 else f"8UC{spec.images[key][0]}",
            "mount": "wrist" if any(word in key for word in ("wrist", "hand")) else None,
            "upright": True,
            "trained_at": [h, w],
            "resize": "inside: the whole picture, antialiased bilinear, rounded; nothing is cropped",
        }
    at = 0
    for key, size in spec.proprio.items():
        mean, std = spec.proprio_mean[at : at + size], spec.proprio_std[at : at + size]
        inputs[key] = {"dtype": "float32", "shape": ["B", size], "mean": list(mean), "std": list(std)}
        at += size
    if spec.history > 1:
        for key in spec.images:
            inputs[key]["channels"] = f"the last {spec.history} pictures, the oldest first; `act` keeps them itself"
    dims = [{"name": dim.name, "unit": dim.unit, "low": dim.low, "high": dim.high} for dim in spec.action]
    chunk = [] if spec.chunk == 1 else [spec.chunk]
    shape = {"dtype": "float32", "shape": ["B", *chunk, spec.action_dim]}
    action = {
        "meaning": "in the robot's units: low + (normalised + 1) / 2 * (high - low)",
        "dims": dims,
        "control": control_of(spec.action, env_args, recorded),
    }
    normalised = {"meaning": "the same action as the network gives it", "range": [-1, 1]}
    return {
        "format": FORMAT,
        "pixelrl": __version__,
        "history": spec.history,
        "chunk": spec.chunk,
        "precision": "fp32",
        "task": recorded.task,
        "evaluation": recorded.evaluation,
        "inputs": inputs,
        "outputs": {"action": shape | action, "normalised": shape | normalised},
    }

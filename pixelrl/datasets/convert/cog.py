"""COG's buffers: `.npy` files with a list of trajectories, as roboverse's scripted_collect.py saves them.

A trajectory is a dict of lists of N: `observations` and `next_observations` (dicts: `image` uint8 (48, 48, 3), upright,
`state` of 10 numbers, `object_position`, `object_orientation`), `actions` of 8, `rewards`, `terminals` (never set),
`agent_infos` and `env_infos` (dicts). The environment itself gives pictures as floats in [0, 1], flat; those are taken
too, flat ones as [H, W, 3] of a square, which is how scripted_collect.py shapes them.
https://github.com/avisingh599/cog and https://github.com/avisingh599/roboverse
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import Budget, DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.numpy_pickle import load_object_array
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.actions import ActionDim, unnamed_dims
from pixelrl.runtime.errors import DataError, PixelrlError

NEEDED = ("observations", "actions", "rewards", "next_observations", "terminals")
INFOS = ("agent_infos", "env_infos")

ACTION = (
    *(ActionDim(name=name, low=-0.2, high=0.2, unit="m") for name in ("dx", "dy", "dz")),
    *(ActionDim(name=name, low=-math.radians(20), high=math.radians(20), unit="rad") for name in ("drx", "dry", "drz")),
    ActionDim(name="gripper"),
    ActionDim(name="neutral"),
)
"""What the eight numbers mean in every environment of roboverse; above 0.5 the last sends the arm home."""

ROUNDING = 1e-3
"""How far a float picture, times 255, may be from whole numbers before that is called a loss."""


def read_cog(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Read a buffer: all of it at once, its pictures are stacked when they are asked for; `dropped` fills as they are.

    Raises:
        DataError: a file that is not COG's, is damaged, or wants more than plain data; names trajectory and key.
    """
    if options.reward_key is not None:
        raise PixelrlError(f"--reward {options.reward}: COG's trajectories have one list of rewards; expected a rule")
    trajectories = load_object_array(path)
    if not trajectories:
        raise DataError(f"{path}: no trajectories; expected one or more")

    def episodes(dropped: DroppedFields = dropped) -> Iterator[Episode]:
        budget = Budget(path, 4)
        for index, trajectory in enumerate(trajectories):
            yield _episode(trajectory, f"{path}: trajectory {index}", dropped, budget)

    first = next(episodes(Counter())).actions.shape[1]
    action = ACTION if first == len(ACTION) else unnamed_dims(first)
    return DatasetStream(episodes=episodes, count=len(trajectories), env_args={}, action_dims=action)


def _steps(trajectory: Any, place: str) -> dict[str, list[Any]]:
    """Return the lists of a trajectory, all of one length."""
    if not _is_named(trajectory) or not all(key in trajectory for key in NEEDED):
        held = ", ".join(trajectory) if _is_named(trajectory) else type(trajectory).__name__
        raise DataError(f"{place}: holds {held[:80]!r}; expected {', '.join(NEEDED)}")
    steps: dict[str, list[Any]] = {}
    for name in NEEDED:
        value = trajectory[name]
        listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim)
        if not listed or not len(value):
            raise DataError(f"{place}, {name}: {type(value).__name__}; expected a list of one item a step")
        steps[name] = list(value)
    count = len(steps["actions"])
    for name, items in steps.items():
        if len(items) != count:
            raise DataError(f"{place}, {name}: {len(items)} items beside {count} actions; expected {count}")
    return steps


def _is_named(value: Any) -> bool:
    """Tell whether a value is a dict with text as its keys."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _episode(trajectory: Any, place: str, dropped: DroppedFields, budget: Budget) -> Episode:
    """Turn one trajectory into an episode; `done` is never set: COG's tasks do not end."""
    steps = _steps(trajectory, place)
    now, later = steps["observations"], steps["next_observations"]
    if not _is_named(now[0]) or "image" not in now[0]:
        raise DataError(f"{place}, observations: no 'image' in the first; expected dicts with a picture")
    sensors = {}
    for key in now[0]:
        if not re.fullmatch(r"[\w.-]+", key):
            raise DataError(f"{place}, observations: a key {key[:40]!r}; expected letters, digits, '_', '-' and '.'")
        where = f"{place}, observations, {key}"
        values = _stack([*now, later[-1]], key, where, "missing at some step, or no array of numbers", budget)
        sensors[key] = _pictures(values, where, dropped) if key == "image" else values.reshape(len(values), -1)
        if not all(_same(a, b, key, budget) for a, b in zip(now[1:], later[:-1], strict=True)):
            dropped[f"next_observations' {key}, which is not that of the next observation"] += 1
    if any(_is_number(value) and value for value in map(_plain, steps["terminals"])):
        dropped["terminals (COG's tasks do not end)"] += 1
    for name in trajectory:
        if name not in NEEDED + INFOS:
            dropped[f"{name}"] += 1
    where = f"{place}, actions"
    actions = _stack(steps["actions"], None, where, "expected one array of numbers a step, all of one length", budget)
    if actions.ndim != 2 or actions.dtype.kind != "f":
        raise DataError(f"{where}: {actions.dtype} {actions.shape}; expected floats (N, A)")
    rewards = [_plain(item) for item in steps["rewards"]]
    if not all(map(_is_number, rewards)):
        raise DataError(f"{place}, rewards: expected one number a step")
    return Episode(
        sensors=sensors,
        actions=actions,
        rewards=np.array(rewards, dtype=np.float64),
        dones=np.zeros(len(now), dtype=bool),
        notes={name: held for name in INFOS if (held := _infos(trajectory.get(name), name, len(now), dropped, budget))},
    )


def _stack(items: Sequence[Any], key: str | None, place: str, what: str, budget: Budget) -> NDArray[Any]:
    """Stack arrays of one shape and type, or those of a key of dicts."""
    try:
        arrays = [_array(item if key is None else item[key], budget) for item in items]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place}: {what}") from error
    if len(kinds := {f"{array.dtype} {array.shape}" for array in arrays}) > 1:
        hint = what if key is None else "expected one shape and type"
        raise DataError(f"{place}: {', '.join(sorted(kinds)[:3])}; {hint}")
    budget.spend(len(arrays) * arrays[0].nbytes)
    return np.stack(arrays)


def _array(value: Any, budget: Budget) -> NDArray[Any]:
    """Return an array of numbers; a number, or a plain list of numbers, counts as one."""
    if not isinstance(value, np.ndarray):
        items = value if isinstance(value, list | tuple) else [value]
        budget.spend(8 * len(items))
        if not all(isinstance(item, float | int) for item in items):  # nothing deeper, which could be endless
            raise TypeError
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError
    return array


def _pictures(frames: NDArray[Any], place: str, dropped: DroppedFields) -> NDArray[np.uint8]:
    """Return uint8 `[N, H, W, 3]` of bytes or floats in [0, 1], with channels last or first, or flat."""
    if frames.ndim == 2:
        side = math.isqrt(frames.shape[1] // 3)
        if side * side * 3 != frames.shape[1] or not side:
            raise DataError(f"{place}: {frames.shape[1]} numbers; expected those of a square picture, side * side * 3")
        frames = frames.reshape(-1, side, side, 3)
    elif frames.ndim == 4 and frames.shape[1] == 3 != frames.shape[3]:
        frames = np.moveaxis(frames, 1, 3)
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise DataError(f"{place}: shape {frames.shape[1:]}; expected (H, W, 3), (3, H, W) or flat")
    if frames.dtype.kind == "f":
        low, high = float(frames.min()), float(frames.max())
        if not (low >= 0 and high <= 1):
            raise DataError(f"{place}: floats from {low:g} to {high:g}; expected them in [0, 1]")
        scaled = frames * 255
        if np.abs(scaled - np.rint(scaled)).max() > ROUNDING:
            dropped["what float pictures hold beyond bytes"] += 1
        frames = np.rint(scaled).astype(np.uint8)
    if frames.dtype != np.uint8:
        raise DataError(f"{place}: type {frames.dtype}; expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(frames)


def _plain(value: Any) -> Any:
    """Return a number for an array of one, and anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _same(one: Any, other: Any, key: str, budget: Budget) -> bool:
    """Tell whether two observations say the same under a key, bit for bit."""
    try:
        a, b = _array(one[key], budget), _array(other[key], budget)
    except (KeyError, TypeError, ValueError):
        return False
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _infos(items: Any, name: str, steps: int, dropped: DroppedFields, budget: Budget) -> dict[str, list[Any]]:
    """Return key -> the numbers of all steps; whatever else the infos hold is lost."""
    kept: dict[str, list[Any]] = {}
    if not isinstance(items, list) or len(items) != steps or not all(map(_is_named, items)):
        if items:
            dropped[name] += 1
        return kept
    budget.spend(8 * sum(len(item) for item in items))
    keys = dict.fromkeys(key for item in items for key in item)
    budget.spend(8 * len(keys) * steps)
    for key in keys:
        values = [_plain(item.get(key)) for item in items]
        if all(_is_number(value) and math.isfinite(value) for value in values):
            kept[key] = values
        else:
            dropped[f"{name}, {key}"] += 1
    return kept

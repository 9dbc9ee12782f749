"""Replay buffers of diffusion_policy and UMI: `NAME.zarr`, or `NAME.zarr.zip`.

    data/action [T, A], data/KEY [T, ...], meta/episode_ends [E]: behind the last row of each episode

diffusion_policy's have one action a row, and no frame after the last: pusht keeps `img` as floats from 0 to 255. UMI's
have no action: its sampler takes the pose of each gripper (`robot0_eef_pos`, `robot0_eef_rot_axis_angle`,
`robot0_gripper_width`), here that of the next row, so that N + 1 rows have N steps. There are no rewards.
https://github.com/real-stanford/diffusion_policy/blob/main/diffusion_policy/common/replay_buffer.py
https://github.com/real-stanford/universal_manipulation_interface, diffusion_policy/common/sampler.py
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pixelrl.datasets.convert.dataset_stream import (
    NO_REWARDS,
    Budget,
    DatasetStream,
    DroppedFields,
    FormatOptions,
)
from pixelrl.datasets.convert.sensors import as_sensor
from pixelrl.datasets.convert.zarr_store import Store, ZarrArray, open_store
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import DEFLATED
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.env_args import gymnasium_env_args
from pixelrl.runtime.errors import DataError

ENDS, ACTION = "meta/episode_ends", "action"
POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
FUTURE = "_demo_end_pose"
"""What UMI notes of an episode's end in all of its rows."""


def is_replay_buffer(path: Path) -> bool:
    """Tell whether something is a replay buffer, by its name or what is in it."""
    return path.name.endswith((".zarr", ".zarr.zip")) or (path / ENDS / ".zarray").is_file()


def read_replay_buffer(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a store; `dropped` fills while the episodes are read.

    Raises:
        DataError: a store that is damaged or lacks something, arrays of different lengths, no pictures.
        PixelrlError: chunks are packed with what is not installed.
    """
    with open_store(path) as store:
        budget = Budget(path, DEFLATED, held=store.size)
        arrays = _arrays(store, budget, dropped)
        last = ZarrArray(store, ENDS, budget)
        ends = last.rows(0, last.shape[0]).tolist() if len(last.shape) == 1 and last.dtype.kind in "iu" else []
        if not ends or min(np.diff([0, *ends])) < 1:
            raise DataError(f"{path}: {ENDS} is {str(ends)[:60]}; expected numbers that grow, one an episode")
        actions = _action_names(path, arrays)
        size = 0
        for name in actions:
            shape, kind = arrays[name].shape, arrays[name].dtype.kind
            if len(shape) != 2 or not shape[1] or kind != "f":
                raise DataError(f"{path}: data/{name}: {arrays[name].dtype} {shape}; expected floats (T, A)")
            size += shape[1]
        for name, array in arrays.items():
            if array.shape[0] < ends[-1] and (name in (*actions, options.reward_key) or options.wants(name)):
                raise DataError(f"{path}: data/{name} has {array.shape[0]} rows; {ENDS} promises {ends[-1]}")
    if beyond := arrays[actions[0]].shape[0] - ends[-1]:
        dropped[f"the last {beyond} rows, which lie beyond {ENDS}"] += 0
    if options.reward_key is None:
        dropped[NO_REWARDS] += 0
    elif options.reward_key not in arrays:
        raise DataError(f"{path}: no data/{options.reward_key}; it holds {', '.join(arrays)[:200]}")

    def episodes() -> Iterator[Episode]:
        with open_store(path) as store:
            budget = Budget(path, DEFLATED, held=store.size)
            arrays = _arrays(store, budget, dropped)
            for start, stop in zip([0, *ends[:-1]], ends, strict=True):
                yield _episode(arrays, actions, range(start, stop), budget, dropped, options)

    env_args = gymnasium_env_args(path.name.split(".zarr")[0], {})
    return DatasetStream(episodes=episodes, count=len(ends), env_args=env_args, action_dims=unnamed_dims(size))


def _arrays(store: Store, budget: Budget, dropped: DroppedFields) -> dict[str, ZarrArray]:
    return {name: ZarrArray(store, f"data/{name}", budget, dropped) for name in store.arrays("data")}


def _action_names(path: Path, arrays: dict[str, ZarrArray]) -> list[str]:
    if ACTION in arrays:
        return [ACTION]
    names = [f"robot{robot}_{part}" for robot in range(len(arrays)) for part in POSE]
    if found := [name for name in names if name in arrays]:
        return found
    raise DataError(
        f"{path}: no data/{ACTION}, and no robot0_{POSE[0]}; it holds {', '.join(arrays)[:200] or 'nothing'}"
    )


def _episode(
    arrays: dict[str, ZarrArray],
    actions: Sequence[str],
    rows: range,
    budget: Budget,
    dropped: DroppedFields,
    options: FormatOptions,
) -> Episode:
    path, start, stop, poses = budget.path, rows.start, rows.stop, ACTION not in actions
    if poses and stop - start < 2:
        raise DataError(f"{path}: an episode of {stop - start} row; expected two or more: actions are the next poses")
    sensors = {}
    for name in arrays:
        future = name.endswith(FUTURE) and name not in options.keys
        if future:
            dropped[f"data/{name}, which tells the end of an episode from its beginning"] += 1
        if name not in (ACTION, options.reward_key) and options.wants(name) and not future:
            sensors[name] = as_sensor(arrays[name].rows(start, stop), f"{path}: data/{name}", budget)
    taken = np.concatenate([arrays[name].rows(start + poses, stop) for name in actions], axis=1)
    rewards = np.zeros(len(taken), np.float32)
    if options.reward_key is not None:
        rewards = arrays[options.reward_key].rows(start, stop - poses)
    return Episode(sensors=sensors, actions=taken, rewards=rewards, dones=np.zeros(len(taken), bool))

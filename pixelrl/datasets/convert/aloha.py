"""ALOHA's and ACT's HDF5, one episode a file: `episode_0.hdf5`, `episode_1.hdf5`, ... in a folder, or one of them.

    /action [N, A], /observations/qpos [N, D], qvel, effort, /observations/images/CAMERA uint8 [N, H, W, 3]

With the attribute `compress`, a camera is [N, L]: JPEGs padded with zeros, of `/compress_len` bytes (which a JPEG tells
itself). act-plus-plus gives OpenCV red, green, blue where it expects blue, green, red, and so must who decodes them.
There are no rewards and no ends. A step takes 0.02 s.
https://github.com/tonyzhaozh/act/blob/main/record_sim_episodes.py
https://github.com/MarkFzp/act-plus-plus/blob/main/compress_data.py
"""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from pixelrl.datasets.convert.dataset_stream import (
    NO_REWARDS,
    Budget,
    DatasetStream,
    DroppedFields,
    FormatOptions,
)
from pixelrl.datasets.convert.sensors import as_sensor, stored_rows
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import DEFLATED, child, dataset, has, members, open_file, where
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.env_args import gymnasium_env_args
from pixelrl.runtime.errors import DataError

FREQUENCY = 50
"""[Hz]"""

IMAGES, OBSERVATIONS, LENGTHS = "images", "observations", "compress_len"
TURNED = "colours: red and blue are swapped back, as act-plus-plus packs JPEG; --bgr if they come out wrong"


def is_aloha(path: Path) -> bool:
    """Tell whether a file, or the first of a folder, is ALOHA's."""
    files = _files(path)
    if not files:
        return False
    with open_file(files[0]) as file:
        return has(file, "action") and has(file, OBSERVATIONS)


def read_aloha(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a file or a folder; `dropped` fills while the episodes are read.

    Raises:
        DataError: anything that does not fit, with the file and the key; no files.
    """
    files = _files(path)
    if not files:
        raise DataError(f"{path}: no episode_0.hdf5, episode_1.hdf5, ... in it")
    if path.is_dir() and [int(each.stem[8:]) for each in files] != [*range(len(files))]:
        dropped["the numbers of the episodes, which do not count from 0 without a gap: are all of them there?"] += 0
    with open_file(files[0]) as file:
        shape = dataset(file, "action").shape
    if len(shape) != 2 or not shape[1]:
        raise DataError(f"{files[0]}: /action: shape {shape}; expected (N, A)")
    if options.reward_key is None:
        dropped[NO_REWARDS] += 0

    def episodes() -> Iterator[Episode]:
        for each in files:
            with open_file(each) as file:
                yield _episode(file, Budget(each, DEFLATED), dropped, options)

    name = path.stem if path.is_file() else path.name
    env_args = gymnasium_env_args(name, {"control_freq": FREQUENCY})
    return DatasetStream(episodes=episodes, count=len(files), env_args=env_args, action_dims=unnamed_dims(shape[1]))


def _files(path: Path) -> list[Path]:
    """Return the episodes in the order of their numbers."""
    if not path.is_dir():
        return [path]
    numbers = {each: re.fullmatch(r"episode_(\d{1,18})\.(hdf5|h5)", each.name) for each in path.iterdir()}
    return sorted((each for each, number in numbers.items() if number), key=lambda each: int(each.stem[8:]))


def _episode(file: h5py.File, budget: Budget, dropped: DroppedFields, options: FormatOptions) -> Episode:
    actions = np.asarray(dataset(file, "action")[()])
    steps = len(actions)
    observations = child(file, OBSERVATIONS)
    images = child(observations, IMAGES)
    held = dict.fromkeys(members(images), images)
    beside = {key: child(observations, key) for key in members(observations) if key != IMAGES and options.wants(key)}
    held = {key: observations for key, item in beside.items() if isinstance(item, h5py.Dataset)} | held
    dropped.update(f"{OBSERVATIONS}/{key}, a group" for key in beside.keys() - held.keys())
    sensors, turned = {}, False
    for key in filter(options.wants, held):
        rows = stored_rows(held[key], (key,), (steps, steps + 1), budget)
        sensors[key] = as_sensor(rows, f"{where(held[key])}/{key}", budget)
        if sensors[key].ndim == 4 and sensors[key].shape[3] == 3 and isinstance(rows, list):
            sensors[key] = np.ascontiguousarray(sensors[key][..., ::-1])
            turned = True
    dropped.update([TURNED] if turned else [])
    for name in members(file):
        if name not in ("action", OBSERVATIONS, LENGTHS, options.reward_key):
            dropped[name] += 1
    rewards = dataset(file, options.reward_key)[()] if options.reward_key else np.zeros(steps, np.float32)
    return Episode(sensors=sensors, actions=actions, rewards=rewards, dones=np.zeros(steps, bool))

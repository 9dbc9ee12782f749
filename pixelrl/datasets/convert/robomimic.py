"""robomimic's HDF5 as a `DatasetStream`: every array in its own type, and what lies beyond the fields of `Episode`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import (
    child,
    dataset,
    flags,
    has,
    is_array,
    json_attribute,
    members,
    open_file,
    text_array,
    where,
)
from pixelrl.datasets.hdf5.reader import FileContents, read_contents, sensor
from pixelrl.datasets.hdf5.writer import EpisodeWriter
from pixelrl.runtime.errors import DataError

KNOWN = {"actions", "rewards", "dones", "states", "obs", "next_obs", "frames"}
"""The members of a demo that an `Episode` has room for."""

SAID = ("total", "env_args", "action_dims")
"""The attributes of `/data` that come along, or are said in other words."""


def read_robomimic(path: Path, dropped: DroppedFields, options: FormatOptions | None = None) -> DatasetStream:
    """Open a file; `dropped` fills while the episodes are read.

    All arrays of `obs` come along, also those that nobody learns from. Demos are renumbered from 0.

    Raises:
        DataError: anything that does not fit, with the file, the demo and the key; a file without pictures.
    """
    contents = read_contents(path)
    with open_file(path) as file:
        data = child(file, "data")
        first = child(data, next(iter(contents.demos)))
        home = _home(first)
        keys = tuple(key for key in members(home) if is_array(home, key))
        masks = _masks(file, contents)
        extra = {f"/{name}" for name in members(file) if name not in ("data", "mask")}
        extra |= {f"/data's {name}" for name in data.attrs if name not in SAID}
        extra |= {f"/data/{name}" for name in members(data) if name not in contents.demos}
        for name in sorted(extra):
            dropped[name] += 0
    if list(contents.demos) != [f"demo_{index}" for index in range(len(contents.demos))]:
        dropped["the numbers of the demos, which do not count from 0 without a gap"] += 0

    def episodes() -> Iterator[Episode]:
        with open_file(path) as file:
            for name, steps in contents.demos.items():
                yield _episode(child(child(file, "data"), name), steps, keys, dropped)

    return DatasetStream(
        episodes=episodes,
        count=len(contents.demos),
        env_args=contents.env_args,
        action_dims=contents.action,
        masks=masks,
    )


def write_robomimic(path: Path, stream: DatasetStream, options: FormatOptions | None = None) -> frozenset[str]:
    """Write a file in robomimic's format; it appears when it is whole, and nothing is lost.

    Raises:
        DataError: an episode whose arrays disagree about its length, or no episode at all.
    """
    masks = {name: [f"demo_{index}" for index in indices] for name, indices in stream.masks.items()}
    dims, about, compress = stream.action_dims, stream.env_args, options is not None and options.compress
    with EpisodeWriter(path, env_args=about, action_dims=dims, compress=compress, masks=masks) as writer:
        for episode in stream.episodes():
            writer.add(episode)
    return frozenset()


def check_views(path: Path) -> None:
    """Raise unless `obs` and `next_obs`, as h5py gives them to other programs, hold the frames of a file of ours.

    Raises:
        DataError: they do not.
    """
    with h5py.File(path) as file:
        for demo in file["data"].values():
            for key, held in demo["frames"].items():
                frames = held[()]
                for group, expected in (("obs", frames[:-1]), ("next_obs", frames[1:])):
                    if key not in demo[group] or demo[group][key][()].tobytes() != expected.tobytes():
                        raise DataError(f"{path}: {demo.name}/{group}/{key} does not hold the demo's frames")


def _masks(file: h5py.File, contents: FileContents) -> dict[str, tuple[int, ...]]:
    """Return the filters of a file, each as indices of its demos."""
    if not has(file, "mask"):
        return {}
    group = child(file, "mask")
    places = {name: index for index, name in enumerate(contents.demos)}
    masks = {}
    for key in members(group):
        names = text_array(group, key)
        unknown = [name for name in names if name not in places]
        if unknown:
            raise DataError(f"{where(group)}/{key}: names {unknown[0][:60]!a}, which /data does not hold")
        masks[key] = tuple(places[name] for name in names)
    return masks


def _episode(demo: h5py.Group, steps: int, keys: tuple[str, ...], dropped: DroppedFields) -> Episode:
    """Read one demo, and count what stays behind."""
    sensors = {key: _frames(demo, key, steps, dropped) for key in keys}
    recorded = len(dataset(demo, "actions"))
    rewards = _numbers(demo, "rewards")
    if recorded > steps:
        paid = " and its reward" if rewards[steps:].any() else ""
        dropped[f"the last step{paid}: there is no next_obs"] += 1
    home = _home(demo)
    others = [f"{home.name.rsplit('/', 1)[-1]}/{key}" for key in members(home) if key not in keys]
    for name in (*(name for name in members(demo) if name not in KNOWN), *others):
        dropped[name] += 1
    return Episode(
        sensors=sensors,
        actions=_numbers(demo, "actions")[:steps],
        rewards=rewards[:steps],
        dones=flags(_numbers(demo, "dones")[:steps], f"{where(demo)}/dones"),
        states=_states(demo, steps, recorded, dropped),
        attributes=_attributes(demo, dropped),
        notes=json_attribute(demo, "notes", {}),
    )


def _home(demo: h5py.Group) -> h5py.Group:
    """Return the group that holds the frames of a demo."""
    return child(demo, "frames" if has(demo, "frames") else "obs")


def _numbers(demo: h5py.Group, name: str) -> NDArray[Any]:
    return np.asarray(dataset(demo, name)[()])


def _frames(demo: h5py.Group, key: str, steps: int, dropped: DroppedFields) -> NDArray[Any]:
    """Return `[N + 1, ...]`; `next_obs` must tell the same story one step later, or what it tells is lost."""
    held, last = sensor(demo, key)
    now = held[()]
    frames = now[: steps + 1]
    if last is not None:
        later = last[()]
        if later.shape != now.shape:
            raise DataError(f"{where(last)}: shape {later.shape}; expected {now.shape}, as obs has")
        if now[1:].tobytes() != later[:-1].tobytes():
            dropped[f"next_obs/{key}, which is not obs one step later"] += 1
        frames = np.concatenate([now, later[-1:]])
    if len(frames) != steps + 1:
        raise DataError(f"{where(held)}: {len(frames)} frames beside {steps} steps; expected {steps + 1}")
    return np.asarray(frames)


def _states(demo: h5py.Group, steps: int, recorded: int, dropped: DroppedFields) -> NDArray[Any] | None:
    """Return the states `[N + 1, D]`; where the last was not recorded, the one before stands for it."""
    if not has(demo, "states"):
        return None
    states = _numbers(demo, "states")
    if states.ndim != 2 or len(states) not in (recorded, recorded + 1):
        dropped[f"states, of another length than actions ({states.shape})"] += 1
        return None
    return np.asarray(np.concatenate([states, states[-1:]])[: steps + 1])


def _attributes(demo: h5py.Group, dropped: DroppedFields) -> dict[str, str]:
    """Return the attributes that are text, but for those that have a place of their own."""
    attributes = {}
    for name in demo.attrs:
        if name in ("num_samples", "notes"):
            continue
        kind = demo.attrs.get_id(name)
        if isinstance(name, str) and kind.shape == () and h5py.check_string_dtype(kind.dtype) is not None:
            value = demo.attrs[name]
            attributes[name] = value.decode() if isinstance(value, bytes) else str(value)
        else:
            dropped[f"attribute {name}"] += 1
    return attributes

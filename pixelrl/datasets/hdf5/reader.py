"""Read robomimic's HDF5: what others recorded, and what `writer` wrote.

https://robomimic.github.io/docs/datasets/overview.html
"""

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import (
    BLOCK,
    LEAVE_OUT,
    child,
    dataset,
    expect,
    finite,
    flags,
    has,
    json_attribute,
    members,
    open_file,
    overclaim,
    text_array,
    unwritten,
    where,
)
from pixelrl.datasets.hdf5.action_dims import read_action_dims
from pixelrl.datasets.hdf5.boundaries import find_next_missing
from pixelrl.datasets.hdf5.keys import select_keys
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What of a file is read; see `read_contents`."""

    mask: str | None = None
    images: Sequence[str] | None = None
    proprio: Sequence[str] | None = None
    required: Sequence[str] = ("rewards", "dones")
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileContents:
    """What a file holds, short of its numbers: enough to plan the memory.

    Attributes:
        path: the file.
        demos: demo -> its number of steps N, in the order of their numbers. It has N + 1 frames; where none was
            recorded after the last step, the one before is repeated.
        pictures: observation key -> (H, W, C) of its uint8 pictures.
        vectors: observation key -> its length.
        action: what each dimension of the action means.
        env_args: robomimic's description of the environment; empty if the file has none.
        ignored: observation key -> why nothing is learned from it.
        stored: observation key -> its name in the file, where that is another one; all keys above are the new ones.
        required: which of `rewards` and `dones` count. Rewards that do not may be NaN, which is read as 0.
    """

    path: Path
    demos: Mapping[str, int]
    pictures: Mapping[str, tuple[int, int, int]]
    vectors: Mapping[str, int]
    action: tuple[ActionDim, ...]
    env_args: Mapping[str, Any]
    ignored: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    required: Sequence[str] = ("rewards", "dones")

    def name_in_file(self, key: str) -> str:
        """Return the name that an observation key has in the file."""
        return self.stored.get(key, key)

    @property
    def frames(self) -> int:
        """Return how many frames a camera has in all demos."""
        return sum(self.demos.values()) + len(self.demos)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """`Episode` as a file gives it back, without states; dones may mark the end of every demo, successful or not.

    Attributes:
        name: say `demo_3`.
        next_missing: bool `[N]`, true where the frame after the step was not recorded: the next row, if there is one,
            begins another episode.
        clocks: observation keys that grow with every frame, as time does.
    """

    name: str
    sensors: Mapping[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    next_missing: NDArray[np.bool_]
    clocks: tuple[str, ...]
    notes: Mapping[str, Any]

    @property
    def episodes(self) -> list[NDArray[np.float32]]:
        """Return the actions of each episode that the demo holds, `[N, A]`."""
        return np.split(self.actions, np.flatnonzero(self.next_missing[:-1]) + 1)


def read_contents(
    path: Path,
    *,
    mask: str | None = None,
    demos: Sequence[str] | None = None,
    images: Sequence[str] | None = None,
    proprio: Sequence[str] | None = None,
    required: Sequence[str] = ("rewards", "dones"),
    rename: Mapping[str, str] = MappingProxyType({}),
) -> FileContents:
    """Read and check all shapes of a file, and none of its pixels.

    Args:
        path: the file.
        mask: one of its filters, a subset of its demos.
        demos: those to look at, whatever the mask; None: all of them.
        images: observation keys of the cameras, in their order; None: all pictures but depth.
        proprio: those of the proprioception; None: all float vectors but `object...`, what the simulator knows and no
            robot senses.
        rename: old -> new, names of observation keys; `images` and `proprio` are new ones.
        required: what every demo must hold beside its actions; of `rewards` and `dones` that are not, zeros are read.

    Raises:
        DataError: anything that does not fit, with the file, the demo and the key.
    """
    with open_file(path) as file:
        data = child(file, "data")
        names = demo_names(file, mask) if demos is None else [*demos]
        first = child(data, names[0])
        pictures, vectors, ignored = select_keys(first, images, proprio, rename)
        stored = {new: old for old, new in rename.items()}
        places: dict[str, tuple[int, ...]] = {stored.get(key, key): shape for key, shape in pictures.items()}
        places |= {stored.get(key, key): (size,) for key, size in vectors.items()}
        actions = dataset(first, "actions")
        if actions.ndim != 2 or not actions.shape[1]:
            raise DataError(f"{where(actions)}: shape {actions.shape}; expected (N, A)")
        env_args = json_attribute(data, "env_args", {})
        contents = FileContents(
            path=path,
            demos={name: _check_demo(child(data, name), places, actions, required) for name in names},
            pictures=pictures,
            vectors=vectors,
            action=read_action_dims(data, env_args, actions.shape[1]),
            env_args=env_args,
            ignored=ignored,
            stored=stored,
            required=(*required,),
        )
    row = sum(map(math.prod, pictures.values())) + sum(vectors.values()) + len(contents.action)
    if wrong := overclaim(contents.frames * row, path.stat().st_size):  # one demo may be linked to under many names
        raise DataError(f"{path}: {wrong}")
    return contents


def read_demos(contents: FileContents, names: Iterable[str] | None = None, *, pictures: bool = True) -> Iterator[Demo]:
    """Read the demos named (None: all), one at a time, with their pictures or without.

    Raises:
        DataError: a number that is not finite, or a done that is neither 0 nor 1, with its place.
    """
    with open_file(contents.path) as file:
        data = child(file, "data")
        for name in contents.demos if names is None else names:
            yield _read_demo(child(data, name), name, contents, pictures)


def read_pictures(contents: FileContents, key: str) -> Iterator[NDArray[np.uint8]]:
    """Yield a camera's pictures of all demos in blocks, uint8 `[n, H, W, C]`, none of which reaches into two demos."""
    rows = max(1, BLOCK // math.prod(contents.pictures[key]))
    with open_file(contents.path) as file:
        for name, steps in contents.demos.items():
            for start in range(0, steps + 1, rows):
                yield frame_rows(file["data"][name], contents.name_in_file(key), start, min(start + rows, steps + 1))


def frame_rows(demo: h5py.Group, key: str, start: int = 0, stop: int = sys.maxsize) -> NDArray[Any]:
    """Read some successive frames of a demo, or all of them: `[n, H, W, C]` or `[n, D]`."""
    held, last = sensor(demo, key)
    rows: NDArray[Any] = held[start:stop]
    return np.concatenate([rows, last[-1:]]) if last is not None and stop > len(held) else rows


def home_of(demo: h5py.Group) -> h5py.Group:
    """Return the group that holds the frames of a demo: `frames` in files that we wrote, else `obs`."""
    return child(demo, "frames" if has(demo, "frames") else "obs")


def sensor(demo: h5py.Group, key: str) -> tuple[h5py.Dataset, h5py.Dataset | None]:
    """Return the datasets that hold the N + 1 frames of a key: all of the first, then the last row of the second.

    Where nothing was recorded after the last step, both are the same.
    """
    if has(demo, "frames"):
        return dataset(child(demo, "frames"), key), None
    obs = dataset(child(demo, "obs"), key)
    recorded = has(demo, "next_obs") and has(child(demo, "next_obs"), key)
    return obs, dataset(child(demo, "next_obs"), key) if recorded else obs


def demo_names(file: h5py.File, mask: str | None = None) -> list[str]:
    """Return the demos of a file, or of one of its filters, in the order of their numbers."""
    data = child(file, "data")
    names = [name for name in members(data) if re.fullmatch(r"demo_[0-9]{1,18}", name)]
    if mask is not None:
        masks = child(file, "mask")
        chosen = set(text_array(masks, mask))
        if unknown := chosen - set(names):
            raise DataError(f"{where(masks)}/{mask}: names {min(unknown)[:60]!a}, which /data does not hold")
        names = [name for name in names if name in chosen]
        if not names:
            raise DataError(f"{where(masks)}/{mask}: names no demo; expected one or more")
    if not names:
        raise DataError(f"{where(data)}: no demos; expected groups demo_0, demo_1, ...")
    return sorted(names, key=lambda name: int(name[5:]))


def _check_demo(
    demo: h5py.Group, places: Mapping[str, tuple[int, ...]], actions: h5py.Dataset, required: Sequence[str]
) -> int:
    """Check a demo, `places` of observations by the shapes of their rows, and return its number of steps."""
    taken = dataset(demo, "actions")
    steps = len(taken)
    _check_array(taken, (steps, *actions.shape[1:]), "f")
    for key in ("rewards", "dones"):
        if key in required and not has(demo, key):
            rule = {"rewards": "--task-reward last:1", "dones": "--task-dones last"}[key]
            raise DataError(f"{where(demo)}: no {key!r} in it; expected one number a step, or a rule, say {rule}")
        if has(demo, key):
            _check_array(dataset(demo, key), (steps,), "fiub")
    check_num_samples(demo, steps)
    if steps < 1:
        raise DataError(f"{where(demo)}: no actions; expected one or more")
    home = home_of(demo)
    for key, shape in places.items():
        if not has(home, key):
            raise DataError(f"{where(home)}: no {key!r}, which the first demo has; expected it in all{LEAVE_OUT}")
        held, last = sensor(demo, key)
        for part, rows in ((held, steps + (last is None)), (last, steps)):
            if part is not None:
                _check_array(part, (rows, *shape), "u" if len(shape) == 3 else "f")
    return steps


def check_num_samples(demo: h5py.Group, steps: int) -> None:
    """Raise if a demo says that it has another number of steps; LIBERO writes it as a text."""
    noted = np.asarray(demo.attrs.get("num_samples", steps))
    told = noted.item() if noted.size == 1 else noted
    told = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    if str(told) != str(steps) and not np.array_equal(told, steps):
        raise DataError(f"{where(demo)}: num_samples is {str(told)[:60]!a} beside {steps} actions")


def _check_array(item: h5py.Dataset, shape: tuple[int, ...], kinds: str) -> None:
    """Raise unless an array is as expected, and none of it was never written: that would be read as zeros."""
    expect(item, shape, kinds)
    if lacking := unwritten(item):
        raise DataError(f"{where(item)}: {lacking}; expected what was recorded")


def _read_demo(demo: h5py.Group, name: str, contents: FileContents, pictures: bool) -> Demo:
    """Read one demo and check its numbers."""
    steps, home = contents.demos[name], where(home_of(demo))
    sensors, clocks, keys = {}, [], (*contents.pictures, *contents.vectors)
    for key in keys if pictures else contents.vectors:
        frames = frame_rows(demo, contents.name_in_file(key))
        place = f"{home}/{contents.name_in_file(key)}"
        sensors[key] = frames if key in contents.pictures else finite(frames, place)
        if key in contents.vectors and steps > 1 and (np.diff(frames[:steps], axis=0) > 0).all():
            clocks.append(key)
    zeros = np.zeros(steps, np.float32)
    rewards = dataset(demo, "rewards")[()] if has(demo, "rewards") else zeros
    if "rewards" not in contents.required:
        rewards = np.where(np.isfinite(rewards), rewards, 0)
    dones = flags(dataset(demo, "dones")[()] if has(demo, "dones") else zeros, f"{where(demo)}/dones")
    return Demo(
        name=name,
        sensors=sensors,
        actions=finite(dataset(demo, "actions")[()], f"{where(demo)}/actions"),
        rewards=finite(rewards, f"{where(demo)}/rewards"),
        dones=dones,
        next_missing=find_next_missing(demo, [contents.name_in_file(key) for key in keys], dones),
        clocks=tuple(clocks),
        notes=json_attribute(demo, "notes", {}),
    )

"""The structure of a file: which arrays each demo holds, read leniently, so that all that is wrong can be named.

`read_contents` stops at the first thing that training cannot use; this goes on past it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pixelrl.datasets.hdf5.access import (
    child,
    dataset,
    is_array,
    json_attribute,
    members,
    open_file,
    text_array,
    unwritten,
    where,
)
from pixelrl.datasets.hdf5.keys import is_no_camera, rename_keys
from pixelrl.datasets.hdf5.reader import Selection, demo_names, home_of
from pixelrl.runtime.errors import DataError

GROUPS = ("obs", "next_obs", "frames")
NUMBERS = ("actions", "rewards", "dones")

DAMAGE = (DataError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged or hostile file may raise."""

RowForm = tuple[tuple[int, ...], str]
"""The shape of a row, and its type."""


class ArrayLayout(NamedTuple):
    """How one array lies in a file.

    `shape` begins with the rows; `kind` is NumPy's letter for the type; `chunks` is None where the array lies in one
    piece, or is a view on another; `unwritten` is what of it was never written.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str = "f"
    chunks: tuple[int, ...] | None = None
    compression: str = "none"
    unwritten: str | None = None


@dataclass(frozen=True, kw_only=True)
class DemoStructure:
    """What one demo holds: arrays of numbers by their places, say `obs/agentview_image`, and its `num_samples`.

    `refused` is what could not be looked into, with the reason: links, arrays in other files, damage.
    """

    arrays: Mapping[str, ArrayLayout]
    samples: int | None
    refused: Mapping[str, str]

    @property
    def home(self) -> str:
        """Return the group that the frames are read from."""
        return "frames" if any(name.startswith("frames/") for name in self.arrays) else "obs"

    @property
    def has_next_obs(self) -> bool:
        """Return whether it holds something of the frames after each action."""
        return any(name.startswith("next_obs/") for name in self.arrays)


@dataclass(frozen=True, kw_only=True)
class FileStructure:
    """What a file holds, as far as it can be told; without demos, a file that cannot be read.

    Demos are in the order of their numbers; `strangers` are the other members of /data, `total` is its attribute;
    `masks` are filters, with the demos that they name; `selection` tells how it is read: where it leaves out demos,
    `total` and `masks`, which speak of all, are not told.
    """

    path: Path
    bytes: int = 0
    demos: Mapping[str, DemoStructure] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()
    total: int | None = None
    masks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    env_args: Mapping[str, Any] = field(default_factory=dict)

    def name_in_file(self, key: str) -> str:
        """Return the name that an observation key has in the file."""
        return next((old for old, new in self.selection.rename.items() if new == key), key)

    @cached_property
    def usual(self) -> dict[str, RowForm]:
        """The arrays that most demos hold, with the usual form of a row."""
        forms: dict[str, Counter[RowForm]] = {}
        for demo in self.demos.values():
            for name, array in demo.arrays.items():
                forms.setdefault(name, Counter())[array.shape[1:], array.dtype] += 1
        most = {name: form for name, form in forms.items() if 2 * form.total() > len(self.demos)}
        return {name: form.most_common(1)[0][0] for name, form in most.items()}

    @cached_property
    def cameras(self) -> dict[str, tuple[int, ...]]:
        """The observation keys whose pictures training reads -> (H, W, C)."""
        return {key: row for key, (row, _) in self._read(3, self.selection.images, is_no_camera).items()}

    @cached_property
    def vectors(self) -> dict[str, int]:
        """The observation keys whose numbers training reads, float vectors but `object...` -> their length."""
        held = self._read(1, self.selection.proprio, lambda key: key.startswith("object"))
        return {key: row[0] for key, (row, dtype) in held.items() if np.dtype(dtype).kind == "f"}

    def _read(self, rank: int, asked: Sequence[str] | None, spared: Callable[[str], bool]) -> dict[str, RowForm]:
        """Return the observation keys that are asked for, or else not spared, whose rows have this rank."""
        home = "frames/" if any(name.startswith("frames/") for name in self.usual) else "obs/"
        held = {name.removeprefix(home): form for name, form in self.usual.items() if name.startswith(home)}
        wanted = [key for key in held if (not spared(key) if asked is None else key in asked)]
        return {key: held[key] for key in wanted if len(held[key][0]) == rank}


def read_structure(path: Path, selection: Selection | None = None) -> FileStructure:
    """Read the structure of a file; its observation keys are the new names of those that are renamed.

    Raises:
        DataError: there is no such file, it is no HDF5 file, it has no /data with demos in it, or not what to rename.
    """
    selection = selection or Selection()
    with open_file(path) as file:
        data = child(file, "data")
        if not isinstance(data, h5py.Group):
            raise DataError(f"{where(data)}: expected a group of demos, came {data}")
        names, all_names = demo_names(file, selection.mask), demo_names(file)
        if selection.rename:
            home = home_of(child(data, names[0]))
            rename_keys(members(home), selection.rename, where(home))
        return FileStructure(
            path=path,
            bytes=path.stat().st_size,
            demos={name: _read_demo(data, name, selection.rename) for name in names},
            strangers=tuple(sorted(set(data) - set(all_names))),
            total=_integer(data.attrs.get("total")) if names == all_names else None,
            masks=dict(_read_masks(file)) if names == all_names else {},
            selection=selection,
            env_args=_read_env_args(data),
        )


def _read_demo(data: h5py.Group, name: str, rename: Mapping[str, str]) -> DemoStructure:
    """Look at everything in a demo that training might read."""
    arrays: dict[str, ArrayLayout] = {}
    refused: dict[str, str] = {}
    try:
        demo = child(data, name)
        held = members(demo)
        samples = _integer(demo.attrs.get("num_samples"))
    except DAMAGE as error:
        return DemoStructure(arrays={}, samples=None, refused={"": str(error)})
    for group in ("", *(group for group in GROUPS if group in held)):
        try:
            home = child(demo, group) if group else demo
            names = members(home) if group else [key for key in NUMBERS if key in held]
        except DAMAGE as error:
            refused[group] = str(error)
            continue
        for key in names:
            place = f"{group}/{rename.get(key, key)}" if group else key
            try:
                arrays[place] = _layout(dataset(home, key))
            except DAMAGE as error:
                if place in NUMBERS or not _is_no_array(home, key):
                    refused[place] = str(error)
    return DemoStructure(arrays=arrays, samples=samples, refused=refused)


def _is_no_array(home: h5py.Group, key: str) -> bool:
    """Tell whether a member is nothing that anybody learns from: a sentence, a single number, or a group."""
    try:
        return not is_array(child(home, key))
    except DAMAGE:
        return False


def _layout(item: h5py.Dataset) -> ArrayLayout:
    compression = item.compression or "none"
    return ArrayLayout(item.shape, str(item.dtype), item.dtype.kind, item.chunks, compression, unwritten(item))


def _integer(value: Any) -> int | None:
    """Return an attribute as a whole number, or None if it is none."""
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _read_masks(file: h5py.File) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the filters of a file that can be read; the reader tells of a broken one when it is used."""
    with suppress(*DAMAGE):
        masks = child(file, "mask")
        for name in members(masks):
            with suppress(*DAMAGE):
                yield name, tuple(text_array(masks, name))


def _read_env_args(data: h5py.Group) -> Mapping[str, Any]:
    """Return the description of the environment, or nothing where it is broken: the reader tells why."""
    try:
        found: Mapping[str, Any] = json_attribute(data, "env_args", {})
    except DataError:
        return {}
    return found

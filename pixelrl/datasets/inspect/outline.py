"""The outline of a file: which arrays each demo holds, read leniently, so that the doctor can name all that is wrong.

`read_contents` stops at the first thing that training cannot use; an outline goes on past it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from pixelrl.datasets.hdf5.access import child, dataset, is_array, json_attribute, open_file, where
from pixelrl.runtime.errors import DataError

GROUPS = ("obs", "next_obs", "frames")
NUMBERS = ("actions", "rewards", "dones")

DAMAGE = (DataError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged or hostile file may raise."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """How one array lies in a file.

    Attributes:
        shape: all of it, the rows first.
        dtype: its name, say `uint8`.
        kind: NumPy's letter for it: f, i, u or b.
        chunks: the shape of a chunk; None if the array lies in one piece (or is a view on another).
        compression: gzip, lzf, ... or none.
        written: False if there are rows and no byte of them was ever written.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: str
    chunks: tuple[int, ...] | None
    compression: str
    written: bool


@dataclass(frozen=True, kw_only=True)
class DemoStructure:
    """What one demo holds.

    Attributes:
        arrays: say `obs/agentview_image` -> how it lies there; only arrays of numbers.
        samples: its attribute `num_samples`; None if it has none.
        refused: what could not be looked into, with the reason: links, arrays in other files, damage.
    """

    arrays: Mapping[str, Array]
    samples: int | None
    refused: Mapping[str, str]

    @property
    def home(self) -> str:
        """Return the group that the frames are read from."""
        return "frames" if any(name.startswith("frames/") for name in self.arrays) else "obs"

    @property
    def later(self) -> bool:
        """Return whether it holds the frame after the last action."""
        return self.home == "frames" or any(name.startswith("next_obs/") for name in self.arrays)


@dataclass(frozen=True, kw_only=True)
class FileStructure:
    """What a file holds, as far as it can be told.

    Attributes:
        path: the file.
        bytes: its size on the disk.
        demos: demo -> what it holds, in the order of their numbers.
        strangers: members of /data that are no demos.
        total: the attribute `total` of /data.
        unfinished: what the file says about being unfinished; empty if nothing.
        masks: filter -> the demos that it names.
        env_args: of the file; empty if it has none that can be read.
    """

    path: Path
    bytes: int
    demos: Mapping[str, DemoStructure]
    strangers: tuple[str, ...]
    total: int | None
    unfinished: str
    masks: Mapping[str, tuple[str, ...]]
    env_args: Mapping[str, Any]

    @cached_property
    def usual(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The arrays that most demos hold, with the usual shape of a row and the usual type."""
        held = Counter(name for demo in self.demos.values() for name in demo.arrays)
        forms: dict[str, Counter[tuple[tuple[int, ...], str]]] = {}
        for demo in self.demos.values():
            for name, array in demo.arrays.items():
                forms.setdefault(name, Counter())[array.shape[1:], array.dtype] += 1
        return {name: forms[name].most_common(1)[0][0] for name, count in held.items() if 2 * count > len(self.demos)}

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The observation keys whose pictures training reads: all but depth."""
        return tuple(k for k, (row, _) in self._observed().items() if len(row) == 3 and not k.endswith("_depth"))

    @cached_property
    def vectors(self) -> tuple[str, ...]:
        """The observation keys whose numbers training reads: float vectors but `object...`."""
        floats = [k for k, (row, dtype) in self._observed().items() if len(row) == 1 and dtype.startswith("float")]
        return tuple(key for key in floats if not key.startswith("object"))

    def _observed(self) -> dict[str, tuple[tuple[int, ...], str]]:
        home = "frames/" if any(name.startswith("frames/") for name in self.usual) else "obs/"
        return {name.removeprefix(home): form for name, form in self.usual.items() if name.startswith(home)}


def read_structure(path: Path) -> FileStructure:
    """Read the outline of a file.

    Raises:
        DataError: there is no such file, it is no HDF5 file, or it has no /data with demos in it.
    """
    with open_file(path) as file:
        data = child(file, "data")
        if not isinstance(data, h5py.Group):
            raise DataError(f"{where(data)}: expected a group of demos, came {data}")
        names = [name for name in data if re.fullmatch(r"demo_[0-9]+", name)]
        if not names:
            raise DataError(f"{where(data)}: no demos; expected groups demo_0, demo_1, ...")
        return FileStructure(
            path=path,
            bytes=path.stat().st_size,
            demos={name: _demo(data, name) for name in sorted(names, key=lambda name: int(name[5:]))},
            strangers=tuple(sorted(set(data) - set(names))),
            total=_whole(data.attrs.get("total")),
            unfinished=_unfinished(data),
            masks=dict(_masks(file)),
            env_args=_env_args(data),
        )


def _demo(data: h5py.Group, name: str) -> DemoStructure:
    """Look at everything in a demo that training might read."""
    arrays: dict[str, Array] = {}
    refused: dict[str, str] = {}
    try:
        demo = child(data, name)
        held = list(demo)
        samples = _whole(demo.attrs.get("num_samples"))
    except DAMAGE as error:
        return DemoStructure(arrays={}, samples=None, refused={"": f"{error}"})
    for group in ("", *GROUPS):
        if group and group not in held:
            continue
        try:
            home = child(demo, group) if group else demo
            members = [key for key in NUMBERS if key in held] if not group else list(home)
        except DAMAGE as error:
            refused[group] = f"{error}"
            continue
        for key in members:
            place = f"{group}/{key}".strip("/")
            try:
                arrays[place] = _array(dataset(home, key))
            except DAMAGE as error:
                if place in NUMBERS or not _text(home, key):
                    refused[place] = f"{error}"
    return DemoStructure(arrays=arrays, samples=samples, refused=refused)


def _text(home: h5py.Group, key: str) -> bool:
    """Tell whether a member is none of our business: a sentence, or a group."""
    try:
        return not is_array(home, key)
    except DAMAGE:
        return False


def _array(item: h5py.Dataset) -> Array:
    """Describe a dataset."""
    return Array(
        shape=item.shape,
        dtype=str(item.dtype),
        kind=item.dtype.kind,
        chunks=item.chunks,
        compression=item.compression or "none",
        written=not item.size or item.is_virtual or item.id.get_storage_size() > 0,
    )


def _whole(value: Any) -> int | None:
    """Return an attribute as a whole number, or None if it is none."""
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None


def _unfinished(data: h5py.Group) -> str:
    """Return what an interrupted writer left on /data, if it did."""
    value = data.attrs.get("unfinished", "")
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    if text in ("", "0", "False"):
        return ""
    return "unfinished" if text in ("1", "True") else f"unfinished ({text})"


def _masks(file: h5py.File) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the filters of a file that can be read; who uses a broken one is told so by the reader."""
    try:
        masks = child(file, "mask")
        for name in masks:
            item = child(masks, name)
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "SO" and not item.external and not item.is_virtual:
                yield name, tuple(x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in item[()])
    except DAMAGE:
        return


def _env_args(data: h5py.Group) -> Mapping[str, Any]:
    """Return the description of the environment, or nothing where it is broken: the reader says why."""
    try:
        found: Mapping[str, Any] = json_attribute(data, "env_args", {})
    except DataError:
        return {}
    return found

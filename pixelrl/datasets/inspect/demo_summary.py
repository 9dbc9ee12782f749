"""What is kept of one demo: all its numbers, and of each picture a checksum, a thumbnail, and whether it is blank.

A demo of any length passes through in blocks of frames, so that memory stays flat.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.hdf5.reader import frame_rows, sensor
from pixelrl.datasets.inspect.file_structure import DAMAGE, FileStructure
from pixelrl.datasets.inspect.issues import Occurrence

GRID = 8
"""Thumbnails are so many cells high and wide, or as large as the picture if that is smaller."""

BLOCK = 2**25
"""About so many bytes of pictures are in memory at a time."""

DARK = 2
"""A picture none of whose values is above this is black."""

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class DemoNumbers:
    """The numbers of one demo as they are recorded, finite or not.

    Actions are `[N, A]`, rewards and dones `[N]`; `vectors` are `[F, D]` by observation key, where F is N + 1, or
    N where the demo holds no frame after the last action.
    """

    name: str
    actions: NDArray[Any]
    rewards: NDArray[Any]
    dones: NDArray[np.bool_]
    vectors: Mapping[str, NDArray[Any]]
    notes: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """Return the number of usable transitions: between two frames."""
        return min([len(self.actions), *(len(rows) - 1 for rows in self.vectors.values())])


@dataclass(frozen=True, kw_only=True)
class CameraSummary:
    """What is kept of F pictures of one camera.

    Checksums `[F]`; thumbnails `[F, G, G, C]`, the means of the cells of a grid; `blank` `[F]`: 0 where something is to
    be seen, 1 where all is black, 2 where all is of one other colour.
    """

    checksums: NDArray[np.uint32]
    thumbnails: NDArray[np.uint8]
    blank: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """One demo as the checks see it: its numbers, and its pictures by camera, as they are read for training.

    `obs` and `next_obs` are what the groups of those names hold, key -> `[N]` checksums or `[N, D]` numbers;
    empty where the demo has no such group, and where `obs` itself is what is read.
    """

    numbers: DemoNumbers
    pictures: Mapping[str, CameraSummary]
    obs: Mapping[str, NDArray[Any]]
    next_obs: Mapping[str, NDArray[Any]]

    def frames(self, key: str) -> NDArray[Any]:
        """Return what is read of a key: checksums of pictures `[F]`, or numbers `[F, D]`."""
        return self.pictures[key].checksums if key in self.pictures else self.numbers.vectors[key]


def read_numbers(structure: FileStructure, names: Sequence[str]) -> Iterator[DemoNumbers | Occurrence]:
    """Yield the numbers of the demos named, one demo at a time, or what hinders reading them."""
    return _each(structure.path, names, lambda demo, name: _numbers(demo, name, structure))


def read_summaries(
    structure: FileStructure, names: Sequence[str], progress: Callable[[int], None] = lambda frames: None
) -> Iterator[DemoSummary | Occurrence]:
    """Yield what is kept of the demos named, one at a time, or what hinders it; `progress` is told of frames read."""
    return _each(structure.path, names, lambda demo, name: _summary(demo, name, structure, progress))


def _each(path: Path, names: Sequence[str], read: Callable[[h5py.Group, str], Found]) -> Iterator[Found | Occurrence]:
    """Yield what is read of each demo, or what hinders it; damage in one does not hide the others."""
    if not names:
        return
    try:
        with open_file(path) as file:
            for name in names:
                try:
                    found: Found | Occurrence = read(file["data"][name], name)
                except DAMAGE as error:
                    found = _damaged(name, error)
                yield found
    except DAMAGE as error:  # the file is gone, or was changed meanwhile
        yield _damaged(names[0], error)


def _damaged(name: str, error: Exception) -> Occurrence:
    return Occurrence("structure", "error", ".", "cannot be read", name, detail=str(error))


def notes_of(demo: h5py.Group) -> Mapping[str, Any]:
    """Return the writer's notes; where they are broken the reader tells of it."""
    try:
        notes = json.loads(demo.attrs.get("notes", "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _numbers(demo: h5py.Group, name: str, structure: FileStructure) -> DemoNumbers:
    return DemoNumbers(
        name=name,
        actions=demo["actions"][()],
        rewards=column(demo, "rewards"),
        dones=column(demo, "dones").astype(bool),
        vectors={key: frame_rows(demo, structure.name_in_file(key)) for key in structure.vectors},
        notes=notes_of(demo),
    )


def column(demo: h5py.Group, name: str) -> NDArray[Any]:
    """Return one number a step, `[N]`: zeros where a member is missing that training does not ask for."""
    return np.asarray(demo[name][()]) if name in demo else np.zeros(len(demo["actions"]), np.float32)


def _summary(demo: h5py.Group, name: str, structure: FileStructure, progress: Callable[[int], None]) -> DemoSummary:
    numbers = _numbers(demo, name, structure)
    pictures = {key: _camera(demo, structure.name_in_file(key), progress) for key in structure.cameras}
    held = structure.demos[name]
    windows: dict[str, dict[str, NDArray[Any]]] = {"obs": {}, "next_obs": {}}
    summary = DemoSummary(numbers=numbers, pictures=pictures, **windows)  # which are filled now
    for group in windows if held.home == "frames" else ("next_obs",):
        for key in (*structure.cameras, *structure.vectors):
            if f"{group}/{key}" in held.arrays:
                windows[group][key] = _window(demo, group, structure.name_in_file(key), summary.frames(key))
    return summary


def _camera(demo: h5py.Group, key: str, progress: Callable[[int], None]) -> CameraSummary:
    """Summarise all frames of a camera, as they are read for training."""
    held, last = sensor(demo, key)
    parts = [_pictures(frames, progress) for frames in _blocks(held)]
    if last is not None:
        parts.append(_pictures(last[-1:], progress))
    return CameraSummary(
        checksums=np.concatenate([part.checksums for part in parts]),
        thumbnails=np.concatenate([part.thumbnails for part in parts]),
        blank=np.concatenate([part.blank for part in parts]),
    )


def _pictures(frames: NDArray[np.uint8], progress: Callable[[int], None]) -> CameraSummary:
    thumbnails = shrink(frames, GRID)
    blank = np.zeros(len(frames), np.uint8)
    flat = (thumbnails == thumbnails[:, :1, :1]).all(axis=(1, 2, 3))
    for index in np.flatnonzero(flat):  # a blank picture has a blank thumbnail: the rest need no second look
        frame = frames[index]
        if (frame <= DARK).all():
            blank[index] = 1
        elif (frame == frame[:1, :1]).all():
            blank[index] = 2
    progress(len(frames))
    return CameraSummary(checksums=_checksums(frames), thumbnails=thumbnails, blank=blank)


def shrink(frames: NDArray[Any], cells: int) -> NDArray[np.uint8]:
    """Return the means over a grid: `[F, H, W, C]` -> uint8 `[F, min(cells, H), min(cells, W), C]`."""
    sums: NDArray[Any] = frames
    areas: NDArray[Any] = np.ones((1, 1, 1, 1), np.uint32)
    for axis in (1, 2):
        size = frames.shape[axis]
        edges = np.arange(min(cells, size)) * size // min(cells, size)
        sums = np.add.reduceat(sums, edges, axis=axis, dtype=np.uint32)
        widths = np.diff(edges, append=size).astype(np.uint32)
        areas = areas * np.expand_dims(widths, tuple(other for other in range(4) if other != axis))
    means: NDArray[np.uint8] = (sums // areas).astype(np.uint8)
    return means


def _checksums(frames: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return a CRC of each picture: neighbours that differ share one once in 2^32."""
    return np.array([zlib.crc32(np.ascontiguousarray(frame).data) for frame in frames], np.uint32)


def _blocks(held: h5py.Dataset) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array in blocks that hold whole chunks, so that none is unpacked twice."""
    row = max(1, held.dtype.itemsize * int(np.prod(held.shape[1:])))
    chunk = held.chunks[0] if held.chunks else 1
    rows = max(1, BLOCK // row // chunk) * chunk
    for start in range(0, len(held), rows):
        yield held[start : start + rows]


def _window(demo: h5py.Group, group: str, key: str, frames: NDArray[Any]) -> NDArray[Any]:
    """Return what `obs` or `next_obs` hold of a key; a view on the frames that are known needs no reading."""
    item = demo[group][key]
    start = _first_row(item, demo)
    if start is not None and start + len(item) <= len(frames):
        return frames[start : start + len(item)]
    if item.ndim != 4:
        rows: NDArray[Any] = item[()]
        return rows
    return np.concatenate([np.empty(0, np.uint32), *(_checksums(block) for block in _blocks(item))])


def _first_row(item: h5py.Dataset, demo: h5py.Group) -> int | None:
    """Return the row where a virtual dataset begins in the demo's own frames, or None if it is no such window."""
    if not item.is_virtual:
        return None
    sources = item.virtual_sources()
    key = item.name.rsplit("/", 1)[-1]
    if len(sources) != 1 or sources[0].dset_name != f"{demo.name}/frames/{key}":
        return None
    low, high = sources[0].src_space.get_select_bounds()
    whole = low[1:] == (0,) * (item.ndim - 1) and tuple(h + 1 for h in high[1:]) == item.shape[1:]
    return int(low[0]) if whole and high[0] - low[0] + 1 == len(item) else None

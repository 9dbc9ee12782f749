"""Where the pictures of a camera are stored, each of them once: on the GPU, in RAM, in a cache, in the HDF5 files."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.datasets.buffer.memory_plan import Memory, MemoryPlan, choose_place, disk_obstacle, gpu_room, ram_room
from pixelrl.datasets.buffer.recorded_file import ARRAY, RecordedFile
from pixelrl.datasets.hdf5.file_objects import CheckedFile
from pixelrl.datasets.hdf5.reader import FileContents, frame_rows, read_pictures
from pixelrl.runtime.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the frames that came to their place since the last call, and the frames in all; each camera's count."""

CUT_SHORT = "a cache of pictures was cut short while it was in use; start again"


class Frames(Protocol):
    """The pictures of one camera."""

    def take(self, index: Tensor) -> Tensor:
        """Return the frames of these numbers, uint8 `[N, C, H, W]`, channels last in memory; safe in threads."""
        ...


def gather(values: Tensor, index: Tensor, *, pin: bool = False) -> Tensor:
    """Return rows `[N, ...]` of `values` on their device, in page-locked memory if asked for.

    NumPy's gather is as fast as `index_select` on one thread, and starts no others: those would wait for the
    learner's, which keep every core busy.
    """
    if values.device.type != "cpu":
        return values.index_select(0, index.to(values.device, non_blocking=True))
    taken = torch.empty(len(index), *values.shape[1:], dtype=values.dtype, pin_memory=pin)
    np.take(values.numpy(), index.numpy(), axis=0, out=taken.numpy(), mode="clip")  # "raise" would buffer
    return taken


def channels_first(pictures: Tensor) -> Tensor:
    """Return pictures `[N, H, W, C]` as `[N, C, H, W]`, where they are: convolutions like their channels last there."""
    return rearrange(pictures, "n h w c -> n c h w")


class FrameIndex:
    """The numbers of all frames: those of a demo follow each other, and a demo that is used twice has them once.

    Attributes:
        files: each file once, with all of its demos that any source uses.
        file, names: of each demo, in the order of their frames: its file, int64 `[D]`, and its name.
        count: F, how many frames there are.
    """

    def __init__(self, files: Iterable[RecordedFile]) -> None:
        used: dict[object, RecordedFile] = {}
        for each in files:
            place = _place(each.contents)
            demos = {**(used[place].contents.demos if place in used else {}), **each.contents.demos}
            used[place] = replace(each, contents=replace(each.contents, demos=demos))
        self.files = [*used.values()]
        self.file = np.repeat(np.arange(len(used)), [len(file.contents.demos) for file in self.files])
        self.names = [name for file in self.files for name in file.contents.demos]
        self.count = sum(file.contents.frames for file in self.files)
        lengths = np.array([steps + 1 for file in self.files for steps in file.contents.demos.values()])
        self._starts = lengths.cumsum() - lengths
        demos_of = ((place, name) for place, file in used.items() for name in file.contents.demos)
        self._start_of = dict(zip(demos_of, self._starts.tolist(), strict=True))

    def first_frames(self, contents: FileContents) -> NDArray[np.int64]:
        """Return the number of the first frame of each demo."""
        place = _place(contents)
        return np.array([self._start_of[place, name] for name in contents.demos])

    def find(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the demo of each frame, counting over all of them, and its place in it."""
        demo = np.searchsorted(self._starts, index, side="right") - 1
        return demo, index - self._starts[demo]


def _place(contents: FileContents) -> tuple[Path, frozenset[tuple[str, str]]]:
    """Return what tells a file from others: a source may see the same one under other names."""
    return contents.path.resolve(), frozenset(contents.stored.items())


class MemoryFrames:
    """Frames as one array in memory, the GPU's or the machine's: uint8 `[F, H, W, C]`, as files have them."""

    def __init__(self, pictures: Tensor, *, pin: bool = False) -> None:
        self.pictures, self.pin = pictures, pin

    def take(self, index: Tensor) -> Tensor:
        """Gather frames on their device."""
        return channels_first(gather(self.pictures, index, pin=self.pin))


class CachedFrames:
    """Frames in the caches of their files.

    Where the machine's memory could hold all of them they are mapped, and once read they cost what memory costs.
    Otherwise they are read row by row, so that they never count as memory of ours; the system is told of the whole
    batch beforehand, which reads a disk many times faster than one row after another.
    """

    def __init__(self, index: FrameIndex, key: str, *, mapped: bool, pin: bool) -> None:
        self._index, self._pin = index, pin
        self._shape = index.files[0].contents.pictures[key]
        paths, rows = [], []
        for file in index.files:
            unit = file.kept_pictures(key)
            if unit is None:
                raise DataError(f"{file.contents.path}: its cache was taken away meanwhile; start again")
            demos = unit.notes["demos"]
            paths.append(unit.folder / ARRAY)
            rows.append(dict(zip(demos, accumulate((n + 1 for n in demos.values()), initial=0), strict=False)))
        self._row = np.array([rows[file][name] for file, name in zip(index.file, index.names, strict=True)])
        self._files = [path.open("rb", 0) for path in paths]  # one that replaces it is not ours
        maps = (np.asarray(np.memmap(file, np.uint8, "r")) for file in self._files if mapped)
        self._maps = [pixels.reshape(-1, *self._shape) for pixels in maps]
        self._sizes = [os.fstat(file.fileno()).st_size for file in self._files]

    def take(self, index: Tensor) -> Tensor:
        """Copy frames out of the mapping, or read them."""
        demo, place = self._index.find(index.numpy())
        file, row = self._index.file[demo], self._row[demo] + place
        taken = torch.empty(len(index), *self._shape, dtype=torch.uint8, pin_memory=self._pin)
        for each in np.unique(file).tolist() if self._maps else ():  # to touch what is gone would end the process
            if os.fstat(self._files[each].fileno()).st_size != self._sizes[each]:
                raise DataError(CUT_SHORT)
        if len(self._maps) == 1:
            np.take(self._maps[0], row, axis=0, out=taken.numpy(), mode="clip")
        elif self._maps:
            for each in np.unique(file):
                taken.numpy()[file == each] = self._maps[each][row[file == each]]
        else:
            self._read(taken.numpy(), file.tolist(), row.tolist())
        return channels_first(taken)

    def _read(self, out: NDArray[np.uint8], files: Sequence[int], rows: Sequence[int]) -> None:
        """Read rows of the files into `out`."""
        size = out[0].nbytes
        places = [(self._files[file].fileno(), row * size) for file, row in zip(files, rows, strict=True)]
        if hasattr(os, "posix_fadvise"):
            for descriptor, offset in places:
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        for target, (descriptor, offset) in zip(out.reshape(len(out), -1), places, strict=True):
            if os.preadv(descriptor, [target.data], offset) != size:
                raise DataError(CUT_SHORT)


class FileFrames:
    """Frames where they were recorded: the last resort, since HDF5 takes a fraction of a millisecond for each."""

    def __init__(self, index: FrameIndex, key: str, *, pin: bool) -> None:
        self._index, self._pin = index, pin
        self._keys = [file.contents.name_in_file(key) for file in index.files]
        self._shape = index.files[0].contents.pictures[key]
        self._paths = [file.contents.path for file in index.files]
        self._raw = [CheckedFile(path) for path in self._paths]
        self._stamps = [_stamp(raw) for raw in self._raw]
        # A frame is met once in a while: a cache of decompressed chunks would only grow with the number of demos.
        self._files: list[Any] = [h5py.File(raw, "r", rdcc_nbytes=0) for raw in self._raw]

    def take(self, index: Tensor) -> Tensor:
        """Read frames, successive ones of a demo together.

        Raises:
            DataError: a file is damaged, or was changed since it was opened.
        """
        unique, back = np.unique(index.numpy(), return_inverse=True)
        demo, place = self._index.find(unique)
        breaks = np.flatnonzero((np.diff(demo) != 0) | (np.diff(unique) != 1)) + 1
        pictures = np.empty((len(unique), *self._shape), np.uint8)
        for run in np.split(np.arange(len(unique)), breaks):
            file, name = self._index.file[demo[run[0]]], self._index.names[demo[run[0]]]
            start, stop = int(place[run[0]]), int(place[run[-1]]) + 1
            try:
                block = frame_rows(self._files[file]["data"][name], self._keys[file], start, stop)
            except (OSError, RuntimeError, KeyError) as error:
                raise DataError(f"{self._paths[file]}: /data/{name}: damaged ({error})") from error
            pictures[run[0] : run[-1] + 1] = block
        for file in np.unique(self._index.file[demo]):  # afterwards, or it could change in between
            if _stamp(self._raw[file]) != self._stamps[file]:
                raise DataError(f"{self._paths[file]}: was changed while it was in use; start again when it is whole")
        return channels_first(gather(torch.from_numpy(pictures), torch.from_numpy(back), pin=self._pin))


def _stamp(file: CheckedFile) -> tuple[int, int]:
    """Return what changes when an open file does."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def place_frames(
    index: FrameIndex,
    *,
    memory: Memory,
    device: torch.device,
    workers: int,
    progress: Progress | None,
    copies: int = 1,
    batch_size: int = 0,
) -> tuple[MemoryPlan, dict[str, Frames]]:
    """Choose where the frames of all cameras live, and bring them there; arguments as `load_dataset` has them.

    Raises:
        DataError: pictures that cannot be read, or do not fit where they were asked to be.
    """
    shapes = index.files[0].contents.pictures
    size = index.count * sum(map(math.prod, shapes.values()))
    lacking = cache(lambda: [(file, lacks) for file in index.files if (lacks := file.not_kept()) is not None])
    pixels = batch_size * sum(h * w for h, w, _ in shapes.values())
    room = {"gpu": gpu_room(device, pixels), "ram": ram_room(), "copies": copies}
    plan = choose_place(memory, size, obstacle=lambda: _obstacle(lacking()), **room)
    pin = device.type == "cuda"
    total = index.count * len(shapes)
    if plan.place == "cache":
        total = sum(contents.frames * len(contents.pictures) for _, contents in lacking())

    def count(more: int) -> None:
        if progress is not None:
            progress(more, total)

    if plan.place == "file":
        return plan, {key: FileFrames(index, key, pin=pin) for key in shapes}
    if plan.place == "cache":
        for file, contents in lacking():
            file.keep_pictures(contents, workers, count)
        return plan, {key: CachedFrames(index, key, mapped=plan.mapped, pin=pin) for key in shapes}
    place = device if plan.place == "gpu" else torch.device("cpu")
    return plan, {key: _read(index, key, place, pin, count) for key in shapes}


def _read(index: FrameIndex, key: str, device: torch.device, pin: bool, count: Callable[[int], None]) -> MemoryFrames:
    """Read a camera's pictures into one array, a block at a time."""
    shape = (index.count, *index.files[0].contents.pictures[key])
    on_cpu = device.type == "cpu"
    try:  # NumPy asks for large pages, on which gathers are faster
        empty = torch.from_numpy(np.empty(shape, np.uint8)) if on_cpu else None
        pictures = torch.empty(shape, dtype=torch.uint8, device=device) if empty is None else empty
    except (MemoryError, torch.OutOfMemoryError) as error:
        hint = "try --memory cache"
        raise DataError(f"{shape[0]} frames of {key} do not fit into the memory of {device}; {hint}") from error
    first = 0
    for block in (block for file in index.files for block in read_pictures(file.contents, key)):
        if on_cpu:  # NumPy copies: torch's threads would wait for busy cores
            pictures.numpy()[first : first + len(block)] = block
        else:
            pictures[first : first + len(block)] = torch.from_numpy(np.ascontiguousarray(block))
        first += len(block)
        count(len(block))
    return MemoryFrames(pictures, pin=pin and on_cpu)


def _obstacle(lacking: Sequence[tuple[RecordedFile, FileContents]]) -> str | None:
    """Tell why caches cannot be given what they lack, if they cannot."""
    needed: dict[int, int] = {}  # disk -> bytes
    for file, contents in lacking:
        folder = file.cache.existing_folder()
        disk = folder.stat().st_dev
        needed[disk] = needed.get(disk, 0) + contents.frames * sum(map(math.prod, contents.pictures.values()))
        if (obstacle := file.cache.obstacle() or disk_obstacle(folder, needed[disk])) is not None:
            return obstacle
    return None

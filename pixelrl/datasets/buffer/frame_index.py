"""Which file each frame lies in, and the homes of frames that stay on the disk: in a cache, or in the HDF5 files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.datasets.buffer.cache import Array
from pixelrl.datasets.buffer.frames import channels_first, gather
from pixelrl.datasets.buffer.recorded_file import RecordedFile, picture_rows
from pixelrl.runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is used of one file.

    Attributes:
        recording: the file, with all of its demos that any source uses.
        first: demo -> the number of its first frame; its others follow.
    """

    recording: RecordedFile
    first: Mapping[str, int]


def lay_out(recordings: Iterable[RecordedFile]) -> tuple[dict[Path, Part], int]:
    """Number the frames of all demos, in their order; a demo that is used twice has its frames once.

    Returns:
        The parts by the files' resolved paths, and F, how many frames there are.
    """
    parts: dict[Path, Part] = {}
    frames = 0
    for recording in recordings:
        path, demos = recording.contents.path.resolve(), recording.contents.demos
        before = parts.get(path)
        first = {} if before is None else dict(before.first)
        known = {} if before is None else dict(before.recording.contents.demos)
        for name, steps in demos.items():
            if name not in first:
                first[name] = frames
                frames += steps + 1
        everything = replace(recording.contents, demos=known | dict(demos))
        parts[path] = Part(recording=replace(recording, contents=everything), first=first)
    return parts, frames


class Demos:
    """Find the demo that a frame belongs to: all demos of all parts, in the order of their frames."""

    def __init__(self, parts: Sequence[Part]) -> None:
        found = [(first, index, name) for index, part in enumerate(parts) for name, first in part.first.items()]
        found.sort()
        self.part = np.array([part for _, part, _ in found])
        self.names = [name for _, _, name in found]
        self._first = np.array([first for first, _, _ in found])

    def find(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return of each frame its demo, counting over all of them, and its place in it."""
        demo = np.searchsorted(self._first, index, side="right") - 1
        return demo, index - self._first[demo]


class InCache:
    """Frames in the caches of their files.

    Where the machine's memory could hold all of them they are mapped, and once read they cost what memory costs.
    Otherwise they are read row by row, so that they never count as memory of ours; the system is told of the whole
    batch beforehand, which reads a disk many times faster than one row after another.

    Args:
        parts: the files.
        arrays: their caches' pictures of this camera, uint8 `[F, H, W, C]` each.
        rows: of each unit, demo -> the row of its first frame.
        mapped: which of the two.
        pin: return page-locked memory.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        arrays: Sequence[Array],
        rows: Sequence[Mapping[str, int]],
        *,
        mapped: bool,
        pin: bool,
    ) -> None:
        self._demos = Demos(parts)
        self._row = np.array([rows[i][name] for i, name in zip(self._demos.part, self._demos.names, strict=True)])
        self._shape, self._pin = arrays[0].shape[1:], pin
        self._maps = [array.mapped() for array in arrays] if mapped else []
        # open as long as we live: whatever replaces a cache meanwhile is none of our business
        self._files = [] if mapped else [(array.path.open("rb", 0), array.offset) for array in arrays]

    def take(self, index: Tensor) -> Tensor:
        """Copy frames out of the mapping, or read them."""
        demo, place = self._demos.find(index.numpy())
        rows = self._row[demo] + place
        taken = torch.empty(len(index), *self._shape, dtype=torch.uint8, pin_memory=self._pin)
        out = taken.numpy()
        if len(self._maps) == 1:
            np.take(self._maps[0], rows, axis=0, out=out, mode="clip")
            return channels_first(taken)
        where = zip(self._demos.part[demo].tolist(), rows.tolist(), strict=True)
        if self._maps:
            for target, (part, row) in zip(out, where, strict=True):
                target[...] = self._maps[part][row]
        else:
            self._read(out, list(where))
        return channels_first(taken)

    def _read(self, out: NDArray[np.uint8], where: Sequence[tuple[int, int]]) -> None:
        """Read rows of the files into `out`."""
        size = out[0].nbytes
        files = [(file.fileno(), offset) for file, offset in self._files]
        places = [(files[part][0], files[part][1] + row * size) for part, row in where]
        if hasattr(os, "posix_fadvise"):
            for file, at in places:
                os.posix_fadvise(file, at, size, os.POSIX_FADV_WILLNEED)
        for target, (file, at) in zip(out.reshape(len(out), -1), places, strict=True):
            if os.preadv(file, [target], at) != size:
                raise DataError("a cache of pictures was cut short while it was in use; start again")


class InFile:
    """Frames where they were recorded: the last resort, since HDF5 takes a fraction of a millisecond for each."""

    def __init__(self, parts: Sequence[Part], key: str, *, pin: bool) -> None:
        self._demos, self._key, self._pin = Demos(parts), key, pin
        self._shape = parts[0].recording.contents.pictures[key]
        # A frame is met once in a while: a cache of decompressed chunks would only grow with the number of demos.
        self._files: list[Any] = [h5py.File(part.recording.contents.path, "r", rdcc_nbytes=0) for part in parts]

    def take(self, index: Tensor) -> Tensor:
        """Read frames, successive ones of a demo together."""
        unique, back = np.unique(index.numpy(), return_inverse=True)
        demo, place = self._demos.find(unique)
        breaks = np.flatnonzero((np.diff(demo) != 0) | (np.diff(unique) != 1)) + 1
        pictures = np.empty((len(unique), *self._shape), np.uint8)
        for run in np.split(np.arange(len(unique)), breaks):
            group = self._files[self._demos.part[demo[run[0]]]]["data"][self._demos.names[demo[run[0]]]]
            start, stop = int(place[run[0]]), int(place[run[-1]]) + 1
            try:
                block = picture_rows(group, self._key, start, stop)
            except OSError as error:
                raise DataError(f"{group.file.filename}: {group.name}: damaged ({error})") from error
            pictures[run[0] : run[-1] + 1] = block
        return channels_first(gather(torch.from_numpy(pictures), torch.from_numpy(back), pin=self._pin))

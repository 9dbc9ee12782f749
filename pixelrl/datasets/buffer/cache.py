"""Arrays kept beside the file that they were read from, and trusted only while they are what it holds.

FILE.frames/UNIT/NAME.npy     the arrays
FILE.frames/UNIT/index.json   the file's size, times and checksum when they were read, and what their maker noted

A unit is written under another name and appears whole, by one rename; whoever has an older one open keeps it. Two
processes that want the same unit wait for each other.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic
from numpy.typing import NDArray

from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import flush, write_json

FORMAT = 1
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class Array:
    """A kept array: its type and shape, and where in its file it begins [bytes]."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    def mapped(self) -> NDArray[Any]:
        """Return the array without reading it."""
        return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Arrays that were made together, and what their maker noted about them."""

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any]


class Cache:
    """What is kept of one file.

    Args:
        source: the file.
        folder: where to keep it; None: beside the file.
    """

    def __init__(self, source: Path, folder: Path | None = None) -> None:
        self.source = source
        name = source.name
        if folder is not None:  # where files of the same name may meet
            name = f"{source.stem}-{zlib.crc32(str(source.resolve()).encode()):08x}{source.suffix}"
        self.home = (source.parent if folder is None else folder) / f"{name}.frames"

    def ground(self) -> Path:
        """Return the folder that exists already, in which `home` is or would be."""
        return next(folder for folder in (self.home, *self.home.absolute().parents) if folder.exists())

    def obstacle(self) -> str | None:
        """Tell what keeps units from being made here, if anything does."""
        ground = self.ground()
        return None if ground.is_dir() and os.access(ground, os.W_OK | os.X_OK) else f"{ground} cannot be written to"

    def get(self, unit: str, fits: Callable[[Unit], bool]) -> Unit | None:
        """Return a unit if it is whole, was made from the file as it is now, and fits.

        The file's size and times of change say so at once; where only times differ (it was copied, or touched), its
        checksum does, and the new times are noted. An array that was touched since counts as another one.
        """
        folder = self.home / unit
        try:
            stamp = self._stamp  # taken before anything is read
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["format"] != FORMAT or index["size"] != stamp["size"] or index["arrays"] != _arrays(folder):
                return None
            if any(index[key] != value for key, value in stamp.items()):
                if index["sha256"] != self._checksum:
                    return None
                with suppress(OSError):  # if it may be written
                    write_json(folder / INDEX, index | stamp)
            arrays = {Path(name).stem: _array(folder / name) for name in index["arrays"]}
            found = Unit(arrays=arrays, notes=index["notes"])
            return found if fits(found) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # half of one, or not one of ours

    def make(
        self, unit: str, notes: Mapping[str, Any], fill: Callable[[Path], None], fits: Callable[[Unit], bool]
    ) -> Unit:
        """Return a unit that fits, made by `fill` unless it is there.

        Args:
            unit: its name.
            notes: JSON values to keep beside its arrays.
            fill: writes the arrays into a folder, as NAME.npy.
            fits: tells whether a unit is the one that is wanted.

        Raises:
            DataError: it cannot be written, or the file changed meanwhile.
        """
        try:
            with self._locked():
                if self.get(unit, fits) is None:  # nobody made it while we waited
                    self._make(unit, notes, fill)
                found = self.get(unit, fits)
        except OSError as error:
            raise DataError(
                f"{self.home}: cannot be written ({error.strerror or error}); --cache-dir names another place for it, "
                "--memory file does without"
            ) from error
        if found is None:
            raise DataError(f"{self.source}: changed while it was read; try again when it is finished")
        return found

    def _make(self, unit: str, notes: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
        """Write a unit; we hold the lock, so what others began lies dead."""
        for leftover in self.home.glob(f".{unit}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = self.home / f".{unit}.{secrets.token_hex(4)}.tmp"
        staging.mkdir()
        try:
            hashing = threading.Thread(target=lambda: self._checksum, daemon=True)  # nobody who leaves waits for it
            hashing.start()
            fill(staging)
            for path in staging.iterdir():
                flush(path)
            hashing.join()
            index = {"format": FORMAT, **self._stamp, "sha256": self._checksum, "arrays": _arrays(staging)}
            if _stamp(self.source) == self._stamp:
                write_json(staging / INDEX, index | {"notes": dict(notes)})
                shutil.rmtree(self.home / unit, ignore_errors=True)
                staging.rename(self.home / unit)
                flush(self.home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @cached_property
    def _stamp(self) -> dict[str, int]:
        """The file's size and times when we first looked at it."""
        return _stamp(self.source)

    @cached_property
    def _checksum(self) -> str:
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes, which may build the same, waiting."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _stamp(path: Path) -> dict[str, int]:
    """Return what changes when a file does; the time of its inode changes even where the other is set back."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _array(path: Path) -> Array:
    """Return what the head of a file says of the array in it."""
    with path.open("rb") as file:
        if read_magic(file) != (1, 0):  # type: ignore[no-untyped-call]
            raise ValueError(f"{path}: not as numpy.save writes it")
        shape, _, dtype = read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        return Array(path=path, dtype=dtype, shape=shape, offset=file.tell())


def _arrays(folder: Path) -> dict[str, list[int]]:
    """Return the arrays in a folder, each with its size and the time of its last change."""
    return {
        path.name: [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(folder.iterdir())
        if path.suffix == ".npy"
    }

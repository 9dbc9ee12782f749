"""Arrays kept beside the file that they were read from, and trusted only while they are what it holds.

FILE.frames/UNIT/index.json   what was read: the file's stamp and checksum, the arrays, and whatever their reader notes
FILE.frames/UNIT/NAME         one array, its bytes and nothing else

A unit is written under another name and appears whole, by one rename; whoever has an older one open keeps it. Two
processes that want the same unit wait for each other.
"""

import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.errors import DataError
from pixelrl.files import flush, write_json

FORMAT = 1
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class Array:
    """A kept array: its type and shape; a file that was touched since it was written counts as another one."""

    path: Path
    dtype: str
    shape: tuple[int, ...]

    def bytes(self) -> int:
        """Return its size."""
        return int(np.dtype(self.dtype).itemsize * math.prod(self.shape))

    def mapped(self) -> NDArray[Any]:
        """Return the array without reading it."""
        if not self.bytes():
            return np.empty(self.shape, self.dtype)
        return np.asarray(np.memmap(self.path, self.dtype, "r", shape=self.shape))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Arrays that were made together, and what their maker noted about them."""

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any]

    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return name -> (type, shape)."""
        return {name: (array.dtype, array.shape) for name, array in self.arrays.items()}


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

    def get(self, unit: str) -> Unit | None:
        """Return a unit if it is whole and was made from the file as it is now.

        The file's size and its times of change say so at once; where only times differ (it was copied, or touched),
        its checksum does, and the new times are noted.
        """
        folder = self.home / unit
        try:
            stamp = self._stamp  # taken before anything is read
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["format"] != FORMAT or index["source"]["size"] != stamp["size"]:
                return None
            arrays = {
                name: Array(path=folder / name, dtype=each["dtype"], shape=tuple(each["shape"]))
                for name, each in index["arrays"].items()
            }
            for name, array in arrays.items():
                status = array.path.stat()
                if (status.st_size, status.st_mtime_ns) != (array.bytes(), index["arrays"][name]["mtime_ns"]):
                    return None
            if any(index["source"][key] != value for key, value in stamp.items()):
                if index["source"]["sha256"] != self._checksum:
                    return None
                self._note(folder, index | {"source": {**stamp, "sha256": self._checksum}})
            return Unit(arrays=arrays, notes=index["notes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # half of one, or not one of ours

    def make(
        self,
        unit: str,
        arrays: Mapping[str, tuple[str, tuple[int, ...]]],
        notes: Mapping[str, Any],
        fill: Callable[[Mapping[str, Array]], None],
    ) -> Unit:
        """Return a unit, made by `fill` unless it is there.

        Args:
            unit: its name.
            arrays: name -> (type, shape).
            notes: JSON values to keep beside them.
            fill: writes the arrays, whose files have their full size already.

        Raises:
            DataError: it cannot be written, or the file changed meanwhile.
        """
        try:
            with self._locked():
                found = self.get(unit)
                if found is not None and found.notes == notes and found.layout() == arrays:
                    return found  # somebody else made it while we waited
                return self._made(unit, arrays, notes, fill)
        except OSError as error:
            raise DataError(
                f"{self.home}: cannot be written ({error.strerror or error}); --cache-dir names another place for it, "
                "--memory file does without"
            ) from error

    def _made(
        self,
        unit: str,
        arrays: Mapping[str, tuple[str, tuple[int, ...]]],
        notes: Mapping[str, Any],
        fill: Callable[[Mapping[str, Array]], None],
    ) -> Unit:
        for leftover in self.home.glob(f".{unit}.*.tmp"):  # nobody else is at work: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        staging = self.home / f".{unit}.{secrets.token_hex(4)}.tmp"
        staging.mkdir()
        try:
            planned = {n: Array(path=staging / n, dtype=kind, shape=shape) for n, (kind, shape) in arrays.items()}
            for array in planned.values():
                with array.path.open("wb") as file:
                    file.truncate(array.bytes())
            with ThreadPoolExecutor(1) as aside:  # hashing holds no lock that reading wants
                checksum = aside.submit(lambda: self._checksum)
                fill(planned)
                for array in planned.values():
                    flush(array.path)
                checksum.result()
            index = {
                "format": FORMAT,
                "source": {**self._stamp, "sha256": self._checksum},
                "arrays": {
                    n: {"dtype": a.dtype, "shape": a.shape, "mtime_ns": a.path.stat().st_mtime_ns}
                    for n, a in planned.items()
                },
                "notes": dict(notes),
            }
            if _stamp(self.source) != self._stamp:
                raise DataError(f"{self.source}: changed while it was read; try again when it is finished")
            write_json(staging / INDEX, index)
            shutil.rmtree(self.home / unit, ignore_errors=True)
            staging.rename(self.home / unit)
            flush(self.home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        made = {n: Array(path=self.home / unit / n, dtype=kind, shape=shape) for n, (kind, shape) in arrays.items()}
        return Unit(arrays=made, notes=notes)

    @cached_property
    def _stamp(self) -> dict[str, int]:
        """The file's size and times when we first looked at it."""
        return _stamp(self.source)

    @cached_property
    def _checksum(self) -> str:
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _note(self, folder: Path, index: Mapping[str, Any]) -> None:
        """Write an index anew, unless it may not be written."""
        try:
            write_json(folder / INDEX, index)
        except OSError:
            return

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

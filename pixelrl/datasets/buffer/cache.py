"""Arrays kept beside the file that they were read from, and trusted only where they were written here, from that file.

FILE.frames/UNIT/NAME.bin     the bytes of an array
FILE.frames/UNIT/notes.json   what their maker noted
FILE.frames/UNIT/index.json   how the file and all of these looked when they were written

A unit appears whole, by one rename; a process that has an older one open keeps it. Processes that want the same unit
wait for each other. What is in it is known by its size and by its inode's time of change, which no archive, no copy
and no program can choose: a folder that came with the data, or was changed since, is made anew.
"""

import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import LOCK, atomic_tree, file_lock, write_json

FORMAT = 5
INDEX, NOTES = "index.json", "notes.json"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Arrays that were made together: NAME.bin in a folder, and what their maker noted."""

    folder: Path
    notes: Mapping[str, Any]


class Cache:
    """What is kept of one file, in `folder` or beside it."""

    def __init__(self, source: Path, folder: Path | None = None) -> None:
        self.source = source
        name = source.name
        if folder is not None:  # where files of the same name may meet
            name = f"{source.stem}-{zlib.crc32(str(source.resolve()).encode()):08x}{source.suffix}"
        self.home = (source.parent if folder is None else folder) / f"{name}.frames"

    def existing_folder(self) -> Path:
        """Return the folder that exists already, in which the cache is or would be."""
        return next(folder for folder in (self.home, *self.home.absolute().parents) if folder.exists())

    def obstacle(self) -> str | None:
        """Tell what keeps units from being made here, if anything does."""
        if self.home.is_symlink():
            return f"{self.home} is a link, through which nothing is written"
        folder = self.existing_folder()
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        return None if writable else f"{folder} cannot be written to"

    def get(self, unit: str) -> Unit | None:
        """Return a unit if it is whole, was made here, and from the file as it is now.

        The file's size and times of change say so at once; where only times differ (it was copied, or touched), its
        checksum does, and the new times are noted.
        """
        folder = self.home / unit
        try:
            stamp = self._stamp  # taken before anything is read
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["format"] != FORMAT or index["size"] != stamp["size"] or index["files"] != _files(folder):
                return None
            if any(index[key] != value for key, value in stamp.items()):
                if index["sha256"] != self._checksum:
                    return None
                with suppress(OSError):  # if it may be written
                    write_json(folder / INDEX, index | stamp)
            return Unit(folder=folder, notes=json.loads((folder / NOTES).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # half of one, or not one of ours

    def make(self, unit: str, notes: Mapping[str, Any], fill: Callable[[Path], None]) -> Unit:
        """Return a unit, with these JSON notes and what `fill` writes into its folder, unless it is there already.

        Raises:
            DataError: it cannot be written, or the file changed meanwhile.
        """
        instead = "--cache-dir names another place for it, --memory file does without"
        if (obstacle := self.obstacle()) is not None:
            raise DataError(f"{obstacle}; {instead}")
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            with file_lock(self.home / LOCK):
                if self.get(unit) is None:  # no other process made it while we waited
                    self._make(unit, notes, fill)
                found = self.get(unit)
        except OSError as error:
            raise DataError(f"{self.home}: cannot be written ({error.strerror or error}); {instead}") from error
        if found is None:
            raise self._changed()
        return found

    def _make(self, unit: str, notes: Mapping[str, Any], fill: Callable[[Path], None]) -> None:
        """Write a unit, unless the file changes meanwhile; we hold the lock."""
        shutil.rmtree(self.home / unit, ignore_errors=True)
        hashing = threading.Thread(target=lambda: self._checksum, daemon=True)
        with atomic_tree(self.home / unit) as staging:
            staging.mkdir()
            hashing.start()
            fill(staging)
            (staging / NOTES).write_text(json.dumps(dict(notes)), encoding="utf-8")
            for path in staging.iterdir():
                os.utime(path, ns=(0, 0))  # unlike the inode's time of change, where the disk keeps that
            hashing.join()
            index = {"format": FORMAT, **self._stamp, "sha256": self._checksum, "files": _files(staging)}
            write_json(staging / INDEX, index)
            if _stamp(self.source) != self._stamp:
                raise self._changed()

    def _changed(self) -> DataError:
        """Return the error of a file that is being written."""
        return DataError(f"{self.source}: changed while it was read; try again when it is finished")

    @cached_property
    def _stamp(self) -> dict[str, int]:
        """The file's size and times when we first looked at it."""
        return _stamp(self.source)

    @cached_property
    def _checksum(self) -> str:
        with self.source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> dict[str, int]:
    """Return what changes when a file does; the time of its inode changes even where the other is set back."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}


def _files(folder: Path) -> dict[str, list[int]]:
    """Return the files in a unit, each with its size and its inode's time of change.

    Raises:
        OSError: the disk does not keep that time, but returns the one that programs can set.
    """
    found = {path.name: _stamp(path) for path in folder.iterdir() if path.suffix == ".bin" or path.name == NOTES}
    if any(stamp["ctime_ns"] == stamp["mtime_ns"] for stamp in found.values()):
        raise OSError("its disk does not tell when files were changed")
    return {name: [stamp["size"], stamp["ctime_ns"]] for name, stamp in found.items()}

"""Files that are either whole or absent: a crash or a full disk never leaves half of one behind."""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it becomes `path` if the block ends well, else it goes.

    The parent folder is made if it is missing. The temporary name keeps the suffix: some writers read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def rename(source: Path, target: Path) -> None:
    """Give a file that is whole its name, atomically."""
    flush(source)  # or a power cut could leave the new name on an empty file
    os.replace(source, target)  # noqa: PTH105 (the one call that is known to be atomic)
    flush(target.parent)


@contextmanager
def atomic_tree(path: Path) -> Iterator[Path]:
    """Yield a path of the same name, in a temporary folder beside `path`; the file or folder made there becomes `path`.

    Nothing else that is left in the temporary folder survives.

    Raises:
        FileExistsError: `path` exists already.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    folder.mkdir()
    try:
        yield folder / path.name
        for part in (folder / path.name).rglob("*"):
            flush(part)
        rename(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_directory(directory: Path) -> Iterator[None]:
    """Keep a directory, made if it is missing, to this process; one that was made and stays empty is removed again.

    The kernel holds the lock, so that it ends with the process, however that ends.

    Raises:
        PixelrlError: another process has it.
    """
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    path = directory / ".lock"
    descriptor = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for each in made:
            with suppress(OSError):  # something was written to it
                each.rmdir()


def _lock(path: Path) -> int:
    """Open and lock a file; another process may remove it at the same time, since it goes when its lock ends."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise PixelrlError(f"{path.parent}: another process is at work in it; choose another --out") from error
        except OSError:  # a file system without locks
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)

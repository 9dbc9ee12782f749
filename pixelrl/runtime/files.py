"""Files that are either whole or absent: a crash or a full disk never leaves half of one behind."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError

LOCK = ".lock"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path of the same name, in a temporary folder beside `path`; the file made there becomes `path`.

    If the block raises, nothing becomes of it. The parent folder is made if it is missing.

    Raises:
        PixelrlError: `path` is a directory.
    """
    if path.is_dir():
        raise PixelrlError(f"{path}: is a directory; expected a file, new or old")
    with naming(path), staging_folder(path) as folder:
        yield folder / path.name
        rename(folder / path.name, path)


def check_writable(path: Path) -> None:
    """Raise what writing a file later on would raise, and make its folder if it is missing.

    Raises:
        PixelrlError: it is a directory, or its folder is a file.
    """
    if path.is_dir():
        raise PixelrlError(f"{path}: is a directory; expected a file, new or old")
    if path.parent.is_file():
        raise PixelrlError(f"{path.parent}: is a file; expected a directory, new or old")
    with staging_folder(path):
        pass


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system say which file it is about: a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_tree(path: Path) -> Iterator[Path]:
    """Do what `atomic_path` does, for a file or a whole folder.

    Raises:
        FileExistsError: `path` exists already.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with naming(path), staging_folder(path) as folder:
        yield folder / path.name
        for part in (folder / path.name).rglob("*"):
            flush(part)
        rename(folder / path.name, path)


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; those that killed processes left for the same `path` are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), file_lock(leftover / LOCK, wait=False) as held:
            if held:  # else its process is alive, or the disk cannot tell
                shutil.rmtree(leftover, ignore_errors=True)
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    folder.mkdir()
    try:
        with file_lock(folder / LOCK, wait=False):
            folder = folder.rename(folder.with_suffix(".tmp"))  # locked before anybody takes it for a leftover
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which is made if it is missing and never opened through a link.

    Yields:
        Whether it is held; False where the disk knows no locks, as some network disks.

    Raises:
        BlockingIOError: another process or thread holds it, and we are not to wait.
    """
    descriptor, held = _open_locked(path, wait)
    try:
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_directory(directory: Path) -> Iterator[None]:
    """Keep a directory, made if it is missing, to this process; one that was made and stays empty is removed again.

    The kernel holds the lock, so that it ends with the process, however that ends.

    Raises:
        PixelrlError: another process has it.
    """
    if directory.exists() and not directory.is_dir():
        raise PixelrlError(f"{directory}: is a file; expected a directory, new or old")
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, made)
        try:
            stack.enter_context(file_lock(directory / LOCK, wait=False))
        except BlockingIOError as error:
            raise PixelrlError(f"{directory}: another process is at work in it; choose another --out") from error
        stack.callback((directory / LOCK).unlink, missing_ok=True)
        yield


def _remove_if_empty(folders: Iterable[Path]) -> None:
    """Remove folders that hold nothing, the innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _open_locked(path: Path, wait: bool) -> tuple[int, bool]:
    """Open and lock a file; another process may remove it, or its folder, at the same time."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                held = lock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if not held or os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor, held
            except OSError:
                os.close(descriptor)
                raise
            os.close(descriptor)


def lock(descriptor: int, kind: int) -> bool:
    """Take a lock of `fcntl.flock` on an open file, and return whether the disk knows locks."""
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def rename(source: Path, target: Path) -> None:
    """Give a file that is whole its name, atomically."""
    flush(source)  # or a power cut could leave the new name on an empty file
    os.replace(source, target)  # noqa: PTH105 (the one call that is known to be atomic)
    flush(target.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not know.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # names of files may be no text


def not_finite(value: Any, place: str = "") -> str | None:
    """Return where a JSON value holds NaN or a number beyond float64, as `spec.mean[0] is nan`; None: nowhere."""
    if isinstance(value, dict):
        parts = ((f"{place}.{key}" if place else str(key), each) for key, each in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{place}[{index}]", each) for index, each in enumerate(value))
    else:
        wrong = isinstance(value, int | float) and not abs(value) <= sys.float_info.max
        return f"{place} is {value!r:.40}" if wrong else None
    return next(filter(None, (not_finite(each, at) for at, each in parts)), None)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

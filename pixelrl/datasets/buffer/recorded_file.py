"""One file as a source uses it: its numbers and its pictures, from itself or from its cache."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.buffer.cache import Cache, Unit
from pixelrl.datasets.buffer.memory_plan import ram_room
from pixelrl.datasets.hdf5.reader import FileContents, Selection, read_contents, read_demos, read_pictures
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.child_process import start_as_child
from pixelrl.runtime.errors import DataError

ARRAYS = {
    "actions": np.float32,
    "rewards": np.float32,
    "dones": np.bool_,
    "next_missing": np.bool_,
    "proprio": np.float32,
}
"""The arrays of `Numbers`, by which they are kept."""

ARRAY = "pictures.bin"
"""uint8 `[F, H, W, C]`, the frames of all demos one after another."""

DEMOS_A_TASK = 32
"""How many demos' pictures are copied between two reports."""
ONE_PROCESS = 2**29
"""Bytes that one process copies before a second one has started."""
PROCESS_MEMORY = 2**29
"""Bytes that such a process takes, most of it its libraries: where memory is short, fewer copy."""

CopyTask = tuple[FileContents, str, Path, int]
"""Some demos of a file, a camera's key, where to write its pictures, and at which byte."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """All but the pictures of some demos, one after another: `[T, ...]`, proprio `[F, P]`; see `Demo`."""

    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    next_missing: NDArray[np.bool_]
    proprio: NDArray[np.float32]
    clocks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RecordedFile:
    """A file: its demos that are used, and where arrays of it may be kept; its numbers under the name `unit`."""

    contents: FileContents
    unit: str
    cache: Cache

    def numbers(self) -> Numbers:
        """Read all but the pictures of its demos.

        Raises:
            DataError: a number that is not finite, with its place.
        """
        unit = self.cache.get(self.unit)
        return _read_numbers(self.contents) if unit is None else _kept_numbers(self.contents, unit)

    def keep_numbers(self) -> None:
        """Keep the numbers, so that they are there at once the next time; all demos that were read must be here."""

        def fill(folder: Path) -> None:
            for name in ARRAYS:
                getattr(numbers, name).tofile(folder / f"{name}.bin")

        if self.cache.get(self.unit) is not None:
            return
        numbers = _read_numbers(self.contents)
        notes = {key: value for key, value in asdict(self.contents).items() if key != "path"}
        self.cache.make(self.unit, {**notes, "clocks": numbers.clocks}, fill)

    def kept_pictures(self, key: str) -> Unit | None:
        """Return a camera's pictures of all demos of the file, if they are kept: uint8 `[F, H, W, C]`."""
        return self.cache.get(_unit_name("pictures", self.contents.name_in_file(key)))

    def not_kept(self) -> FileContents | None:
        """Return all demos of the file with the cameras that the cache lacks, or None if it lacks none."""
        keys = [key for key in self.contents.pictures if self.kept_pictures(key) is None]
        stored = [self.contents.name_in_file(key) for key in keys]
        return read_contents(self.contents.path, images=stored, proprio=(), required=()) if keys else None

    def keep_pictures(self, lacking: FileContents, workers: int, progress: Callable[[int], None]) -> None:
        """Keep the pictures that `not_kept` returned; `progress` gets how many were copied since its last call.

        Raises:
            DataError: they cannot be read, or not be written.
        """
        for key in lacking.pictures:
            copy = partial(copy_pictures, contents=lacking, key=key, workers=workers, progress=progress)
            self.cache.make(_unit_name("pictures", key), {"demos": dict(lacking.demos)}, copy)


def open_recorded_file(path: Path, selection: Selection, cache_dir: Path | None = None) -> RecordedFile:
    """Open a file; its cache, if it has one, makes that a matter of milliseconds.

    Raises:
        DataError: whatever `read_contents` finds.
    """
    cache, asked = Cache(path, cache_dir), vars(selection)
    name = _unit_name("numbers", {option: value for option, value in asked.items() if option != "rename" or value})
    unit = cache.get(name)
    contents = read_contents(path, **asked) if unit is None else _kept_contents(path, unit)
    return RecordedFile(contents=contents, unit=name, cache=cache)


def _read_numbers(contents: FileContents) -> Numbers:
    demos = [*read_demos(contents, pictures=False)]
    proprio = [np.hstack([np.empty((len(demo.actions) + 1, 0), np.float32), *demo.sensors.values()]) for demo in demos]
    growing = set.intersection(*(set(demo.clocks) for demo in demos))
    steps: dict[str, Any] = {
        name: np.concatenate([getattr(demo, name) for demo in demos]) for name in ARRAYS if name != "proprio"
    }
    clocks = tuple(key for key in contents.vectors if key in growing)
    return Numbers(**steps, proprio=np.concatenate(proprio), clocks=clocks)


def _kept_numbers(contents: FileContents, unit: Unit) -> Numbers:
    """Return those of a unit's numbers that belong to the demos of `contents`."""
    demos = unit.notes["demos"]
    lengths, used = np.array([*demos.values()]), np.array([name in contents.demos for name in demos])
    steps, frames = np.repeat(used, lengths), np.repeat(used, lengths + 1)
    width, vectors = len(contents.action), sum(contents.vectors.values())
    arrays: dict[str, NDArray[Any]] = {
        name: np.fromfile(unit.folder / f"{name}.bin", dtype) for name, dtype in ARRAYS.items()
    }
    arrays["actions"] = arrays["actions"].reshape(len(steps), width)
    arrays["proprio"] = arrays["proprio"].reshape(len(frames), vectors)
    chosen: dict[str, Any] = {name: array[frames if name == "proprio" else steps] for name, array in arrays.items()}
    return Numbers(**chosen, clocks=tuple(unit.notes["clocks"]))


def _kept_contents(path: Path, unit: Unit) -> FileContents:
    held: dict[str, Any] = {key: value for key, value in unit.notes.items() if key != "clocks"}
    held["pictures"] = {key: (h, w, c) for key, (h, w, c) in held["pictures"].items()}
    held["action"] = tuple(ActionDim(**dim) for dim in held["action"])
    return FileContents(path=path, **held)


def _unit_name(kind: str, asked: Any) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"


def copy_pictures(
    folder: Path, *, contents: FileContents, key: str, workers: int, progress: Callable[[int], None]
) -> None:
    """Write a camera's pictures into a folder, as `ARRAY`; `progress` gets the frames copied since its last call.

    Raises:
        DataError: they cannot be read.
        OSError: they cannot be written.
    """
    path, size = folder / ARRAY, math.prod(contents.pictures[key])
    with path.open("wb") as file:
        file.truncate(contents.frames * size)
    demos = [*contents.demos.items()]
    rows = [*accumulate((steps + 1 for _, steps in demos), initial=0)]
    tasks = [
        (replace(contents, demos=dict(demos[i : i + DEMOS_A_TASK])), key, path, rows[i] * size)
        for i in range(0, len(demos), DEMOS_A_TASK)
    ]
    processes = min(workers, len(tasks), contents.frames * size // ONE_PROCESS, ram_room() // PROCESS_MEMORY)
    for copied in map(_copy, tasks) if processes < 2 else _copied_in_processes(tasks, processes):
        progress(copied)


def _copy(task: CopyTask) -> int:
    """Do a task, and return how many frames it was."""
    contents, key, path, offset = task
    with path.open("r+b") as file:
        file.seek(offset)
        for block in read_pictures(contents, key):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())  # unwritten pages are memory that cannot be taken back: a container would be killed
    return contents.frames


def _copied_in_processes(tasks: Sequence[CopyTask], count: int) -> Iterator[int]:
    """Copy in processes; HDF5 does one thing at a time in each, so threads would wait for each other."""
    spawn = get_context("spawn")  # threads, locks and CUDA do not survive a fork
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=start_as_child) as pool:
        try:
            for job in as_completed([pool.submit(_copy, task) for task in tasks]):
                yield job.result()
        except BrokenProcessPool as error:
            raise DataError(f"{tasks[0][0].path}: a process that copied its pictures died (out of memory?)") from error
        finally:
            pool.shutdown(cancel_futures=True)

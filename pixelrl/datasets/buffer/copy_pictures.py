"""Copy a camera's pictures from an HDF5 file into one plain array on the disk, many of them in several processes."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

from pixelrl.datasets.buffer.memory_plan import ram_room
from pixelrl.datasets.hdf5.reader import FileContents, read_pictures
from pixelrl.runtime.child_process import start_as_child
from pixelrl.runtime.errors import DataError

ARRAY = "pictures.bin"
"""uint8 `[F, H, W, C]`, the frames of all demos one after another."""

DEMOS = 32
"""How many are copied between two reports."""
ONE_PROCESS = 2**29
"""Bytes that one process copies before a second one has started."""
PROCESS_MEMORY = 2**29
"""Bytes that such a process takes, most of it its libraries: where memory is short, fewer copy."""

Task = tuple[FileContents, str, Path, int]
"""Some demos of a file, a camera's key, where to write its pictures, and at which byte."""


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
        (replace(contents, demos=dict(demos[i : i + DEMOS])), key, path, rows[i] * size)
        for i in range(0, len(demos), DEMOS)
    ]
    processes = min(workers, len(tasks), contents.frames * size // ONE_PROCESS, ram_room() // PROCESS_MEMORY)
    for copied in map(_copy, tasks) if processes < 2 else _copied_in_processes(tasks, processes):
        progress(copied)


def _copy(task: Task) -> int:
    """Do a task, and return how many frames it was."""
    contents, key, path, offset = task
    with path.open("r+b") as file:
        file.seek(offset)
        for block in read_pictures(contents, key):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())  # unwritten pages are memory that cannot be taken back: a container would be killed
    return contents.frames


def _copied_in_processes(tasks: Sequence[Task], count: int) -> Iterator[int]:
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

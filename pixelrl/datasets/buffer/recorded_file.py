"""One file as a source uses it: its numbers and its pictures, from itself or from its cache."""

import json
import math
import os
import re
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.buffer.cache import Cache, Unit
from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.buffer.memory_plan import ram_room
from pixelrl.datasets.hdf5.reader import FileContents, Demo, read_contents, read_demos, sensor
from pixelrl.runtime.errors import DataError

BLOCK = 4 * 2**20
"""Bytes of pictures that are read at a time: a demo may be longer than memory."""
DEMOS = 32
"""How many of them are copied between two reports."""
ALONE = 2**29
"""Bytes that one process copies before a second one has started."""
PROCESS = 2**29
"""Bytes that such a process takes, most of it its libraries: where memory is short, fewer copy."""


class Request(TypedDict):
    """What is asked of a file, as `read_contents` takes it."""

    mask: str | None
    images: Sequence[str] | None
    proprio: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class RecordedFile:
    """A file.

    Attributes:
        contents: its demos that are used.
        request: what was asked of it.
        cache: where arrays of it may be kept.
        kept: its numbers, if they are kept there.
    """

    contents: FileContents
    request: Request
    cache: Cache
    kept: Unit | None = field(default=None, repr=False)

    def numbers(self) -> Iterator[Demo]:
        """Yield its demos without their pictures.

        Raises:
            DataError: a number that is not finite, with its place.
        """
        if self.kept is None:
            yield from read_demos(replace(self.contents, pictures={}))
            return
        arrays = {name: array.mapped() for name, array in self.kept.arrays.items()}
        edges = np.cumsum(list(self.contents.vectors.values()))[:-1]
        step = 0
        for index, (name, steps) in enumerate(_whole(self.contents.path, self.kept).demos.items()):
            begin, step = step, step + steps
            if name in self.contents.demos:
                proprio = np.split(arrays["proprio"][begin + index : step + index + 1], edges, axis=1)
                numbers = {key: arrays[key][begin:step] for key in ("actions", "rewards", "dones")}
                yield Demo(
                    name=name, sensors=dict(zip(self.contents.vectors, proprio, strict=False)), notes={}, **numbers
                )

    def keep_numbers(self) -> None:
        """Keep the numbers, so that they are there at once the next time; all demos of the request must be here."""
        whole = self.contents

        def fill(folder: Path) -> None:
            demos = [*read_demos(replace(whole, pictures={}))]
            for key in ("actions", "rewards", "dones"):
                np.save(folder / f"{key}.npy", np.concatenate([getattr(demo, key) for demo in demos]))
            none = [np.empty((len(demo.actions) + 1, 0), np.float32) for demo in demos]
            proprio = [
                np.concatenate([empty, *demo.sensors.values()], 1) for empty, demo in zip(none, demos, strict=True)
            ]
            np.save(folder / "proprio.npy", np.concatenate(proprio))

        contents = json.dumps({key: value for key, value in asdict(whole).items() if key != "path"})
        notes = {"request": json.dumps(self.request), "contents": contents}
        self.cache.make(_unit_of(self.request), notes, fill, lambda unit: _answers(unit, whole.path, self.request))


def open_recorded_file(path: Path, request: Request, cache_dir: Path | None = None) -> RecordedFile:
    """Open a file; its cache, if it has one, makes that a matter of milliseconds.

    Raises:
        DataError: whatever `read_contents` finds.
    """
    cache = Cache(path, cache_dir)
    kept = cache.get(_unit_of(request), lambda unit: _answers(unit, path, request))
    contents = read_contents(path, **request) if kept is None else _whole(path, kept)
    return RecordedFile(contents=contents, request=request, cache=cache, kept=kept)


def _unit_of(request: Request) -> str:
    """Return the name of the unit of numbers that a request gets."""
    return f"numbers-{zlib.crc32(json.dumps(request).encode()):08x}"


def _whole(path: Path, unit: Unit) -> FileContents:
    """Return the contents that a unit of numbers is of."""
    held: dict[str, Any] = json.loads(unit.notes["contents"])
    pictures = {key: (h, w, c) for key, (h, w, c) in held["pictures"].items()}
    return FileContents(
        path=path, **held | {"pictures": pictures, "action": tuple(ActionDim(**dim) for dim in held["action"])}
    )


def _answers(unit: Unit, path: Path, request: Request) -> bool:
    """Tell whether a unit of numbers answers a request, and has as many rows as its demos have."""
    contents = _whole(path, unit)
    steps, frames = sum(contents.demos.values()), frames_of(contents)
    vectors, actions = sum(contents.vectors.values()), len(contents.action)
    expected = {"actions": (steps, actions), "rewards": (steps,), "dones": (steps,), "proprio": (frames, vectors)}
    shapes = {name: array.shape for name, array in unit.arrays.items()}
    return unit.notes["request"] == json.dumps(request) and shapes == expected


def frames_of(contents: FileContents) -> int:
    """Return how many frames a camera has in all demos."""
    return sum(contents.demos.values()) + len(contents.demos)


def picture_blocks(contents: FileContents, key: str) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Yield a camera's pictures in blocks: the demo, the block's first frame in it, and uint8 `[n, H, W, C]`."""
    rows = max(1, BLOCK // math.prod(contents.pictures[key]))
    with open_file(contents.path) as file:
        for name, steps in contents.demos.items():
            for start in range(0, steps + 1, rows):
                yield name, start, picture_rows(file["data"][name], key, start, min(start + rows, steps + 1))


def picture_rows(demo: h5py.Group, key: str, start: int, stop: int) -> NDArray[np.uint8]:
    """Read some successive frames of a demo, uint8 `[stop - start, H, W, C]`."""
    held, last = sensor(demo, key)
    pictures: NDArray[np.uint8] = held[start:stop]
    if last is not None and stop > len(held):
        pictures = np.concatenate([pictures, last[-1:]])
    return pictures


def kept_pictures(recording: RecordedFile, key: str) -> Unit | None:
    """Return the unit of a camera, if it is kept and has all the demos that are used."""
    shape, used = recording.contents.pictures[key], recording.contents.demos
    return recording.cache.get(_camera(key), lambda unit: _shows(unit, key, shape, used))


def keep_pictures(
    whole: FileContents, cache: Cache, key: str, *, workers: int, progress: Callable[[int], None] | None = None
) -> Unit:
    """Keep a camera's pictures of all demos of a file, uint8 `[F, H, W, C]`; several processes copy many.

    `progress` is called with the number of frames that were copied since the last call.

    Raises:
        DataError: they cannot be read, or not be written.
    """
    h, w, c = whole.pictures[key]

    def fill(folder: Path) -> None:
        path = folder / "pictures.npy"
        head = {"descr": "|u1", "fortran_order": False, "shape": (frames_of(whole), h, w, c)}
        with path.open("wb") as file:
            write_array_header_1_0(file, head)  # type: ignore[no-untyped-call]
            offset = file.tell()
            file.truncate(offset + frames_of(whole) * h * w * c)
        demos = [*whole.demos.items()]
        rows = [*accumulate((steps + 1 for _, steps in demos), initial=0)]
        tasks = [
            (replace(whole, demos=dict(demos[i : i + DEMOS])), key, path, offset + rows[i] * h * w * c)
            for i in range(0, len(demos), DEMOS)
        ]
        crew = min(workers, len(tasks), rows[-1] * h * w * c // ALONE, ram_room() // PROCESS)
        for copied in map(_copy, tasks) if crew < 2 else _copied_by_a_crew(tasks, crew):
            if progress is not None:
                progress(copied)

    notes = {"key": key, "demos": dict(whole.demos)}
    return cache.make(_camera(key), notes, fill, lambda unit: _shows(unit, key, whole.pictures[key], whole.demos))


def _camera(key: str) -> str:
    """Return the name of a camera's unit; a key may hold what a file's name may not."""
    return f"{re.sub(r'[^a-zA-Z0-9_]', '_', key)[:40]}-{zlib.crc32(key.encode()):08x}"


def _shows(unit: Unit, key: str, shape: tuple[int, int, int], used: Mapping[str, int]) -> bool:
    """Tell whether a unit holds a camera's pictures of some demos."""
    demos, pictures = unit.notes["demos"], unit.arrays["pictures"]
    fits = pictures.dtype == np.uint8 and pictures.shape == (sum(demos.values()) + len(demos), *shape)
    return fits and unit.notes["key"] == key and all(demos.get(name) == steps for name, steps in used.items())


Task = tuple[FileContents, str, Path, int]
"""Some demos of a file, a camera's key, where to write its pictures, and at which byte."""


def _copy(task: Task) -> int:
    """Write the pictures of some demos to their place in a file, and return how many."""
    part, key, path, at = task
    with path.open("r+b") as file:
        file.seek(at)
        for _, _, block in picture_blocks(part, key):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())  # unwritten pages are memory that cannot be taken back: a container would be killed
    return frames_of(part)


def _copied_by_a_crew(tasks: Sequence[Task], crew: int) -> Iterator[int]:
    """Copy in processes; HDF5 does one thing at a time in each, so threads would wait for each other."""
    spawn = get_context("spawn")  # threads, locks and CUDA do not survive a fork
    with ProcessPoolExecutor(crew, mp_context=spawn, initializer=_follow_the_parent) as pool:
        try:
            for job in as_completed([pool.submit(_copy, task) for task in tasks]):
                yield job.result()
        except BrokenProcessPool as error:
            raise DataError(f"{tasks[0][0].path}: a process that copied its pictures died (out of memory?)") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _follow_the_parent() -> None:
    """Leave Ctrl-C to the parent, who then waits for what is under way; end when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)  # at once: whoever is to do the work again must find nobody writing

    threading.Thread(target=watch, daemon=True).start()

"""One file as a source uses it: its numbers and its pictures, from itself or from its cache."""

import json
import math
import os
import re
import signal
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from pixelrl.batch import ActionDim
from pixelrl.datasets.cache import Array, Cache, Unit
from pixelrl.datasets.hdf5 import open_file
from pixelrl.datasets.robomimic_hdf5 import Contents, Demo, read_contents, read_demos, sensor
from pixelrl.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the frames read so far and the frames in all; each camera's count."""

BLOCK = 4 * 2**20
"""Bytes of pictures that are read at a time: a demo may be longer than memory."""
TASK = 32
"""Blocks that a process copies before it reports."""
ALONE = 2**29
"""Bytes that one process copies before a second one has started."""


class Request(TypedDict):
    """What is asked of a file, as `read_contents` takes it."""

    mask: str | None
    images: Sequence[str] | None
    proprio: Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A file.

    Attributes:
        contents: its demos that are used.
        request: what was asked of it.
        cache: where arrays of it may be kept.
        kept: its numbers, if they are kept there.
    """

    contents: Contents
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
        step = 0
        for index, (name, steps) in enumerate(self.kept.notes["demos"].items()):
            rows, frames = slice(step, step + steps), slice(step + index, step + index + steps + 1)
            step += steps
            if name in self.contents.demos:
                sensors = {key: arrays[f"sensor:{key}"][frames] for key in self.contents.vectors}
                numbers = {key: arrays[key][rows] for key in ("actions", "rewards", "dones")}
                yield Demo(name=name, sensors=sensors, notes={}, **numbers)

    def keep_numbers(self) -> None:
        """Keep the numbers, so that they are there at once the next time; all demos of the request must be here."""
        whole = self.contents
        total = sum(whole.demos.values())
        arrays: dict[str, tuple[str, tuple[int, ...]]] = {
            "actions": ("float32", (total, len(whole.action))),
            "rewards": ("float32", (total,)),
            "dones": ("bool", (total,)),
        }
        rows = total + len(whole.demos)
        arrays |= {f"sensor:{key}": ("float32", (rows, size)) for key, size in whole.vectors.items()}

        def fill(planned: Mapping[str, Array]) -> None:
            with ExitStack() as stack:
                files = {name: stack.enter_context(array.path.open("wb")) for name, array in planned.items()}
                for demo in read_demos(replace(whole, pictures={})):
                    parts = {"actions": demo.actions, "rewards": demo.rewards, "dones": demo.dones}
                    parts |= {f"sensor:{key}": value for key, value in demo.sensors.items()}
                    for name, values in parts.items():
                        files[name].write(np.ascontiguousarray(values).data)

        self.cache.make(_unit_of(self.request), arrays, _notes(whole, self.request), fill)


def open_recording(
    path: Path,
    *,
    mask: str | None = None,
    images: Sequence[str] | None = None,
    proprio: Sequence[str] | None = None,
    cache_dir: Path | None = None,
) -> Recording:
    """Open a file; its cache, if it has one, makes that a matter of milliseconds.

    Arguments as `read_contents` takes them, and errors as it raises them.
    """
    request = Request(mask=mask, images=images, proprio=proprio)
    cache = Cache(path, cache_dir)
    kept = cache.get(_unit_of(request))
    contents = None if kept is None else _contents_of(path, kept, request)
    if contents is None:
        return Recording(contents=read_contents(path, **request), request=request, cache=cache)
    return Recording(contents=contents, request=request, cache=cache, kept=kept)


def picture_blocks(contents: Contents, key: str) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
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


def kept_pictures(recording: Recording, key: str) -> Unit | None:
    """Return the unit of a camera, if it is kept and has all the demos that are used."""
    unit = recording.cache.get(_camera(key))
    if unit is None or unit.notes.get("key") != key or not isinstance(demos := unit.notes.get("demos"), dict):
        return None
    used, array = recording.contents.demos, unit.arrays.get("pictures")
    h, w, c = recording.contents.pictures[key]
    fits = array is not None and array.shape == (sum(demos.values()) + len(demos), c, h, w)
    return unit if fits and all(demos.get(name) == steps for name, steps in used.items()) else None


def keep_pictures(
    whole: Contents, cache: Cache, key: str, *, workers: int, progress: Callable[[int], None] | None = None
) -> Unit:
    """Keep a camera's pictures of all demos of a file, uint8 `[F, C, H, W]`; several processes copy many.

    `progress` is called with the number of frames copied since the last call.

    Raises:
        DataError: they cannot be read, or not be written.
    """
    h, w, c = whole.pictures[key]
    total = sum(whole.demos.values()) + len(whole.demos)

    def fill(planned: Mapping[str, Array]) -> None:
        tasks = _tasks(whole, key, planned["pictures"].path)
        crew = min(workers, len(tasks), total * h * w * c // ALONE)
        if crew < 2:
            for task in tasks:
                _copy(*task)
                _tell(progress, task[0])
            return
        spawn = get_context("spawn")  # threads, locks and CUDA do not survive a fork
        with ProcessPoolExecutor(crew, mp_context=spawn, initializer=_ignore_interrupts) as pool:
            jobs = {pool.submit(_copy, *task): task for task in tasks}
            try:
                for job in as_completed(jobs):
                    job.result()
                    _tell(progress, jobs[job][0])
            except BrokenProcessPool as error:
                raise DataError(f"{whole.path}: a process that copied its pictures died (out of memory?)") from error
            finally:
                pool.shutdown(cancel_futures=True)

    notes = {"key": key, "demos": dict(whole.demos)}
    return cache.make(_camera(key), {"pictures": ("uint8", (total, c, h, w))}, notes, fill)


def _tell(progress: Callable[[int], None] | None, part: Contents) -> None:
    if progress is not None:
        progress(sum(part.demos.values()) + len(part.demos))


def _tasks(whole: Contents, key: str, path: Path) -> list[tuple[Contents, str, Path, int]]:
    """Cut a file's demos into runs of some blocks each: (contents, key, where to write, the first frame's place)."""
    size = math.prod(whole.pictures[key])
    tasks: list[tuple[Contents, str, Path, int]] = []
    run: dict[str, int] = {}
    start = at = 0
    for name, steps in whole.demos.items():
        run[name] = steps
        at += steps + 1
        if (at - start) * size >= TASK * BLOCK:
            tasks.append((replace(whole, demos=run), key, path, start))
            run, start = {}, at
    return [*tasks, (replace(whole, demos=run), key, path, start)] if run else tasks


def _copy(part: Contents, key: str, path: Path, start: int) -> None:
    """Write the pictures of some demos to their place in a file, channels first."""
    size = math.prod(part.pictures[key])
    with path.open("r+b") as file:
        file.seek(start * size)
        for _, _, block in picture_blocks(part, key):
            file.write(np.ascontiguousarray(rearrange(block, "n h w c -> n c h w")).data)
        file.flush()
        os.fsync(file.fileno())


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, who then waits for what is under way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _camera(key: str) -> str:
    """Return the name of a camera's unit; a key may hold what a file's name may not."""
    return f"{re.sub(r'[^a-zA-Z0-9_]', '_', key)[:40]}-{zlib.crc32(key.encode()):08x}"


def _unit_of(request: Request) -> str:
    """Return the name of the unit of numbers that a request gets."""
    return f"numbers-{zlib.crc32(json.dumps(request).encode()):08x}"


def _notes(contents: Contents, request: Request) -> dict[str, Any]:
    """Return contents as JSON values; what came as JSON stays text, since it may hold what strict JSON does not."""
    rest = {
        "pictures": contents.pictures,
        "vectors": contents.vectors,
        "action": [asdict(dim) for dim in contents.action],
        "env_args": contents.env_args,
    }
    return {"request": json.dumps(request), "demos": dict(contents.demos), "contents": json.dumps(rest)}


def _contents_of(path: Path, unit: Unit, request: Request) -> Contents | None:
    """Return what `_notes` noted, if it answers this request and the unit's arrays are of these sizes."""
    try:
        demos, rest = dict(unit.notes["demos"]), json.loads(unit.notes["contents"])
        contents = Contents(
            path=path,
            demos=demos,
            pictures={key: (h, w, c) for key, (h, w, c) in rest["pictures"].items()},
            vectors=rest["vectors"],
            action=tuple(ActionDim(**dim) for dim in rest["action"]),
            env_args=rest["env_args"],
        )
        total = sum(demos.values())
        expected = {"actions": (total, len(contents.action)), "rewards": (total,), "dones": (total,)}
        expected |= {f"sensor:{key}": (total + len(demos), size) for key, size in contents.vectors.items()}
        fits = {name: array.shape for name, array in unit.arrays.items()} == expected
        return contents if fits and unit.notes["request"] == json.dumps(request) else None
    except (KeyError, TypeError, ValueError):
        return None

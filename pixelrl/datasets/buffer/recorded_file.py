"""One file as a source uses it: its numbers and its pictures, from itself or from its cache."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.buffer.cache import Cache, Unit
from pixelrl.datasets.buffer.copy_pictures import copy_pictures
from pixelrl.datasets.hdf5.reader import FileContents, read_contents, read_demos
from pixelrl.runtime.actions import ActionDim

ARRAYS = {
    "actions": np.float32,
    "rewards": np.float32,
    "dones": np.bool_,
    "next_missing": np.bool_,
    "proprio": np.float32,
}
"""The arrays of `Numbers`, by which they are kept."""


class Request(TypedDict):
    """What is asked of a file, as `read_contents` takes it."""

    mask: str | None
    images: Sequence[str] | None
    proprio: Sequence[str] | None
    required: Sequence[str]
    rename: NotRequired[Mapping[str, str]]


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
    """A file: its demos that are used, what was asked of it, and where arrays of it may be kept."""

    contents: FileContents
    request: Request
    cache: Cache

    def numbers(self) -> Numbers:
        """Read all but the pictures of its demos.

        Raises:
            DataError: a number that is not finite, with its place.
        """
        unit = self.cache.get(_unit_name("numbers", self.request))
        return _read_numbers(self.contents) if unit is None else _kept_numbers(self.contents, unit)

    def keep_numbers(self) -> None:
        """Keep the numbers, so that they are there at once the next time; all demos of the request must be here."""

        def fill(folder: Path) -> None:
            for name in ARRAYS:
                getattr(numbers, name).tofile(folder / f"{name}.bin")

        if self.cache.get(_unit_name("numbers", self.request)) is not None:
            return
        numbers = _read_numbers(self.contents)
        notes = {key: value for key, value in asdict(self.contents).items() if key != "path"}
        self.cache.make(_unit_name("numbers", self.request), {**notes, "clocks": numbers.clocks}, fill)

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


def open_recorded_file(path: Path, request: Request, cache_dir: Path | None = None) -> RecordedFile:
    """Open a file; its cache, if it has one, makes that a matter of milliseconds.

    Raises:
        DataError: whatever `read_contents` finds.
    """
    cache = Cache(path, cache_dir)
    unit = cache.get(_unit_name("numbers", request))
    contents = read_contents(path, **request) if unit is None else _kept_contents(path, unit)
    return RecordedFile(contents=contents, request=request, cache=cache)


def _read_numbers(contents: FileContents) -> Numbers:
    """Read the numbers from the file itself."""
    demos = [*read_demos(replace(contents, pictures={}))]
    none = [np.empty((len(demo.actions) + 1, 0), np.float32) for demo in demos]
    proprio = [np.concatenate([empty, *demo.sensors.values()], 1) for empty, demo in zip(none, demos, strict=True)]
    growing = set.intersection(*(set(demo.clocks) for demo in demos))
    return Numbers(
        actions=np.concatenate([demo.actions for demo in demos]),
        rewards=np.concatenate([demo.rewards for demo in demos]),
        dones=np.concatenate([demo.dones for demo in demos]),
        next_missing=np.concatenate([demo.next_missing for demo in demos]),
        proprio=np.concatenate(proprio),
        clocks=tuple(key for key in contents.vectors if key in growing),
    )


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
    """Return the contents that a unit of numbers is of."""
    held: dict[str, Any] = {key: value for key, value in unit.notes.items() if key != "clocks"}
    held["pictures"] = {key: (h, w, c) for key, (h, w, c) in held["pictures"].items()}
    held["action"] = tuple(ActionDim(**dim) for dim in held["action"])
    return FileContents(path=path, **held)


def _unit_name(kind: str, asked: Any) -> str:
    """Return the name of the unit that holds what was asked for."""
    return f"{kind}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"

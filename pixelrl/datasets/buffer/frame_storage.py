"""Bring frames to where the memory plan says: into memory, into a cache, or nowhere."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import torch

from pixelrl.datasets.buffer.cache import Cache
from pixelrl.datasets.buffer.frames import Frames, InMemory
from pixelrl.datasets.buffer.frame_index import InCache, InFile, Part
from pixelrl.datasets.buffer.memory_plan import Memory, MemoryPlan, choose, disk_obstacle, gpu_room, ram_room
from pixelrl.datasets.buffer.recorded_file import frames_of, keep_pictures, kept_pictures, picture_blocks
from pixelrl.datasets.hdf5.reader import FileContents, read_contents
from pixelrl.runtime.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the frames that came to their home since the last call, and the frames in all; each camera's count."""


def place_frames(
    parts: Sequence[Part],
    frames: int,
    *,
    memory: Memory,
    device: torch.device,
    workers: int,
    progress: Progress | None,
    copies: int = 1,
) -> tuple[MemoryPlan, dict[str, Frames]]:
    """Choose where the frames of all cameras live, and bring them there.

    Args:
        parts: the files, as `lay_out` numbers their frames.
        frames: how many there are.
        memory: a place, or auto.
        device: the learner's; CUDA takes frames, and everything else through page-locked memory.
        workers: how many processes may build a cache.
        progress: watches.
        copies: how many processes on this machine do the same.

    Raises:
        DataError: pictures that cannot be read, or do not fit where they were asked to be.
    """
    pictures = parts[0].recording.contents.pictures
    size = frames * sum(map(math.prod, pictures.values()))
    lacking = cache(lambda: [(part.recording.cache, whole) for part in parts if (whole := _lacking(part)) is not None])
    room = {"gpu": gpu_room(device), "ram": ram_room(), "copies": copies}
    plan = choose(memory, size, obstacle=lambda: _obstacle(lacking()), **room)
    pin = device.type == "cuda"
    total = frames * len(pictures)
    if plan.place == "cache":
        total = sum(frames_of(whole) * len(whole.pictures) for _, whole in lacking())

    def count(more: int) -> None:
        if progress is not None:
            progress(more, total)

    if plan.place == "file":
        return plan, {key: InFile(parts, key, pin=pin) for key in pictures}
    if plan.place == "cache":
        for kept, whole in lacking():
            for key in whole.pictures:
                keep_pictures(whole, kept, key, workers=workers, progress=count)
        return plan, {key: _cached(parts, key, mapped=plan.mapped, pin=pin) for key in pictures}
    home = device if plan.place == "gpu" else torch.device("cpu")
    return plan, {key: _read(parts, key, frames, home, pin, count) for key in pictures}


def _read(
    parts: Sequence[Part], key: str, frames: int, device: torch.device, pin: bool, count: Callable[[int], None]
) -> InMemory:
    """Read a camera's pictures into one array, a block at a time."""
    h, w, c = parts[0].recording.contents.pictures[key]
    on_cpu = device.type == "cpu"
    try:  # NumPy asks for large pages, on which gathers are faster
        pictures = (
            torch.from_numpy(np.empty((frames, h, w, c), np.uint8))
            if on_cpu
            else torch.empty(frames, h, w, c, dtype=torch.uint8, device=device)
        )
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise DataError(
            f"{frames} frames of {key} do not fit into the memory of {device}; try --memory cache"
        ) from error
    for part in parts:
        for name, start, block in picture_blocks(part.recording.contents, key):
            place = slice(part.first[name] + start, part.first[name] + start + len(block))
            if on_cpu:  # NumPy copies: torch's threads would wait for busy cores
                pictures.numpy()[place] = block
            else:
                pictures[place] = torch.from_numpy(np.ascontiguousarray(block))
            count(len(block))
    return InMemory(pictures, pin=pin and on_cpu)


def _lacking(part: Part) -> FileContents | None:
    """Return all demos of a file with the cameras that its cache lacks, or None if it lacks none."""
    contents = part.recording.contents
    keys = [key for key in contents.pictures if kept_pictures(part.recording, key) is None]
    return read_contents(contents.path, images=keys, proprio=()) if keys else None


def _obstacle(lacking: Sequence[tuple[Cache, FileContents]]) -> str | None:
    """Tell why caches cannot be given what they lack, if they cannot."""
    needed: dict[int, int] = {}  # disk -> bytes
    for kept, whole in lacking:
        ground = kept.ground()
        disk = ground.stat().st_dev
        needed[disk] = needed.get(disk, 0) + frames_of(whole) * sum(map(math.prod, whole.pictures.values()))
        if (hindrance := kept.obstacle() or disk_obstacle(ground, needed[disk])) is not None:
            return hindrance
    return None


def _cached(parts: Sequence[Part], key: str, *, mapped: bool, pin: bool) -> InCache:
    """Open what the caches keep of a camera."""
    arrays, rows = [], []
    for part in parts:
        unit = kept_pictures(part.recording, key)
        if unit is None:
            raise DataError(f"{part.recording.contents.path}: its cache was taken away meanwhile; start again")
        demos = unit.notes["demos"]
        arrays.append(unit.arrays["pictures"])
        rows.append(dict(zip(demos, accumulate((steps + 1 for steps in demos.values()), initial=0), strict=False)))
    return InCache(parts, arrays, rows, mapped=mapped, pin=pin)

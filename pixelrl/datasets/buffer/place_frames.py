"""Bring frames to where the memory plan says: into memory, into a cache, or nowhere."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from pixelrl.datasets.buffer.frames import CachedFrames, FileFrames, FrameIndex, Frames, MemoryFrames
from pixelrl.datasets.buffer.memory_plan import Memory, MemoryPlan, choose_place, disk_obstacle, gpu_room, ram_room
from pixelrl.datasets.buffer.recorded_file import RecordedFile
from pixelrl.datasets.hdf5.reader import FileContents, read_pictures
from pixelrl.runtime.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the frames that came to their place since the last call, and the frames in all; each camera's count."""


def place_frames(
    index: FrameIndex,
    *,
    memory: Memory,
    device: torch.device,
    workers: int,
    progress: Progress | None,
    copies: int = 1,
) -> tuple[MemoryPlan, dict[str, Frames]]:
    """Choose where the frames of all cameras live, and bring them there.

    Args:
        index: the frames.
        memory: a place, or auto.
        device: the learner's; CUDA takes frames, and everything else through page-locked memory.
        workers: how many processes may build a cache.
        progress: watches.
        copies: how many processes on this machine do the same.

    Raises:
        DataError: pictures that cannot be read, or do not fit where they were asked to be.
    """
    shapes = index.files[0].contents.pictures
    size = index.count * sum(map(math.prod, shapes.values()))
    lacking = cache(lambda: [(file, lacks) for file in index.files if (lacks := file.not_kept()) is not None])
    room = {"gpu": gpu_room(device), "ram": ram_room(), "copies": copies}
    plan = choose_place(memory, size, obstacle=lambda: _obstacle(lacking()), **room)
    pin = device.type == "cuda"
    total = index.count * len(shapes)
    if plan.place == "cache":
        total = sum(contents.frames * len(contents.pictures) for _, contents in lacking())

    def count(more: int) -> None:
        if progress is not None:
            progress(more, total)

    if plan.place == "file":
        return plan, {key: FileFrames(index, key, pin=pin) for key in shapes}
    if plan.place == "cache":
        for file, contents in lacking():
            file.keep_pictures(contents, workers, count)
        return plan, {key: CachedFrames(index, key, mapped=plan.mapped, pin=pin) for key in shapes}
    place = device if plan.place == "gpu" else torch.device("cpu")
    return plan, {key: _read(index, key, place, pin, count) for key in shapes}


def _read(
    index: FrameIndex, key: str, device: torch.device, pin: bool, count: Callable[[int], None]
) -> MemoryFrames:
    """Read a camera's pictures into one array, a block at a time."""
    shape = (index.count, *index.files[0].contents.pictures[key])
    on_cpu = device.type == "cpu"
    try:  # NumPy asks for large pages, on which gathers are faster
        empty = torch.from_numpy(np.empty(shape, np.uint8)) if on_cpu else None
        pictures = torch.empty(shape, dtype=torch.uint8, device=device) if empty is None else empty
    except (MemoryError, torch.OutOfMemoryError) as error:
        hint = "try --memory cache"
        raise DataError(f"{shape[0]} frames of {key} do not fit into the memory of {device}; {hint}") from error
    for file in index.files:
        first = dict(zip(file.contents.demos, index.first_frames(file.contents).tolist(), strict=True))
        for name, start, block in read_pictures(file.contents, key):
            place = slice(first[name] + start, first[name] + start + len(block))
            if on_cpu:  # NumPy copies: torch's threads would wait for busy cores
                pictures.numpy()[place] = block
            else:
                pictures[place] = torch.from_numpy(np.ascontiguousarray(block))
            count(len(block))
    return MemoryFrames(pictures, pin=pin and on_cpu)


def _obstacle(lacking: Sequence[tuple[RecordedFile, FileContents]]) -> str | None:
    """Tell why caches cannot be given what they lack, if they cannot."""
    needed: dict[int, int] = {}  # disk -> bytes
    for file, contents in lacking:
        folder = file.cache.existing_folder()
        disk = folder.stat().st_dev
        needed[disk] = needed.get(disk, 0) + contents.frames * sum(map(math.prod, contents.pictures.values()))
        if (obstacle := file.cache.obstacle() or disk_obstacle(folder, needed[disk])) is not None:
            return obstacle
    return None

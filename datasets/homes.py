"""Bring frames to where the memory plan says: into memory, into a cache, or nowhere."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import torch
from einops import rearrange

from pixelrl.datasets.cache import Cache, Unit
from pixelrl.datasets.frames import Frames, InCache, InFile, InMemory, Part
from pixelrl.datasets.plan import Memory, Plan, choose, disk_obstacle, gpu_room, ram_room
from pixelrl.datasets.recording import Progress, keep_pictures, kept_pictures, picture_blocks
from pixelrl.datasets.robomimic_hdf5 import Contents, read_contents
from pixelrl.errors import DataError

Counter = Callable[[int], None]
"""Called with the number of frames that came to lie in their home since the last call."""


def settle(
    parts: Sequence[Part],
    frames: int,
    *,
    memory: Memory,
    device: torch.device,
    workers: int,
    progress: Progress | None,
) -> tuple[Plan, dict[str, Frames]]:
    """Choose where the frames of all cameras live, and bring them there.

    Args:
        parts: the files, as `lay_out` numbers their frames.
        frames: how many there are.
        memory: a place, or auto.
        device: the learner's; CUDA takes frames, and everything else through page-locked memory.
        workers: how many processes may build a cache.
        progress: watches.

    Raises:
        DataError: pictures that cannot be read, or do not fit where they were asked to be.
    """
    pictures = parts[0].recording.contents.pictures
    size = frames * sum(map(math.prod, pictures.values()))
    lacking = cache(lambda: [(part.recording.cache, whole) for part in parts if (whole := _lacking(part)) is not None])
    plan = choose(memory, size, gpu=gpu_room(device), ram=ram_room(), obstacle=lambda: _obstacle(lacking()))
    pin = device.type == "cuda"
    if plan.place == "file":
        return plan, {key: InFile(parts, key, pin=pin) for key in pictures}
    if plan.place == "cache":
        _build(lacking(), workers, progress)
        return plan, {key: _cached(parts, key, mapped=plan.mapped, pin=pin) for key in pictures}
    home = device if plan.place == "gpu" else torch.device("cpu")
    count = _counter(progress, frames * len(pictures))
    return plan, {key: _read(parts, key, frames, home, pin, count) for key in pictures}


def _read(parts: Sequence[Part], key: str, frames: int, device: torch.device, pin: bool, count: Counter) -> InMemory:
    """Read a camera's pictures into one array, a block at a time."""
    h, w, c = parts[0].recording.contents.pictures[key]
    if device.type == "cpu":  # NumPy asks for large pages, on which gathers are faster
        pictures = torch.from_numpy(np.empty((frames, c, h, w), np.uint8))
    else:
        try:
            pictures = torch.empty(frames, c, h, w, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise DataError(f"--memory gpu: {frames} frames of {key} do not fit; use ram or cache") from error
    for part in parts:
        for name, start, block in picture_blocks(part.recording.contents, key):
            begin = part.first[name] + start
            channels_first = rearrange(block, "n h w c -> n c h w")
            if device.type == "cpu":  # NumPy copies: torch's threads would wait for busy cores
                pictures.numpy()[begin : begin + len(block)] = channels_first
            else:
                pictures[begin : begin + len(block)] = torch.from_numpy(np.ascontiguousarray(channels_first))
            count(len(block))
    return InMemory(pictures, pin=pin and device.type == "cpu")


def _lacking(part: Part) -> Contents | None:
    """Return all demos of a file with the cameras that its cache lacks, or None if it lacks none."""
    contents = part.recording.contents
    keys = [key for key in contents.pictures if kept_pictures(part.recording, key) is None]
    return read_contents(contents.path, images=keys, proprio=()) if keys else None


def _frames(contents: Contents) -> int:
    return sum(contents.demos.values()) + len(contents.demos)


def _obstacle(lacking: Sequence[tuple[Cache, Contents]]) -> str | None:
    """Tell why caches cannot be given what they lack, if they cannot."""
    needed: dict[int, int] = {}  # disk -> bytes
    for kept, whole in lacking:
        if (hindrance := kept.obstacle()) is not None:
            return hindrance
        disk = kept.ground().stat().st_dev
        needed[disk] = needed.get(disk, 0) + _frames(whole) * sum(map(math.prod, whole.pictures.values()))
        if (hindrance := disk_obstacle(kept.ground(), needed[disk])) is not None:
            return hindrance
    return None


def _build(lacking: Sequence[tuple[Cache, Contents]], workers: int, progress: Progress | None) -> None:
    """Give caches what they lack."""
    count = _counter(progress, sum(_frames(whole) * len(whole.pictures) for _, whole in lacking))
    for kept, whole in lacking:
        for key in whole.pictures:
            keep_pictures(whole, kept, key, workers=workers, progress=count)


def _cached(parts: Sequence[Part], key: str, *, mapped: bool, pin: bool) -> InCache:
    """Open what the caches keep of a camera."""
    units = [kept_pictures(part.recording, key) for part in parts]
    found = [unit for unit in units if unit is not None]
    if len(found) < len(units):
        path = parts[units.index(None)].recording.contents.path
        raise DataError(f"{path}: its cache was taken away while it was opened; start again")
    return InCache(
        parts, [unit.arrays["pictures"] for unit in found], [_rows(unit) for unit in found], mapped=mapped, pin=pin
    )


def _rows(unit: Unit) -> dict[str, int]:
    """Return demo -> the row of its first frame in a unit of pictures."""
    demos = unit.notes["demos"]
    return dict(zip(demos, accumulate((steps + 1 for steps in demos.values()), initial=0), strict=False))


def _counter(progress: Progress | None, total: int) -> Counter:
    """Return a counter of frames that tells `progress` how many came so far."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return count

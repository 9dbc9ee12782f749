"""The memory plan: the fastest place where one copy of every frame fits, from budgets that are measured."""

import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch
from rich.filesize import decimal

from pixelrl.runtime.errors import DataError

Place = Literal["gpu", "ram", "cache", "file"]
Memory = Literal["auto", "gpu", "ram", "cache", "file"]
"""Where frames are to live; auto: the first of the others where they fit."""

GPU_RESERVE, GPU_SHARE = 4 * 2**30, 0.8
"""What is left to the networks: so many bytes, and a fifth of what is free."""
STEP_BYTES = 5_000
"""What a step takes for each pixel of a transition at the most; measured: 942 (COG's encoder), 1,328 (IMPALA), 4,296
(ResNet-18), 4,608 (DrQ); `cog_dr3`, float32."""
RAM_SHARE = 0.8
"""The part of the free memory that frames may take; learner, prefetching and page cache need some too."""
DISK_SHARE = 0.95
"""The part of the free disk that a cache may take."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Where frames live, why (one line), and whether memory could hold a cache of them, so that it may be mapped."""

    place: Place
    mapped: bool
    reason: str


def choose_place(
    memory: Memory, size: int, *, gpu: int, ram: int, obstacle: Callable[[], str | None], copies: int = 1
) -> MemoryPlan:
    """Choose where `size` bytes of frames are to live, of which a GPU has room for `gpu` and the machine for `ram`.

    `obstacle` tells why there can be no cache, and is only asked where one would be of use. In RAM each of `copies`
    processes holds all frames; a cache is held once for all.

    Raises:
        DataError: a cache is asked for and there can be none.
    """
    fits: Place = "gpu" if size <= gpu else "ram" if size * copies <= ram else "cache"
    place, hindrance = fits if memory == "auto" else memory, None
    if place == "cache" and (hindrance := obstacle()) is not None:
        if memory == "cache":
            raise DataError(f"--memory cache: {hindrance}; --cache-dir names another place for it")
        place = "file"
    names = {"gpu": "on the GPU", "ram": "in RAM", "cache": "in a cache on disk", "file": "in the HDF5 files"}
    told = f"{decimal(size)} of frames {names[place]}"
    room = f"room: GPU {decimal(gpu) if gpu else 'none'}, RAM {decimal(ram)}"
    slow = f"; slow, since {hindrance}: --cache-dir names another place for a cache" if hindrance else ""
    return MemoryPlan(place=place, mapped=size <= ram, reason=f"{told} ({room}{slow})")


def gpu_room(device: torch.device, pixels: int = 0) -> int:
    """Return how many bytes of a GPU's memory frames may take now; 0 for other devices.

    `pixels` are those of a batch, H W of all cameras and rows: what a step computes on is not made yet.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return max(0, int(min(free - max(GPU_RESERVE, STEP_BYTES * pixels), GPU_SHARE * free)))


def ram_room() -> int:
    """Return how many bytes of memory frames may take now, whichever limit is the narrowest."""
    limits = [psutil.virtual_memory().available, cgroup_room(), process_room()]
    return max(0, int(RAM_SHARE * min(limit for limit in limits if limit is not None)))


def disk_obstacle(folder: Path, size: int) -> str | None:
    """Tell why a cache of `size` bytes does not fit on a folder's disk, if it does not."""
    free = shutil.disk_usage(folder).free
    told = f"a cache takes {decimal(size)} and the disk of {folder} has {decimal(free)} left"
    return None if size <= DISK_SHARE * free else told


def cgroup_room(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return what is left under the narrowest of our control groups' limits, or None if there is none.

    Both versions of the interface; a group whose folder is not to be seen from within a container is its root.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return None
    rooms = []
    for _, controllers, path in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            rooms.append(_group_room(folder, old=bool(controllers)))
            if folder == base:
                break
    return min((room for room in rooms if room is not None), default=None)


def _group_room(folder: Path, *, old: bool) -> int | None:
    """Return what is left under one group's limit; pages of files count as free: the kernel takes them back."""
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    try:
        limit, used = ((folder / name).read_text().strip() for name in names)
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max" or int(limit) >= 2**60:  # the old interface's word for no limit is about 2^63
        return None
    pages = (f"{'total_' if old else ''}{kind}active_file" for kind in ("", "in"))
    return int(limit) - int(used) + sum(int(stat.get(name, 0)) for name in pages)


def process_room() -> int | None:
    """Return what is left under this process's own limits (`ulimit -v`, `ulimit -d`), or None if it has none."""
    used = psutil.Process().memory_info()
    taken = {resource.RLIMIT_AS: used.vms, resource.RLIMIT_DATA: getattr(used, "data", 0)}
    limits = {kind: resource.getrlimit(kind)[0] for kind in taken}
    return min((limits[k] - taken[k] for k in taken if limits[k] != resource.RLIM_INFINITY), default=None)

"""What this process computes on, and its place among those that `torchrun` started; without it, it is alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pixelrl.launch.provenance import cores
from pixelrl.learning.learner import Learner
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import DivergenceError, LostRankError, PixelrlError
from pixelrl.training import checkpoint
from pixelrl.training.run_directory import pick_device

PATIENCE = timedelta(minutes=15)
"""How long ranks wait for one that is silent, say busy reading data. One that has died is noticed at once."""

MOST_THREADS = 8
"""A step's tensors are too small for more threads to help."""

SCRIPTS = Path(__file__).resolve().parent / "scripts"
"""What starts ranks on one machine, on several, or under SLURM."""


def speaking() -> bool:
    """Tell whether we are the one of torchrun's processes that speaks for all, before they have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[tuple[Distributed, str]]:
    """Join the other ranks, and yield our place among them and our device: a GPU each, or the CPU.

    They talk through NCCL where they have GPUs, and through gloo. What ends all of them is told by the first alone.

    Raises:
        PixelrlError: a device that ranks cannot share, or fewer GPUs than ranks.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ or count == 1:
        set_current_gpu(pick_device(device))
        yield SINGLE_PROCESS, device
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    name = own_device(device, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), here)
    set_current_gpu(torch.device(name))
    try:
        store, rank, _ = next(iter(rendezvous("env://", timeout=PATIENCE)))
        backend = "gloo" if name == "cpu" else "cpu:gloo,cuda:nccl"
        shared = PrefixStore("pixelrl", store)
        dist.init_process_group(backend, store=shared, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise PixelrlError(f"the {count} ranks cannot find each other: {' '.join(str(error).split())}") from error
    distributed = Distributed(rank=rank, world_size=count, local_world_size=here, group=dist.group.WORLD, store=shared)
    try:
        yield distributed, name
        dist.destroy_process_group()
    except (LostRankError, SystemExit):  # another rank is gone, or has failed
        distributed.abort()
        raise
    except (DivergenceError, KeyboardInterrupt) as error:  # all ranks end like this
        if distributed.is_main:
            raise
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None


def set_current_gpu(device: torch.device) -> None:
    """Let torch, and what we write about the machine, take this GPU for the current one: streams and graphs want it."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def own_device(name: str, local: int, here: int) -> str:
    """Return the device of the rank `local`, of the `here` on this machine, by the name that the user gave.

    Raises:
        PixelrlError: one GPU for several ranks.
    """
    device = pick_device(name)
    if device.type == "cpu":
        return "cpu"
    if device.index is not None:
        raise PixelrlError(f"--device {name}: each of the ranks takes a GPU of its own; use --device cuda")
    found = torch.cuda.device_count()
    if here > found:
        raise PixelrlError(f"{here} ranks and {found} GPUs on this machine; start one rank a GPU, or use --device cpu")
    return f"{device.type}:{local}"


def require_one_rank(distributed: Distributed, option: str) -> None:
    """Raise a `PixelrlError` if this process is one of several."""
    if distributed.world_size > 1:
        raise PixelrlError(f"{option} is for one rank; start it without torchrun")


def set_threads(wanted: Literal["auto"] | int, device: torch.device, previous: int | None) -> int | None:
    """Let torch compute on so many threads of the CPU, and return how many; None on a GPU.

    `auto` is what the run that is resumed had, else OMP_NUM_THREADS, or one a core, but at most 8.

    Raises:
        PixelrlError: fewer than one.
    """
    if wanted != "auto" and wanted < 1:
        raise PixelrlError(f"--threads is {wanted}; it must be auto or at least 1")
    if device.type != "cpu":
        return None
    default = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else min(cores(), MOST_THREADS)
    threads = (previous or default) if wanted == "auto" else wanted
    torch.set_num_threads(threads)
    return threads


@contextmanager
def outliving(learner: Learner, path: Path, seconds: float) -> Iterator[None]:
    """Keep the last whole step if another rank is lost; of those that are left, the first to notice does.

    On a GPU the steps that are under way cannot be told from whole ones: there the last checkpoint must do, as it must
    where an intervention was under way. `seconds` are what the run has taken so far.

    Raises:
        LostRankError: a rank was lost; the others end without a word.
    """
    began = time.perf_counter() - seconds
    try:
        yield
    except LostRankError:
        if not learner.distributed.elect_reporter():
            raise SystemExit(1) from None
        if learner.device.type == "cpu" and learner.whole:
            learner.distributed = SINGLE_PROCESS
            checkpoint.save(path, learner, time.perf_counter() - began)
        raise

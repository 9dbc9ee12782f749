"""Our place among the processes that `torchrun` started, on one machine or on several; without it we are alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from pixelrl.training import checkpoint
from pixelrl.runtime.errors import DivergenceError, LostRankError, PixelrlError
from pixelrl.learning.learner import Learner
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.training.run_directory import pick_device

PATIENCE = timedelta(minutes=15)
"""How long ranks wait for one that is silent, say busy reading data. One that has died is noticed at once."""

SCRIPTS = Path(__file__).resolve().parent / "scripts"
"""What starts ranks on one machine, on several, or under SLURM."""


def speaking() -> bool:
    """Tell whether we are the one of torchrun's processes that speaks for all, before they have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[tuple[Distributed, str]]:
    """Join the other ranks, and yield our place among them and our device: a GPU each, or the CPU.

    They talk through NCCL where they have GPUs, and through gloo. What ends all of them is told by the first alone.

    Args:
        device: as the user wants it.

    Raises:
        PixelrlError: a device that ranks cannot share, or fewer GPUs than ranks.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if "RANK" not in os.environ or count == 1:
        yield SINGLE_PROCESS, device
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    name = own_device(device, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), here)
    if name != "cpu":
        torch.cuda.set_device(torch.device(name))
    try:
        store, rank, _ = next(iter(rendezvous("env://", timeout=PATIENCE)))
        backend = "gloo" if name == "cpu" else "cpu:gloo,cuda:nccl"
        shared = PrefixStore("pixelrl", store)
        dist.init_process_group(backend, store=shared, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise PixelrlError(f"the {count} ranks cannot find each other: {' '.join(str(error).split())}") from error
    distributed = Distributed(
        rank=rank, world_size=count, local_world_size=here, group=dist.group.WORLD, store=shared
    )
    try:
        yield distributed, name
        dist.destroy_process_group()
    except (DivergenceError, KeyboardInterrupt) as error:  # all ranks end like this
        if distributed.is_main:
            raise
        raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 1) from None


def own_device(name: str, local: int, here: int) -> str:
    """Return the device of a rank.

    Args:
        name: as the user wants it.
        local: which of the ranks on this machine.
        here: how many there are.

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


@contextmanager
def outliving(learner: Learner, path: Path, seconds: float) -> Iterator[None]:
    """Keep the last whole step if another rank is lost; of those that are left, the first to notice does.

    On a GPU the steps that are under way cannot be told from whole ones: there the last checkpoint must do.

    Args:
        learner: ours.
        path: of the checkpoint.
        seconds: what the run has taken so far.

    Raises:
        LostRankError: a rank was lost; the others end without a word.
    """
    began = time.perf_counter() - seconds
    try:
        yield
    except LostRankError:
        if not learner.distributed.elect_reporter():
            raise SystemExit(1) from None
        if learner.device.type == "cpu":
            learner.distributed = SINGLE_PROCESS
            checkpoint.save(path, learner, time.perf_counter() - began)
        raise

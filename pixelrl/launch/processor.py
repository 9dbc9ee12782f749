"""What training on a CPU wants: the threads and kernels that are fastest here, and memory that stays."""

import ctypes
import math
import os
import time
from collections.abc import Callable

import torch

from pixelrl.learning.batch import Batch, Spec
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch.provenance import cores
from pixelrl.learning.learner import Learner
from pixelrl.learning.linear import Linear, through_onednn
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed

Threads = int | str
"""So many, or `auto`."""

TRIES, PATIENCE = 6, 3.0
"""Updates that are timed for each number of threads, and when to stop earlier [s]."""

WORTH = 1.05
"""How much faster more threads must be to be taken: they are cores that others could use."""

PRODUCTS = 40
"""Products of each library that are timed, a fraction of a millisecond each: the shortest counts."""

CLEARLY = 0.75
"""The share of torch's time that oneDNN's product may take at most to be chosen. On processors known to us it is a half
or about one, so the choice does not depend on chance."""

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's names for the options of `mallopt`."""


def settle_threads(
    asked: Threads,
    device: torch.device,
    before: int | None,
    make: Callable[[], Learner],
    batch_at: Callable[[int], Batch],
) -> int | None:
    """Let torch use so many threads as is best on the CPU, and return how many; nothing that is learned changes.

    Args:
        asked: a number, or `auto`: what the run had before; else OMP_NUM_THREADS; else what is fastest.
        device: of the learner; on a GPU nothing is settled.
        before: the number of the run that is resumed, whose last bits depend on it.
        make: returns a learner to be timed and thrown away.
        batch_at: the batch of a step.

    Raises:
        PixelrlError: neither a number nor `auto`.
    """
    if asked != "auto" and (not str(asked).isdigit() or int(asked) < 1):
        raise PixelrlError(f"--threads is {asked}; it must be auto or at least 1")
    if device.type != "cpu":
        return None
    keep_memory()
    if asked != "auto":
        count = int(asked)
    elif before is not None:
        count = before
    elif "OMP_NUM_THREADS" in os.environ:
        count = torch.get_num_threads()
    else:
        count = fastest(make, batch_at(0))
    torch.set_num_threads(count)
    return count


def settle_kernels(recipe: Recipe, device: torch.device, before: bool | None) -> bool | None:
    """Return whether oneDNN is to take matrix products: as before, or as a short trial shows; None: not on the CPU.

    On CUDA, convolutions in fp32 are what they say; by default torch lets them round to 10 bits.
    """
    if device.type != "cpu":
        torch.backends.cudnn.allow_tf32 = recipe.precision != "fp32"
        return None
    return onednn_wins() if before is None else before


def make_learner(
    recipe: Recipe, spec: Spec, device: torch.device, onednn: bool | None, distributed: Distributed = SINGLE_PROCESS
) -> Learner:
    """Return a fresh learner with the kernels that were settled on."""
    learner = Learner(recipe, spec, device, distributed)
    learner.networks.use_onednn(bool(onednn))
    return learner


def onednn_wins() -> bool:
    """Tell whether oneDNN multiplies matrices clearly faster than torch's own library here."""
    x, layer = torch.rand(256, 256), Linear(256, 256)
    if not through_onednn(x, 256, 256):
        return False
    seconds = {False: math.inf, True: math.inf}
    with torch.no_grad():
        for turn in range(2 * PRODUCTS):  # in turns, so that whoever else is at work disturbs both
            layer.onednn = turn % 2 == 0
            seconds[layer.onednn] = min(seconds[layer.onednn], timed(lambda: layer(x)))
    return seconds[True] <= CLEARLY * seconds[False]


def fastest(make: Callable[[], Learner], batch: Batch) -> int:
    """Return the number of threads with which an update is fastest; a tie goes to fewer."""
    most = cores()
    counts = [count for count in (1 << power for power in range(most.bit_length())) if count < most] + [most]
    best, chosen = float("inf"), 1
    for count in counts:
        torch.set_num_threads(count)
        seconds = time_update(make(), batch)
        if seconds * WORTH < best:
            best, chosen = seconds, count
    return chosen


def time_update(learner: Learner, batch: Batch) -> float:
    """Return how long an update takes [s]: the shortest of a few, since others may be at work here too."""
    learner.update(batch)  # the first one sets things up
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < TRIES and time.perf_counter() - start < PATIENCE:
        found.append(timed(lambda: learner.update(batch)))
    return min(found)


def timed(work: Callable[[], object]) -> float:
    """Return how long some work takes [s]."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def keep_memory() -> None:
    """Let freed memory stay with the process (where the C library is glibc).

    An update frees and takes the same few megabytes again; given back to the system in between, each page comes anew
    and is filled with zeros, a thousand page faults a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 32 << 20)  # larger pieces are mapped one by one, as before
        mallopt(TRIM_THRESHOLD, 1 << 30)

"""The floor of an update: its convolutions and matrix products, forward and backward, and nothing else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from pixelrl.runtime.seeding import derive

aten = torch.ops.aten
COUNTED = {aten.convolution, aten.convolution_backward, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}

Call = tuple[Any, Any, Any]
"""An operation, its positional and its named arguments, tensors replaced by `Layout`s."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note every convolution and matrix product that is run, with the layouts of its arguments."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note, and run."""
        if func.overloadpacket in COUNTED:
            self.calls.append((func, *tree_map_only(Tensor, Layout, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


class Layout:
    """Shape, strides, type and device of a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride = tuple(tensor.shape), tensor.stride()
        self.dtype, self.device = tensor.dtype, tensor.device

    def random(self, generator: torch.Generator) -> Tensor:
        """Return random numbers laid out alike; a broadcast dimension stays one."""
        numbers = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        flat = torch.randn(numbers, generator=generator).to(self.device, self.dtype)
        return flat.as_strided(self.shape, self.stride)

    def __repr__(self) -> str:
        """Return what identifies it."""
        return repr(vars(self))


def record_calls(update: Callable[[], object]) -> list[Call]:
    """Run an update and return its convolutions and matrix products."""
    recorder = Recorder()
    with recorder:
        update()
    return recorder.calls


def replay(calls: list[Call]) -> Callable[[], None]:
    """Return a function that runs these operations in the same order on random numbers.

    It leaves out activations, pooling, normalisation, augmentation, losses, optimisers, target networks and Python.
    Calls that are alike share their numbers, so caches are warmer than in an update: the floor is, if anything, too
    low. It does not tell whether all of the operations are needed: their number beside that of other forms does.
    """
    generator = torch.Generator().manual_seed(derive(0, "floor"))
    made: dict[str, Callable[[], object]] = {}
    jobs = []
    for func, args, kwargs in calls:
        key = repr((func, args, kwargs))
        if key not in made:
            given, named = tree_map_only(Layout, lambda layout: layout.random(generator), (args, kwargs))
            made[key] = lambda func=func, given=given, named=named: func(*given, **named)  # type: ignore[misc]
        jobs.append(made[key])

    def run() -> None:
        with torch.no_grad():
            for job in jobs:
                job()

    return run


def graphed(run: Callable[[], None]) -> Callable[[], None]:
    """Return what runs the same kernels as a CUDA graph, so that the floor does not wait for Python either."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def gigaflop(update: Callable[[], object]) -> float:
    """Run an update and return how many floating-point operations its convolutions and matrix products are [1e9]."""
    with FlopCounterMode(display=False) as counter:
        update()
    return float(counter.get_total_flops() / 1e9)

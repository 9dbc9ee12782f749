"""The floor of an update: its convolutions and matrix products, forward and backward, and nothing else."""

import math
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
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # a linear layer by oneDNN; not every build has it
    COUNTED.add(torch.ops.mkldnn._linear_pointwise)


def linear_flop(x: torch.Size, weight: torch.Size, *rest: object, **named: object) -> int:
    """Return the operations of `[..., in] x [out, in]`, which torch's counter does not know of oneDNN's layer."""
    return 2 * math.prod(x) * weight[0]


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note every convolution and matrix product that is run, with the shapes, layouts and types of its arguments.

    Attributes:
        calls: (operation, positional arguments, named arguments), tensors replaced by `Shape`s.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note, and run."""
        if func.overloadpacket in COUNTED:
            self.calls.append((func, *tree_map_only(Tensor, Shape, (args, kwargs or {}))))
        return func(*args, **(kwargs or {}))


class Shape:
    """Shape, layout, type and device of a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.known = (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def random(self, generator: torch.Generator) -> Tensor:
        """Return random numbers laid out alike; a broadcast dimension stays one."""
        shape, stride, dtype, device = self.known
        numbers = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
        flat = torch.randn(numbers, generator=generator).to(device, dtype)
        return flat.as_strided(shape, stride)

    def __eq__(self, other: object) -> bool:
        """Tell whether two tensors could stand for each other."""
        return isinstance(other, Shape) and self.known == other.known

    def __repr__(self) -> str:
        """Return what identifies it."""
        return repr(self.known)


def record(update: Callable[[], object]) -> Recorder:
    """Run an update and return its convolutions and matrix products."""
    recorder = Recorder()
    with recorder:
        update()
    return recorder


def replay(recorder: Recorder, *, modules: bool = False) -> Callable[[], None]:
    """Return a function that runs what was recorded, in the same order, on random numbers.

    With `modules`, linear layers run as torch's own modules do, where ours hand them to oneDNN.

    What it counts: the kernels that no implementation of the same networks can do without, if none of them is run
    needlessly; the operations of an update beside those of one that tiles its observations tell that. What it leaves
    out: activations, pooling, normalisation, augmentation, losses, optimisers, target networks, Python. Calls that are
    alike share their numbers, so caches are warmer than in an update: the floor is, if anything, too low.
    """
    generator = torch.Generator().manual_seed(derive(0, "floor"))
    made: dict[str, Callable[[], object]] = {}
    jobs = []
    for func, args, kwargs in recorder.calls:
        key = repr((func, args, kwargs))
        if key not in made:
            given, named = tree_map_only(Shape, lambda shape: shape.random(generator), (args, kwargs))
            if modules and "mkldnn" in str(func):
                func, given = torch.nn.functional.linear, given[:3]
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
    mapping = {packet: linear_flop for packet in COUNTED if "mkldnn" in str(packet)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        update()
    return float(counter.get_total_flops() / 1e9)

"""The floor of an update: its convolutions and matrix products, forward and backward, and nothing else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from pixelrl.runtime.seeding import derive

aten = torch.ops.aten
COUNTED = {aten.convolution, aten.convolution_backward, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note every convolution and matrix product that is run.

    Attributes:
        calls: each of them on random numbers of the same shapes, strides and types. Calls that are alike share their
            numbers, so caches are warmer than in an update: the floor is, if anything, too low.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[partial[object]] = []
        self._known: dict[str, partial[object]] = {}
        self._generator = torch.Generator().manual_seed(derive(0, "floor"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note, and run."""
        given = (args, kwargs or {})
        if func.overloadpacket in COUNTED:
            layouts = tree_map_only(Tensor, lambda x: f"{x.shape} {x.stride()} {x.dtype} {x.device}", given)
            key = f"{func} {layouts}"
            if key not in self._known:
                some_args, some_kwargs = tree_map_only(Tensor, self._random_like, given)
                self._known[key] = partial(func, *some_args, **some_kwargs)
            self.calls.append(self._known[key])
        return func(*given[0], **given[1])

    def _random_like(self, tensor: Tensor) -> Tensor:
        """Return random numbers laid out alike; a broadcast dimension stays one."""
        numbers = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        flat = torch.randn(numbers, generator=self._generator).to(tensor.device, tensor.dtype)
        return flat.as_strided(tensor.shape, tensor.stride())


def floor_calls(update: Callable[[], object]) -> list[partial[object]]:
    """Run an update and return its convolutions and matrix products, see `Recorder`.

    They leave out activations, pooling, normalisation, augmentation, losses, optimisers, target networks and Python.
    Whether all of them are needed they do not tell: their operations beside those of other forms do.
    """
    with Recorder() as recorder:
        update()
    calls: list[partial[object]] = recorder.calls
    return calls


def floor(update: Callable[[], object], *, graph: bool = False) -> Callable[[], None]:
    """Return what runs the floor of an update; with `graph` as a CUDA graph, so that it does not wait for Python."""
    calls = floor_calls(update)

    @torch.no_grad()
    def run() -> None:
        for call in calls:
            call()

    if not graph:
        return run
    run()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        run()
    return captured.replay


def gigaflop(update: Callable[[], object]) -> float:
    """Run an update and return how many floating-point operations its convolutions and matrix products are [1e9]."""
    with FlopCounterMode(display=False) as counter:
        update()
    return float(counter.get_total_flops() / 1e9)

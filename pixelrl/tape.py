"""A step as a list of kernels: recorded once, then replayed without modules, autograd or decisions; or compiled.

Below autograd a step is a straight line of kernel calls, the same ones every time. A `Tape` writes them down as a
graph of torch.fx while they run, forward and backward alike. Views of parameters are made once, while recording;
results that nobody uses are dropped. Replaying runs the same kernels on the same numbers, so every bit is the same.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a function did with tensors.

    Attributes:
        kernels: a function of the inputs, then of the noise; it returns what was returned.
        draws: what draws the noise, in order, each from the generator that was used.
    """

    kernels: Callable[..., Any]
    draws: Sequence[Callable[[], Tensor]]

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Do it again with other inputs of the same shapes, and fresh noise."""
        with torch.no_grad():
            return self.kernels(*inputs, *[draw() for draw in self.draws])


def record(work: Callable[[], Result], inputs: Sequence[Tensor]) -> tuple[Result, Recording]:
    """Do some work once, and return what it returned (tensors in lists, tuples and dicts) and the recording of it.

    What the work reads beside the inputs, such as parameters, must stay where it is in memory; what it decides by
    anything but shapes is decided for ever. It must change nothing but what it made itself.
    """
    tape = Tape(inputs)
    with tape:
        result = work()
    return result, tape.cut(result)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Write down every kernel that runs, as nodes of a graph."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._known: dict[int, fx.Node] = {}  # id of a tensor -> what makes it
        self._alive: list[object] = []  # so that no id is given twice
        self._outside = nn.Module()
        self._draws: list[Callable[[], Tensor]] = []
        for index, tensor in enumerate(inputs):
            self._note(tensor, self._graph.placeholder(f"input{index}"))
        self._last = next(iter(reversed(self._graph.nodes)), self._graph._root)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a kernel, and write it down."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.ops.aten.detach.default:  # the same numbers at the same place
            self._note(result, self._node(args[0]))
        elif kwargs.get("generator") is not None:
            self._draws.append(lambda: func(*args, **kwargs))
            with self._graph.inserting_after(self._last):
                self._last = self._graph.placeholder(f"noise{len(self._draws)}")
            self._note(result, self._last)
        elif not (func.is_view and all(map(self._is_outside, tensors_of((args, kwargs))))):
            node = self._graph.call_function(func, *tree_map_only(Tensor, self._node, (args, kwargs)))
            if isinstance(result, Tensor):
                self._note(result, node)
            else:
                for index, part in enumerate(result or ()):
                    if isinstance(part, Tensor):
                        self._note(part, self._graph.call_function(operator.getitem, (node, index)))
        self._alive.append(result)
        return result

    def cut(self, result: Any) -> Recording:
        """Return the recording, which ends with this result."""
        self._graph.output(tree_map_only(Tensor, self._node, result))
        self._graph.eliminate_dead_code()
        return Recording(kernels=fx.GraphModule(self._outside, self._graph), draws=self._draws)

    def _note(self, tensor: Tensor, node: fx.Node) -> None:
        """Remember what makes a tensor; one that was changed in place stays what it was."""
        self._known.setdefault(id(tensor), node)
        self._alive.append(tensor)

    def _node(self, tensor: Tensor) -> fx.Node:
        """Return what makes a tensor; one from outside is kept as it is."""
        if id(tensor) not in self._known:
            name = f"outside{len(self._outside._buffers)}"
            self._outside.register_buffer(name, tensor.detach(), persistent=False)
            self._note(tensor, self._graph.get_attr(name))
        return self._known[id(tensor)]

    def _is_outside(self, tensor: Tensor) -> bool:
        """Tell whether a tensor was there before, or is a view of one that was."""
        node = self._known.get(id(tensor))
        return node is None or node.op == "get_attr"


def tensors_of(tree: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]

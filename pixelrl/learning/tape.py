"""A step as a list of kernels: recorded once, then replayed without modules, autograd or decisions; or compiled.

Below autograd a step is a straight line of kernel calls, the same ones every time. A `Tape` writes them down as a
graph of torch.fx while they run, forward and backward alike. Views of parameters are made once, while recording;
results that nobody uses are dropped, and elementwise kernels write over what nobody reads any more. Replaying runs the
same kernels on the same numbers, so every bit is the same.
"""

import copy
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from pixelrl.runtime.errors import UnrecordableError

Result = TypeVar("Result")
aten = torch.ops.aten

OVER: dict[Any, tuple[Any, str]] = {
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input"),
    **{getattr(aten, name).Tensor: (getattr(aten, name).out, "out") for name in ("add", "sub", "mul", "div")},
    **{getattr(aten, name).default: (getattr(aten, name).out, "out") for name in ("neg", "exp", "tanh", "relu")},
}
"""Elementwise kernel -> the form of it that writes into a given tensor, and its name for that one."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a function did with tensors.

    Attributes:
        graph: the kernels, as a graph of the inputs, then of the noise, then of what lies outside.
        run: does what the graph says.
        draws: what draws the noise, in order, each from the generator that was used.
        outside: what was read beside the inputs, and views of it.
    """

    graph: fx.GraphModule
    run: Callable[..., Any]
    draws: Sequence[Callable[[], Tensor]]
    outside: Sequence[Tensor]

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Do it again with other inputs of the same shapes, and fresh noise."""
        with torch.no_grad():
            return self.run(*inputs, *[draw() for draw in self.draws], *self.outside)

    def compiled(self) -> "Recording":
        """Return one whose kernels torch's Inductor makes when it first runs: fewer, with other roundings."""
        return replace(self, run=torch.compile(self.graph, fullgraph=True, dynamic=False))


def record(work: Callable[[], Result], inputs: Sequence[Tensor]) -> tuple[Result, Recording]:
    """Do some work once, and return what it returned (tensors in lists, tuples and dicts) and the recording of it.

    What the work reads beside the inputs, such as parameters, must stay where it is in memory; what it decides, by
    counters of its own say, is decided for ever.

    Raises:
        UnrecordableError: it reads a number out of a tensor, or makes a tensor whose shape depends on numbers.
    """
    tape = Tape(inputs)
    with tape, NeverReads():
        result = work()
    return result, tape.cut(result)


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Write down every kernel that runs, as nodes of a graph."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = fx.Graph()
        self._known = WeakTensorKeyDictionary()  # tensor -> what makes it, as long as the tensor lives
        self._draws: list[Callable[[], Tensor]] = []
        self._outside: dict[fx.Node, Tensor] = {}
        self._places: list[StorageWeakRef] = []  # as long as they are held, no address comes twice
        for index, tensor in enumerate(inputs):
            self._note(tensor, self._graph.placeholder(f"input{index}"))
        self._last_input = next(iter(reversed(self._graph.nodes)), self._graph._root)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a kernel, and write it down."""
        kwargs = kwargs or {}
        check_recordable(func, args, kwargs)
        result = func(*args, **kwargs)
        if func is aten.detach.default:  # the same numbers at the same place
            self._note(result, self._node(args[0]))
        elif kwargs.get("generator") is not None:
            self._draws.append(lambda: func(*args, **kwargs))
            with self._graph.inserting_after(self._last_input):
                self._last_input = self._graph.placeholder(f"noise{len(self._draws)}")
            self._note(result, self._last_input)
        elif not (func.is_view and all(map(self._is_outside, tensors_of((args, kwargs))))):
            node = self._graph.call_function(func, *tree_map_only(Tensor, self._node, (args, kwargs)))
            if isinstance(result, Tensor):
                self._note(result, node)
            else:
                for index, part in enumerate(result or ()):
                    if isinstance(part, Tensor):
                        self._note(part, self._graph.call_function(operator.getitem, (node, index)))
        return result

    def cut(self, result: Any) -> Recording:
        """Return the recording, which ends with this result."""
        self._graph.output(tree_map_only(Tensor, self._node, result))
        self._graph.eliminate_dead_code()
        for node in reversed([node for node in self._outside if not node.users]):
            self._graph.erase_node(node)
        outside = [self._outside[node] for node in self._graph.nodes if node in self._outside]
        graph = fx.GraphModule(nn.Module(), self._graph)
        return Recording(graph=graph, run=straight(in_place(graph)), draws=self._draws, outside=outside)

    def _note(self, tensor: Tensor, node: fx.Node) -> None:
        """Remember what makes a tensor; one that was changed in place stays what it was."""
        if tensor not in self._known:
            self._known[tensor] = node
            self._places.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
            node.meta["place"] = self._places[-1].cdata
            node.meta["form"] = (tensor.shape, tensor.stride(), tensor.dtype)

    def _node(self, tensor: Tensor) -> fx.Node:
        """Return what makes a tensor; one from outside is kept as it is."""
        if tensor not in self._known:
            after = next(reversed(self._outside), self._last_input)
            with self._graph.inserting_after(after):
                node = self._graph.placeholder(f"outside{len(self._outside)}")
            self._outside[node] = tensor.detach()
            self._note(tensor, node)
        found: fx.Node = self._known[tensor]
        return found

    def _is_outside(self, tensor: Tensor) -> bool:
        """Tell whether a tensor was there before, or is a view of one that was."""
        node: fx.Node | None = self._known.get(tensor)  # type: ignore[no-untyped-call]
        return node is None or node in self._outside


def check_recordable(func: Any, args: Any, kwargs: Any) -> None:
    """Raise an `UnrecordableError` if what follows a kernel, or its noise, may depend on the numbers in tensors."""
    depends = not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(func.tags)
    if func.overloadpacket is aten.index:  # a mask's shape is what it lets through
        depends = any(each.dtype in (torch.bool, torch.uint8) for each in tensors_of(args[1]))
    if depends:
        raise UnrecordableError(f"{func} depends on the numbers in a tensor, which a recording cannot follow")
    if kwargs.get("generator") is not None and tensors_of((args, kwargs)):
        raise UnrecordableError(f"{func} draws noise by a tensor, which a recording cannot follow; draw by torch.randn")


class NeverReads(TorchFunctionMode):
    """Raise an `UnrecordableError` where Python reads a whole tensor, which no kernel tells."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what is called, and call it."""
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            name = f"Tensor.{func.__name__}"
            raise UnrecordableError(f"{name} depends on the numbers in a tensor, which a recording cannot follow")
        return func(*args, **(kwargs or {}))


def in_place(graph: fx.GraphModule) -> fx.GraphModule:
    """Return a graph whose elementwise kernels write over one of their arguments that nobody reads any more.

    The numbers are the same, and fewer of them lie in the processor's caches. Inputs are never written over.
    """
    graph = copy.deepcopy(graph)
    nodes = list(graph.graph.nodes)
    place = {node: node.meta.get("place") for node in nodes}
    given = {None} | {place[node] for node in nodes if node.op == "placeholder"}
    last = {place[each]: node for node in nodes for each in node.all_input_nodes}  # who reads a place last
    for node in nodes:
        if node.target not in OVER:
            continue
        read = [place[each] for each in node.all_input_nodes]
        for spare, here in zip(node.all_input_nodes, read, strict=True):
            free = here not in given and last[here] is node and read.count(here) == 1
            if free and spare.meta["form"] == node.meta["form"]:
                node.target, name = OVER[node.target]
                node.kwargs = {**node.kwargs, name: spare}
                old = place[node]
                last[here] = last[old]
                place |= {each: here for each in nodes if place[each] == old}
                break
    return graph


def straight(graph: fx.GraphModule) -> Callable[..., Any]:
    """Return a graph's function with each operator at hand, not looked up by its path at every call.

    Views are taken by tensors' own methods, which cost a quarter of the call of an operator.
    """
    code = graph.graph.python_code(root_module="self")
    names = dict(code.globals)

    def at_hand(path: "re.Match[str]") -> str:
        name = "_".join(path.groups())
        namespace, operation, overload = path.groups()
        func = getattr(getattr(getattr(torch.ops, namespace), operation), overload)
        names[name] = getattr(Tensor, operation, func._op) if func.is_view else func._op
        return f"{name}("

    exec(re.sub(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)\(", at_hand, code.src), names)
    forward = names["forward"]
    return lambda *tensors: forward(None, *tensors)


def tensors_of(tree: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]

"""How a learner's steps are executed: operation by operation, compiled, or as one CUDA graph; terms do not know."""

from collections.abc import Callable
from types import FunctionType
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.batch import Batch, Metrics
from pixelrl.learning.learner import Direction, Learner, Objectives, Phase
from pixelrl.learning.noise import DrawnNoise, Noise
from pixelrl.runtime.errors import PixelrlError

Execution = Literal["eager", "compile", "graph"]

Step = Callable[[Batch], Metrics]
"""One gradient step, as `Learner.update`."""

WARM_UP = 3
"""Steps before one is captured: libraries set themselves up, and Adam makes its moments."""

LARGEST_HEAP_BLOCK = 31 << 20
"""Bytes, nearly, of the largest block that glibc may learn from: it keeps twice the largest mapping that was freed."""


def make_step(learner: Learner, execution: Execution) -> Step:
    """Return what takes a learner's steps; make it after a checkpoint was loaded, which moves what a graph points to.

    Raises:
        PixelrlError: see `check_execution`.
    """
    check_execution(learner, execution)
    # freed at once: now glibc keeps up to 64 MiB, where each step gave its pictures' memory back to the system
    torch.empty(LARGEST_HEAP_BLOCK, dtype=torch.uint8)
    if execution == "compile":
        compiled = CompiledDifferentiate(learner)
        return lambda batch: learner.update(batch, compiled)
    return GraphedStep(learner) if execution == "graph" else learner.update


def check_execution(learner: Learner, execution: Execution) -> None:
    """Raise a `PixelrlError` where a learner's steps cannot be executed like this.

    That is a graph where there is no CUDA, or for one of several ranks, whose sums a graph does not hold.
    """
    if execution == "graph" and (learner.device.type != "cuda" or learner.distributed.world_size > 1):
        ranks = learner.distributed.world_size
        raise PixelrlError(f"--execution graph, on {learner.device} with {ranks} ranks: it needs CUDA, and one rank")
    if execution == "graph" and learner.recipe.gradient_noise:
        raise PixelrlError("--execution graph: gradient_noise changes with the step; use --execution eager or compile")
    if execution == "graph" and learner.recipe.weight_bits:
        raise PixelrlError("--execution graph: weight_bits rounds outside of it; use --execution eager or compile")


class CompiledDifferentiate:
    """`Learner.differentiate`, compiled by torch: forward and backward in one graph; roundings are others then.

    The first step of each phase (warm-up, and what follows) is taken as usual, to learn what noise it draws; later
    ones draw the same kinds beforehand, since compiled code cannot.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._draws: dict[Phase, list[Callable[[], Tensor]]] = {}
        self._compiled: dict[Phase, Callable[..., Direction]] = {}
        self._works: set[Phase] = set()

    def __call__(self, batch: Batch, noise: Noise, objectives: Objectives, scale: Tensor) -> Direction:
        """Return the direction of a step, on a batch of always the same size.

        Raises:
            PixelrlError: torch cannot compile it, say since there is no C++ compiler.
        """
        learner, phase = self.learner, self.learner.phase
        if phase not in self._draws:
            learner.generator.drawn = []
            try:
                direction = learner.differentiate(batch, noise, objectives, scale)
                self._draws[phase] = learner.generator.drawn
            finally:
                learner.generator.drawn = None

            def differentiate(batch: Batch, noise: list[Tensor], scale: Tensor) -> Direction:
                return learner.differentiate(batch, DrawnNoise(noise), objectives, scale)

            self._compiled[phase] = torch.compile(with_own_code(differentiate), fullgraph=True, dynamic=False)
            return direction
        drawn = [draw() for draw in self._draws[phase]]
        try:
            with torch._dynamo.config.patch(trace_autograd_ops=True):
                direction = self._compiled[phase](batch, drawn, scale)
        except Exception as error:  # whatever the compiler of a machine may raise
            if phase in self._works:
                raise
            reason = next(filter(None, str(error).splitlines()), type(error).__name__)
            raise PixelrlError(
                f"--execution compile: torch cannot compile ({reason}); use --execution eager"
            ) from error
        self._works.add(phase)
        return direction


def with_own_code(function: Callable[..., Direction]) -> Callable[..., Direction]:
    """Return a copy with a code object of its own: torch compiles one at most eight times, for all who share it."""
    code, closure = function.__code__.replace(), function.__closure__
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)


class GraphedStep:
    """Take a learner's steps by replaying a CUDA graph of one; the numbers are those of `Learner.update`.

    There is one graph for the warm-up and one for what follows it. Metrics of a replayed step hold until the next one.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._warm: dict[Phase, int] = {}
        self._graphs: dict[Phase, tuple[torch.cuda.CUDAGraph, Metrics]] = {}
        self._inputs: Batch | None = None

    def __call__(self, batch: Batch) -> Metrics:
        """Take one step; see `Learner.update`."""
        learner, phase = self.learner, self.learner.phase
        with torch.cuda.device(learner.device):
            if self._warm.setdefault(phase, 0) < WARM_UP:
                self._warm[phase] += 1
                return learner.update(batch)
            if self._inputs is None:
                self._inputs = batch.map(torch.empty_like)
            torch._foreach_copy_(self._inputs.tensors, batch.tensors)
            learner.set_learning_rates()
            if phase not in self._graphs:
                self._graphs[phase] = self._capture(self._inputs)
            graph, metrics = self._graphs[phase]
            graph.replay()
        learner.finish_step(self._inputs)
        return metrics

    def _capture(self, inputs: Batch) -> tuple[torch.cuda.CUDAGraph, Metrics]:
        """Capture all of a step but what depends on its number."""
        learner, graph = self.learner, torch.cuda.CUDAGraph()
        if hasattr(graph, "register_generator_state"):  # torch is about to do this by itself
            graph.register_generator_state(learner.generator)
        groups = [group for objective, _ in learner.objectives for group in objective.optimiser.param_groups]
        for group in groups:
            group["capturable"] = True
        try:
            # thread_local: meanwhile the loader's thread may take page-locked memory
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                direction = learner.differentiate(inputs, learner.generator, learner.objectives, learner.loss_scale())
                learner.move(direction)
        finally:
            for group in groups:
                group["capturable"] = False
        return graph, direction.metrics

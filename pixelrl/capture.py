"""Updates that are recorded once, as a CUDA graph, and replayed: Python is out of the way, and the noise is fresh."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import torch

from pixelrl.batch import Batch, Metrics
from pixelrl.errors import PixelrlError
from pixelrl.learner import Learner

Capture = Literal["none", "graph"]
"""none is the default as long as the graph has not been tried on a GPU."""

Recorder = Callable[[Callable[[], Metrics]], tuple[Callable[[], object], Metrics]]
"""Record some work without doing it; return what does it, and the metrics that it will overwrite each time."""

WARM = 3
"""Updates that are taken as usual before one is recorded: libraries set themselves up, and Adam makes its moments."""


class Step(Protocol):
    """One gradient step, as `Learner.update`."""

    def __call__(self, batch: Batch, *, measure: bool = False) -> Metrics:
        """Take it."""
        ...


def updater(learner: Learner, how: Capture) -> Step:
    """Return what takes a learner's steps; make it after a checkpoint was loaded, which moves what a graph points to.

    Raises:
        PixelrlError: a graph where there is no CUDA, or for one of several ranks, whose sums a graph does not hold.
    """
    device, ranks = learner.device, learner.ranks.count
    if how == "none":
        return learner.update
    if device.type != "cuda" or ranks > 1:
        raise PixelrlError(f"--capture graph, on {device} with {ranks} ranks: it needs CUDA, and one rank")
    return Captured(learner, cuda_graph(learner))


class Captured:
    """Take a learner's steps by replaying a recording of one; the numbers are those of `Learner.update`.

    There is one recording for each structure of the update: the end of a warm-up brings another. Steps that measure
    are taken as usual. Metrics of a replayed step hold until the next one.

    Args:
        learner: whose steps; a checkpoint must be loaded before.
        recorder: `cuda_graph`; a test has another.
    """

    def __init__(self, learner: Learner, recorder: Recorder) -> None:
        self.learner, self._recorder = learner, recorder
        self._usual: Counter[tuple[str, ...]] = Counter()
        self._recordings: dict[tuple[str, ...], tuple[Callable[[], object], Metrics]] = {}
        self._inputs: Batch | None = None

    def __call__(self, batch: Batch, *, measure: bool = False) -> Metrics:
        """Take one step; see `Learner.update`."""
        learner, structure = self.learner, self.learner.structure
        if measure or self._usual[structure] < WARM:
            self._usual[structure] += 1
            return learner.update(batch, measure=measure)
        if self._inputs is None:
            self._inputs = batch.map(torch.empty_like)
        torch._foreach_copy_(self._inputs.tensors, batch.tensors)
        learner.schedule()
        if structure not in self._recordings:
            self._recordings[structure] = self._recorder(self._work)
        replay, metrics = self._recordings[structure]
        replay()
        learner.step += 1
        return metrics

    def _work(self) -> Metrics:
        """Do what is recorded: all of a step but what depends on its number."""
        assert self._inputs is not None
        metrics = self.learner.differentiate(self._inputs)
        self.learner.move()
        return metrics


def cuda_graph(learner: Learner) -> Recorder:
    """Return a recorder by CUDA graphs; the learner's generator moves on with every replay, as it does without."""

    def record(work: Callable[[], Metrics]) -> tuple[Callable[[], object], Metrics]:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(learner.generator)
        # thread_local: meanwhile the loader's thread may take page-locked memory
        with capturable(learner), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            metrics = work()
        return graph.replay, metrics

    return record


@contextmanager
def capturable(learner: Learner) -> Iterator[None]:
    """Tell the optimisers that they are being recorded, which torch insists on; their fused form computes the same."""
    optimisers = [each for side in (learner.critic, learner.actor) for each in (side.optimiser, side.dual_optimiser)]
    groups = [group for each in optimisers if each is not None for group in each.param_groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False

"""Steps that are recorded once and replayed: Python is out of the way, and the noise is fresh.

`tape`: the list of a step's kernels (`pixelrl.learning.tape`), on any device and for any number of ranks.
`graph`: a whole step, with optimisers and targets, as a CUDA graph.
`compile`: the tape, compiled by torch's Inductor, which fuses kernels; on CUDA that in a CUDA graph.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch import nn

from pixelrl.learning.batch import Batch, Metrics
from pixelrl.learning.learner import Derive, Findings, Learner
from pixelrl.learning.tape import Recording, record
from pixelrl.runtime.errors import PixelrlError, UnrecordableError

Capture = Literal["auto", "none", "tape", "graph", "compile"]
"""auto: a tape on the CPU, which gives the same numbers as none; none on CUDA, where the others have not been tried."""

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

    A term that decides by numbers cannot be recorded: with auto its steps are taken as usual, otherwise a step raises.

    Raises:
        PixelrlError: see `check_capture`.
    """
    check_capture(learner, how)
    if how == "none" or (how == "auto" and learner.device.type != "cpu"):
        return learner.update
    if how == "auto":
        return Taped(learner, strict=False)
    if how == "graph":
        return Captured(learner, cuda_graph(learner))
    if how == "tape":
        return Taped(learner)
    learner.networks.use_onednn(False)  # Inductor knows no such kernel
    compiled = Taped(learner, compiled=True)
    graphs = learner.device.type == "cuda" and learner.distributed.world_size == 1
    return Captured(learner, cuda_graph(learner), compiled.find) if graphs else compiled


def check_capture(learner: Learner, how: Capture) -> None:
    """Raise a `PixelrlError` if a learner's steps cannot be taken like this.

    That is a graph where there is no CUDA, or for one of several ranks, whose sums a graph does not hold; and batch
    statistics, which a compiled step would lose.
    """
    device, world_size = learner.device, learner.distributed.world_size
    if how == "graph" and (device.type != "cuda" or world_size > 1):
        raise PixelrlError(f"--capture graph, on {device} with {world_size} ranks: it needs CUDA, and one rank")
    if how == "compile" and any(isinstance(module, nn.BatchNorm2d) for module in learner.networks.modules()):
        raise PixelrlError("--capture compile: this encoder's BatchNorm keeps statistics that it would lose; use tape")


class Taped:
    """Take a learner's steps by replaying a recording of how it found, once, what it finds on a batch.

    There is one recording for the warm-up and one for what follows it. The first step, which sets everything up, and
    steps that measure are taken as usual.

    Args:
        learner: whose findings.
        compiled: let torch's Inductor make new kernels of the recording; sums and roundings are others then.
        strict: raise an `UnrecordableError` where a term decides by numbers; else warn, and find as usual.
    """

    def __init__(self, learner: Learner, *, compiled: bool = False, strict: bool = True) -> None:
        self.learner, self.compiled, self.strict = learner, compiled, strict
        self._recordings: dict[bool, Recording | None] = {}  # by whether it is the warm-up
        self._warm = False

    def __call__(self, batch: Batch, *, measure: bool = False) -> Metrics:
        """Take one step; see `Learner.update`."""
        usual, self._warm = measure or not self._warm, True
        return self.learner.update(batch, measure=measure, derive=None if usual else self.find)

    def find(self, batch: Batch) -> Findings:
        """Return the findings on a batch of always the same size; the first time they are found as usual."""
        phase = self.learner.warming
        if phase not in self._recordings:
            noise = self.learner.generator.get_state()
            try:
                return self._record(batch)
            except UnrecordableError as error:
                if self.strict:
                    raise UnrecordableError(f"{error}; use --capture none, or decide by torch.where") from error
                warnings.warn(f"{error}: steps are not recorded, and slower for it", stacklevel=1)
            self._recordings[phase] = None
            self.learner.generator.set_state(noise)
        recording = self._recordings[phase]
        if recording is None:
            return self.learner.derive(self.learner.scratch_pad(batch))
        try:
            return Findings(*recording(batch.tensors))
        except RuntimeError as error:
            if not self.compiled:
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise PixelrlError(f"--capture compile: Inductor failed ({reason}); use tape") from error

    def _record(self, batch: Batch) -> Findings:
        """Find as usual, and keep a recording of it."""
        update = self.learner.scratch_pad(batch)
        found: tuple[Any, ...]  # a graph's result is made of plain tuples
        found, recording = record(lambda: tuple(self.learner.derive(update)), batch.tensors)
        self._recordings[self.learner.warming] = recording.compiled() if self.compiled else recording
        return Findings(*found)


class Captured:
    """Take a learner's steps by replaying a recording of one; the numbers are those of `Learner.update`.

    There is one recording for the warm-up and one for what follows it. Steps that measure are taken as usual. Metrics
    of a replayed step hold until the next one.

    Args:
        learner: whose steps; a checkpoint must be loaded before.
        recorder: `cuda_graph`; a test has another.
        derive: another way to the learner's findings.
    """

    def __init__(self, learner: Learner, recorder: Recorder, derive: Derive | None = None) -> None:
        self.learner, self._recorder, self._derive = learner, recorder, derive
        self._usual: Counter[bool] = Counter()
        self._recordings: dict[bool, tuple[Callable[[], object], Metrics]] = {}
        self._inputs: Batch | None = None

    def __call__(self, batch: Batch, *, measure: bool = False) -> Metrics:
        """Take one step; see `Learner.update`."""
        learner, phase = self.learner, self.learner.warming
        if measure:
            return learner.update(batch, measure=True)
        if self._usual[phase] < WARM:
            self._usual[phase] += 1
            return learner.update(batch, derive=self._derive if self._usual[phase] > 1 else None)
        if self._inputs is None:
            self._inputs = batch.map(torch.empty_like)
        torch._foreach_copy_(self._inputs.tensors, batch.tensors)
        learner.schedule()
        if phase not in self._recordings:
            self._recordings[phase] = self._recorder(self._work)
        replay, metrics = self._recordings[phase]
        replay()
        learner.step += 1
        return metrics

    def _work(self) -> Metrics:
        """Do what is recorded: all of a step but what depends on its number."""
        assert self._inputs is not None
        metrics = self.learner.differentiate(self._inputs, derive=self._derive)
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

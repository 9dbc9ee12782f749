"""The loop: a generator of reports. Logging, checkpoints and progress bars stand outside it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pixelrl.learning.batch import Batch
from pixelrl.learning.learner import Learner
from pixelrl.training.diagnostics import measure, precision_metrics
from pixelrl.training.execution import Execution, make_step


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step tells: its number, the seconds of training so far, and figures if they were measured."""

    step: int
    seconds: float
    metrics: dict[str, float]

    @property
    def summary(self) -> str:
        """The two figures that a person watches, so short that a line of 80 columns holds them."""
        names = {"Q": "q/data", "phi.phi'": "features/dot", "loss": "actor/loss"}
        found = [f"{label} {self.metrics[name]:.3g}" for label, name in names.items() if name in self.metrics]
        return "  ".join(found[:2])


def train(
    learner: Learner,
    batch_at: Callable[[int], Batch],
    steps: int,
    *,
    measure_every: int,
    seconds: float = 0.0,
    execution: Execution = "eager",
) -> Iterator[Report]:
    """Train until `learner.step == steps`, and report after every step.

    The device is waited for only where figures are measured: every `measure_every` steps and at the last one.

    Args:
        learner: fresh, or read from a checkpoint.
        batch_at: the batch of a step, a pure function of its number.
        steps: where to stop, counted from the very beginning.
        measure_every: how often to run the diagnostics; they also tell `time/data_wait`, the share of the time since
            the last measurement in which the learner waited for its batches.
        seconds: what the run has taken before.
        execution: how a step is executed.

    Raises:
        DivergenceError: seen at a measured step: some step since the last one went wrong.
    """
    start = time.perf_counter() - seconds
    since, waited = time.perf_counter(), 0.0
    take_step, upload = make_step(learner, execution), Upload(learner.device)
    while learner.step < steps:
        asked = time.perf_counter()
        batch = upload(batch_at(learner.step))
        waited += time.perf_counter() - asked
        last = learner.step + 1 == steps
        measured = last or (learner.step + 1) % measure_every == 0
        figures = measure(learner, batch) if measured else {}
        tensors = take_step(batch)
        metrics: dict[str, float] = {}
        if measured:
            learner.check()
            tensors = learner.distributed.mean_metrics(tensors | figures) | precision_metrics(learner)
            metrics = {name: float(value) for name, value in tensors.items()}
            now = time.perf_counter()
            metrics["time/data_wait"] = waited / (now - since)
            since, waited = now, 0.0
        yield Report(step=learner.step, seconds=time.perf_counter() - start, metrics=metrics)


class Upload:
    """Bring batches to a device; to a GPU on a stream of their own, so that they come while the last step is computed.

    Batches in page-locked memory are copied without waiting; what lies on the GPU already stays as it is. The learner's
    stream waits for the copy, and the batch's memory is given to others only when the learner's stream is done with it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
        if self._stream is None:
            return batch.to(self.device)
        learner = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            moved = batch.to(self.device)
        learner.wait_stream(self._stream)
        for tensor in moved.tensors:
            tensor.record_stream(learner)
        return moved

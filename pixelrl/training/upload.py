"""Batches on their way to a GPU, beside the step that it is computing."""

import torch

from pixelrl.learning.batch import Batch


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

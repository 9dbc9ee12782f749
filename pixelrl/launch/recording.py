"""What a served policy saw and did, as a data set: robomimic's HDF5, one demo an episode."""

import queue
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.writer import EpisodeWriter
from pixelrl.serving.inference import Reply
from pixelrl.serving.protocol import Request

WAITING = 256
"""Steps that may wait for the disk; more are left out, and counted."""

LONGEST = 5_000
"""Steps of an episode; what goes on longer is cut into several."""


class Recording:
    """Write episodes in a thread of its own, so that no peer waits for the disk.

    An episode ends where a peer says that one begins, or leaves. Its last action is left out: nobody knows what came
    of it. Rewards are 0; `pixelrl convert --reward` gives others.
    """

    def __init__(self, writer: EpisodeWriter, inputs: dict[str, tuple[int, ...]]) -> None:
        """Begin.

        Args:
            writer: of the file.
            inputs: what to keep: observation key -> shape of one instant.
        """
        self._writer, self._inputs = writer, inputs
        self._steps = defaultdict[int, list[dict[str, NDArray[Any]]]](list)
        self._queue = queue.Queue[tuple[int, dict[str, NDArray[Any]] | None, bool] | None](WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="recording")

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left.

        Raises:
            Exception: whatever kept it from being written.
        """
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def __call__(self, connection: int, step: int, request: Request, reply: Reply) -> bool:
        """Take a step, unless too many wait already; tell whether it was taken."""
        row = {key: request.sensors[key][..., -shape[-1] :] for key, shape in self._inputs.items()}
        return self._take((connection, row | {"": reply.normalised[0]}, step == 1))

    def end(self, connection: int) -> None:
        """Note that a peer has left."""
        self._take((connection, None, True))

    def _take(self, item: tuple[int, dict[str, NDArray[Any]] | None, bool]) -> bool:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return self._error is None

    def _work(self) -> None:
        """Write what comes."""
        try:
            while (item := self._queue.get()) is not None:
                connection, row, begins = item
                if begins or len(self._steps[connection]) >= LONGEST:
                    self._finish(connection)
                if row is not None:
                    self._steps[connection].append(row)
            for connection in list(self._steps):
                self._finish(connection)
        except Exception as error:  # the server goes on, and tells of it in the end
            self._error = error
            while self._queue.get() is not None:
                pass

    def _finish(self, connection: int) -> None:
        """Write an episode, if there are two instants or more."""
        steps = self._steps.pop(connection, [])
        if len(steps) < 2:
            return
        stacked = {key: np.stack([step[key] for step in steps]) for key in steps[0]}
        actions = stacked.pop("")[:-1]
        zeros = np.zeros(len(actions), np.float32)
        episode = Episode(sensors=stacked, actions=actions, rewards=zeros, dones=zeros > 0)
        self._writer.add(episode)

"""What a served policy saw and did, kept by a thread of its own; here as robomimic's HDF5, one demo an episode."""

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.writer import EpisodeWriter
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.inference import Reply
from pixelrl.serving.protocol import Request

if TYPE_CHECKING:
    from pixelrl.export.runtime import ExportedPolicy

WAITING, BYTES = 256, 2**28
"""Steps, and bytes of their messages, that may wait for the disk; more steps are left out, and counted."""

LONGEST, LARGEST = 5_000, 2**29
"""Steps of an episode, and bytes of what is seen in it; what goes on longer is cut into several."""

PAUSE = 1.0
"""What was taken is out of our hands after so long. [s]"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was seen and answered once.

    Attributes:
        connection: of the peer.
        number: of the step in what the peer calls an episode, from 1.
        gap: what the peer sent right before it is left out.
        time_ns: when the answer was ready, by the server's clock.
        sensors: observation key -> what was seen at this instant.
        request, reply: what came, and the answer.
    """

    connection: int
    number: int
    gap: bool
    time_ns: int
    sensors: Mapping[str, NDArray[Any]]
    request: Request
    reply: Reply


class EpisodeFile(Protocol):
    """Where episodes are written, several at a time; each is named by a number."""

    def add(self, episode: int, step: Step) -> None:
        """Take the next step of an episode."""
        ...

    def end(self, episode: int, why: str) -> None:
        """Finish an episode."""
        ...

    def flush(self) -> None:
        """Let the system have what can be kept should this process be killed."""
        ...


@dataclass
class _Running:
    """An episode that goes on."""

    number: int
    steps: int = 0
    size: int = 0


class Recording:
    """Hand steps to a file in a thread of its own, so that no peer waits for the disk.

    An episode ends where a peer says that one begins, or leaves; where an observation was refused or superseded, or too
    many steps waited; and where it is long.
    """

    def __init__(self, file: EpisodeFile, inputs: Mapping[str, tuple[int, ...]], size: int) -> None:
        """Begin.

        Args:
            file: where to.
            inputs: what to keep: observation key -> shape of one instant.
            size: of a message with all of them [bytes].
        """
        self._file, self._inputs = file, inputs
        self._queue = queue.Queue[Step | tuple[int, str] | None](max(2, min(WAITING, BYTES // size)))
        self._running = dict[int, _Running]()
        self._count = 0
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

    def __call__(self, connection: int, step: int, request: Request, reply: Reply, *, gap: bool) -> bool:
        """Take a step, unless too many wait already; tell whether it was taken."""
        item = Step(
            connection=connection,
            number=step,
            gap=gap,
            time_ns=time.time_ns(),
            sensors={key: request.sensors[key][..., -shape[-1] :] for key, shape in self._inputs.items()},
            request=request,
            reply=reply,
        )
        return self._take(item)

    def end(self, connection: int, why: str) -> None:
        """Note that a peer has left."""
        self._take((connection, why))

    def _take(self, item: Step | tuple[int, str]) -> bool:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            return False
        return self._error is None

    def _work(self) -> None:
        """Write what comes."""
        try:
            for item in self._items():
                if isinstance(item, Step):
                    self._add(item)
                else:
                    self._end(*item)
            for connection in list(self._running):
                self._end(connection, "the server stopped")
        except Exception as error:  # the server goes on, and tells of it in the end
            self._error = error
            while self._queue.get() is not None:
                pass

    def _items(self) -> Iterator[Step | tuple[int, str]]:
        """Yield what comes until nothing more will, and flush the file now and then."""
        flushed = time.monotonic()
        while True:
            try:
                if (item := self._queue.get(timeout=PAUSE)) is None:
                    return
                yield item
            except queue.Empty:
                pass
            if time.monotonic() - flushed >= PAUSE:
                self._file.flush()
                flushed = time.monotonic()

    def _add(self, step: Step) -> None:
        """Write a step, to a new episode where it does not go on with the one before."""
        size = sum(value.nbytes for value in step.sensors.values())
        if (running := self._running.get(step.connection)) is not None:
            if step.number == 1:
                self._end(step.connection, "reset by the peer")
            elif step.gap:
                self._end(step.connection, "steps were left out")
            elif running.steps >= LONGEST or running.size + size > LARGEST:
                self._end(step.connection, f"cut after {running.steps} steps")
        if step.connection not in self._running:
            self._count += 1
            self._running[step.connection] = _Running(self._count)
        running = self._running[step.connection]
        running.steps += 1
        running.size += size
        self._file.add(running.number, step)

    def _end(self, connection: int, why: str) -> None:
        """Finish the episode of a peer, if it has one."""
        if (running := self._running.pop(connection, None)) is not None:
            self._file.end(running.number, why)


class Demos:
    """Episodes in memory until they are over, then demos in HDF5.

    The last action of each is left out: nobody knows what came of it. Rewards are 0; `pixelrl convert --reward` gives
    others.
    """

    def __init__(self, writer: EpisodeWriter) -> None:
        self._writer = writer
        self._steps = defaultdict[int, list[dict[str, NDArray[Any]]]](list)

    def add(self, episode: int, step: Step) -> None:
        """Remember a step, without what else came in its message."""
        seen = {key: np.ascontiguousarray(value) for key, value in step.sensors.items()}  # a copy, if it is a slice
        self._steps[episode].append({**seen, "": step.reply.normalised[0]})

    def end(self, episode: int, why: str) -> None:
        """Write an episode, if there are two instants or more."""
        steps = self._steps.pop(episode)
        if len(steps) < 2:
            return
        stacked = {key: np.stack([step[key] for step in steps]) for key in steps[0]}
        actions = stacked.pop("")[:-1]
        zeros = np.zeros(len(actions), np.float32)
        self._writer.add(Episode(sensors=stacked, actions=actions, rewards=zeros, dones=zeros > 0))

    def flush(self) -> None:
        """Do nothing: whole episodes are safe, and parts of them are no demos."""


@contextmanager
def demos(policy: "ExportedPolicy", path: Path) -> Iterator[Demos]:
    """Yield a file of robomimic's, which appears in the end.

    Raises:
        PixelrlError: a policy of chunks, or no episodes of two steps or more came.
    """
    contract = policy.contract
    if contract.get("chunk", 1) > 1:
        raise PixelrlError(f"--record {path}: HDF5 holds single actions; this policy gives chunks: record to NAME.mcap")
    dims = [ActionDim(**dim) for dim in contract["outputs"]["action"]["dims"]]
    with EpisodeWriter(path, env_args=contract["env_args"], action_dims=dims, resume="pixelrl serve") as writer:
        yield Demos(writer)

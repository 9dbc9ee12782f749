"""Worker processes that do jobs, say play episodes: one that dies or hangs is replaced, and its job is done again.

Each worker opens what it needs once (an environment and a policy) and then does one job after another. Results are a
function of the job alone, so neither the number of workers nor their deaths can change them.

`concurrent.futures` gives up when a process dies. pebble (5.2.3) replaces processes, but all of them share one pipe:
the pool breaks when an idle worker is killed, a worker cannot close its environment, and a time limit is of a whole
job. So each worker has a pipe of its own here.
"""

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pixelrl.runtime.child_process import start_as_child
from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.extras import missing_extra
from pixelrl.simulation.envs.opengl import draw_on
from pixelrl.simulation.workers.pool import ATTEMPTS, START_LIMIT, Heartbeat, Pool, Task, TaskQueue

HEARTBEAT_INTERVAL = 0.2
"""Heartbeats that follow each other faster are not sent. [s]"""

START_METHOD = "spawn"
"""How a worker process comes to be: renderers and threads do not survive a fork, so it is a fresh one."""

CLOSE_LIMIT = 5.0
"""How long workers have to close their environments before they are killed. [s]"""


@dataclass(frozen=True)
class WorkerPool(Pool):
    """Worker processes on this machine."""

    workers: int

    def members(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> "_Processes":
        """Return what starts and watches the processes."""
        return _Processes(queue, sent, time_limit, self.workers)


@dataclass
class _Process:
    """A worker process and our end of its pipe; without a task it is idle, before it is ready it is being opened."""

    process: BaseProcess
    pipe: Connection
    deadline: float
    task: Task[Any] | None = None
    ready: bool = False


class _Processes:
    """The worker processes of a pool at one `run`, by number: what is lost is replaced, and its job done again."""

    def __init__(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float, most: int) -> None:
        self._queue, self._sent, self._time_limit, self._most = queue, sent, time_limit, most
        self._workers: dict[int, _Process] = {}
        self._failed_starts = 0

    def busy(self) -> bool:
        return any(worker.task is not None for worker in self._workers.values())

    def assign(self) -> None:
        for number in range(len(self._workers), self._queue.look_ahead(self._most)):
            self._spawn(number)
        for worker in self._workers.values():
            if worker.ready and worker.task is None and (task := self._queue.take()) is not None:
                worker.task, worker.deadline = task, self._next_deadline()
                with suppress(OSError):  # it is dead, which is noticed when its pipe is read
                    worker.pipe.send(task.job)

    def listen(self) -> None:
        watched: dict[Any, int] = {
            worker.pipe: number
            for number, worker in self._workers.items()
            if worker.task is not None or not worker.ready
        }
        earliest = min(self._workers[number].deadline for number in watched.values())
        heard = {watched[pipe] for pipe in wait(list(watched), timeout=max(0.0, earliest - time.monotonic()))}
        now = time.monotonic()
        late = {number for number in watched.values() if self._workers[number].deadline <= now}
        for number in sorted(heard | late):
            worker = self._workers[number]
            try:
                if not worker.pipe.poll():
                    raise EOFError
                said, value = worker.pipe.recv()
            except (EOFError, OSError):
                self._replace(number)
            else:
                self._take(worker, said, value)

    def close(self) -> None:
        """End all workers; those that are ready may close their environments."""
        for worker in self._workers.values():
            with suppress(OSError):
                worker.pipe.send(None)
            if not worker.ready:
                worker.process.kill()
        deadline = time.monotonic() + CLOSE_LIMIT
        for worker in self._workers.values():
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _spawn(self, number: int) -> None:
        context: Any = get_context(START_METHOD)
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(self._sent, number, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the process's death is seen here as the end of the pipe
        deadline = time.monotonic() + START_LIMIT * self._time_limit
        self._workers[number] = _Process(process, ours, deadline)

    def _next_deadline(self) -> float:
        return time.monotonic() + self._time_limit + HEARTBEAT_INTERVAL

    def _take(self, worker: _Process, said: str, value: Any) -> None:
        if said == "failure":
            raise value.error("a worker cannot be started" if worker.task is None else worker.task.name)
        if said == "ready":
            worker.ready, self._failed_starts = True, 0
        elif said == "result":
            assert worker.task is not None
            self._queue.finish(worker.task, value)
            worker.task = None
        worker.deadline = self._next_deadline()

    def _replace(self, number: int) -> None:
        """Start another worker for a lost one, unless that was the last attempt of its job, or of starting one."""
        task, reason = self._workers[number].task, self._end(self._workers[number])
        if task is not None:
            self._queue.lose(task, reason)
        else:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                message = f"{ATTEMPTS} workers in a row were lost while they started"
                raise SimulationError(f"{message}; the last one: {reason}")
        self._spawn(number)

    def _end(self, worker: _Process) -> str:
        """End a lost worker's process, and return why it is lost."""
        hung = not wait([worker.process.sentinel], timeout=0.2)  # a dead one's pipe breaks a little before
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        if hung:
            limit = self._time_limit * (1 if worker.ready else START_LIMIT)
            return f"its worker gave no sign of life for {limit:g} s"
        return f"its worker died, of a crash or for want of memory: exit code {worker.process.exitcode}"


def serve(sent: bytes, number: int, pipe: Connection) -> None:
    """Be a worker: open what is needed, then do jobs until told to stop, or until the parent is gone."""
    start_as_child()
    prepare_process(number)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        try:
            with pickle.loads(sent)() as work:
                pipe.send(("ready", None))
                for job in iter(pipe.recv, None):
                    pipe.send(("result", work(job, _heartbeat(pipe))))
        except _StopWork:
            pass
        except Exception as error:
            pipe.send(("failure", Failure.of(error)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is closed; to take the interpreter down, with all that was imported, costs a second or two


class _StopWork(BaseException):
    """Raised by the heartbeat in a worker that is to stop; no job may take it for an error of its own."""


def _heartbeat(pipe: Connection) -> Heartbeat:
    """Return a function that tells the pool now and then that this worker lives."""

    def tell() -> None:
        if pipe.poll():  # amid a job nothing comes but the order to stop
            raise _StopWork
        pipe.send(("alive", None))

    return at_most_every(tell)


def at_most_every(tell: Callable[[], None], interval: float = HEARTBEAT_INTERVAL) -> Heartbeat:
    """Return a heartbeat that passes on nothing that follows the last one faster than the interval [s]."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= interval:
            last = now
            tell()

    return beat


def prepare_process(number: int) -> None:
    """Choose the GPU that a worker draws on, and have it use one thread, before anything is imported that asks."""
    draw_on(number)
    os.environ["OMP_NUM_THREADS"] = "1"  # of this process: the cores are shared out among the workers


@dataclass(frozen=True)
class Failure:
    """An exception as text: one that cannot be pickled could not travel."""

    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Describe an exception."""
        kind = "" if isinstance(error, PixelrlError) else f"{type(error).__name__}: "
        return cls(missing_extra(error) or f"{kind}{error}", traceback.format_exc())

    def error(self, where: str) -> SimulationError:
        """Return an error that names the job; the worker's traceback is a note on it."""
        error = SimulationError(f"{where}: {self.message}")
        error.add_note(f"In the worker:\n{self.trace}")
        return error

"""Worker processes that do jobs, say play episodes: one that dies or hangs is replaced, and its job is done again.

Each worker opens what it needs once (an environment and a policy) and then does one job after another. Results are a
function of the job alone, so neither the number of workers nor their deaths can change them.

`concurrent.futures` gives up when a process dies. pebble (5.2.3) replaces processes, but all of them share one pipe:
the pool breaks when an idle worker is killed, a worker cannot close its environment, and a time limit is of a whole
job. So each worker has a pipe of its own here.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.pool import ATTEMPTS, START_LIMIT, Pool, Task, TaskQueue
from pixelrl.simulation.workers.process import HEARTBEAT_INTERVAL, serve

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
        """Tell whether a worker has a job."""
        return any(worker.task is not None for worker in self._workers.values())

    def assign(self) -> None:
        """Start the workers that are needed, and give idle ones something to do."""
        for number in range(len(self._workers), self._queue.look_ahead(self._most)):
            self._spawn(number)
        for worker in self._workers.values():
            if worker.ready and worker.task is None and (task := self._queue.take()) is not None:
                worker.task, worker.deadline = task, self._next_deadline()
                with suppress(OSError):  # it is dead, which is noticed when its pipe is read
                    worker.pipe.send(task.job)

    def listen(self) -> None:
        """Wait until some workers say something, die or run out of time; take what they say, or replace them."""
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
        """Start a worker."""
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
        """Note what a worker says."""
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
        """Start another worker for a lost one.

        Raises:
            SimulationError: it was the last attempt of its job, or of starting a worker.
        """
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

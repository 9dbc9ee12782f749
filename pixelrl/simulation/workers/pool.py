"""Worker processes that do jobs, say play episodes: one that dies or hangs is replaced, and its job is done again.

Each worker opens what it needs once (an environment and a policy) and then does one job after another. Results are a
function of the job alone, so neither the number of workers nor their deaths can change them.

`concurrent.futures` gives up when a process dies. pebble (5.2.3) replaces processes, but all of them share one pipe:
the pool breaks when an idle worker is killed, a worker cannot close its environment, and a time limit is of a whole
job. So each worker has a pipe of its own here.
"""

import pickle
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.jobs import ATTEMPTS, TIME_LIMIT, Done, Job, OpenWorker, Result, Task, TaskQueue
from pixelrl.simulation.workers.process import HEARTBEAT_INTERVAL, serve

START_LIMIT = 10
"""How many times as long it may take to open what it needs: it imports much."""

CLOSE_LIMIT = 5.0
"""How long workers have to close their environments before they are killed. [s]"""


@dataclass
class _Worker:
    """A worker process as the pool sees it; without a task it is idle, and before it is ready it is being opened."""

    process: BaseProcess
    pipe: Connection
    deadline: float
    task: Task[Any] | None = None
    ready: bool = False

    def lost(self, time_limit: float) -> str:
        """Bury the worker and return why it is lost."""
        hung = not wait([self.process.sentinel], timeout=0.2)  # a dead one's pipe breaks a little before
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if hung:
            return f"its worker gave no sign of life for {time_limit:g} s"
        return f"its worker died, of a crash or for want of memory: exit code {self.process.exitcode}"


@dataclass(frozen=True)
class WorkerPool:
    """Worker processes on this machine.

    Attributes:
        workers: how many there are, at most; there are never more than jobs.
    """

    workers: int

    def run(
        self,
        open_worker: OpenWorker[Job, Result],
        jobs: Iterable[tuple[str, Job]],
        *,
        ordered: bool = False,
        time_limit: float = TIME_LIMIT,
    ) -> Generator[Done[Result], None, None]:
        """Yield what comes of each job. Closing the iterator, an error or Ctrl-C ends all workers.

        Args:
            open_worker: called once in each worker, which has one thread.
            jobs: name, for error messages, and job; jobs and results must pickle.
            ordered: yield in the order of the jobs, not as they are done.
            time_limit: how long a worker may be silent amid a job [s] before it is killed and replaced.

        Raises:
            SimulationError: a job raised an exception or lost `ATTEMPTS` workers, or no worker can be opened.
        """
        if self.workers < 1:
            raise SimulationError(f"workers is {self.workers}; it must be at least 1")
        queue: TaskQueue[Job, Result] = TaskQueue(jobs, ordered=ordered, ahead=2 * self.workers)
        members = _Members(queue, pickled(open_worker), time_limit)
        try:
            for number in range(queue.look_ahead(self.workers)):
                members.spawn(number)
            while True:
                members.assign()
                while (done := queue.fetch()) is not None:
                    yield done
                    members.assign()
                if not members.busy() and not queue.look_ahead(1):
                    return
                members.listen()
        finally:
            members.close()


class _Members:
    """The workers of a pool at one `run`."""

    def __init__(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> None:
        self._queue, self._sent, self._time_limit = queue, sent, time_limit
        self._workers: dict[int, _Worker] = {}
        self._failed_starts = 0

    def spawn(self, number: int) -> None:
        """Start a worker; renderers and threads do not survive a fork, so it is a fresh process."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(self._sent, number, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the process's death is seen here as the end of the pipe
        self._workers[number] = _Worker(process, ours, deadline=time.monotonic() + START_LIMIT * self._time_limit)

    def busy(self) -> bool:
        """Tell whether a worker has a job."""
        return any(worker.task is not None for worker in self._workers.values())

    def assign(self) -> None:
        """Give idle workers something to do."""
        for worker in self._workers.values():
            if worker.ready and worker.task is None and (task := self._queue.take()) is not None:
                worker.task, worker.deadline = task, self._next_deadline()
                with suppress(OSError):  # it is dead, which is noticed when its pipe is read
                    worker.pipe.send(task.job)

    def listen(self) -> None:
        """Wait until some workers say something, die or run out of time; take what they say, or replace them.

        Raises:
            SimulationError: one cannot be opened, or its job failed.
        """
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
            try:
                if not self._workers[number].pipe.poll():
                    raise EOFError
                said, value = self._workers[number].pipe.recv()
            except (EOFError, OSError):
                self._replace(number)
            else:
                self._take(self._workers[number], said, value)

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

    def _next_deadline(self) -> float:
        return time.monotonic() + self._time_limit + HEARTBEAT_INTERVAL

    def _take(self, worker: _Worker, said: str, value: Any) -> None:
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
        """Start another worker for a lost one, whose job is done again."""
        worker = self._workers[number]
        reason = worker.lost(self._time_limit * (1 if worker.ready else START_LIMIT))
        if worker.task is not None:
            self._queue.lose(worker.task, reason)
        else:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS:
                message = f"{ATTEMPTS} workers in a row were lost while they started"
                raise SimulationError(f"{message}; the last one: {reason}")
        self.spawn(number)


def pickled(open_worker: Any) -> bytes:
    """Return what opens a worker as bytes.

    Raises:
        SimulationError: it cannot be sent to another process.
    """
    try:
        return pickle.dumps(open_worker)
    except Exception as error:  # pickle.PicklingError, AttributeError, TypeError, ...
        reason = " ".join(str(error).split())[:200]
        raise SimulationError(
            f"policy and environment cannot be sent to worker processes ({reason}); "
            "use classes and functions of a module, not lambdas or local ones"
        ) from error

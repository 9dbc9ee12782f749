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

from pixelrl.simulation.workers.pool import CLOSE_LIMIT, START_LIMIT, Members, Pool, Task, TaskQueue, Worker
from pixelrl.simulation.workers.process import HEARTBEAT_INTERVAL, serve

START_METHOD = "spawn"
"""How a worker process comes to be: renderers and threads do not survive a fork, so it is a fresh one."""


@dataclass(frozen=True)
class WorkerPool(Pool):
    """Worker processes on this machine."""

    workers: int

    def members(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> "_Processes":
        """Return what starts and watches the processes."""
        return _Processes(queue, sent, time_limit)


@dataclass(kw_only=True)
class _Process(Worker):
    """A worker process and our end of its pipe."""

    process: BaseProcess
    pipe: Connection


class _Processes(Members[_Process]):
    """The worker processes of a pool at one `run`."""

    def spawn(self, number: int) -> None:
        """Start a worker."""
        context: Any = get_context(START_METHOD)
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(self.sent, number, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the process's death is seen here as the end of the pipe
        deadline = time.monotonic() + START_LIMIT * self.time_limit
        self.workers[number] = _Process(process=process, pipe=ours, deadline=deadline)

    def send(self, worker: _Process, task: Task[Any]) -> None:
        """Have a worker begin a job."""
        worker.deadline = self._next_deadline()
        with suppress(OSError):  # it is dead, which is noticed when its pipe is read
            worker.pipe.send(task.job)

    def listen(self) -> None:
        """Wait until some workers say something, die or run out of time; take what they say, or replace them."""
        watched: dict[Any, int] = {
            worker.pipe: number
            for number, worker in self.workers.items()
            if worker.task is not None or not worker.ready
        }
        earliest = min(self.workers[number].deadline for number in watched.values())
        heard = {watched[pipe] for pipe in wait(list(watched), timeout=max(0.0, earliest - time.monotonic()))}
        now = time.monotonic()
        late = {number for number in watched.values() if self.workers[number].deadline <= now}
        for number in sorted(heard | late):
            worker = self.workers[number]
            try:
                if not worker.pipe.poll():
                    raise EOFError
                said, value = worker.pipe.recv()
            except (EOFError, OSError):
                self.replace(number, self._end(worker))
            else:
                self._take(worker, said, value)

    def close(self) -> None:
        """End all workers; those that are ready may close their environments."""
        for worker in self.workers.values():
            with suppress(OSError):
                worker.pipe.send(None)
            if not worker.ready:
                worker.process.kill()
        deadline = time.monotonic() + CLOSE_LIMIT
        for worker in self.workers.values():
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def _next_deadline(self) -> float:
        return time.monotonic() + self.time_limit + HEARTBEAT_INTERVAL

    def _take(self, worker: _Process, said: str, value: Any) -> None:
        """Note what a worker says."""
        if said == "failure":
            raise value.error("a worker cannot be started" if worker.task is None else worker.task.name)
        if said == "ready":
            self.opened(worker)
        elif said == "result":
            self.finished(worker, value)
        worker.deadline = self._next_deadline()

    def _end(self, worker: _Process) -> str:
        """End a lost worker's process, and return why it is lost."""
        hung = not wait([worker.process.sentinel], timeout=0.2)  # a dead one's pipe breaks a little before
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        if hung:
            limit = self.time_limit * (1 if worker.ready else START_LIMIT)
            return f"its worker gave no sign of life for {limit:g} s"
        return f"its worker died, of a crash or for want of memory: exit code {worker.process.exitcode}"

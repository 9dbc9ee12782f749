"""What all pools of workers have in common: jobs and their order."""

import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pixelrl.runtime.errors import SimulationError

Job = TypeVar("Job")
Result = TypeVar("Result")

Heartbeat = Callable[[], None]
"""A worker calls it at each step of a job: it shows that the worker does not hang, and lets it be stopped."""

OpenWorker = Callable[[], AbstractContextManager[Callable[[Job, Heartbeat], Result]]]
"""Called once in each worker; what it yields does a job. It must pickle, and is sent by value, weights and all."""

ATTEMPTS = 3
"""How often a job is begun, and a worker started: what loses so many workers is itself to blame."""

TIME_LIMIT = 60.0
"""How long a worker may be silent amid a job before it counts as hung. [s]"""

START_LIMIT = 10
"""How many times as long it may take to open what it needs: it imports much."""


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A job that is done: its number, its result, and how often it was begun anew, as its worker was lost."""

    index: int
    result: Result
    restarts: int


@dataclass
class Task(Generic[Job]):
    """A job on its way: its number, its name for error messages, and how often it lost its worker."""

    index: int
    name: str
    job: Job
    restarts: int = 0


class TaskQueue(Generic[Job, Result]):
    """Jobs that wait, and results that wait to be fetched, in the order of the jobs if that is wanted.

    Args:
        jobs: name and job; they are taken from the iterable one by one, when a worker is free.
        ordered: return results in the order of the jobs.
        ahead: if ordered, no job is begun so many or more behind one whose result has not been fetched.
    """

    def __init__(self, jobs: Iterable[tuple[str, Job]], *, ordered: bool, ahead: int) -> None:
        self._coming = (Task(index, name, job) for index, (name, job) in enumerate(jobs))
        self._waiting: deque[Task[Job]] = deque()
        self._ordered, self._ahead = ordered, ahead
        self._done: dict[int, Done[Result]] = {}
        self._next = 0

    def look_ahead(self, count: int) -> int:
        """Return how many of the next `count` jobs there are."""
        while len(self._waiting) < count and (task := next(self._coming, None)) is not None:
            self._waiting.append(task)
        return min(len(self._waiting), count)

    def take(self) -> Task[Job] | None:
        """Return the next job; None if there is none, or none that may be begun yet."""
        if not self.look_ahead(1) or (self._ordered and self._waiting[0].index >= self._next + self._ahead):
            return None
        return self._waiting.popleft()

    def lose(self, task: Task[Job], reason: str) -> None:
        """Have a job whose worker was lost done again, before all others.

        Raises:
            SimulationError: that was its last attempt.
        """
        task.restarts += 1
        if task.restarts == ATTEMPTS:
            raise SimulationError(f"{task.name}: {reason}; it was begun {ATTEMPTS} times")
        self._waiting.appendleft(task)

    def finish(self, task: Task[Job], result: Result) -> None:
        """Keep a result."""
        self._done[task.index] = Done(task.index, result, task.restarts)

    def fetch(self) -> Done[Result] | None:
        """Return a result that was not returned yet, the next one if they are ordered."""
        index = self._next if self._ordered else next(iter(self._done), -1)
        done = self._done.pop(index, None)
        self._next += done is not None
        return done


class Members(Protocol):
    """What works on a queue at one `Pool.run`."""

    def assign(self) -> None:
        """Give those that are idle something to do."""

    def busy(self) -> bool:
        """Tell whether a job is being done."""

    def listen(self) -> None:
        """Wait a while for what comes of jobs, and for workers that are lost.

        Raises:
            SimulationError: no worker can be opened, or a job failed.
        """

    def close(self) -> None:
        """End all that is left."""


class Pool(ABC):
    """What does jobs: worker processes on this machine, or a Ray cluster.

    Attributes:
        workers: how many there are, at most; there are never more than jobs.
    """

    workers: int

    @abstractmethod
    def members(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> Members:
        """Return what does the jobs of one `run`."""

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
        members = self.members(queue, _pickled(open_worker), time_limit)
        try:
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


def _pickled(open_worker: Any) -> bytes:
    """Return what opens a worker as bytes, if it can be sent to another process."""
    try:
        return pickle.dumps(open_worker)
    except Exception as error:  # pickle.PicklingError, AttributeError, TypeError, ...
        reason = " ".join(str(error).split())[:200]
        raise SimulationError(
            f"policy and environment cannot be sent to worker processes ({reason}); "
            "use classes and functions of a module, not lambdas or local ones"
        ) from error

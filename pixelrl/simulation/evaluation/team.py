"""Processes that share out a list of jobs; what they bring comes in the list's order, however many they are."""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.simulation.envs.egl_devices import draw_on

Item = TypeVar("Item")
Result = TypeVar("Result")


class Team(Protocol):
    """Whatever does a list of jobs: processes on this machine (`in_order`), or a cluster."""

    def __call__(
        self, work: Callable[[Iterable[Item]], Iterable[Result]], jobs: Iterable[tuple[str, Item]], /
    ) -> Generator[Result, None, None]:
        """Yield the result of each job, in order; see `in_order`."""
        ...


def in_order(
    work: Callable[[Iterable[Item]], Iterable[Result]], jobs: Iterable[tuple[str, Item]], *, workers: int
) -> Generator[Result, None, None]:
    """Yield what spawned processes make of the jobs, in the jobs' order: the local `Team`.

    Each process has its next job as soon as its last result is fetched. Closing the iterator, an error or Ctrl-C ends
    them all.

    Args:
        work: what each process calls, once, with its share of the jobs; it yields one result a job, and takes the next
            job only then. It must pickle, and so must jobs and results.
        jobs: the name of each, for error messages, and the job itself.
        workers: how many processes; no more than jobs are hired.

    Raises:
        PixelrlError: as a process raised it, with the name of the job before it; or a process died.
    """
    team: list[tuple[BaseProcess, Connection]] = []
    at_work: deque[tuple[str, BaseProcess, Connection]] = deque()
    try:
        for name, job in jobs:
            done = []
            if len(team) < workers:
                team.append(hire(_work, work, len(team)))
                process, pipe = team[-1]
            else:
                earlier, process, pipe = at_work.popleft()
                done.append(_fetch(pipe, process, earlier))
            with suppress(OSError):  # a dead worker's pipe is broken; it is missed when its result is due
                pipe.send(job)
            at_work.append((name, process, pipe))
            yield from done
        for name, process, pipe in at_work:
            yield _fetch(pipe, process, name)
    finally:
        for process, pipe in team:
            pipe.close()
            process.terminate()
            process.join()


def hire(serve: Callable[[Any, int, Connection], None], what: Any, seat: int) -> tuple[BaseProcess, Connection]:
    """Start a process that calls `serve(what, seat, pipe)`; return it with our end of the pipe."""
    context = get_context("spawn")  # renderers and threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(what, seat, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the process's death is seen here as the end of the pipe
    return process, ours


def _work(work: Callable[[Iterable[Any]], Iterable[Any]], seat: int, pipe: Connection) -> None:
    """Send the results one by one; send an error instead where one occurs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then ends the team
    draw_on(seat)
    try:
        for result in work(_received(pipe)):
            pipe.send(("result", result))
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except PixelrlError as error:
        pipe.send(("error", error))
    except Exception as error:
        pipe.send(("error", SimulationError(f"{type(error).__name__}: {error}")))


def _received(pipe: Connection) -> Iterator[Any]:
    """Yield the jobs that come, until the parent closes the pipe."""
    with suppress(EOFError):
        while True:
            yield pipe.recv()


def _fetch(pipe: Connection, process: BaseProcess, name: str) -> Any:
    """Return the next result of a process, or raise what stopped it."""
    try:
        kind, message = pipe.recv()
    except (EOFError, OSError):
        process.join()
        raise SimulationError(f"{name}: its worker died with exit code {process.exitcode}") from None
    if kind == "error":
        raise SimulationError(f"{name}: {message}") from message
    return message

"""Processes that share out a list of jobs; what they bring comes in the list's order, however many they are."""

import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from pixelrl.errors import PixelrlError, SimulationError
from pixelrl.simulation.devices import draw_on

Result = TypeVar("Result")


def in_order(shares: Sequence[Callable[[], Iterable[Result]]], names: Iterable[str]) -> Generator[Result, None, None]:
    """Yield the results that spawned processes bring, in turn: the first of each, then the second of each, ...

    Each process works ahead by one result and waits until it is fetched. Closing the iterator, an error or Ctrl-C ends
    them all.

    Args:
        shares: what each process calls and iterates over; it must pickle, and so must the results.
        names: of all results, for error messages.

    Raises:
        PixelrlError: as a process raised it, with the name of the result before it; or a process died.
    """
    team = [_hire(share, seat) for seat, share in enumerate(shares)]
    try:
        for index, name in enumerate(names):
            process, connection = team[index % len(team)]
            yield _fetch(connection, process, name)
    finally:
        for process, connection in team:
            connection.close()
            process.terminate()
            process.join()


def _hire(share: Callable[[], Iterable[Any]], seat: int) -> tuple[BaseProcess, Connection]:
    """Start a process, and return it with the end of the pipe from which its results come."""
    context = get_context("spawn")  # a renderer does not survive a fork
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(share, seat, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the process's death is seen here as the end of the pipe
    return process, ours


def _work(share: Callable[[], Iterable[Any]], seat: int, out: Connection) -> None:
    """Send the results one by one; send an error instead where one occurs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then ends the team
    draw_on(seat)
    try:
        for result in share():
            out.send(("result", result))
    except BrokenPipeError:
        return  # the parent is gone
    except PixelrlError as error:
        out.send(("error", error))
    except Exception as error:
        out.send(("error", SimulationError(f"{type(error).__name__}: {error}")))


def _fetch(connection: Connection, process: BaseProcess, name: str) -> Any:
    """Return the next result of a process, or raise what stopped it."""
    try:
        kind, message = connection.recv()
    except EOFError:
        process.join()
        raise SimulationError(f"{name}: its worker died with exit code {process.exitcode}") from None
    if kind == "error":
        raise SimulationError(f"{name}: {message}") from message
    return message

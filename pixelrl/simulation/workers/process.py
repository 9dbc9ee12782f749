"""The worker's side: a process that opens what it needs and does jobs until it is told to stop."""

import hashlib
import os
import pickle
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

from pixelrl.runtime.child_process import start_as_child
from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.extras import missing_extra
from pixelrl.simulation.envs.opengl import draw_on
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.version import __version__

PACKAGES = ("ray", "numpy", "mujoco", "robosuite", "gymnasium", "torch", "onnxruntime")
"""What decides results, besides Python and our own code."""

HEARTBEAT_INTERVAL = 0.2
"""Heartbeats that follow each other faster are not sent. [s]"""


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


class _StopWork(BaseException):
    """Raised by the heartbeat in a worker that is to stop; no job may take it for an error of its own."""


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


def prepare_process(number: int) -> None:
    """Choose the GPU that a worker draws on, and have it use one thread, before anything is imported that asks."""
    draw_on(number)
    os.environ["OMP_NUM_THREADS"] = "1"  # of this process: the cores are shared out among the workers


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


def software() -> dict[str, str]:
    """Return the versions of all that decides results, and a hash of our own code, which changes between versions."""
    found = {"Python": platform.python_version(), "pixelrl": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(missing)"
    root = Path(__file__).resolve().parents[2]
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found | {"pixelrl's code": code.hexdigest()[:16]}

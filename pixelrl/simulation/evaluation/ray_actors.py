"""What Ray runs on a node: one process that does jobs, or a site that plays episodes with a crew of its own."""

import hashlib
import importlib
import importlib.metadata
import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pixelrl
from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.runtime.interfaces import Policy, Sensors
from pixelrl.simulation.envs.egl_devices import draw_on
from pixelrl.simulation.evaluation.crew import AnyEnv, Crew
from pixelrl.simulation.evaluation.rollout import Job, Judge, Outcome, play_on

PACKAGES = ("ray", "numpy", "mujoco", "robosuite", "gymnasium", "torch", "onnxruntime")
"""What decides results, besides Python and our own code."""


class Actor:
    """A process on a node."""

    def __init__(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        ray: Any = importlib.import_module("ray")
        self._describe, self._node = describe, ray.get_runtime_context().get_node_id()
        self._address: str = ray.util.get_node_ip_address()

    def hello(self) -> dict[str, Any]:
        """Return the node's id, its `software`, and what else it is: its address, and what `describe` tells."""
        return {"id": self._node, "software": software(), "node": {"address": self._address, **self._describe()}}

    @contextmanager
    def _naming(self, job: str) -> Iterator[None]:
        """Turn any exception into one that surely travels, and that names the job and the node."""
        try:
            yield
        except Exception as error:
            kind = "" if isinstance(error, PixelrlError) else f"{type(error).__name__}: "
            named = SimulationError(f"{job}{self._address}: {kind}{error}")
            for note in getattr(error, "__notes__", ()):
                named.add_note(note)
            raise named from None


class Hand(Actor):
    """Does jobs in this very process, one at a time."""

    def __init__(
        self,
        describe: Callable[[], Mapping[str, Any]],
        work: Callable[[Iterable[Any]], Iterable[Any]],
        number: int,
    ) -> None:
        """Begin to work.

        Args:
            describe: tells what the node is.
            work: as `in_order` takes it.
            number: among the hands of this node.
        """
        super().__init__(describe)
        draw_on(number)
        self._results = iter(work(self._jobs()))

    def do(self, name: str, job: Any) -> Any:
        """Return the result of a job."""
        self._job = job
        with self._naming(f"{name}, on "):
            return next(self._results)

    def _jobs(self) -> Iterator[Any]:
        while True:
            yield self._job


class Site(Actor):
    """Plays episodes with a crew, several at once: `do` is called by as many threads as the crew has seats.

    One more thread is for `close`.
    """

    def __init__(
        self,
        describe: Callable[[], Mapping[str, Any]],
        minds: tuple[Policy, Judge | None],
        make: Callable[[], AnyEnv],
        seats: int,
        history: int,
        time_limit: float,
    ) -> None:
        """Begin to play; see `play` for policy, judge, and what follows."""
        super().__init__(describe)
        self._jobs: deque[Job] = deque()
        self._called = Event()
        self._promises: dict[int, Future[Outcome]] = {}
        self._failure: BaseException | None = None
        self._over = False
        self._stage = Thread(target=self._play, args=(*minds, make, seats, history, time_limit), daemon=True)
        self._stage.start()

    def do(self, name: str, job: Job) -> Outcome:
        """Return how an episode went; its name is known to errors without us."""
        promise: Future[Outcome] = Future()
        self._promises[job.index] = promise
        self._jobs.append(job)
        self._called.set()
        with self._naming("on "):
            if self._failure is not None:  # set before it is told to all that are promised something
                raise self._failure
            return promise.result()

    def close(self) -> None:
        """Stop playing and free the crew's memory, which is left behind where Ray kills all processes at once."""
        self._over = True
        self._called.set()
        self._stage.join()

    def _play(
        self,
        policy: Policy,
        judge: Judge | None,
        make: Callable[[], AnyEnv],
        seats: int,
        history: int,
        time_limit: float,
    ) -> None:
        """Play whatever is asked for, in a thread of its own."""

        def act(sensors: Sensors) -> NDArray[np.float32]:
            if self._over:
                raise SimulationError("nobody waits for these episodes any more")
            return policy(sensors)

        try:
            with Crew(make, seats, time_limit) as crew:
                while self._called.wait() and not self._over:
                    self._called.clear()
                    for outcome in play_on(crew, act, self._jobs, history=history, judge=judge):
                        self._promises.pop(outcome.index).set_result(outcome)
        except BaseException as error:
            self._failure = error
            for promise in list(self._promises.values()):
                promise.set_exception(error)


def software() -> dict[str, str]:
    """Return the versions of whatever decides results, and a hash of our own code, which changes between versions."""
    found = {"Python": platform.python_version(), "pixelrl": pixelrl.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "(missing)"
    root = Path(pixelrl.__file__).parent
    files = (Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names)
    code = hashlib.sha256()
    for path in sorted(path for path in files if path.suffix == ".py"):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found | {"pixelrl's code": code.hexdigest()[:16]}

"""Worker processes with an environment each: they take orders and answer; one that dies or hangs is replaced.

gymnasium's `AsyncVectorEnv` does the same for workers that never fail: all of its workers are made together, with one
block of memory that only they inherit, so none of them can be replaced, and it makes one environment more, in the
parent, to learn its spaces. What is sensed travels through shared memory here too, everything else through pipes.
"""

import signal
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.spaces import Dict
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError, SimulationError
from pixelrl.simulation.envs.egl_devices import draw_on
from pixelrl.simulation.evaluation.team import hire

AnyEnv = gymnasium.Env[Any, Any]
Layout = dict[str, tuple[tuple[int, ...], str]]
"""Observation key -> shape and type of what one environment senses."""

STARTING = 10
"""How many times as long as a step a worker may take to make its environment: it imports much."""

STILLBORN = 3
"""How many workers in a row may die before they are ready."""


@dataclass(frozen=True, kw_only=True)
class Begin:
    """An order: begin an episode.

    Attributes:
        seed, options: for the environment's `reset`.
        film: height and width of the pictures for people [px]; 0: none.
    """

    seed: int
    options: dict[str, Any] | None = None
    film: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of an order; what is sensed lies in the crew's `sensors`.

    `error` is set, with its traceback, where the environment raised something.
    """

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    picture: NDArray[np.uint8] | None = None
    error: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Lost:
    """Instead of an answer: the worker died or hung, for a reason, and another takes its seat."""

    reason: str


Order = Begin | NDArray[np.float32]
"""Begin an episode, or act."""


class Crew:
    """A fixed number of seats, and a worker on each.

    Attributes:
        seats: how many workers there are.
        sensors: key -> `[seats, ...]`, what each worker sensed last; known once a worker is ready.
        action_shape: of one environment's action.
    """

    sensors: dict[str, NDArray[Any]]
    action_shape: tuple[int, ...]

    def __init__(self, make: Callable[[], AnyEnv], seats: int, time_limit: float) -> None:
        """Start the workers; they make their environments while others may be at work already.

        Args:
            make: makes a worker's environment; it must pickle.
            seats: how many workers.
            time_limit: how long a worker may take for an order, [s], before it counts as lost.
        """
        self.seats = seats
        self._make, self._time_limit = make, time_limit
        self._layout: Layout | None = None
        self._memory: SharedMemory | None = None
        self._ready: set[int] = set()
        self._due: dict[int, float] = {}  # seat -> when its worker must have done what it was told
        self._stillborn = 0
        self._workers = {seat: self._hire(seat) for seat in range(seats)}

    def __enter__(self) -> Self:
        """Return the crew."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers: those at rest may close their environments, but not after an error."""
        if kind is None:
            for seat in self._ready:
                with suppress(OSError):
                    self._workers[seat][1].send(None)
            wait([self._workers[seat][0].sentinel for seat in self._ready], timeout=1)
        for process, pipe in self._workers.values():
            process.kill()  # at once, even amid a call: a worker owns nothing but memory
            process.join()
            pipe.close()
        if self._memory is not None:
            self.sensors.clear()  # they are windows on it
            with suppress(BufferError):  # somebody else still looks through one
                self._memory.close()
            self._memory.unlink()

    def ready(self, *, or_wait: bool) -> list[int]:
        """Return the seats whose workers have made their environments, in order.

        Args:
            or_wait: wait for one if there is none.

        Raises:
            SimulationError: an environment cannot be made, or not in time, or it senses other things than the others.
        """
        patience = STARTING * self._time_limit
        while making := {self._workers[seat][1]: seat for seat in self._workers if seat not in self._ready}:
            block = or_wait and not self._ready
            for pipe in (heard := wait(list(making), timeout=patience if block else 0)):
                self._welcome(making[pipe])  # type: ignore[index]  # these are pipes
            if not heard:
                if block:
                    raise SimulationError(f"no worker made its environment within {patience:g} s")
                break
        return sorted(self._ready)

    def tell(self, orders: Mapping[int, Order]) -> None:
        """Have workers that are ready and idle do something."""
        for seat, order in orders.items():
            with suppress(OSError):  # a dead worker's pipe is broken; `hear` misses it
                self._workers[seat][1].send(order)
            self._due[seat] = time.monotonic() + self._time_limit

    def hear(self) -> dict[int, Answer | Lost]:
        """Wait until some of those who were told are done, and return what came of it, in the order of the seats.

        Whoever is lost is replaced; the new worker becomes ready some time later. Where nobody is busy, nothing comes.
        """
        if not self._due:
            return {}
        busy = {self._workers[seat][1]: seat for seat in self._due}
        heard = wait(list(busy), timeout=max(0.0, min(self._due.values()) - time.monotonic()))
        answered = {busy[pipe] for pipe in heard}  # type: ignore[index]  # these are pipes
        late = {seat for seat, due in self._due.items() if due <= time.monotonic()}
        return {seat: self._answer(seat, here=seat in answered) for seat in sorted(answered | late)}

    def _hire(self, seat: int) -> tuple[BaseProcess, Connection]:
        return hire(_serve, self._make, seat)

    def _welcome(self, seat: int) -> None:
        """Hear from a worker that it has made its environment, and tell it where to put what it senses."""
        process, pipe = self._workers[seat]
        try:
            said = pipe.recv()
        except (EOFError, OSError) as error:
            process.join()
            self._stillborn += 1
            if self._stillborn == STILLBORN:
                message = f"{STILLBORN} workers in a row died while they made their environments"
                raise SimulationError(f"{message}; the last one: {_exit(process)}") from error
            pipe.close()
            self._workers[seat] = self._hire(seat)
            return
        self._stillborn = 0
        if isinstance(said, Answer):
            raise failure("a worker cannot make its environment", said)
        layout, self.action_shape = said
        if self._layout is None:
            self._layout = layout
            self._memory = SharedMemory(create=True, size=max(1, _size(layout, self.seats)))
            self.sensors = _windows(self._memory, layout, self.seats)
        if layout != self._layout:
            raise SimulationError(f"two workers' environments sense different things: {self._layout} and {layout}")
        assert self._memory is not None
        with suppress(OSError):  # it died since; it is missed at its first order
            pipe.send((self._memory.name, self.seats))
        self._ready.add(seat)

    def _answer(self, seat: int, *, here: bool) -> Answer | Lost:
        """Take a worker's answer if it is here; replace whoever has none."""
        process, pipe = self._workers[seat]
        del self._due[seat]
        try:
            if here or pipe.poll():
                answer: Answer = pipe.recv()
                return answer
            lost = Lost(f"its worker gave no answer for {self._time_limit:g} s")
            process.kill()
            process.join()
        except (EOFError, OSError):
            process.join()  # the pipe breaks a little before the process can be seen to be dead
            lost = Lost(f"its worker died, of a crash or for want of memory: {_exit(process)}")
        pipe.close()
        for window in self.sensors.values():
            window[seat] = 0  # it may have died while it wrote
        self._ready.discard(seat)
        self._workers[seat] = self._hire(seat)
        return lost


def failure(where: str, answer: Answer) -> SimulationError:
    """Return the error of an answer that holds one; the worker's traceback is a note on it."""
    error = SimulationError(f"{where}: {answer.error}")
    error.add_note(f"In the worker:\n{answer.trace}")
    return error


def _serve(make: Callable[[], AnyEnv], seat: int, pipe: Connection) -> None:
    """Be a worker: make an environment, then do what is ordered until told to stop, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who then ends the workers
    draw_on(seat)
    try:
        env = make()
        layout = _layout(env)
        pipe.send((layout, env.action_space.shape))
    except Exception as error:
        pipe.send(_report(error))
        return
    with suppress(EOFError, OSError):
        name, seats = pipe.recv()
        memory = SharedMemory(name)  # its maker unlinks it
        senses = {key: window[seat] for key, window in _windows(memory, layout, seats).items()}
        film = 0
        while (order := pipe.recv()) is not None:
            film = order.film if isinstance(order, Begin) else film
            pipe.send(_obey(env, order, film, senses))
        env.close()


def _obey(env: AnyEnv, order: Order, film: int, senses: Mapping[str, NDArray[Any]]) -> Answer:
    """Do one thing; put what is then sensed into `senses`."""
    try:
        if isinstance(order, Begin):
            sensors, _ = env.reset(seed=order.seed, options=order.options)
            reward, terminated, truncated, success = 0.0, False, False, False
        else:
            sensors, paid, terminated, truncated, info = env.step(order)
            reward, success = float(paid), bool(info["success"])
        _store(sensors, senses)
        if not np.isfinite(reward):
            raise SimulationError(f"the environment's reward is {reward}; expected a finite number")
        picture = env.get_wrapper_attr("picture")(film) if film else None
    except Exception as error:
        return _report(error)
    return Answer(
        reward=reward, terminated=bool(terminated), truncated=bool(truncated), success=success, picture=picture
    )


def _store(sensors: Mapping[str, NDArray[Any]], senses: Mapping[str, NDArray[Any]]) -> None:
    """Copy what is sensed into shared memory, if it is what was promised."""
    for key, window in senses.items():
        value = sensors[key]
        if value.shape != window.shape or value.dtype != window.dtype:
            came, promised = (f"{each.dtype} {list(each.shape)}" for each in (value, window))
            raise SimulationError(f"the environment's {key!r} is {came}; its observation space says {promised}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise SimulationError(f"the environment's {key!r} holds NaN or an infinity; expected finite numbers")
        window[...] = value


def _report(error: Exception) -> Answer:
    """Return an exception as text: one that cannot be pickled could not travel."""
    kind = "" if isinstance(error, PixelrlError) else f"the environment raised {type(error).__name__}: "
    return Answer(error=f"{kind}{error}", trace=traceback.format_exc())


def _exit(process: BaseProcess) -> str:
    return f"exit code {process.exitcode}"


def _layout(env: AnyEnv) -> Layout:
    space: Any = env.observation_space
    if not isinstance(space, Dict):
        raise SimulationError(f"the environment observes a {space}; expected a Dict of pictures and vectors")
    return {key: (each.shape or (), str(each.dtype)) for key, each in space.items()}


def _size(layout: Layout, seats: int) -> int:
    return sum(seats * int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in layout.values())


def _windows(memory: SharedMemory, layout: Layout, seats: int) -> dict[str, NDArray[Any]]:
    """Return arrays `[seats, ...]` that lie one behind the other in a block of memory; wide types first, so aligned."""
    windows: dict[str, NDArray[Any]] = {}
    offset = 0
    for key, (shape, dtype) in sorted(layout.items(), key=lambda item: -np.dtype(item[1][1]).itemsize):
        windows[key] = np.ndarray((seats, *shape), dtype, buffer=memory.buf, offset=offset)
        offset += windows[key].nbytes
    return {key: windows[key] for key in layout}

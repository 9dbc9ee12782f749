"""Contenders take turns, each in a process of its own, so that times and peaks of memory are its own too."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from statistics import median
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]

from pixelrl.runtime.errors import PixelrlError

Clock = Literal["cpu", "wall"]
"""cpu: seconds of the processor, of all threads, which other programs hardly disturb; wall: what one waits for."""

UNMEASURED = 2
"""Units at the start of a turn of several that do not count: caches went cold while the others had their turns."""

PRELOAD = ("torch._dynamo", "benchmarks.cases", "pixelrl.training.execution", "pixelrl.datasets.buffer.load_dataset")
"""What every contender has imported from the start; not the module that was started itself."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a contender does, once it is ready.

    Attributes:
        unit: one update, one batch, one step; its result is dropped.
        wait: until the device has done it all.
        facts: whatever else is known of it.
    """

    unit: Callable[[], object]
    wait: Callable[[], None] = lambda: None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """How to make some work, in a fresh process: `make(*arguments)`, a function of a module.

    Attributes:
        rehearsal: arguments of the same work in small, done first: memory that libraries take once does not count.
        turns: at most so many; None: one a round.
        warm_up: units to take first; with none, a turn is one unit.
    """

    make: Callable[..., Work]
    arguments: tuple[Any, ...]
    rehearsal: tuple[Any, ...]
    turns: int | None = None
    warm_up: int = 2


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a contender took.

    Attributes:
        turns: of each turn, the seconds of one unit by both clocks.
        facts: what else is known, as JSON values.
    """

    turns: Sequence[Mapping[Clock, float]]
    facts: dict[str, Any]

    def seconds(self, clock: Clock) -> float:
        """Return the seconds of a unit: the median of the turns."""
        return median(turn[clock] for turn in self.turns)

    def row(self) -> dict[str, Any]:
        """Return JSON values."""
        wall = self.seconds("wall")
        times = {"wall_seconds": wall, "cpu_seconds": self.seconds("cpu"), "per_second": 1 / wall}
        return times | {"turns": len(self.turns)} | self.facts


def take_turns(
    contenders: Mapping[str, Contender], rounds: int, turn_seconds: float, progress: Callable[[str], None]
) -> dict[str, Result]:
    """Give every contender a turn in every round, one at a time, and return what each took.

    Args:
        contenders: by name.
        rounds: how many turns each has.
        turn_seconds: how long a turn lasts at least: as many units as fit, and one at least.
        progress: called with what is being done.

    Raises:
        PixelrlError: a contender failed; the message is its own.
    """
    with processes(contenders) as asked:
        facts: dict[str, dict[str, Any]] = {}
        turns = {name: list[Mapping[Clock, float]]() for name in contenders}
        for name, ask in asked.items():
            progress(f"{name}: getting ready")
            facts[name] = ask("start")
            unit = facts[name].pop("unit_seconds")
            facts[name]["units_per_turn"] = max(1, int(turn_seconds / unit)) if unit else 1
        for turn in range(rounds):
            for name, ask in asked.items():
                if turn < (contenders[name].turns or rounds):
                    progress(f"{name}: turn {turn + 1} of {rounds}")
                    turns[name].append(ask(facts[name]["units_per_turn"]))
        return {name: Result(turns=turns[name], facts=facts[name] | ask("stop")) for name, ask in asked.items()}


@contextmanager
def processes(contenders: Mapping[str, Contender]) -> Iterator[dict[str, Callable[[object], Any]]]:
    """Start a process for each contender and yield what asks it something; end them all."""
    context = get_context("forkserver")  # forks of a process that has imported the modules, and done nothing else
    context.set_forkserver_preload(list(PRELOAD))
    pipes: dict[str, Any] = {}
    started = []

    def ask(name: str, question: object) -> Any:
        try:
            pipes[name].send(question)
            answer = pipes[name].recv()
        except (EOFError, OSError):
            raise PixelrlError(f"{name}: its process died; was the memory enough?") from None
        if isinstance(answer, str):
            raise PixelrlError(f"{name}: {answer}")
        return answer

    try:
        for name, contender in contenders.items():
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, contender), daemon=True)
            process.start()
            theirs.close()
            started.append(process)
        yield {name: lambda question, name=name: ask(name, question) for name in contenders}  # type: ignore[misc]
    finally:
        for process in started:
            process.terminate()
            process.join()


def serve(pipe: Any, contender: Contender) -> None:
    """Be a contender: answer "start", numbers of units, and "stop"; an answer that is a string is an error."""
    try:
        pipe.recv()
        turn(contender.make(*contender.rehearsal), 1)
        before, start = rss_mib(), time.perf_counter()
        work = contender.make(*contender.arguments)
        work.wait()
        facts = dict(work.facts) | {"seconds_until_ready": time.perf_counter() - start, "held_mib": rss_mib() - before}
        units = [turn(work, 1)["wall"] for _ in range(contender.warm_up)]
        pipe.send(facts | {"unit_seconds": units[-1] if units else None})
        while (question := pipe.recv()) != "stop":
            if question > 1:
                turn(work, UNMEASURED)
            pipe.send(turn(work, question))
        pipe.send({"peak_mib": max(0.0, peak_mib() - before), "gpu_peak_mib": gpu_peak_mib()})
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send(str(error) if isinstance(error, PixelrlError) else f"{type(error).__name__}: {error}")


def turn(work: Work, units: int) -> dict[Clock, float]:
    """Do so many units, and return the seconds of each."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(units):
        work.unit()
    work.wait()
    return {"wall": (time.perf_counter() - wall) / units, "cpu": (time.process_time() - cpu) / units}


def rss_mib() -> float:
    """Return the memory that this process holds [MiB]."""
    return float(psutil.Process().memory_info().rss / 1024**2)


def peak_mib() -> float:
    """Return the most memory that this process has held [MiB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def gpu_peak_mib() -> float | None:
    """Return the most that tensors have taken on the GPU [MiB], if this process has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated() / 1024**2)


def load() -> float:
    """Return how busy the machine is: the load of the last minute for each core."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)

"""Contenders take turns, each in a process of its own, so that times and peaks of memory are its own too."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil
from rich.console import Console

from pixelrl.runtime.errors import PixelrlError

Clock = Literal["cpu", "wall"]
"""cpu: seconds of the processor, of all threads, which other programs hardly disturb; wall: what one waits for."""

MIB = 1024**2
UNMEASURED = 2
"""Units at the start of a turn of several that do not count: caches went cold while the others had their turns."""

PRELOAD = ("torch._dynamo", "benchmarks.cases", "pixelrl.training.execution", "pixelrl.datasets.buffer.load_dataset")
"""What every contender has imported from the start; not the module that was started itself."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every benchmark."""

    rounds: int = 7
    """turns of each contender"""
    turn_seconds: float = 1.0
    """how long a turn lasts at least"""
    clock: Clock | None = None
    """what ratios are taken of; default: cpu, but wall for data and on a GPU"""
    skip: tuple[str, ...] = ()
    """contenders to leave out"""
    out: Path | None = None
    """ledger to write; default: bench_NAME.json"""
    quick: bool = False
    """a moment of each in small, to see that it works; the figures mean nothing"""


DEFAULTS = Options()


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
    """

    make: Callable[..., Work]
    arguments: tuple[Any, ...]
    rehearsal: tuple[Any, ...]


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


def take_turns(title: str, contenders: Mapping[str, Contender], options: Options) -> dict[str, Result]:
    """Give every contender a turn in every round, one at a time, and return what each took.

    Raises:
        PixelrlError: a contender failed; the message is its own.
    """
    chosen = {name: contender for name, contender in contenders.items() if name not in options.skip}
    facts: dict[str, dict[str, Any]] = {}
    turns = {name: list[Mapping[Clock, float]]() for name in chosen}
    with processes(chosen) as asked, Console().status(title, refresh_per_second=1) as status:  # drawing takes time, too
        for name, ask in asked.items():
            status.update(f"{title}: {name} gets ready")
            facts[name] = ask("start")
            facts[name]["units_per_turn"] = max(1, int(options.turn_seconds / facts[name].pop("unit_seconds")))
        for number in range(options.rounds):
            for name, ask in asked.items():
                status.update(f"{title}: {name}, turn {number + 1} of {options.rounds}")
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
    process = psutil.Process()
    try:
        pipe.recv()
        turn(contender.make(*contender.rehearsal), 1)
        before, start = process.memory_info().rss, time.perf_counter()
        work = contender.make(*contender.arguments)
        work.wait()
        facts = dict(work.facts) | {
            "seconds_until_ready": time.perf_counter() - start,
            "held_mib": (process.memory_info().rss - before) / MIB,
        }
        turn(work, 1)
        pipe.send(facts | {"unit_seconds": turn(work, 1)["wall"]})
        while (question := pipe.recv()) != "stop":
            if question > 1:
                turn(work, UNMEASURED)
            pipe.send(turn(work, question))
        pipe.send({"peak_mib": max(0.0, peak_mib() - before / MIB), "gpu_peak_mib": gpu_peak_mib()})
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


def peak_mib() -> float:
    """Return the most memory that this process has held [MiB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def gpu_peak_mib() -> float | None:
    """Return the most that tensors have taken on the GPU [MiB], if this process has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated() / MIB)


def load() -> float:
    """Return how busy the machine is: the load of the last minute for each core."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)

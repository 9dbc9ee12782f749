"""A race: contenders take turns, each in a process of its own, so that times and peaks of memory are its own too."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from pixelrl.runtime.errors import PixelrlError

Clock = Literal["cpu", "wall"]
"""What ratios are taken of: seconds of the processor (of all threads), which other programs hardly disturb, or seconds
of the wall, which is what one waits for, on a GPU the only ones that count."""


AGAIN = 2
"""Units that are taken at the start of a turn of several, unmeasured: while others had theirs, caches and pages were
lost. A unit that fills a turn is too long to feel it."""

PRELOAD = ("benchmarks.learner", "benchmarks.data", "torch._dynamo")
"""What every contender has at hand from the start; the last one torch's optimisers would import."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a contender does, once it is ready.

    Attributes:
        unit: one update, one batch; its result is dropped.
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
        rehearsal: arguments of the same work in small, done and dropped first: what libraries take once is not counted.
        turns: at most so many measured ones (None: as many rounds as there are).
        warm: units to take first, unmeasured; with none, a turn is one unit.
    """

    make: Callable[..., Work]
    arguments: tuple[Any, ...]
    rehearsal: tuple[Any, ...]
    turns: int | None = None
    warm: int = 2


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a race told of a contender; seconds are of one unit.

    Attributes:
        turns: seconds of each turn, by the wall and by the processor; `wall` and `cpu` are their medians.
        held_mib, peak_mib: memory above what libraries take, before the first unit, and at its highest.
    """

    turns: Sequence[tuple[float, float]]
    units: int
    ready: float
    held_mib: float
    peak_mib: float
    gpu_peak_mib: float | None
    facts: Mapping[str, Any]

    @property
    def wall(self) -> float:
        """Return the seconds of a unit by the wall."""
        return self.seconds("wall")

    @property
    def cpu(self) -> float:
        """Return the seconds of a unit by the processor."""
        return self.seconds("cpu")

    def seconds(self, clock: Clock) -> float:
        """Return the seconds of a unit by a clock: the median of the turns."""
        return statistics.median(self.by_turns(clock))

    def by_turns(self, clock: Clock) -> list[float]:
        """Return the seconds of a unit by a clock, in each turn."""
        return [cpu if clock == "cpu" else wall for wall, cpu in self.turns]

    def row(self) -> dict[str, Any]:
        """Return JSON values."""
        named = {"wall_seconds": self.wall, "cpu_seconds": self.cpu, "per_second": 1 / self.wall}
        memory = {"held_mib": self.held_mib, "peak_mib": self.peak_mib, "gpu_peak_mib": self.gpu_peak_mib}
        counts = {"turns": len(self.turns), "units_per_turn": self.units, "seconds_until_ready": round(self.ready, 3)}
        return named | memory | counts | dict(self.facts)


def race(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    turn_seconds: float,
    progress: Callable[[str], None],
) -> dict[str, Result]:
    """Let every contender take a turn in every round, one at a time, and return what each took.

    Args:
        contenders: by name.
        rounds: how many turns each has.
        turn_seconds: how long a turn lasts at least: as many units as fit, and one at least.
        progress: called with the name of whoever is on.

    Raises:
        PixelrlError: a contender failed; the message is its own.
    """
    with _processes(contenders) as links:
        ready, units, turns = {}, {}, {name: list[tuple[float, float]]() for name in contenders}
        for name, link in links.items():
            progress(f"{name}: getting ready")
            link.send(contenders[name].warm)
            ready[name], warm = _answer(name, link)
            units[name] = max(1, int(turn_seconds / max(warm, 1e-9))) if contenders[name].warm else 1
        for turn in range(rounds):
            for name, link in links.items():
                if turn < (contenders[name].turns or rounds):
                    progress(f"{name}: turn {turn + 1}")
                    link.send(units[name])
                    turns[name].append(_answer(name, link))
        ends = {}
        for name, link in links.items():
            link.send(None)
            ends[name] = _answer(name, link)
    return {
        name: Result(
            turns=turns[name],
            units=units[name],
            ready=ready[name],
            held_mib=ends[name][0],
            peak_mib=ends[name][1],
            gpu_peak_mib=ends[name][2],
            facts=ends[name][3],
        )
        for name in contenders
    }


def by_rounds(results: Sequence[Result], clock: Clock) -> list[tuple[float, ...]]:
    """Return the seconds of a unit of each of them, for every round; their medians alone if some took fewer turns.

    Turns of a round follow one another, so whoever else is at work on the machine slows them alike.
    """
    if len({len(result.turns) for result in results}) > 1:
        return [tuple(result.seconds(clock) for result in results)]
    return list(zip(*(result.by_turns(clock) for result in results), strict=True))


@contextmanager
def _processes(contenders: Mapping[str, Contender]) -> Iterator[dict[str, Any]]:
    """Start a process for each contender, none of which has run anything yet; end them all."""
    context = get_context("forkserver")  # forks of a process that has imported the modules, and done nothing else
    context.set_forkserver_preload(list(PRELOAD))
    links: dict[str, Any] = {}
    processes = []
    try:
        for name, each in contenders.items():
            links[name], there = context.Pipe()
            process = context.Process(target=_serve, args=(there, each), daemon=True)
            process.start()
            there.close()
            processes.append(process)
        yield links
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _answer(name: str, link: Any) -> Any:
    """Wait for what a contender says."""
    try:
        good, answer = link.recv()
    except EOFError:
        raise PixelrlError(f"{name}: its process died; was the memory enough?") from None
    if not good:
        raise PixelrlError(f"{name}: {answer}")
    return answer


def _serve(link: Any, contender: Contender) -> None:
    """Be a contender: make the work, take turns, tell the peak of memory above what the libraries took."""
    try:
        warm = link.recv()
        _turn(contender.make(*contender.rehearsal), 1)
        before, start = resident_mib("VmRSS"), time.perf_counter()
        work = contender.make(*contender.arguments)
        work.wait()
        ready, held = time.perf_counter() - start, resident_mib("VmRSS") - before
        seconds = [_turn(work, 1)[0] for _ in range(warm)]
        link.send((True, (ready, seconds[-1] if warm else 0.0)))
        while (units := link.recv()) is not None:
            if units > 1:
                _turn(work, AGAIN)
            link.send((True, _turn(work, units)))
        link.send((True, (held, resident_mib("VmHWM") - before, gpu_peak_mib(), dict(work.facts))))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        link.send((False, str(error) if isinstance(error, PixelrlError) else f"{type(error).__name__}: {error}"))


def _turn(work: Work, units: int) -> tuple[float, float]:
    """Do so many units, and return the seconds of each by the wall and by the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(units):
        work.unit()
    work.wait()
    return (time.perf_counter() - wall) / units, (time.process_time() - cpu) / units


def resident_mib(field: Literal["VmRSS", "VmHWM"]) -> float:
    """Return this process's memory [MiB], now or at its peak; where there is no /proc, its peak for both."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let peaks of memory count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak_mib() -> float | None:
    """Return the most that tensors have taken on the GPU [MiB], if this process has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    peak: float = torch.cuda.max_memory_allocated() / 1024**2
    return peak


def load() -> float | None:
    """Return how busy the machine is: the load of the last minute for each core, where the system tells."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2) if hasattr(os, "getloadavg") else None

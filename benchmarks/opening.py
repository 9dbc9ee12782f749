"""`pixelrl bench data --opening N`: how long a cached data set of N transitions takes to open and to draw from."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.data import Frames, from_place, write_frames
from benchmarks.ledger import case_record, print_case
from benchmarks.race import Clock, Contender, load, race
from pixelrl.runtime.errors import PixelrlError

STEPS = 100
"""Transitions of a demo."""
FEWER = 100
"""How many times smaller the data set is that stands beside."""


def bench_opening(
    transitions: int, *, batch_size: int, clock: Clock, rounds: int, turn_seconds: float, console: Console
) -> dict[str, Any]:
    """Open caches of N and of N / 100 transitions, each in a fresh process, and draw batches; print both, return JSON.

    Pictures are 16 pixels wide: what grows with the number of transitions is measured, not the size of a picture. The
    caches are built before, so they are warm.

    Raises:
        PixelrlError: too few transitions.
    """
    if transitions < FEWER * max(STEPS, batch_size):
        raise PixelrlError(f"--opening {transitions}: must be at least {FEWER * max(STEPS, batch_size)}")
    frames = Frames(demos=transitions // STEPS, steps=STEPS, size=16, cameras=1, batch_size=batch_size)
    sizes = {f"{each.demos * STEPS:,}": each for each in (frames, replace(frames, demos=frames.demos // FEWER))}
    with tempfile.TemporaryDirectory(prefix="pixelrl-bench-") as folder, console.status("writing") as status:
        contenders = {}
        for name, each in sizes.items():
            path = Path(folder) / f"{each.demos}.hdf5"
            write_frames(path, each)
            from_place(path, each, "cache")
            small = (Path(folder) / f"{frames.demos // FEWER}.hdf5", sizes[min(sizes, key=len)], "cache")
            contenders[name] = Contender(make=from_place, arguments=(path, each, "cache"), rehearsal=small)
        results = race(contenders, rounds=rounds, turn_seconds=turn_seconds, progress=status.update)
    many, few = sizes
    record = case_record(results, {f"a batch of {many} / of {few}": (many, few)}, clock)
    record |= {"load_per_core": load(), "case": {"steps": STEPS, "size": frames.size, "batch_size": batch_size}}
    name = f"cached transitions, 16 px, batch {batch_size}"
    print_case(name, record, console, rows=batch_size, unit="batches")
    for label, result in results.items():
        console.print(f"  {label}: open in {result.ready:.2f} s")
    return {name: record}

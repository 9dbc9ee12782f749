"""Ledgers: what a benchmark measured, with where and how; and the options that all benchmarks have."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.turns import Clock, Result, load
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json


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


def case_record(results: Mapping[str, Result], pairs: Mapping[str, tuple[str, str]], clock: Clock) -> dict[str, Any]:
    """Return the JSON of one case: what each contender took, and its ratios.

    Args:
        results: by contender.
        pairs: ratio -> (numerator, denominator), left out where one of them did not run. Every ratio is a cost in
            seconds of one unit, so less is better: the median of the rounds' ratios; `spread` has their quartiles.
        clock: of the ratios.
    """
    record: dict[str, Any] = {"ratios": {}, "spread": {}, "load_per_core": load()}
    for name, (one, other) in pairs.items():
        if one not in results or other not in results:
            continue
        found = ratios(results[one], results[other], clock)
        record["ratios"][name] = median(found)
        if len(found) > 2:
            low, _, high = quantiles(found, n=4, method="inclusive")
            record["spread"][name] = [low, high]
    return record | {"contenders": {name: result.row() for name, result in results.items()}}


def ratios(one: Result, other: Result, clock: Clock) -> Sequence[float]:
    """Return the ratio of each round; of the medians if one of the two took fewer turns.

    Turns of a round follow one another, so what else is at work on the machine slows them alike.
    """
    if len(one.turns) != len(other.turns):
        return [one.seconds(clock) / other.seconds(clock)]
    return [a[clock] / b[clock] for a, b in zip(one.turns, other.turns, strict=True)]


def print_case(name: str, record: Mapping[str, Any], console: Console, columns: Mapping[str, str]) -> None:
    """Print a table of a case's contenders and then its ratios; `columns`: title -> key in a contender's row."""
    table = Table(title=name, title_justify="left")
    for label in ("", *columns):
        table.add_column(label, justify="right" if label else "left")
    for contender, row in record["contenders"].items():
        values = [row.get(key) for key in columns.values()]
        table.add_row(contender, *("-" if value is None else f"{value:,.3g}" for value in values))
    console.print(table)
    for label, value in record["ratios"].items():
        low, high = record["spread"].get(label, (None, None))
        middle = "" if low is None else f" (half of the rounds: {low:.3g} to {high:.3g})"
        console.print(f"  {label}: {value:.3g}{middle}", highlight=False)


def write_ledger(
    bench: str, records: Mapping[str, Any], options: Options, clock: Clock, provenance: Provenance, **settings: object
) -> None:
    """Write a ledger, and say where."""
    path = options.out or Path(f"bench_{bench}.json")
    further = {"rounds": options.rounds, "turn_seconds": options.turn_seconds, "quick": options.quick}
    command = {"command": ["python", "-m", f"benchmarks.{bench}", *sys.argv[1:]]}
    ledger = {"bench": bench, "clock": clock, "settings": settings | further, "cases": dict(records)}
    write_json(path, ledger | provenance.record() | command)
    Console().print(f"{path}: ledger", highlight=False)


def command_line(main: Callable[..., None], arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark with these arguments (default: of this process); a wrong one ends in one line."""
    try:
        tyro.cli(main, args=arguments)
    except PixelrlError as error:
        raise SystemExit(f"benchmarks: {error}") from error

"""Ledgers: what a benchmark measured, with where and how; and how a benchmark starts."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.turns import Clock, Options, Result, load
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json


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
        turns = zip(results[one].turns, results[other].turns, strict=True)
        found = [a[clock] / b[clock] for a, b in turns]  # turns of a round follow one another
        record["ratios"][name] = median(found)
        if len(found) > 2:
            low, _, high = quantiles(found, n=4, method="inclusive")
            record["spread"][name] = [low, high]
    return record | {"contenders": {name: result.row() for name, result in results.items()}}


def print_case(name: str, record: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Print a table of a case's contenders and then its ratios; `columns`: title -> key in a contender's row."""
    console, table = Console(), Table(title=name, title_justify="left")
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

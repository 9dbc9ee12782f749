"""The ledger: what a benchmark measured, with where and how, and whether it has become slower since."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.race import Clock, Result, by_rounds
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
    record: dict[str, Any] = {"ratios": {}, "spread": {}}
    for name, (one, other) in pairs.items():
        if one in results and other in results:
            found = [a / b for a, b in by_rounds((results[one], results[other]), clock)]
            note_ratio(record, name, found)
    return record | {"contenders": {name: result.row() for name, result in results.items()}}


def note_ratio(record: dict[str, Any], name: str, found: Sequence[float]) -> None:
    """Write the median of some ratios into a record, and, if there are a few of them, their quartiles."""
    record["ratios"][name] = median(found)
    if len(found) > 2:
        low, _, high = quantiles(found, n=4, method="inclusive")
        record["spread"][name] = [low, high]


def print_case(name: str, record: Mapping[str, Any], console: Console, *, rows: int, unit: str) -> None:
    """Print a case: a table of its contenders, then its ratios; `rows` is how many samples a unit has."""
    table = Table(title=name, title_justify="left")
    for label in ("", f"{unit}/s", "samples/s", "CPU s", "peak MiB", "GPU MiB"):
        table.add_column(label, justify="left" if not label else "right")
    for contender, row in record["contenders"].items():
        rate, gpu = row["per_second"], row["gpu_peak_mib"]
        figures = (f"{rate:,.3g}", f"{rate * rows:,.0f}", f"{row['cpu_seconds']:.3g}", f"{row['peak_mib']:,.0f}")
        table.add_row(contender, *figures, "-" if gpu is None else f"{gpu:,.0f}")
    console.print(table)
    for label, value in record["ratios"].items():
        inverse = f" = 1 / {1 / value:.3g}" if value < 1 else ""
        spread = record["spread"].get(label)
        middle = f" (half of the rounds: {spread[0]:.3g} to {spread[1]:.3g})" if spread else ""
        console.print(f"  {label}: {value:.3g}{inverse}{middle}")


def write_ledger(path: Path, record: Mapping[str, Any]) -> None:
    """Write a ledger."""
    write_json(path, dict(record))


def read_ledger(path: Path) -> dict[str, Any]:
    """Read a ledger.

    Raises:
        PixelrlError: it is missing, or is none.
    """
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PixelrlError(f"{path}: {error.strerror}; expected a ledger that `pixelrl bench` wrote") from error
    except ValueError as error:
        raise PixelrlError(f"{path}: is no JSON ({error}); expected a ledger that `pixelrl bench` wrote") from error
    if not isinstance(ledger, dict) or not {"bench", "clock", "cases", "machine"} <= ledger.keys():
        raise PixelrlError(f"{path}: has no bench, clock, cases and machine; expected what `pixelrl bench` wrote")
    return ledger


def compare(new: Mapping[str, Any], old: Mapping[str, Any], tolerance: float, console: Console) -> None:
    """Print how every ratio has changed since the ledger `old`.

    Only ratios are compared: within one run they hardly depend on the machine, and seconds do.

    Raises:
        PixelrlError: a ratio has grown by more than `tolerance` (0.25: by a quarter), or nothing can be compared.
    """
    for name in ("bench", "clock"):
        if new[name] != old[name]:
            raise PixelrlError(f"--compare: the ledger's {name} is {old[name]!r}; expected {new[name]!r}, as now")
    if new["machine"] != old["machine"]:
        console.print("the ledger is of another machine; even ratios may differ for that reason")
    table = Table("ratio (a cost)", "ledger", "now", "change")
    worst, found = ("", 0.0), False
    for case, record in new["cases"].items():
        before = old["cases"].get(case, {"ratios": {}})["ratios"]
        for label, value in record["ratios"].items():
            if label not in before:
                continue
            found, change = True, value / before[label] - 1
            worst = max(worst, (f"{case}: {label}", change), key=lambda each: each[1])
            mark = "  slower" if change > tolerance else ""
            table.add_row(f"{case}: {label}", f"{before[label]:.3g}", f"{value:.3g}", f"{change:+.0%}{mark}")
    if not found:
        raise PixelrlError(f"--compare: no ratio in common; the ledger's cases are {', '.join(old['cases'])}")
    console.print(table)
    if worst[1] > tolerance:
        raise PixelrlError(f"{worst[0]} has grown by {worst[1]:.0%}; --tolerance allows {tolerance:.0%}")

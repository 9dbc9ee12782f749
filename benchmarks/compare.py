"""`python -m benchmarks.compare OLD NEW`: compare two ledgers, ratio by ratio."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from benchmarks.ledger import command_line
from pixelrl.runtime.errors import PixelrlError


def main(old: Positional[Path], new: Positional[Path], /, tolerance: float = 0.25) -> None:
    """Print how every ratio has changed; end with 1 if one has grown beyond the tolerance.

    Only ratios are compared: within one run they hardly depend on the machine, and seconds do.

    Args:
        old: the earlier ledger.
        new: the later one.
        tolerance: by how much a ratio may grow; 0.25: by a quarter.
    """
    before, after = read_ledger(old), read_ledger(new)
    for name in ("bench", "clock"):
        if after[name] != before[name]:
            raise PixelrlError(f"{old}: {name} is {before[name]!r}; expected {after[name]!r}, as in {new}")
    console = Console()
    if after["machine"] != before["machine"]:
        console.print("the ledgers are of two machines; even ratios may differ for that reason")
    table = Table("ratio (a cost)", "old", "new", "change")
    grown: dict[str, float] = {}
    for case, record in after["cases"].items():
        earlier = before["cases"].get(case, {"ratios": {}})["ratios"]
        for label in record["ratios"].keys() & earlier.keys():
            was, now = earlier[label], record["ratios"][label]
            grown[f"{case}: {label}"] = now / was - 1
            table.add_row(f"{case}: {label}", f"{was:.3g}", f"{now:.3g}", f"{now / was - 1:+.0%}")
    if not grown:
        raise PixelrlError(f"{old}, {new}: no ratio in common; cases of the former: {', '.join(before['cases'])}")
    console.print(table)
    worst = max(grown, key=lambda name: grown[name])
    if grown[worst] > tolerance:
        raise PixelrlError(f"{worst} has grown by {grown[worst]:.0%}; --tolerance allows {tolerance:.0%}")


def read_ledger(path: Path) -> dict[str, Any]:
    """Read a ledger.

    Raises:
        PixelrlError: it is missing, or is none.
    """
    expected = "expected a ledger that a benchmark wrote"
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PixelrlError(f"{path}: {error.strerror}; {expected}") from error
    except ValueError as error:
        raise PixelrlError(f"{path}: is no JSON ({error}); {expected}") from error
    if not isinstance(ledger, dict) or not {"bench", "clock", "cases", "machine"} <= ledger.keys():
        raise PixelrlError(f"{path}: has no bench, clock, cases and machine; {expected}")
    return ledger


if __name__ == "__main__":
    command_line(main)

"""Choosing a checkpoint without a simulator, by rules that are stated beforehand and reported with the result."""

import csv
import math
import re
from pathlib import Path
from typing import Literal

from rich.console import Console

from pixelrl.runtime.errors import PixelrlError

Select = Literal["last", "q_peak", "td_error"]
"""Which checkpoint of a run is used.

- last: the last one.
- q_peak: the snapshot where the mean Q of recorded actions is highest (arXiv 2109.10813): later it unlearns.
- td_error: the snapshot whose TD error on held-out episodes is least (arXiv 2304.10466); takes `train --held-out`.
"""


def select_step(run: Path, rule: Select, step: int | None) -> int | None:
    """Return the step of the snapshot that a rule chooses, None for the last checkpoint.

    Args:
        run: directory of a training run.
        rule: see `Select`.
        step: that was asked for by its number.

    Raises:
        PixelrlError: a rule beside a number, or a run without what the rule needs.
    """
    if rule == "last":
        return step
    if step is not None:
        raise PixelrlError(f"--select {rule} chooses the step, and --step {step} names one; give one of them")
    names = (path.stem for path in (run / "snapshots").glob("*.safetensors"))
    steps = sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))  # others are not ours
    if not steps:
        raise PixelrlError(f"{run}: has no snapshots to choose from; train with --snapshot-every 1000, say")
    return q_peak(run, steps) if rule == "q_peak" else least_error(run, steps)


def q_peak(run: Path, steps: list[int]) -> int:
    """Return the step with the highest mean Q of recorded actions over the reports since the step before it."""
    rows = read_q(run / "metrics.csv")
    means: dict[int, float] = {}
    for before, step in zip([0, *steps], steps, strict=False):
        found = [value for at, value in rows if before < at <= step and math.isfinite(value)]
        if found:
            means[step] = sum(found) / len(found)
    if not means:
        raise PixelrlError(f"{run}: metrics.csv has no q/data to choose a snapshot by; its recipe has no critic")
    return max(means, key=lambda step: means[step])


def read_q(path: Path) -> list[tuple[int, float]]:
    """Return step and mean Q of every report that has one.

    Raises:
        PixelrlError: a cell that is no number.
    """
    found = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if text := row.get("q/data"):
                try:
                    found.append((int(row["step"]), float(text)))
                except (ValueError, LookupError) as error:
                    cells = f"step {row.get('step')!r:.40} and q/data {text!r:.40}"
                    raise PixelrlError(f"{path}: line {reader.line_num}: {cells}; expected numbers") from error
    return found


def least_error(run: Path, steps: list[int]) -> int:
    """Return the step with the least TD error on the episodes that were held out."""
    from pixelrl.launch.commands.probe import probe_run

    found = probe_run(run, steps, 2048, 0, Console(quiet=True), held_out=True)
    errors = {step: value for step, each in found.items() if (value := each.get("q/td_error")) is not None}
    if not errors:
        raise PixelrlError(f"{run}: no snapshot has a finite TD error; its recipe has no critic")
    return min(errors, key=lambda step: errors[step])

"""Tell what is in data sets, what is wrong with them, and whether training may start."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from pixelrl.datasets.inspect.checks import Role
from pixelrl.datasets.inspect.contact_sheet import contact_rows
from pixelrl.datasets.inspect.report import InspectionReport, FileReport
from pixelrl.datasets.inspect.inspector import Progress, inspect_files
from pixelrl.datasets.inspect.issues import Issue
from pixelrl.datasets.inspect.crash_probe import crashing_files
from pixelrl.datasets.buffer.transition_table import ActionRange
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.console import progress_bar
from pixelrl.launch.reports.inspection_page import write_inspection_page
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.video import Row, contact_sheet

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def inspect(
    files: Sequence[Path],
    *,
    task: Sequence[Path] = (),
    prior: Sequence[Path] = (),
    reference: Path | None = None,
    return_range: tuple[float, float] | None = None,
    sample: int | None = None,
    actions: ActionRange = "unit",
    as_json: bool = False,
    html: bool = False,
    sheet: bool = True,
    console: Console,
) -> InspectionReport:
    """Print a report on each file and what is wrong between them, and write it (and a contact sheet) beside each file.

    With `as_json` the console gets JSON and nothing else; progress goes to the standard error.

    Raises:
        DataError: training may not start: there is an error, told of after all reports.
        PixelrlError: no files, or an option that cannot be.
    """
    given: list[tuple[Path, Role]] = [(path, "task") for path in task]
    given += [(path, "prior") for path in prior]
    given += [(path, "data") for path in files]
    if not given:
        raise PixelrlError("no files to look at; name some, or give --task and --prior")
    if sample is not None and sample < 1:
        raise PixelrlError(f"--sample is {sample}; it must be at least 1")
    if return_range is not None and not return_range[0] < return_range[1]:
        raise PixelrlError(f"--return-range is {return_range}; the first must be below the second")
    provenance = Provenance()
    closed = crashing_files([path for path in (*(path for path, _ in given), reference) if path is not None and path.is_file()])
    with _progress(Console(stderr=True) if as_json else console) as progress:
        found = inspect_files(
            given,
            sample=sample,
            actions=actions,
            reference=reference,
            return_range=return_range,
            closed=closed,
            progress=progress,
        )
    record = provenance.record()
    if as_json:
        whole = {"fit": found.fit, "verdict": verdict(found), **asdict(found), **record}
        console.file.write(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        for report in found.reports:
            print_report(report, console)
        print_issues(found.between, console, files=True)
    said = Console(quiet=True) if as_json else console
    _write(found, record, sheet=sheet, html=html, console=said)
    if not found.fit:
        raise DataError(verdict(found))
    said.print(verdict(found), style="bold green", highlight=False, soft_wrap=True)
    return found


def verdict(found: InspectionReport) -> str:
    """Return one line: whether training may start, and what speaks against it."""
    counts = ", ".join(f"{found.count(level)} {level}s" for level in COLOURS)
    if found.fit:
        return f"training may start: {counts}"
    first = found.issues[0]
    start = "" if first.message.startswith(first.file) else f"{first.file}: {first.where}: "
    return f"training may not start ({counts}): {start}{first.message}"


def print_report(report: FileReport, console: Console) -> None:
    """Print a report as tables."""
    role = "" if report.role == "data" else f"  [{report.role}]"
    console.print(
        f"[bold]{escape(report.path)}[/]{escape(role)}  {decimal(report.bytes)}  {escape(report.environment)}"
    )
    if report.all_lengths:
        triple = "{:.4g} / {:.4g} / {:.4g}".format
        facts = Table("demos", "transitions", "steps (min/median/max)", "return (min/median/max)", "success")
        lengths, returns = triple(*report.lengths), triple(*report.returns)
        facts.add_row(str(report.demos), str(report.transitions), lengths, returns, f"{report.success:.1%}")
        keys = Table("observation", "shape", "type", "in memory", "compression")
        for key in report.keys:
            keys.add_row(key.name, str(key.shape), key.dtype, decimal(key.bytes), key.compression)
        actions = Table("action", "unit", "min", "max", "mean", "std", "clipped")
        for dim in report.actions:
            numbers = (f"{value:.3f}" for value in (dim.low, dim.high, dim.mean, dim.std))
            actions.add_row(dim.name, dim.unit, *numbers, f"{dim.clipped:.1%}")
        console.print(facts, keys, actions)
        for line in measures(report):
            console.print(escape(line), highlight=False)
    for note, values in report.notes.items():
        console.print(f"{escape(note)}: " + ", ".join(f"{escape(value)} ({n})" for value, n in values.items()))
    print_issues(report.issues, console)


def measures(report: FileReport) -> Iterator[str]:
    """Yield lines on what was looked at, TQ and SACo."""
    yield f"looked at: all numbers; pictures of {report.looked_demos} of {report.demos} demos, {report.looked_frames}"
    if report.quality is not None:
        tq = "undefined (all returns alike)" if report.quality.tq is None else f"{report.quality.tq:.3f}"
        yield f"TQ {tq}: mean return {report.quality.mean:.4g} between {report.quality.lowest:.4g} and " + (
            f"{report.quality.expert:.4g}, {report.quality.reference}"
        )
    if report.coverage is not None:
        share = report.coverage.unique / max(1, report.coverage.counted)
        yield f"SACo {report.coverage.saco:.3f}: {report.coverage.unique} unique state-action pairs in " + (
            f"{report.coverage.counted} transitions ({share:.0%}), relative to {report.coverage.reference}"
        )


def print_issues(issues: Sequence[Issue], console: Console, *, files: bool = False) -> None:
    """Print issues, a line each, and beneath it what helps."""
    for issue in issues:
        label = f"[{COLOURS[issue.level]}]{issue.level}[/]"
        where = f"{issue.file}: {issue.where}" if files else issue.where
        console.print(f"{label} {escape(where)}: {escape(issue.message)}", soft_wrap=True)
        if issue.fix:
            console.print(f"    fix: {escape(issue.fix)}", highlight=False, soft_wrap=True)


def _write(found: InspectionReport, record: dict[str, Any], *, sheet: bool, html: bool, console: Console) -> None:
    """Write JSON and contact sheets beside the files, and the page beside the first; where nobody may, say so."""
    sheets: dict[str, bytes] = {}
    readable = [report for report in found.reports if report.all_lengths]
    for report in readable:
        path = Path(report.path)
        try:
            write_json(path.with_suffix(".inspection.json"), {**asdict(report), **record})
            if (sheet or html) and (rows := contact_rows(path)):
                sheets[report.path] = _sheet(path, rows, keep=sheet, console=console)
        except OSError as error:
            console.print(f"{path}: nothing written beside it: {error.strerror}", soft_wrap=True)
    if html and found.reports:
        page = Path(found.reports[0].path).with_suffix(".inspection.html")
        write_inspection_page(page, found, verdict(found), sheets, record)
        console.print(f"{page}: all of this with pictures")


def _sheet(path: Path, rows: Sequence[Row], *, keep: bool, console: Console) -> bytes:
    """Draw a contact sheet, keep it beside the file if asked for, and return its bytes."""
    if keep:
        picture = path.with_suffix(".inspection.png")
        contact_sheet(picture, rows, title=path.name)
        console.print(f"{picture}: contact sheet")
        return picture.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "sheet.png"
        contact_sheet(picture, rows, title=path.name)
        return picture.read_bytes()


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """Show what is being read."""
    with progress_bar(console) as bar:
        job = bar.add_task("read", total=None, note="")

        def tell(what: str, done: int, total: int) -> None:
            bar.update(job, description=what, completed=done, total=total)

        yield tell

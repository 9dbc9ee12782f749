"""`pixelrl inspect`: what is in data sets, what is wrong with them, and whether training may start."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.text import Text
from tyro.conf import Positional

from pixelrl.launch.console import named_progress, plain_console, table_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pixelrl.datasets.inspect.issues import Issue, Role
    from pixelrl.datasets.inspect.report import FileReport, InspectionReport
    from pixelrl.runtime.video import Row

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Tell what is in data sets and what is wrong with them; with --task and --prior also whether they fit together.

    Errors: training may not start, and the exit code is 1. Warnings: it may, and what comes out may be spoilt.
    """

    files: Positional[tuple[Path, ...]] = ()
    """robomimic HDF5 files, each inspected by itself (and searched for copies of the others' demos)"""
    task: tuple[Path, ...] = ()
    """files as `train --task` takes them; with --prior they are compared with each other"""
    prior: tuple[Path, ...] = ()
    """files as `train --prior` takes them"""
    task_rename: tuple[str, ...] = ()
    """OLD=NEW ..., as `train --task-rename` takes them, also for files that are given by themselves"""
    prior_rename: tuple[str, ...] = ()
    """OLD=NEW ..., as `train --prior-rename` takes them"""
    recipe: str = "quick_cog_dr3"
    """what the data are for: a recipe, and other options of `train` but the files', say "cog --reward-shift 1"; files
    that are given by themselves are only warned of what does not fit it"""
    reference: Path | None = None
    """a file, say of an expert, that trajectory quality (TQ) and coverage (SACo) are relative to"""
    return_range: tuple[float, float] | None = None
    """mean returns of a random policy and of an expert, for TQ"""
    sample: int | None = None
    """look at the pictures of so many demos of each file, evenly spaced; default: of all, up to 4 GiB a file"""
    actions: ActionRange = "unit"
    """min-max: they are to be normalised, so a range beyond [-1, 1] is no error"""
    json: bool = False
    """print JSON on the standard output and nothing else"""
    html: bool = False
    """write FILE.inspection.html, one page with figures and contact sheets, named after the first file"""
    sheet: bool = True
    """write a contact sheet, FILE.inspection.png, of each file"""
    out: Path | None = None
    """directory for what is written; default: beside each file"""

    def __call__(self) -> None:
        """Print a report on each file and what is wrong between them, and write it beside each file, or to `--out`.

        Raises:
            DataError: training may not start: there is an error, told of after all reports.
            PixelrlError: no files, or an option that cannot be.
        """
        from pixelrl.datasets.inspect.crash_probe import crashing_files
        from pixelrl.datasets.inspect.inspector import inspect_files
        from pixelrl.launch.training_trial import selections, training_options, try_training, with_training

        given = self._given()
        rename = {"task_rename": self.task_rename, "prior_rename": self.prior_rename}
        options = training_options(self.recipe, self.actions, **rename)
        provenance, console = Provenance(), plain_console()
        paths = [path for path, _ in given] + ([self.reference] if self.reference is not None else [])
        with named_progress(plain_console(stderr=True) if self.json else console) as progress:
            report = inspect_files(
                given,
                sample=self.sample,
                actions=options.actions,
                reference=self.reference,
                return_range=self.return_range,
                unsafe=crashing_files([path for path in paths if path.is_file()]),
                selections=selections(options),
                progress=progress,
            )
        issues, ledger = try_training(self.task, self.prior, self.files, options)
        report = with_training(report, issues, ledger)
        record = provenance.record()
        if self.json:
            whole = {"fit": report.fit, "verdict": verdict(report, self.recipe), **asdict(report), **record}
            console.file.write(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            console = plain_console(quiet=True)
        for each in report.reports:
            print_report(each, console)
        print_issues(report.between, console, with_file=True)
        for line in report.ledger:
            console.print(Text(line), highlight=False, soft_wrap=True)
        self._write(report, record, console)
        if not report.fit:
            raise DataError(verdict(report, self.recipe))
        console.print(verdict(report, self.recipe), style="bold green", highlight=False, soft_wrap=True)

    def _given(self) -> list[tuple[Path, Role]]:
        """Return the files with their roles, or raise about options that cannot be."""
        given: list[tuple[Path, Role]] = [(path, "task") for path in self.task]
        given += [(path, "prior") for path in self.prior]
        given += [(path, "data") for path in self.files]
        if not given:
            raise PixelrlError("no files to look at; name some, or give --task and --prior")
        for path in (*(path for path, _ in given), *([self.reference] if self.reference is not None else [])):
            if not path.exists():
                raise PixelrlError(f"{path}: no such file; expected one in robomimic's HDF5 format")
        if self.sample is not None and self.sample < 1:
            raise PixelrlError(f"--sample is {self.sample}; it must be at least 1")
        if self.return_range is not None and not self.return_range[0] < self.return_range[1]:
            raise PixelrlError(f"--return-range is {self.return_range}; the first must be below the second")
        pages = {path: self._place(path, "json") for path, _ in given}
        for path, page in pages.items():
            if others := [other for other, same in pages.items() if same == page and other != path]:
                raise PixelrlError(f"{path}, {others[0]}: both would be told of in {page}; inspect them apart")
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
        return given

    def _place(self, path: Path, ending: str) -> Path:
        """Return where something about a file is written."""
        return (path if self.out is None else self.out / path.name).with_suffix(f".inspection.{ending}")

    def _write(self, report: InspectionReport, record: dict[str, Any], console: Console) -> None:
        """Write JSON, contact sheets and the page; tell where that fails."""
        from pixelrl.datasets.inspect.inspector import contact_rows
        from pixelrl.launch.reports.inspection_page import write_inspection_page

        sheets: dict[str, bytes] = {}
        for each in report.reports:
            path = Path(each.path)
            try:
                if each.all_lengths:
                    write_json(self._place(path, "json"), {**asdict(each), **record})
                    if (self.sheet or self.html) and (rows := contact_rows(path)):
                        sheets[each.path] = self._draw(path, rows, console)
            except OSError as error:
                self._tell(path, error, console)
        if self.html:
            page = self._place(Path(report.reports[0].path), "html")
            try:
                write_inspection_page(page, report, verdict(report, self.recipe), sheets, record)
            except OSError as error:
                self._tell(page, error, console)
            else:
                console.print(f"{page}: all of this with pictures", soft_wrap=True, highlight=False)

    def _tell(self, path: Path, error: OSError, console: Console) -> None:
        """Say that something about a file could not be written, which keeps nobody from the verdict."""
        where, advice = ("beside it", "; --out DIRECTORY takes another place") if self.out is None else (self.out, "")
        console.print(f"{path}: nothing written {where} ({error.strerror}){advice}", soft_wrap=True, highlight=False)

    def _draw(self, path: Path, rows: Sequence[Row], console: Console) -> bytes:
        """Draw a contact sheet, keep it if asked for, and return its bytes."""
        from pixelrl.runtime.video import contact_sheet

        with tempfile.TemporaryDirectory() as folder:
            picture = self._place(path, "png") if self.sheet else Path(folder) / "sheet.png"
            contact_sheet(picture, rows, title=path.name)
            if self.sheet:
                console.print(f"{picture}: contact sheet", soft_wrap=True, highlight=False)
            return picture.read_bytes()


def verdict(report: InspectionReport, recipe: str) -> str:
    """Return one line: whether training may start, with which recipe, and what speaks against it."""
    counts = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level in COLOURS for n in [report.count(level)])
    if report.fit:
        return f"training may start with {recipe}: {counts}"
    first, more = report.issues[0], report.count("error") - 1
    start = "" if first.message.startswith(first.file) else f"{first.file}: {first.subject}: "
    rest = f" (and {more} more error{'s' * (more > 1)})" if more else ""
    return f"training may not start with {recipe} ({counts}): {start}{first.message}{rest}"


def print_report(report: FileReport, console: Console) -> None:
    """Print a report as tables."""
    role = "" if report.role == "data" else f"  [{report.role}]"
    rest = f"{role}  {decimal(report.bytes)}  {report.environment}"
    console.print(Text.assemble((report.path, "bold"), rest))
    if report.all_lengths:
        triple = "{:.4g} / {:.4g} / {:.4g}".format
        facts = table_of("demos", "transitions", "steps (min/median/max)", "return (min/median/max)", "success")
        lengths, returns = triple(*report.lengths), triple(*report.returns)
        facts.add_row(str(report.demos), str(report.transitions), lengths, returns, f"{report.success:.1%}")
        keys = table_of("observation", "shape", "type", "in memory", "compression")
        for key in report.keys:
            keys.add_row(key.name, str(key.shape), key.dtype, decimal(key.bytes), key.compression)
        actions = table_of("action", "unit", "min", "max", "mean", "std", "clipped")
        for dim in report.actions:
            numbers = (f"{value:.3f}" for value in (dim.low, dim.high, dim.mean, dim.std))
            actions.add_row(dim.name, dim.unit, *numbers, f"{dim.clipped:.1%}")
        console.print(facts, keys, actions)
        for line in _measures(report):
            console.print(line, highlight=False)
    for note, values in report.notes.items():
        console.print(f"{note}: " + ", ".join(f"{value} ({n})" for value, n in values.items()))
    print_issues(report.issues, console)


def _measures(report: FileReport) -> Iterator[str]:
    """Yield lines on what was looked at, TQ and SACo."""
    yield f"looked at: all numbers; pictures of {report.looked_demos} of {report.demos} demos, {report.looked_frames}"
    if (quality := report.quality) is not None:
        tq = "undefined (all returns alike)" if quality.tq is None else f"{quality.tq:.3f}"
        between = f"between {quality.lowest:.4g} and {quality.expert:.4g}, {quality.reference}"
        yield f"trajectory quality (TQ) {tq}: mean return {quality.mean:.4g} {between}"
    if (coverage := report.coverage) is not None:
        pairs = f"{coverage.unique} different state-action pairs in {coverage.counted} transitions"
        share = coverage.unique / max(1, coverage.counted)
        yield f"coverage (SACo) {coverage.saco:.3f}: {pairs} ({share:.0%}), relative to {coverage.reference}"


def print_issues(issues: Sequence[Issue], console: Console, *, with_file: bool = False) -> None:
    """Print issues, a line each, and beneath it what helps."""
    for issue in issues:
        where = f"{issue.file}: {issue.subject}" if with_file else issue.subject
        line = Text.assemble((issue.level, COLOURS[issue.level]), f" {where}: {issue.message}")
        console.print(line, soft_wrap=True)
        if issue.fix:
            console.print(Text(f"    fix: {issue.fix}"), highlight=False, soft_wrap=True)

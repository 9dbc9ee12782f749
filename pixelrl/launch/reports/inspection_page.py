"""The doctor's report as one HTML page: tables, SVG figures, contact sheets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from pixelrl.datasets.inspect.report import ActionSummary, Diagnosis, Report
from pixelrl.datasets.inspect.issues import Finding
from pixelrl.launch.reports.inspection_figures import bars, counts, curve, heat
from pixelrl.launch.reports.markup import figure, origin, picture, table, text, write_document


def write_page(
    path: Path, diagnosis: Diagnosis, verdict: str, sheets: Mapping[str, bytes], record: Mapping[str, Any]
) -> None:
    """Write the page, atomically.

    Args:
        path: of the page.
        diagnosis: what was found.
        verdict: in one line.
        sheets: file -> its contact sheet as PNG.
        record: where the result comes from; see `Provenance`.
    """
    mood = "good" if diagnosis.fit else "error"
    parts = [
        f"<h1>Dataset inspection</h1><div class='verdict {mood}'>{text(verdict)}</div>",
        origin(record),
        _overview(diagnosis.reports),
        f"<h3>Between the files</h3>{_findings(diagnosis.between)}" if len(diagnosis.reports) > 1 else "",
        *(_file(report, sheets.get(report.path)) for report in diagnosis.reports),
    ]
    write_document(path, f"Inspection of {Path(diagnosis.reports[0].path).name}", parts)


def _overview(reports: Sequence[Report]) -> str:
    """Return a table with a row for each file."""
    rows = []
    for report in reports:
        quality, coverage = report.quality, report.coverage
        tq = "-" if quality is None or quality.tq is None else f"{quality.tq:.3f}"
        saco = "-" if coverage is None else f"{coverage.saco:.3f}"
        found = [f"{sum(f.level == level for f in report.findings)}" for level in ("error", "warning", "note")]
        numbers = (report.demos, report.transitions, f"{report.success:.1%}", tq, saco, *found)
        rows.append([f"<code>{text(Path(report.path).name)}</code>", report.role, decimal(report.bytes), *numbers])
    head = ("file", "as", "size", "demos", "transitions", "success", "TQ", "SACo", "errors", "warnings", "notes")
    return table(head, rows)


def _file(report: Report, sheet: bytes | None) -> str:
    """Return all about one file."""
    parts = [f"<h2>{text(report.path)}</h2>", f"<div class=soft>{text(report.environment)}</div>"]
    parts.append(f"<h3>Findings</h3>{_findings(report.findings)}")
    if not report.all_lengths:
        return "".join(parts)
    parts += [_measures(report), _keys(report), _actions(report.actions), _notes(report.notes)]
    if sheet is not None:
        parts.append(f"<h3>Pictures</h3>{picture(sheet, f'demos of {Path(report.path).name}')}")
    return "".join(parts)


def _findings(findings: Sequence[Finding]) -> str:
    """Return a table of findings with their places."""
    if not findings:
        return "<div class=good>nothing is wrong</div>"
    rows = []
    for finding in findings:
        fix = f"<br>fix: <code>{text(finding.fix)}</code>" if finding.fix else ""
        rows.append(
            [
                f"<b class={finding.level}>{finding.level}</b>",
                text(finding.check),
                f"<code>{text(finding.place)}</code>",
                text(finding.message) + fix,
            ]
        )
    return table(("", "check", "first place", "what"), rows)


def _measures(report: Report) -> str:
    """Return the figures of demos as a whole: lengths, returns, coverage."""
    looked = f"All numbers were read, and the pictures of {report.looked_demos} of {report.demos} demos "
    parts = [f"<p class=soft>{looked}({report.looked_frames} frames).</p><div class=row>"]
    parts.append(figure(counts(report.all_lengths), "length of the demos [steps]"))
    if report.all_returns:
        parts.append(figure(counts(report.all_returns), "return of the demos (undiscounted)"))
    if report.coverage is not None:
        found = report.coverage
        caption = f"SACo {found.saco:.3f}: {found.unique} unique state-action pairs, relative to {found.reference}; "
        caption += "drawn against the transitions seen: flat means that more of the same adds nothing"
        parts.append(figure(curve(found.growth), caption))
    if report.map:
        parts.append(figure(heat(report.map), "where the hand was: first two axes, over the range of all files"))
    parts.append("</div>")
    if report.quality is not None:
        found_tq = "undefined" if report.quality.tq is None else f"{report.quality.tq:.3f}"
        parts.append(
            f"<p>TQ {found_tq}: mean return {report.quality.mean:.4g} between {report.quality.lowest:.4g} and "
            f"{report.quality.expert:.4g}, {text(report.quality.reference)}.</p>"
        )
    return "".join(parts)


def _keys(report: Report) -> str:
    """Return a table of the observations."""
    rows = [
        [f"<code>{text(k.name)}</code>", "x".join(map(str, k.shape)), k.dtype, decimal(k.bytes), k.compression]
        for k in report.keys
    ]
    return "<h3>Observations</h3>" + table(("key", "shape", "type", "in memory", "compression"), rows)


def _actions(dims: Sequence[ActionSummary]) -> str:
    """Return a histogram and the numbers of each action dimension."""
    figures = [
        figure(
            bars(dim.histogram, "-1", "1"),
            f"{text(dim.name)} [{text(dim.unit)}]: {dim.low:.3f} to {dim.high:.3f}, mean {dim.mean:.3f}, "
            f"std {dim.std:.3f}, at +-1 in {dim.clipped:.1%}",
        )
        for dim in dims
    ]
    return f"<h3>Actions</h3><div class=row>{''.join(figures)}</div>"


def _notes(notes: Mapping[str, Mapping[str, int]]) -> str:
    """Return the writer's notes, counted."""
    rows = [
        [text(note), ", ".join(f"{text(value)} ({n})" for value, n in values.items())] for note, values in notes.items()
    ]
    return "<h3>Notes of the writer</h3>" + table(("note", "values (demos)"), rows) if rows else ""

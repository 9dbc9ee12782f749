"""The doctor's report as one HTML page that needs nothing else: tables, SVG figures, contact sheets as data.

It reads the browser's light or dark mode, and holds no script and no link.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from pixelrl.datasets.diagnosis import ActionSummary, Diagnosis, Report
from pixelrl.datasets.findings import Finding
from pixelrl.files import atomic_path
from pixelrl.launch.figures import bars, counts, curve, heat

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5d6570; --paper: #fbfbf9; --card: #ffffff; --line: #dcdfe3;
  --mark: #2f6fb0; --error: #b3261e; --warning: #8a5a00; --note: #17677a; --good: #1c7a45; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa3ae; --paper: #14171b; --card: #1d2127;
  --line: #343a42; --mark: #74aee8; --error: #ff8a80; --warning: #f0bd59; --note: #6fc6da; --good: #6fd39b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; color: var(--soft); font-weight: 600; }
.verdict { font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.good { color: var(--good); } .error { color: var(--error); } .warning { color: var(--warning); }
.note { color: var(--note); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.n { text-align: right; } td.say { overflow-wrap: break-word; }
td:first-child { white-space: nowrap; overflow-wrap: normal; }
code { font: .87em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.row { display: flex; align-items: flex-start; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: .6rem .7rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: .82rem; color: var(--soft); max-width: 15.5rem; }
svg { display: block; } svg .b { fill: var(--mark); } svg .l { stroke: var(--mark); fill: none; stroke-width: 2; }
svg .a { stroke: var(--line); } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
img { max-width: 100%; border-radius: 8px; border: 1px solid var(--line); }
"""


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
    origin = f"pixelrl {record['version']}, {record['began']}, {record['seconds']} s: {' '.join(record['command'])}"
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Inspection of {_text(Path(diagnosis.reports[0].path).name)}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Dataset inspection</h1><div class='verdict {mood}'>{_text(verdict)}</div>",
        f"<div class=soft><code>{_text(origin)}</code></div>",
        _overview(diagnosis.reports),
        f"<h3>Between the files</h3>{_findings(diagnosis.between)}" if len(diagnosis.reports) > 1 else "",
        *(_file(report, sheets.get(report.path)) for report in diagnosis.reports),
        "</body></html>",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _overview(reports: Sequence[Report]) -> str:
    """Return a table with a row for each file."""
    rows = []
    for report in reports:
        quality, coverage = report.quality, report.coverage
        tq = "-" if quality is None or quality.tq is None else f"{quality.tq:.3f}"
        saco = "-" if coverage is None else f"{coverage.saco:.3f}"
        found = [f"{sum(f.level == level for f in report.findings)}" for level in ("error", "warning", "note")]
        numbers = (report.demos, report.transitions, f"{report.success:.1%}", tq, saco, *found)
        rows.append([f"<code>{_text(Path(report.path).name)}</code>", report.role, decimal(report.bytes), *numbers])
    head = ("file", "as", "size", "demos", "transitions", "success", "TQ", "SACo", "errors", "warnings", "notes")
    return _table(head, rows)


def _file(report: Report, sheet: bytes | None) -> str:
    """Return all about one file."""
    parts = [f"<h2>{_text(report.path)}</h2>", f"<div class=soft>{_text(report.environment)}</div>"]
    parts.append(f"<h3>Findings</h3>{_findings(report.findings)}")
    if not report.all_lengths:
        return "".join(parts)
    parts += [_measures(report), _keys(report), _actions(report.actions), _notes(report.notes)]
    if sheet is not None:
        data = base64.b64encode(sheet).decode()
        name = _text(Path(report.path).name)
        parts.append(f"<h3>Pictures</h3><img alt='demos of {name}' src='data:image/png;base64,{data}'>")
    return "".join(parts)


def _findings(findings: Sequence[Finding]) -> str:
    """Return a table of findings with their places."""
    if not findings:
        return "<div class=good>nothing is wrong</div>"
    rows = []
    for finding in findings:
        fix = f"<br>fix: <code>{_text(finding.fix)}</code>" if finding.fix else ""
        rows.append(
            [
                f"<b class={finding.level}>{finding.level}</b>",
                _text(finding.check),
                f"<code>{_text(finding.place)}</code>",
                _text(finding.message) + fix,
            ]
        )
    return _table(("", "check", "first place", "what"), rows)


def _measures(report: Report) -> str:
    """Return the figures of demos as a whole: lengths, returns, coverage."""
    looked = f"All numbers were read, and the pictures of {report.looked_demos} of {report.demos} demos "
    parts = [f"<p class=soft>{looked}({report.looked_frames} frames).</p><div class=row>"]
    parts.append(_figure(counts(report.all_lengths), "length of the demos [steps]"))
    if report.all_returns:
        parts.append(_figure(counts(report.all_returns), "return of the demos (undiscounted)"))
    if report.coverage is not None:
        found = report.coverage
        caption = f"SACo {found.saco:.3f}: {found.unique} unique state-action pairs, relative to {found.reference}; "
        caption += "drawn against the transitions seen: flat means that more of the same adds nothing"
        parts.append(_figure(curve(found.growth), caption))
    if report.map:
        parts.append(_figure(heat(report.map), "where the hand was: first two axes, over the range of all files"))
    parts.append("</div>")
    if report.quality is not None:
        found_tq = "undefined" if report.quality.tq is None else f"{report.quality.tq:.3f}"
        parts.append(
            f"<p>TQ {found_tq}: mean return {report.quality.mean:.4g} between {report.quality.lowest:.4g} and "
            f"{report.quality.expert:.4g}, {_text(report.quality.reference)}.</p>"
        )
    return "".join(parts)


def _keys(report: Report) -> str:
    """Return a table of the observations."""
    rows = [
        [f"<code>{_text(k.name)}</code>", "x".join(map(str, k.shape)), k.dtype, decimal(k.bytes), k.compression]
        for k in report.keys
    ]
    return "<h3>Observations</h3>" + _table(("key", "shape", "type", "in memory", "compression"), rows)


def _actions(dims: Sequence[ActionSummary]) -> str:
    """Return a histogram and the numbers of each action dimension."""
    figures = [
        _figure(
            bars(dim.histogram, "-1", "1"),
            f"{_text(dim.name)} [{_text(dim.unit)}]: {dim.low:.3f} to {dim.high:.3f}, mean {dim.mean:.3f}, "
            f"std {dim.std:.3f}, at +-1 in {dim.clipped:.1%}",
        )
        for dim in dims
    ]
    return f"<h3>Actions</h3><div class=row>{''.join(figures)}</div>"


def _notes(notes: Mapping[str, Mapping[str, int]]) -> str:
    """Return the writer's notes, counted."""
    rows = [
        [_text(note), ", ".join(f"{_text(value)} ({n})" for value, n in values.items())]
        for note, values in notes.items()
    ]
    return "<h3>Notes of the writer</h3>" + _table(("note", "values (demos)"), rows) if rows else ""


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td class=say>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _text(value: object) -> str:
    """Return text that a page can hold, whatever a file says."""
    return escape(str(value))

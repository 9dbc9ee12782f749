"""The inspection's report as one HTML page: tables, contact sheets, and small figures as inline SVG.

Colours of the figures come from the page: class b, l, a.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pixelrl.datasets.inspect.report import InspectionReport
from pixelrl.launch.reports.pages import write_page

WIDTH, HEIGHT, FOOT = 240, 96, 16
"""Of the drawing, and of the line of text below it [px]."""


def write_inspection_page(
    path: Path, report: InspectionReport, verdict: str, sheets: Mapping[str, bytes], record: Mapping[str, Any]
) -> None:
    """Write the page, atomically; `sheets`: file -> its contact sheet as PNG."""
    title = f"Inspection of {Path(report.reports[0].path).name}"
    figures = {"bars": bars, "counts": counts, "curve": curve, "heat": heat}
    write_page(
        path, "inspection.html.j2", title=title, report=report, verdict=verdict, sheets=sheets, record=record, **figures
    )


def counts(values: Sequence[float], most: int = 30) -> Markup:
    """Draw a histogram of values; whole numbers get a bar each where there is room."""
    data = np.asarray(values, np.float64)
    low, high = float(data.min()), float(data.max())
    whole = bool((data == data.round()).all()) and high - low < most
    edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high if high > low else low + 1, most + 1)
    return bars(np.histogram(data, edges)[0].tolist(), f"{low:.4g}", f"{high:.4g}")


def bars(heights: Sequence[int], left: str, right: str) -> Markup:
    """Draw bars side by side, with what stands at the two ends; the highest fills the figure."""
    top, wide = max(1, *heights), WIDTH / len(heights)
    drawn = "".join(
        f"<rect class=b x='{place * wide:.1f}' y='{HEIGHT - size:.1f}' width='{max(wide - 1, 0.8):.1f}' "
        f"height='{size:.1f}'><title>{count}</title></rect>"
        for place, count in enumerate(heights)
        if (size := max(count / top * (HEIGHT - 2), 1.0) if count else 0.0)
    )
    return _svg(drawn, left, right, f"most: {top}")


def curve(points: Sequence[tuple[int, int]]) -> Markup:
    """Draw a rising curve through (x, y), from (0, 0), with the diagonal beside it."""
    x, y = max(1, points[-1][0]), max(1, points[-1][1])
    size = max(x, y)
    line = " ".join(f"{a / x * WIDTH:.1f},{HEIGHT - b / size * (HEIGHT - 2):.1f}" for a, b in points)
    diagonal = f"<line class=a stroke-dasharray='3 3' x1=0 y1={HEIGHT} x2={WIDTH} y2=2 />"
    return _svg(f"{diagonal}<polyline class=l points='{line}' />", "0", f"{x}", f"unique: {y}")


def heat(cells: Sequence[Sequence[int]]) -> Markup:
    """Draw how often each cell was visited, the darker the oftener (square root), the first row at the bottom."""
    top, size = max(1, *(count for row in cells for count in row)), HEIGHT / len(cells)
    drawn = "".join(
        f"<rect class=b x='{(WIDTH - HEIGHT) / 2 + column * size:.1f}' y='{HEIGHT - (row + 1) * size:.1f}' "
        f"width='{size:.1f}' height='{size:.1f}' fill-opacity='{0.12 + 0.88 * (count / top) ** 0.5:.2f}' />"
        for row, counted in enumerate(cells)
        for column, count in enumerate(counted)
        if count
    )
    frame = f"<rect class=a fill=none x='{(WIDTH - HEIGHT) / 2}' y=0 width={HEIGHT} height={HEIGHT} />"
    return _svg(drawn + frame, "", "", f"most: {top}")


def _svg(drawn: str, left: str, right: str, middle: str) -> Markup:
    """Return a drawing above a line of text."""
    low = HEIGHT + FOOT - 3
    return Markup(
        f"<svg role=img width={WIDTH} height={HEIGHT + FOOT} viewBox='0 0 {WIDTH} {HEIGHT + FOOT}'>{drawn}"
        f"<line class=a x1=0 y1={HEIGHT} x2={WIDTH} y2={HEIGHT} /><text x=0 y={low}>{left}</text>"
        f"<text x={WIDTH / 2} y={low} text-anchor=middle>{middle}</text>"
        f"<text x={WIDTH} y={low} text-anchor=end>{right}</text></svg>"
    )

"""The inspection's report as one HTML page: tables, SVG figures, contact sheets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelrl.datasets.inspect.report import InspectionReport
from pixelrl.launch.reports.inspection_figures import bars, counts, curve, heat
from pixelrl.launch.reports.pages import write_page


def write_inspection_page(
    path: Path, report: InspectionReport, verdict: str, sheets: Mapping[str, bytes], record: Mapping[str, Any]
) -> None:
    """Write the page, atomically.

    Args:
        path: of the page.
        report: what was found.
        verdict: in one line.
        sheets: file -> its contact sheet as PNG.
        record: where the result comes from; see `Provenance`.
    """
    title = f"Inspection of {Path(report.reports[0].path).name}"
    figures = {"bars": bars, "counts": counts, "curve": curve, "heat": heat}
    write_page(
        path, "inspection.html.j2", title=title, report=report, verdict=verdict, sheets=sheets, record=record, **figures
    )

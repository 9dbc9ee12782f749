"""Tell what is in data sets."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from pixelrl.datasets.doctor import contact_rows, inspect_file, print_report
from pixelrl.errors import DataError
from pixelrl.files import write_json
from pixelrl.launch.provenance import Provenance
from pixelrl.simulation.video import contact_sheet


def inspect(files: Sequence[Path], *, sheet: bool, console: Console) -> None:
    """Print a report on each file, and write it (and a contact sheet) beside the file.

    Raises:
        DataError: a file that training could not use, after all reports.
    """
    unfit = []
    for path in files:
        provenance = Provenance()
        report = inspect_file(path)
        print_report(report, console)
        if any(finding.level == "error" for finding in report.findings):
            unfit.append(path)
        else:
            if sheet:
                picture = path.with_suffix(".inspection.png")
                contact_sheet(picture, contact_rows(path), title=path.name)
                console.print(f"{picture}: contact sheet")
            write_json(path.with_suffix(".inspection.json"), asdict(report) | provenance.record())
    if unfit:
        raise DataError(f"{', '.join(map(str, unfit))}: training cannot use it; the errors above say why")

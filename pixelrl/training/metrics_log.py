"""Where figures go: a CSV and TensorBoard, both continued when a run is resumed."""

import csv
import os
from pathlib import Path
from types import TracebackType

from pixelrl.runtime.files import atomic_path
from pixelrl.training.loop import Report


class CSVLog:
    """One row a report; a figure that first appears later adds a column.

    Args:
        path: of the file.
        step: forget what an interrupted run wrote after this step.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns = ["step", "seconds"]
        rows: list[dict[str, str]] = []
        if path.is_file() and step:
            with path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if None not in row.values() and int(row["step"]) <= step]
                self.columns = list(reader.fieldnames or self.columns)
        self._rewrite(rows)

    def write(self, report: Report) -> None:
        """Append a row, and let it reach the disk."""
        row = {"step": report.step, "seconds": f"{report.seconds:.2f}"}
        row |= {name: f"{value:.6g}" for name, value in report.metrics.items()}
        if new := [name for name in row if name not in self.columns]:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


class Log:
    """Write reports to `metrics.csv` and to `tensorboard/` in a run's directory."""

    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only training needs it

        self.csv = CSVLog(directory / "metrics.csv", step)
        self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, report: Report) -> None:
        """Write one report."""
        self.csv.write(report)
        for name, value in report.metrics.items():
            self.board.add_scalar(name, value, report.step)

    def __enter__(self) -> "Log":
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let everything reach the disk."""
        self.board.close()


def read_metrics(directory: Path) -> list[dict[str, str]]:
    """Return the rows of a run's `metrics.csv`."""
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))

"""Where figures go: a CSV and TensorBoard, both continued when a run is resumed."""

import csv
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import atomic_path, naming
from pixelrl.training.loop import Report
from pixelrl.training.trackers import Tracker, TrackerName, open_tracker


class CSVLog:
    """One row a report; a figure that first appears later adds a column.

    Args:
        path: of the file.
        step: forget what an interrupted run wrote after this step.

    Raises:
        PixelrlError: what it wrote before is damaged.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns = ["step", "seconds"]
        rows: list[dict[str, str]] = []
        if path.is_file() and step:
            rows = [row for row in rows_of(path) if int(row["step"]) <= step]
            self.columns = list(rows[0]) if rows else self.columns
        self._rewrite(rows)

    def write(self, report: Report) -> None:
        """Append a row, and let it reach the disk."""
        row = {"step": report.step, "seconds": f"{report.seconds:.2f}"}
        row |= {name: f"{value:.6g}" for name, value in report.metrics.items()}
        if new := [name for name in row if name not in self.columns]:
            self.columns += new
            self._rewrite(rows_of(self.path))
        with naming(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


class TensorBoardLog:
    """One event a report, in a file that TensorBoard reads; it is to forget what a run wrote after `step` before."""

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import, and only training needs it
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"events.out.tfevents.{time.time_ns()}"
        self._event, self._summary = Event, Summary
        self._file = self.path.open("wb", buffering=0)  # an error is raised where it arises, and by no thread
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, report: Report) -> None:
        """Append the figures of one report."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in report.metrics.items()]
        self._add(step=report.step, summary=self._summary(value=values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **content: Any) -> None:
        with naming(self.path):
            self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())


class Log:
    """Write reports to `metrics.csv` and to `tensorboard/` in a run's directory, and to the trackers that are asked."""

    def __init__(self, directory: Path, step: int, trackers: Sequence[TrackerName] = ()) -> None:
        self.csv = CSVLog(directory / "metrics.csv", step)
        self.board = TensorBoardLog(directory / "tensorboard", step)
        config = json.loads((directory / "config.json").read_text()) if trackers else {}
        self.trackers: list[Tracker] = [self.board, *(open_tracker(name, directory, config) for name in trackers)]

    def write(self, report: Report) -> None:
        """Write one report."""
        self.csv.write(report)
        for tracker in self.trackers:
            tracker.write(report)

    def __enter__(self) -> "Log":
        """Return the log itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        for tracker in self.trackers:
            tracker.close()


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a `metrics.csv`, but for those that a crash has cut off.

    Raises:
        PixelrlError: a line is too long, has no step, or something that is no number.
    """
    rows: list[dict[str, str]] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            names = reader.fieldnames or ["step"]
            if "\ufffd" in "".join(names) or "step" not in names:
                raise ValueError
            for row in reader:
                if None not in row.values():
                    rows.append(row)
                    if None in row or int(row["step"]) < 0 or not [float(text or 0) for text in row.values()]:
                        raise ValueError
        except (ValueError, csv.Error) as error:
            where = f"{path}: line {reader.line_num} is damaged"
            right = "expected a number for each name in the first line, one of them step"
            raise PixelrlError(f"{where}; {right}; mend it, or move the file away") from error
    return rows


def read_figures(path: Path) -> dict[str, dict[int, float]]:
    """Return figure -> step -> value of a `metrics.csv`, also while it is written; errors as `rows_of`."""
    found: dict[str, dict[int, float]] = {}
    for row in rows_of(path):
        for name, text in row.items():
            if text and name not in ("step", "seconds"):
                found.setdefault(name, {})[int(row["step"])] = float(text)
    return found

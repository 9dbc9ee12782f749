"""What an inspection ends in: a report on each file, and one of all; `asdict` makes them JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixelrl.datasets.inspect.file_inspection import FileInspection
from pixelrl.datasets.inspect.file_structure import FileStructure
from pixelrl.datasets.inspect.issues import Issue, Role, gather, ordered
from pixelrl.datasets.inspect.quality import Coverage, Quality, coverage, trajectory_quality
from pixelrl.datasets.inspect.running_statistics import ActionStatistics

PICTORIAL = ("blank", "frozen", "next_obs", "obs", "camera-swapped", "colour-order", "upside-down")
"""The checks for which only some demos may have been looked at."""


@dataclass(frozen=True, kw_only=True)
class ObservationKey:
    """An observation key: the shape of one frame, and its bytes in memory over all frames, if each is held once."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    compression: str


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a file holds. Triples are (min, median, max) over the demos.

    Attributes:
        transitions: the number of those that can be learned from, in demos that can be read.
        looked_demos, looked_frames: how many demos had their pictures looked at, and how many frames that were, over
            all cameras. Numbers are read from all demos.
        lengths: [steps]; with `all_lengths` of each demo, which is empty if no demo can be read.
        returns: undiscounted sums of rewards.
        success: share of the demos with a positive reward.
        notes: note -> value -> how many demos have it, for notes with few values.
        map: how often the hand was in each cell, rows along its second axis, over the range of all files.
        issues: the worst first.
    """

    path: str
    role: Role
    bytes: int
    environment: str
    demos: int
    transitions: int
    looked_demos: int
    looked_frames: int
    lengths: tuple[float, float, float]
    returns: tuple[float, float, float]
    all_lengths: tuple[int, ...]
    all_returns: tuple[float, ...]
    success: float
    keys: tuple[ObservationKey, ...]
    actions: tuple[ActionStatistics, ...]
    notes: Mapping[str, Mapping[str, int]]
    quality: Quality | None
    coverage: Coverage | None
    map: tuple[tuple[int, ...], ...]
    issues: tuple[Issue, ...]


@dataclass(frozen=True, kw_only=True)
class InspectionReport:
    """Reports on files, the issues that concern several of them, and the lines of training's own ledger."""

    reports: tuple[FileReport, ...]
    between: tuple[Issue, ...]
    ledger: tuple[str, ...] = ()

    @property
    def issues(self) -> tuple[Issue, ...]:
        """Return all issues, the worst first."""
        return ordered([*(issue for report in self.reports for issue in report.issues), *self.between])

    def count(self, level: str) -> int:
        """Return how many issues are of a level."""
        return sum(issue.level == level for issue in self.issues)

    @property
    def fit(self) -> bool:
        """Return whether training may start."""
        return not self.count("error")


def report_on(
    inspection: FileInspection,
    readable: Sequence[FileInspection],
    reference: FileInspection | None,
    return_range: tuple[float, float] | None,
) -> FileReport:
    """Put everything about a file together; `readable` are all files that can be read, with the reference."""
    path, structure, statistics = str(inspection.path), inspection.structure, inspection.statistics
    total, looked = len(structure.demos), len(inspection.looked) or len(inspection.names)
    pictorial = [each for each in inspection.occurrences if each.check in PICTORIAL]
    numeric = [each for each in inspection.occurrences if each.check not in PICTORIAL]
    issues = [*inspection.issues, *gather(numeric, file=path, looked=total)]
    issues += gather(pictorial, file=path, looked=looked)
    lengths = tuple(record.steps for record in statistics.records)
    returns = finite_returns([inspection])
    return FileReport(
        path=path,
        role=inspection.role,
        bytes=structure.bytes,
        environment=str(structure.env_args.get("env_name", "")),
        demos=total,
        transitions=sum(lengths),
        looked_demos=len(inspection.looked),
        looked_frames=inspection.frames,
        lengths=_spread(lengths),
        returns=_spread(returns),
        all_lengths=lengths,
        all_returns=returns,
        success=float(np.mean([record.rewarded for record in statistics.records])) if lengths else 0.0,
        keys=_keys(structure),
        actions=statistics.actions(),
        notes=statistics.few_notes(),
        quality=_quality(returns, readable, reference, return_range) if returns else None,
        coverage=_coverage(inspection, readable, reference),
        map=tuple(map(tuple, inspection.visits.tolist())) if inspection.visits.any() else (),
        issues=ordered(issues),
    )


def finite_returns(inspections: Sequence[FileInspection]) -> tuple[float, ...]:
    """Return the returns of all demos of these files."""
    records = (record for inspection in inspections for record in inspection.statistics.records)
    return tuple(record.total for record in records if math.isfinite(record.total))


def _quality(
    returns: Sequence[float],
    readable: Sequence[FileInspection],
    reference: FileInspection | None,
    return_range: tuple[float, float] | None,
) -> Quality:
    """Return TQ of these returns relative to what is known: see `quality`."""
    if return_range is not None:
        return trajectory_quality(returns, *return_range, "the returns given")
    everything = finite_returns(readable)
    if reference is not None and (experts := finite_returns([reference])):
        against = f"the lowest return of any demo, and the mean return of {reference.path.name}"
        return trajectory_quality(returns, min(everything), float(np.mean(experts)), against)
    against = "the lowest and the highest return of any demo of all files given"
    return trajectory_quality(returns, min(everything), max(everything), against)


def _coverage(
    inspection: FileInspection, readable: Sequence[FileInspection], reference: FileInspection | None
) -> Coverage | None:
    """Return SACo of a file relative to what is known: see `quality`."""
    if not inspection.pairs:
        return None
    against = readable if reference is None else [reference]
    unique = len(np.unique(np.concatenate([pair for other in against for pair in other.pairs])))
    name = "all files given together" if len(readable) > 1 else "the file itself"
    return coverage(np.concatenate(inspection.pairs), unique, name if reference is None else reference.path.name)


def _keys(structure: FileStructure) -> tuple[ObservationKey, ...]:
    """Describe every array that is observed, also those that are not learned from."""
    frames = sum(demo.arrays["actions"].shape[0] + 1 for demo in structure.demos.values() if "actions" in demo.arrays)
    return tuple(
        ObservationKey(
            name=name.partition("/")[2],
            shape=array.shape[1:],
            dtype=array.dtype,
            bytes=frames * np.dtype(array.dtype).itemsize * math.prod(array.shape[1:]),
            compression=array.compression,
        )
        for first in list(structure.demos.values())[:1]
        for name, array in first.arrays.items()
        if name.startswith(f"{first.home}/")
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (min, median, max), or zeros of nothing."""
    return (float(np.min(values)), float(np.median(values)), float(np.max(values))) if values else (0, 0, 0)

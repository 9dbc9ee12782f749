"""One file while it is examined: what is known of it so far, and the report that this ends in."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.inspect.checks import Role
from pixelrl.datasets.inspect.comparison import Traits
from pixelrl.datasets.inspect.report import ActionSummary, Key, FileReport
from pixelrl.datasets.inspect.issues import Issue, Occurrence, gather, ordered
from pixelrl.datasets.inspect.quality import Coverage, Quality, coverage, trajectory_quality
from pixelrl.datasets.inspect.outline import FileStructure
from pixelrl.datasets.inspect.running_statistics import RunningStatistics

MAP = 24
"""The map of where the hand was is so many cells wide and high."""

PICTORIAL = ("blank", "frozen", "next_obs", "obs", "camera-swapped", "colour-order", "upside-down")
"""The checks for which only some demos may have been looked at."""


@dataclass(kw_only=True)
class FileInspection:
    """One file while it is examined."""

    path: Path
    role: Role
    outline: FileStructure | None = None
    names: list[str] = field(default_factory=list)
    dims: tuple[ActionDim, ...] = ()
    named: bool = False
    occurrences: list[Occurrence] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    tally: RunningStatistics = field(default_factory=lambda: RunningStatistics(0))
    looked: list[str] = field(default_factory=list)
    frames: int = 0
    sights: dict[str, set[int]] = field(default_factory=dict)
    looks: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    contents: list[str] = field(default_factory=list)
    pairs: list[NDArray[np.uint64]] = field(default_factory=list)
    map: NDArray[np.int64] = field(default_factory=lambda: np.zeros((MAP, MAP), np.int64))


def report_on(
    inspection: FileInspection, able: Sequence[FileInspection], others: Sequence[FileInspection], return_range: tuple[float, float] | None
) -> FileReport:
    """Put everything about a file together."""
    path, outline, tally = str(inspection.path), inspection.outline, inspection.tally
    report = FileReport(path=path, role=inspection.role)
    looked = len(inspection.looked) or len(inspection.names)
    total = len(outline.demos) if outline is not None else 0
    seen = [occurrence for occurrence in inspection.occurrences if occurrence.check in PICTORIAL]
    rest = [occurrence for occurrence in inspection.occurrences if occurrence.check not in PICTORIAL]
    issues = [*inspection.issues, *gather(rest, file=path, looked=total), *gather(seen, file=path, looked=looked)]
    report = replace(report, issues=ordered(issues))
    if outline is None:
        return report
    report = replace(
        report,
        bytes=outline.bytes,
        environment=str(outline.env_args.get("env_name", "")),
        demos=total,
        looked_demos=len(inspection.looked),
        looked_frames=inspection.frames,
        keys=_keys(outline),
        notes=tally.few_notes(),
        map=tuple(map(tuple, inspection.map.tolist())) if inspection.map.any() else (),
    )
    if not tally.records:
        return report
    lengths = tuple(record.steps for record in tally.records)
    returns = tuple(record.total for record in tally.records if np.isfinite(record.total))
    return replace(
        report,
        transitions=sum(lengths),
        lengths=_spread(lengths),
        returns=_spread(returns) if returns else (0, 0, 0),
        all_lengths=lengths,
        all_returns=returns,
        success=float(np.mean([record.rewarded for record in tally.records])),
        actions=_summaries(inspection),
        quality=_quality(returns, able, others, return_range) if returns else None,
        coverage=_coverage(inspection, able, others),
    )


def _quality(
    returns: Sequence[float],
    able: Sequence[FileInspection],
    others: Sequence[FileInspection],
    return_range: tuple[float, float] | None,
) -> Quality:
    """Return TQ of these returns relative to what is known: see `measures`."""
    if return_range is not None:
        return trajectory_quality(returns, *return_range, "the returns given")
    everything = [r.total for inspection in able for r in inspection.tally.records if np.isfinite(r.total)]
    experts = [r.total for inspection in others for r in inspection.tally.records if np.isfinite(r.total)]
    if experts:
        expert = float(np.mean(experts))
        reference = f"the lowest return of any demo, and the mean return of {others[0].path.name}"
        return trajectory_quality(returns, min(everything), expert, reference)
    reference = "the lowest and the highest return of any demo of all files given"
    return trajectory_quality(returns, min(everything), max(everything), reference)


def _coverage(inspection: FileInspection, able: Sequence[FileInspection], others: Sequence[FileInspection]) -> Coverage | None:
    """Return SACo of a file relative to what is known: see `measures`."""
    if not inspection.pairs:
        return None
    against = others or able
    unique = len(np.unique(np.concatenate([pair for other in against for pair in other.pairs])))
    reference = others[0].path.name if others else "all files given together" if len(able) > 1 else "the file itself"
    return coverage(np.concatenate(inspection.pairs), unique, reference)


def traits_of(inspection: FileInspection) -> Traits:
    """Return what a file is compared by."""
    outline = inspection.outline
    assert outline is not None
    rows = {name.partition("/")[2]: row for name, (row, _) in outline.usual.items()}
    return Traits(
        file=str(inspection.path),
        role=inspection.role,
        pictures={key: rows[key] for key in outline.cameras},
        vectors={key: rows[key][0] for key in outline.vectors},
        dims=inspection.dims,
        named=inspection.named,
        env_args=outline.env_args,
        actions=inspection.tally.actions(),
        gripper=inspection.tally.gripper(),
        rewarded=any(record.rewarded for record in inspection.tally.records),
    )


def _keys(outline: FileStructure) -> tuple[Key, ...]:
    """Describe every array that is observed, also those that nobody learns from."""
    frames = sum(demo.arrays["actions"].shape[0] + 1 for demo in outline.demos.values() if "actions" in demo.arrays)
    first = next(iter(outline.demos.values()))
    return tuple(
        Key(
            name=name.partition("/")[2],
            shape=array.shape[1:],
            dtype=array.dtype,
            bytes=frames * np.dtype(array.dtype).itemsize * int(np.prod(array.shape[1:])),
            compression=array.compression,
        )
        for name, array in first.arrays.items()
        if name.startswith(f"{first.home}/")
    )


def _summaries(inspection: FileInspection) -> tuple[ActionSummary, ...]:
    """Describe every dimension of the action over all demos."""
    found = inspection.tally.actions()
    if not found.count:
        return ()
    return tuple(
        ActionSummary(
            name=dim.name,
            unit=dim.unit,
            low=float(found.low[i]),
            high=float(found.high[i]),
            mean=float(found.mean[i]),
            std=float(found.std[i]),
            clipped=float(found.clipped[i]),
            histogram=tuple(found.histogram[i].tolist()),
        )
        for i, dim in enumerate(inspection.dims)
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (min, median, max)."""
    return float(np.min(values)), float(np.median(values)), float(np.max(values))

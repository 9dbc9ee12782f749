"""The dataset doctor: what files hold, and what is wrong with them, before anybody trains on them.

Three rounds over the files: outlines (nothing is read but names, shapes and types), then all numbers, then pictures,
demo by demo. What cannot be read becomes a issue, so nothing is raised; memory grows with the number of demos and, by
eight bytes, with that of transitions. Checks live in `structure`, `checks`, `looks` and `comparison`, measures in
`measures`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.inspect import checks
from pixelrl.datasets.inspect import comparison
from pixelrl.datasets.inspect import image_checks as looks
from pixelrl.datasets.inspect import structure
from pixelrl.datasets.inspect.checks import Range, Role
from pixelrl.datasets.inspect.contact_sheet import spaced
from pixelrl.datasets.inspect.report import InspectionReport, FileReport
from pixelrl.datasets.inspect.issues import Issue, Occurrence, ordered
from pixelrl.datasets.inspect.demo_summary import DemoSummary, DemoNumbers, read_summaries, read_numbers
from pixelrl.datasets.inspect.quality import pairs, state_keys
from pixelrl.datasets.inspect.outline import DAMAGE, read_structure
from pixelrl.datasets.inspect.file_inspection import MAP, FileInspection, report_on, traits_of
from pixelrl.datasets.hdf5.reader import read_contents
from pixelrl.datasets.buffer.transition_table import ActionRange
from pixelrl.datasets.inspect.running_statistics import RunningStatistics, content, union
from pixelrl.runtime.errors import DataError

AFFORDABLE = 4 * 2**30
"""Files with more bytes of pictures than this have theirs looked at in some demos only, evenly spaced."""

Progress = Callable[[str, int, int], None]
"""Called with what is read, how much of it, and how much there is."""


def inspect_files(
    files: Sequence[tuple[Path, Role]],
    *,
    sample: int | None = None,
    actions: ActionRange = "unit",
    reference: Path | None = None,
    return_range: tuple[float, float] | None = None,
    closed: Mapping[Path, str] = MappingProxyType({}),
    progress: Progress = lambda what, done, total: None,
) -> InspectionReport:
    """Examine files, and compare them if they are given as task and prior data.

    Args:
        files: each with what it is given as.
        sample: look at the pictures of so many demos of each file; None: of all, or as many as are `AFFORDABLE`.
        actions: `min-max` if they are to be normalised.
        reference: a file that TQ and SACo are relative to; see `measures`.
        return_range: the mean returns of a random policy and of an expert, for TQ.
        closed: files that must not be opened, with the reason; see `probe`.
        progress: told of what is being read.

    Raises:
        DataError: the reference cannot be read.
    """
    inspections = [_admit(path, role, closed.get(path)) for path, role in files]
    others = [] if reference is None else [_admit(reference, "data", closed.get(reference))]
    for inspection in others:
        if not inspection.names:
            raise DataError(f"{reference}: no reference: {inspection.issues[0].message}")
    for inspection in (*inspections, *others):
        _count(inspection, actions, progress)
    able = [inspection for inspection in (*inspections, *others) if inspection.tally.records]
    ranges = union([p.tally.low for p in able], [p.tally.high for p in able]) if able else {}
    ranges = {key: ranges[key] for key in state_keys(tuple(ranges))}
    shared = _shared_cameras(able)
    for inspection in able:
        _look(inspection, sample, shared, ranges, progress)
    reports = tuple(report_on(inspection, able, others, return_range) for inspection in inspections)
    return InspectionReport(reports=reports, between=ordered(_between(inspections)))


def inspect_file(path: Path) -> FileReport:
    """Examine one file by itself; whatever cannot be read becomes a issue, so nothing is raised."""
    return inspect_files([(path, "data")]).reports[0]


def _admit(path: Path, role: Role, closed: str | None) -> FileInspection:
    """Read the outline of a file and check it."""
    inspection = FileInspection(path=path, role=role)
    try:
        if closed is not None:
            raise DataError(f"{path}: {closed}")
        outline = inspection.outline = read_structure(path)
    except DAMAGE as error:
        inspection.issues.append(_unreadable(path, error))
        return inspection
    for check in (structure.structure, structure.dtypes, structure.lengths):
        inspection.occurrences += check(outline)
    inspection.issues += [*structure.attributes(outline), *structure.compression(outline)]
    inspection.names = structure.sound(outline, inspection.occurrences)
    try:
        with warnings.catch_warnings():  # what the reader warns of is a issue already
            warnings.simplefilter("ignore")
            inspection.dims, inspection.named = read_contents(path).action, True
    except DAMAGE as error:  # what we have not found ourselves, training would
        if not any(occurrence.level == "error" for occurrence in inspection.occurrences):
            inspection.issues.append(_unreadable(path, error))
    if inspection.names:
        size = outline.demos[inspection.names[0]].arrays["actions"].shape[1]
        inspection.dims = inspection.dims or tuple(ActionDim(name=f"action_{index}") for index in range(size))
    inspection.tally = RunningStatistics(len(inspection.dims))
    return inspection


def _count(inspection: FileInspection, actions: ActionRange, progress: Progress) -> None:
    """Read all numbers of a file and check them."""
    if inspection.outline is None:
        return
    file = str(inspection.path)
    for done, numbers in enumerate(read_numbers(inspection.outline, inspection.names), start=1):
        if isinstance(numbers, Occurrence):
            inspection.occurrences.append(numbers)
        else:
            inspection.occurrences += [
                *checks.finite(numbers),
                *checks.action_range(numbers, actions),
                *checks.ends(numbers),
            ]
            inspection.tally.add(numbers)
        progress("numbers", done, len(inspection.names))
    tally = inspection.tally
    inspection.names = [record.name for record in tally.records]
    inspection.issues += [
        *checks.action_use(tally.actions(), inspection.dims, file),
        *checks.rewards(tally.records, inspection.role, file),
        *checks.constant_sensors(tally.low, tally.high, file),
    ]


def _look(
    inspection: FileInspection, sample: int | None, shared: Sequence[str], ranges: Mapping[str, Range], progress: Progress
) -> None:
    """Look at the pictures of a file and check them."""
    outline = inspection.outline
    assert outline is not None
    cameras = outline.cameras
    sizes = [structure.picture_bytes(outline.demos[name], cameras) for name in inspection.names]
    affordable = len(sizes) if sum(sizes) <= AFFORDABLE else max(1, len(sizes) * AFFORDABLE // sum(sizes))
    chosen = spaced(inspection.names, affordable if sample is None else sample)
    total = len(cameras) * sum(outline.demos[name].arrays["actions"].shape[0] + 1 for name in chosen)

    def seen(frames: int) -> None:
        inspection.frames += frames
        progress("pictures", inspection.frames, total)

    own = {key: (inspection.tally.low[key], inspection.tally.high[key]) for key in inspection.tally.low}
    for glance in read_summaries(outline, chosen, seen):
        if isinstance(glance, Occurrence):
            inspection.occurrences.append(glance)
            continue
        inspection.looked.append(glance.numbers.name)
        inspection.occurrences += [
            *checks.blank(glance),
            *checks.frozen(glance, own),
            *checks.shifted(glance),
            *checks.astray(glance),
        ]
        inspection.contents.append(content(glance))
        _remember(inspection, glance, shared, ranges)
    inspection.issues += checks.constant_cameras(inspection.sights, str(inspection.path))
    stacked = {key: np.stack(each) for key, each in inspection.looks.items() if each}
    if stacked:
        inspection.occurrences += looks.within(stacked, inspection.looked)


def _remember(inspection: FileInspection, glance: DemoSummary, shared: Sequence[str], ranges: Mapping[str, Range]) -> None:
    """Keep of a demo what is needed when all are seen."""
    for key, pictures in glance.pictures.items():
        sights = inspection.sights.setdefault(key, set())
        if len(sights) < 2:
            sights.update(np.unique(pictures.checksums)[:2].tolist())
        inspection.looks.setdefault(key, []).append(looks.look(pictures.thumbnails))
    inspection.pairs.append(pairs(glance, shared, ranges))
    hand = next(iter(ranges), None)
    if hand is not None and len(ranges[hand][0]) > 1:
        inspection.map += _visits(glance.numbers, hand, ranges[hand])


def _visits(numbers: DemoNumbers, key: str, limits: Range) -> NDArray[np.int64]:
    """Count how often the hand was in each cell of a map of the first two axes."""
    rows = numbers.vectors[key][:, :2].astype(np.float64)
    (low, high) = (limit[:2] for limit in limits)
    rows = rows[np.isfinite(rows).all(axis=1)]
    x, y = ((rows - low) / np.maximum(high - low, 1e-12) * MAP).clip(0, MAP - 1).astype(int).T
    visits: NDArray[np.int64] = np.bincount(y * MAP + x, minlength=MAP * MAP).reshape(MAP, MAP)
    return visits


def _between(inspections: Sequence[FileInspection]) -> list[Issue]:
    """Find what is wrong between files; only copies are looked for unless they are given as task and prior data."""
    whole = all(len(inspection.looked) == len(inspection.names) for inspection in inspections)
    contents = [inspection.contents if whole else [r.digest for r in inspection.tally.records] for inspection in inspections]
    demos = [
        (str(inspection.path), name, found)
        for inspection, each in zip(inspections, contents, strict=True)
        for name, found in zip(inspection.names, each, strict=True)
    ]
    issues = list(checks.duplicates(demos))
    able = [inspection for inspection in inspections if inspection.tally.records and inspection.role != "data"]
    if not able:
        return issues
    issues += comparison.compare([traits_of(inspection) for inspection in able])
    seen = [inspection for inspection in able if all(inspection.looks.values())]
    if len(seen) > 1:
        sights = [{key: np.stack(each) for key, each in inspection.looks.items()} for inspection in seen]
        issues += looks.between(sights, [str(inspection.path) for inspection in seen])
    return issues


def _shared_cameras(able: Sequence[FileInspection]) -> list[str]:
    """Return the cameras that all files have."""
    cameras = [inspection.outline.cameras for inspection in able if inspection.outline is not None]
    return [key for key in cameras[0] if all(key in each for each in cameras)] if cameras else []


def _unreadable(path: Path, error: Exception) -> Issue:
    message = str(error) if isinstance(error, DataError) else f"{path}: damaged ({error})"
    return Issue(check="structure", level="error", where="file", message=message, file=str(path))

"""Inspect data sets: what files hold, and what is wrong with them, before anybody trains on them.

Three rounds over the files: structures (nothing is read but names, shapes and types), then all numbers, then pictures,
demo by demo. What cannot be read becomes an issue, so nothing is raised; memory grows with the number of demos and, by
eight bytes, with that of transitions.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.hdf5.reader import Selection, frame_rows, sensor
from pixelrl.datasets.inspect import image_checks
from pixelrl.datasets.inspect.comparison import compare
from pixelrl.datasets.inspect.demo_checks import duplicates
from pixelrl.datasets.inspect.demo_summary import column, notes_of
from pixelrl.datasets.inspect.file_inspection import FileInspection, Progress, evenly_spaced
from pixelrl.datasets.inspect.file_structure import DAMAGE, read_structure
from pixelrl.datasets.inspect.issues import Issue, Role, ordered
from pixelrl.datasets.inspect.quality import state_keys
from pixelrl.datasets.inspect.report import InspectionReport, report_on
from pixelrl.datasets.inspect.running_statistics import shared_ranges
from pixelrl.datasets.inspect.structure_checks import check_demos, readable_demos
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.video import Row

SHOWN = 8
"""Pictures of a demo on a contact sheet."""


def inspect_files(
    files: Sequence[tuple[Path, Role]],
    *,
    sample: int | None = None,
    actions: ActionRange = "unit",
    reference: Path | None = None,
    return_range: tuple[float, float] | None = None,
    unsafe: Mapping[Path, str] = MappingProxyType({}),
    selections: Mapping[Role, Selection] = MappingProxyType({}),
    progress: Progress = lambda what, done, total: None,
) -> InspectionReport:
    """Inspect files, and compare them if they are given as task and prior data.

    Args:
        files: each with what it is given as.
        sample: look at the pictures of so many demos of each file; None: of all, or as many as are affordable.
        actions: `min-max` if they are to be normalised.
        reference: a file that TQ and SACo are relative to; see `quality`.
        return_range: the mean returns of a random policy and of an expert, for TQ.
        unsafe: files that must not be opened, with the reason; see `crash_probe`.
        selections: what files are given as -> how training reads them.
        progress: told of what is being read.

    Raises:
        DataError: the reference cannot be read.
    """
    inspections = [FileInspection.begin(path, role, unsafe.get(path), selections.get(role)) for path, role in files]
    expert = None if reference is None else FileInspection.begin(reference, "data", unsafe.get(reference))
    if expert is not None and not expert.names:
        raise DataError(f"{reference}: no reference: {expert.issues[0].message}")
    everything = inspections if expert is None else [*inspections, expert]
    for inspection in everything:
        inspection.read_numbers(actions, progress)
    readable = [inspection for inspection in everything if inspection.statistics.records]
    ranges = shared_ranges([inspection.statistics.ranges for inspection in readable])
    ranges = {key: ranges[key] for key in state_keys(tuple(ranges))}
    every = [inspection.structure.cameras for inspection in readable]
    cameras = [key for key in next(iter(every), ()) if all(key in each for each in every)]
    for inspection in readable:
        inspection.read_pictures(sample, cameras, ranges, progress)
    reports = tuple(report_on(inspection, readable, expert, return_range) for inspection in inspections)
    return InspectionReport(reports=reports, between=ordered(_between(inspections)))


def _between(inspections: Sequence[FileInspection]) -> list[Issue]:
    """Find what is wrong between files; only copies are looked for unless they are given as task and prior data."""
    whole = all(len(inspection.looked) == len(inspection.names) for inspection in inspections)
    demos = [
        (str(inspection.path), record.name, inspection.digests[index] if whole else record.digest)
        for inspection in inspections
        for index, record in enumerate(inspection.statistics.records)
    ]
    issues = list(duplicates(demos))
    compared = [inspection for inspection in inspections if inspection.statistics.records and inspection.role != "data"]
    if compared:
        issues += compare(compared)
    seen = [inspection for inspection in compared if inspection.looked]
    if len(seen) > 1:
        thumbnails = [inspection.stacked_thumbnails() for inspection in seen]
        issues += image_checks.check_files(thumbnails, [str(inspection.path) for inspection in seen])
    return issues


def contact_rows(path: Path, demos: int = 6) -> list[Row]:
    """Return a row of a contact sheet for each of some demos, evenly spaced, with their cameras side by side.

    Demos that cannot be read are left out. Only the frames that a strip shows are read; the first one stands in at all
    other steps.

    Raises:
        DataError: the file cannot be read.
    """
    structure = read_structure(path, Selection(required=()))
    names = evenly_spaced(readable_demos(structure, check_demos(structure)), demos)
    rows = []
    with open_file(path) as file:
        for name in names if structure.cameras else ():
            with suppress(*DAMAGE):  # the report tells of it
                rows.append(_row(file["data"][name], name, structure.cameras))
    return rows


def _row(demo: h5py.Group, name: str, cameras: Iterable[str]) -> Row:
    rewards = column(demo, "rewards")
    success = notes_of(demo).get("success", True if (rewards > 0).any() else None)
    held, last = sensor(demo, next(iter(cameras)))
    last_step = len(held) - (last is None)
    steps = np.unique(np.linspace(0, last_step, SHOWN).round().astype(int)).tolist()
    pictures = {step: _picture(demo, cameras, step) for step in steps}
    frames = [pictures.get(step, pictures[0]) for step in range(last_step + 1)]
    caption = f"{name} · {len(rewards)} steps · return {rewards.sum():g}"
    return Row(caption, frames, success if isinstance(success, bool) else None, steps)


def _picture(demo: h5py.Group, cameras: Iterable[str], step: int) -> NDArray[np.uint8]:
    """Return what the cameras show at a step, side by side; those of another height than the first are left out."""
    seen: list[NDArray[Any]] = []
    for key in cameras:
        (frame,) = frame_rows(demo, key, step, step + 1)
        seen.append(frame[..., :3] if frame.shape[-1] > 1 else np.repeat(frame, 3, axis=-1))
    return np.concatenate([frame for frame in seen if len(frame) == len(seen[0])], axis=1)

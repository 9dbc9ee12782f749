"""The dataset doctor: what files hold, and what is wrong with them, before anybody trains on them.

Three rounds over the files: outlines (nothing is read but names, shapes and types), then all numbers, then pictures,
demo by demo. What cannot be read becomes a finding, so nothing is raised; memory grows with the number of demos and, by
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
from pixelrl.datasets.inspect.report import Diagnosis, Report
from pixelrl.datasets.inspect.issues import Finding, Symptom, ordered
from pixelrl.datasets.inspect.demo_summary import Glance, Numbers, read_glances, read_numbers
from pixelrl.datasets.inspect.quality import pairs, state_keys
from pixelrl.datasets.inspect.outline import DAMAGE, read_outline
from pixelrl.datasets.inspect.file_inspection import MAP, Patient, report_on, traits_of
from pixelrl.datasets.hdf5.reader import read_contents
from pixelrl.datasets.buffer.transition_table import ActionRange
from pixelrl.datasets.inspect.running_statistics import Tally, content, union
from pixelrl.runtime.errors import DataError

AFFORDABLE = 4 * 2**30
"""Files with more bytes of pictures than this have theirs looked at in some demos only, evenly spaced."""

Progress = Callable[[str, int, int], None]
"""Called with what is read, how much of it, and how much there is."""


def examine(
    files: Sequence[tuple[Path, Role]],
    *,
    sample: int | None = None,
    actions: ActionRange = "unit",
    reference: Path | None = None,
    return_range: tuple[float, float] | None = None,
    closed: Mapping[Path, str] = MappingProxyType({}),
    progress: Progress = lambda what, done, total: None,
) -> Diagnosis:
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
    patients = [_admit(path, role, closed.get(path)) for path, role in files]
    others = [] if reference is None else [_admit(reference, "data", closed.get(reference))]
    for patient in others:
        if not patient.names:
            raise DataError(f"{reference}: no reference: {patient.findings[0].message}")
    for patient in (*patients, *others):
        _count(patient, actions, progress)
    able = [patient for patient in (*patients, *others) if patient.tally.records]
    ranges = union([p.tally.low for p in able], [p.tally.high for p in able]) if able else {}
    ranges = {key: ranges[key] for key in state_keys(tuple(ranges))}
    shared = _shared_cameras(able)
    for patient in able:
        _look(patient, sample, shared, ranges, progress)
    reports = tuple(report_on(patient, able, others, return_range) for patient in patients)
    return Diagnosis(reports=reports, between=ordered(_between(patients)))


def inspect_file(path: Path) -> Report:
    """Examine one file by itself; whatever cannot be read becomes a finding, so nothing is raised."""
    return examine([(path, "data")]).reports[0]


def _admit(path: Path, role: Role, closed: str | None) -> Patient:
    """Read the outline of a file and check it."""
    patient = Patient(path=path, role=role)
    try:
        if closed is not None:
            raise DataError(f"{path}: {closed}")
        outline = patient.outline = read_outline(path)
    except DAMAGE as error:
        patient.findings.append(_unreadable(path, error))
        return patient
    for check in (structure.structure, structure.dtypes, structure.lengths):
        patient.symptoms += check(outline)
    patient.findings += [*structure.attributes(outline), *structure.compression(outline)]
    patient.names = structure.sound(outline, patient.symptoms)
    try:
        with warnings.catch_warnings():  # what the reader warns of is a finding already
            warnings.simplefilter("ignore")
            patient.dims, patient.named = read_contents(path).action, True
    except DAMAGE as error:  # what we have not found ourselves, training would
        if not any(symptom.level == "error" for symptom in patient.symptoms):
            patient.findings.append(_unreadable(path, error))
    if patient.names:
        size = outline.demos[patient.names[0]].arrays["actions"].shape[1]
        patient.dims = patient.dims or tuple(ActionDim(name=f"action_{index}") for index in range(size))
    patient.tally = Tally(len(patient.dims))
    return patient


def _count(patient: Patient, actions: ActionRange, progress: Progress) -> None:
    """Read all numbers of a file and check them."""
    if patient.outline is None:
        return
    file = str(patient.path)
    for done, numbers in enumerate(read_numbers(patient.outline, patient.names), start=1):
        if isinstance(numbers, Symptom):
            patient.symptoms.append(numbers)
        else:
            patient.symptoms += [
                *checks.finite(numbers),
                *checks.action_range(numbers, actions),
                *checks.ends(numbers),
            ]
            patient.tally.add(numbers)
        progress("numbers", done, len(patient.names))
    tally = patient.tally
    patient.names = [record.name for record in tally.records]
    patient.findings += [
        *checks.action_use(tally.actions(), patient.dims, file),
        *checks.rewards(tally.records, patient.role, file),
        *checks.constant_sensors(tally.low, tally.high, file),
    ]


def _look(
    patient: Patient, sample: int | None, shared: Sequence[str], ranges: Mapping[str, Range], progress: Progress
) -> None:
    """Look at the pictures of a file and check them."""
    outline = patient.outline
    assert outline is not None
    cameras = outline.cameras
    sizes = [structure.picture_bytes(outline.demos[name], cameras) for name in patient.names]
    affordable = len(sizes) if sum(sizes) <= AFFORDABLE else max(1, len(sizes) * AFFORDABLE // sum(sizes))
    chosen = spaced(patient.names, affordable if sample is None else sample)
    total = len(cameras) * sum(outline.demos[name].arrays["actions"].shape[0] + 1 for name in chosen)

    def seen(frames: int) -> None:
        patient.frames += frames
        progress("pictures", patient.frames, total)

    own = {key: (patient.tally.low[key], patient.tally.high[key]) for key in patient.tally.low}
    for glance in read_glances(outline, chosen, seen):
        if isinstance(glance, Symptom):
            patient.symptoms.append(glance)
            continue
        patient.looked.append(glance.numbers.name)
        patient.symptoms += [
            *checks.blank(glance),
            *checks.frozen(glance, own),
            *checks.shifted(glance),
            *checks.astray(glance),
        ]
        patient.contents.append(content(glance))
        _remember(patient, glance, shared, ranges)
    patient.findings += checks.constant_cameras(patient.sights, str(patient.path))
    stacked = {key: np.stack(each) for key, each in patient.looks.items() if each}
    if stacked:
        patient.symptoms += looks.within(stacked, patient.looked)


def _remember(patient: Patient, glance: Glance, shared: Sequence[str], ranges: Mapping[str, Range]) -> None:
    """Keep of a demo what is needed when all are seen."""
    for key, pictures in glance.pictures.items():
        sights = patient.sights.setdefault(key, set())
        if len(sights) < 2:
            sights.update(np.unique(pictures.checksums)[:2].tolist())
        patient.looks.setdefault(key, []).append(looks.look(pictures.thumbnails))
    patient.pairs.append(pairs(glance, shared, ranges))
    hand = next(iter(ranges), None)
    if hand is not None and len(ranges[hand][0]) > 1:
        patient.map += _visits(glance.numbers, hand, ranges[hand])


def _visits(numbers: Numbers, key: str, limits: Range) -> NDArray[np.int64]:
    """Count how often the hand was in each cell of a map of the first two axes."""
    rows = numbers.vectors[key][:, :2].astype(np.float64)
    (low, high) = (limit[:2] for limit in limits)
    rows = rows[np.isfinite(rows).all(axis=1)]
    x, y = ((rows - low) / np.maximum(high - low, 1e-12) * MAP).clip(0, MAP - 1).astype(int).T
    visits: NDArray[np.int64] = np.bincount(y * MAP + x, minlength=MAP * MAP).reshape(MAP, MAP)
    return visits


def _between(patients: Sequence[Patient]) -> list[Finding]:
    """Find what is wrong between files; only copies are looked for unless they are given as task and prior data."""
    whole = all(len(patient.looked) == len(patient.names) for patient in patients)
    contents = [patient.contents if whole else [r.digest for r in patient.tally.records] for patient in patients]
    demos = [
        (str(patient.path), name, found)
        for patient, each in zip(patients, contents, strict=True)
        for name, found in zip(patient.names, each, strict=True)
    ]
    findings = list(checks.duplicates(demos))
    able = [patient for patient in patients if patient.tally.records and patient.role != "data"]
    if not able:
        return findings
    findings += comparison.compare([traits_of(patient) for patient in able])
    seen = [patient for patient in able if all(patient.looks.values())]
    if len(seen) > 1:
        sights = [{key: np.stack(each) for key, each in patient.looks.items()} for patient in seen]
        findings += looks.between(sights, [str(patient.path) for patient in seen])
    return findings


def _shared_cameras(able: Sequence[Patient]) -> list[str]:
    """Return the cameras that all files have."""
    cameras = [patient.outline.cameras for patient in able if patient.outline is not None]
    return [key for key in cameras[0] if all(key in each for each in cameras)] if cameras else []


def _unreadable(path: Path, error: Exception) -> Finding:
    message = str(error) if isinstance(error, DataError) else f"{path}: damaged ({error})"
    return Finding(check="structure", level="error", where="file", message=message, file=str(path))

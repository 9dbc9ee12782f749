"""One file while it is inspected: three rounds over it, and what is known of it so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.reader import Selection, read_contents
from pixelrl.datasets.inspect import image_checks, structure_checks
from pixelrl.datasets.inspect.demo_checks import (
    both_count,
    check_numbers,
    check_statistics,
    check_summary,
    constant_cameras,
)
from pixelrl.datasets.inspect.demo_summary import DemoNumbers, DemoSummary, read_numbers, read_summaries
from pixelrl.datasets.inspect.file_structure import DAMAGE, FileStructure, read_structure
from pixelrl.datasets.inspect.issues import Issue, Occurrence, Role
from pixelrl.datasets.inspect.quality import pair_hashes
from pixelrl.datasets.inspect.running_statistics import Range, RunningStatistics, digest_demo
from pixelrl.runtime.actions import ActionDim, ActionRange, unnamed_dims
from pixelrl.runtime.errors import DataError

AFFORDABLE = 4 * 2**30
"""Files with more bytes of pictures than this have theirs looked at in some demos only, evenly spaced."""

MAP = 24
"""The map of where the hand was is so many cells wide and high."""

Progress = Callable[[str, int, int], None]
"""Called with what is read, how much of it, and how much there is."""


@dataclass(kw_only=True)
class FileInspection:
    """One file while it is inspected.

    Attributes:
        names, pictured: the demos whose numbers can be read, and those whose pictures can be, too.
        dims, dims_known: what the actions mean, and whether training can read that from the file.
        looked, frames: the demos whose pictures were looked at, and how many pictures that were; of each of these demos
            there are a mean thumbnail of each camera, `digest_demo` and `pair_hashes`.
        checksums: camera -> checksums of its pictures, two of them if there are two.
        visits: how often the hand was in each cell of a map of its first two axes.
    """

    path: Path
    role: Role
    structure: FileStructure
    names: list[str] = field(default_factory=list)
    pictured: list[str] = field(default_factory=list)
    dims: tuple[ActionDim, ...] = ()
    dims_known: bool = False
    occurrences: list[Occurrence] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    statistics: RunningStatistics = field(default_factory=lambda: RunningStatistics(()))
    looked: list[str] = field(default_factory=list)
    frames: int = 0
    checksums: dict[str, set[int]] = field(default_factory=dict)
    thumbnails: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    pairs: list[NDArray[np.uint64]] = field(default_factory=list)
    visits: NDArray[np.int64] = field(default_factory=lambda: np.zeros((MAP, MAP), np.int64))

    @classmethod
    def begin(cls, path: Path, role: Role, unsafe: str | None, selection: Selection | None = None) -> "FileInspection":
        """Read the structure of a file and check it; `unsafe` tells why it must not be opened."""
        inspection = cls(path=path, role=role, structure=FileStructure(path=path))
        try:
            if unsafe is not None:
                raise DataError(f"{path}: {unsafe}")
            structure = inspection.structure = read_structure(path, selection)
        except DAMAGE as error:
            inspection._cannot_be_read(error)
            return inspection
        inspection.occurrences += structure_checks.check_demos(structure)
        inspection.issues += structure_checks.check_file(structure)
        too_large = list(structure_checks.check_size(structure))
        inspection.issues += too_large
        if not too_large:
            inspection.names = structure_checks.readable_demos(structure, inspection.occurrences, pictures=False)
            inspection.pictured = structure_checks.readable_demos(structure, inspection.occurrences)
        try:
            inspection.dims, inspection.dims_known = read_contents(path, **vars(structure.selection)).action, True
        except DAMAGE as error:  # training would refuse what was not found here
            if not any(each.level == "error" for each in inspection.occurrences):
                inspection._cannot_be_read(error)
        if inspection.names:
            size = structure.demos[inspection.names[0]].arrays["actions"].shape[1]
            inspection.dims = inspection.dims or unnamed_dims(size)
        inspection.statistics = RunningStatistics(inspection.dims)
        return inspection

    def read_numbers(self, actions: ActionRange, progress: Progress) -> None:
        """Read all numbers and check them; rewards and dones that a rule replaces tell nothing."""
        required = self.structure.selection.required
        for done, numbers in enumerate(read_numbers(self.structure, self.names), start=1):
            if isinstance(numbers, Occurrence):
                self.occurrences.append(numbers)
            else:
                self.occurrences += check_numbers(numbers, actions, required)
                self.statistics.add(numbers)
            progress("numbers", done, len(self.names))
        self.names = [record.name for record in self.statistics.records]
        self.issues += check_statistics(self.statistics, self.role if both_count(required) else "prior", str(self.path))

    def read_pictures(
        self, sample: int | None, cameras: Sequence[str], ranges: Mapping[str, Range], progress: Progress
    ) -> None:
        """Look at the pictures and check them.

        Args:
            sample: of so many demos; None: of all, or as many as are `AFFORDABLE`.
            cameras: those that all files have, for `pairs`.
            ranges: of the vectors that count as state, over all files.
            progress: told of the frames read.
        """
        demos = self.structure.demos
        pictured = {*self.pictured}
        names = [name for name in self.names if name in pictured]
        sizes = [structure_checks.picture_bytes(demos[name], self.structure.cameras) for name in names]
        affordable = len(sizes) if sum(sizes) <= AFFORDABLE else max(1, len(sizes) * AFFORDABLE // sum(sizes))
        chosen = evenly_spaced(names, affordable if sample is None else sample)
        frames = sum(demos[name].arrays["actions"].shape[0] + 1 for name in chosen)

        def seen(count: int) -> None:
            self.frames += count
            progress("pictures", self.frames, frames * len(self.structure.cameras))

        for summary in read_summaries(self.structure, chosen, seen):
            if isinstance(summary, Occurrence):
                self.occurrences.append(summary)
            else:
                self._add(summary, cameras, ranges)
        self.issues += constant_cameras(self.checksums, str(self.path))
        thumbnails = self.stacked_thumbnails()
        if thumbnails:
            self.occurrences += image_checks.check_demos(thumbnails, self.looked)

    def stacked_thumbnails(self) -> dict[str, NDArray[np.float64]]:
        """Return camera -> the mean thumbnail of each demo that was looked at, `[D, G, G, C]`."""
        return {key: np.stack(each) for key, each in self.thumbnails.items()}

    def _add(self, summary: DemoSummary, cameras: Sequence[str], ranges: Mapping[str, Range]) -> None:
        """Check a demo, and keep of it what is needed when all are read."""
        self.looked.append(summary.numbers.name)
        self.occurrences += check_summary(summary, self.statistics.ranges)
        self.digests.append(digest_demo(summary))
        for key, pictures in summary.pictures.items():
            kept = self.checksums.setdefault(key, set())
            if len(kept) < 2:
                kept.update(np.unique(pictures.checksums)[:2].tolist())
            self.thumbnails.setdefault(key, []).append(image_checks.mean_thumbnail(pictures.thumbnails))
        self.pairs.append(pair_hashes(summary, cameras, ranges))
        hand = next(iter(ranges), None)
        if hand is not None and len(ranges[hand][0]) > 1:
            self.visits += _visits(summary.numbers, hand, ranges[hand])

    def _cannot_be_read(self, error: Exception) -> None:
        message = str(error) if isinstance(error, DataError) else f"{self.path}: damaged ({error})"
        issue = Issue(check="structure", level="error", where="file", message=message, file=str(self.path))
        self.issues.append(issue)


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` names, evenly spaced."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in places]


def _visits(numbers: DemoNumbers, key: str, limits: Range) -> NDArray[np.int64]:
    """Count how often the hand was in each cell of a map of the first two axes."""
    rows = numbers.vectors[key][:, :2].astype(np.float64)
    (low, high) = (limit[:2] for limit in limits)
    rows = rows[np.isfinite(rows).all(axis=1)]
    x, y = ((rows - low) / np.maximum(high - low, 1e-12) * MAP).clip(0, MAP - 1).astype(int).T
    visits: NDArray[np.int64] = np.bincount(y * MAP + x, minlength=MAP * MAP).reshape(MAP, MAP)
    return visits

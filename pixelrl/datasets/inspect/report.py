"""What an examination ends in: a report on each file, and the diagnosis of all; `asdict` makes them JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pixelrl.datasets.inspect.checks import Role
from pixelrl.datasets.inspect.issues import Issue, ordered
from pixelrl.datasets.inspect.quality import Coverage, Quality


@dataclass(frozen=True, kw_only=True)
class Key:
    """An observation key: the shape of one frame, and its bytes in memory over all frames, if each is held once."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    compression: str


@dataclass(frozen=True, kw_only=True)
class ActionSummary:
    """One dimension of the action: its recorded range and moments, the share of steps at or beyond +-1, its bars."""

    name: str
    unit: str
    low: float
    high: float
    mean: float
    std: float
    clipped: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What a file holds. Triples are (min, median, max); `asdict` makes it JSON.

    Attributes:
        path: the file.
        role: what it was given as: task, prior or data.
        bytes: its size on the disk.
        environment: the name that its `env_args` give.
        demos: their number.
        transitions: the number of those that can be learned from, in demos that can be read.
        looked_demos, looked_frames: how many demos had their pictures looked at, and how many frames that were, over
            all cameras. DemoNumbers are read from all demos.
        lengths: of the demos [steps].
        returns: undiscounted sums of rewards.
        all_lengths, all_returns: of each demo.
        success: share of the demos with a positive reward.
        keys: the observations.
        actions: their dimensions.
        notes: note -> value -> how many demos bear it, for notes with few values.
        quality: TQ, and what it is relative to.
        coverage: SACo, and what it is relative to.
        map: how often the hand was in each cell, rows along its second axis, over the range of all files.
        issues: the worst first.
    """

    path: str
    role: Role = "data"
    bytes: int = 0
    environment: str = ""
    demos: int = 0
    transitions: int = 0
    looked_demos: int = 0
    looked_frames: int = 0
    lengths: tuple[float, float, float] = (0, 0, 0)
    returns: tuple[float, float, float] = (0, 0, 0)
    all_lengths: tuple[int, ...] = ()
    all_returns: tuple[float, ...] = ()
    success: float = 0.0
    keys: tuple[Key, ...] = ()
    actions: tuple[ActionSummary, ...] = ()
    notes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    quality: Quality | None = None
    coverage: Coverage | None = None
    map: tuple[tuple[int, ...], ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InspectionReport:
    """Reports on files, and what is wrong between them.

    Attributes:
        reports: one a file.
        between: issues that concern several files.
    """

    reports: tuple[FileReport, ...]
    between: tuple[Issue, ...]

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

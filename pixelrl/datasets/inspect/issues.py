"""What the doctor says: occurrences, each at one place of a demo, and issues, which gather alike occurrences of a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """Something wrong in one demo.

    Attributes:
        check: the name of the check that saw it.
        level: as `Issue.level`.
        where: the key in the demo, say `obs/agentview_image`.
        message: what is wrong, the same words for every demo that has it.
        demo: say `demo_3`.
        index: the first row of the key where it is seen; None if it is the demo as a whole.
        places: in how many rows of the demo.
        detail: what came at that first place, say a value.
    """

    check: str
    level: Level
    where: str
    message: str
    demo: str
    index: int | None = None
    places: int = 1
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Issue:
    """Something to know before training: errors stop it, warnings may spoil it, notes are good to know.

    Attributes:
        check: the name of the check.
        level: error, warning or note.
        where: the key, or the part of the file.
        message: one line: what came, how often, and what would be right.
        file: the file that it is about.
        demo: the first demo that has it; empty if it is the file as a whole.
        index: the first row in that demo.
        demos: how many demos have it.
        looked: how many were looked at.
        places: how many rows have it, over all demos.
        fix: a command or an option that helps, if there is one.
    """

    check: str
    level: Level
    where: str
    message: str
    file: str
    demo: str = ""
    index: int | None = None
    demos: int = 0
    looked: int = 0
    places: int = 0
    fix: str = ""

    @property
    def place(self) -> str:
        """Return the first place as a path in the file, say `/data/demo_3/obs/agentview_image[5]`."""
        row = "" if self.index is None else f"[{self.index}]"
        return f"/data/{self.demo}/{self.where}{row}" if self.demo else self.where


def gather(occurrences: Iterable[Occurrence], *, file: str, looked: int) -> list[Issue]:
    """Gather alike occurrences into issues: the first place, and how many demos and rows have it."""
    groups: dict[tuple[str, Level, str, str], list[Occurrence]] = {}
    for occurrence in occurrences:
        groups.setdefault((occurrence.check, occurrence.level, occurrence.where, occurrence.message), []).append(occurrence)
    return [_issue(group, file, looked) for group in groups.values()]


def ordered(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """Return the worst first; those alike keep their order."""
    return tuple(sorted(issues, key=lambda issue: LEVELS.index(issue.level)))


def _issue(group: Sequence[Occurrence], file: str, looked: int) -> Issue:
    """Say in one line what a group of alike occurrences has in common, and where the first of them is."""
    first = group[0]
    demos = len({occurrence.demo for occurrence in group})
    places = sum(occurrence.places for occurrence in group)
    start = first.demo if first.index is None else f"{first.demo}[{first.index}]"
    start = f"{start} ({first.detail})" if first.detail else start
    rows = f", {places} rows" if first.index is not None and places > 1 else ""
    return Issue(
        check=first.check,
        level=first.level,
        where=first.where,
        message=f"{first.message} in {demos} of {looked} demos{rows}; first: {start}",
        file=file,
        demo=first.demo,
        index=first.index,
        demos=demos,
        looked=looked,
        places=places,
    )

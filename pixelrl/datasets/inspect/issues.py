"""What the doctor says: symptoms, each at one place of a demo, and findings, which gather alike symptoms of a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """Something wrong in one demo.

    Attributes:
        check: the name of the check that saw it.
        level: as `Finding.level`.
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
class Finding:
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


def gather(symptoms: Iterable[Symptom], *, file: str, looked: int) -> list[Finding]:
    """Gather alike symptoms into findings: the first place, and how many demos and rows have it."""
    groups: dict[tuple[str, Level, str, str], list[Symptom]] = {}
    for symptom in symptoms:
        groups.setdefault((symptom.check, symptom.level, symptom.where, symptom.message), []).append(symptom)
    return [_finding(group, file, looked) for group in groups.values()]


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the worst first; those alike keep their order."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def _finding(group: Sequence[Symptom], file: str, looked: int) -> Finding:
    """Say in one line what a group of alike symptoms has in common, and where the first of them is."""
    first = group[0]
    demos = len({symptom.demo for symptom in group})
    places = sum(symptom.places for symptom in group)
    start = first.demo if first.index is None else f"{first.demo}[{first.index}]"
    start = f"{start} ({first.detail})" if first.detail else start
    rows = f", {places} rows" if first.index is not None and places > 1 else ""
    return Finding(
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

"""What an inspection finds: occurrences, each at one place of one demo, and issues, which gather those of a file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

Role = Literal["task", "prior", "data"]
"""What a file is given as; `data` where the user does not say."""

MOST_NAMED = 20
"""Demos that are named at the most where the cure is to leave them out."""


class Occurrence(NamedTuple):
    """Something wrong in one demo.

    The message has the same words for every demo that has it; `row` is the first row that has it, None if it is the
    demo as a whole, and `rows` how many have it; `detail` tells what came at that first place, say a value.
    """

    check: str
    level: Level
    where: str
    message: str
    demo: str
    row: int | None = None
    rows: int = 1
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Issue:
    """Something to know before training: errors stop it, warnings may spoil it, notes are good to know.

    Attributes:
        check: the name of the check.
        where: the key in a demo, say `obs/agentview_image`, or the part of the file.
        message: one line: what came, how often, and what would be right.
        demo, index: the first demo that has it, and the first row in it; empty and None if it is the whole file.
        demos, looked: how many demos have it, of how many that were looked at.
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
    def subject(self) -> str:
        """Return `where`, and of the demo itself the word."""
        return "demo" if self.where == "." else self.where

    @property
    def place(self) -> str:
        """Return the first place as a path in the file, say `/data/demo_3/obs/agentview_image[5]`."""
        row = "" if self.index is None else f"[{self.index}]"
        return f"/data/{self.demo}/{self.where}{row}" if self.demo else self.where


def in_rows(
    check: str, level: Level, where: str, message: str, demo: str, marked: NDArray[np.bool_], detail: str = ""
) -> Occurrence:
    """Return an occurrence in the rows that are marked."""
    return Occurrence(check, level, where, message, demo, int(marked.argmax()), int(marked.sum()), detail)


def gather(occurrences: Iterable[Occurrence], *, file: str, looked: int) -> list[Issue]:
    """Gather alike occurrences into issues, each with its first place, and how many demos and rows have it."""
    groups: dict[tuple[str, Level, str, str], list[Occurrence]] = {}
    for each in occurrences:
        groups.setdefault(each[:4], []).append(each)
    issues = []
    for (check, level, where, message), group in groups.items():
        first, names, places = group[0], [*dict.fromkeys(each.demo for each in group)], sum(each.rows for each in group)
        demos = len(names)
        rows = f", {places} rows" if first.row is not None and places > 1 else ""
        start = first.demo if first.row is None else f"{first.demo}[{first.row}]"
        start = f"{start} ({first.detail})" if first.detail else start
        issues.append(
            Issue(
                check=check,
                level=level,
                where=where,
                message=f"{message} in {demos} of {looked} demos{rows}; first: {start}",
                file=file,
                demo=first.demo,
                index=first.row,
                demos=demos,
                looked=looked,
                places=places,
                fix=_without(names, file) if level == "error" and demos < looked else "",
            )
        )
    return issues


def _without(demos: Sequence[str], file: str) -> str:
    """Return how to go on without some demos."""
    some = f"{' '.join(demos[:MOST_NAMED])}{' ...' if len(demos) > MOST_NAMED else ''}"
    return f"`pixelrl convert {file} NEW.hdf5 --leave-out {some}`, or a mask without them (`--task-mask NAME`)"


def ordered(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    """Return the worst first; those alike keep their order."""
    return tuple(sorted(issues, key=lambda issue: LEVELS.index(issue.level)))

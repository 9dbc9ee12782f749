"""Checks on what a file holds: one pure function each, from one demo, or from what is kept of all, to what is wrong."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect.demo_summary import DemoNumbers, DemoSummary
from pixelrl.datasets.inspect.issues import Issue, Level, Occurrence, Role, in_rows
from pixelrl.datasets.inspect.running_statistics import ActionStatistics, Range, RunningStatistics, position_keys
from pixelrl.runtime.actions import ROUNDING, ActionRange

RUN = 3
"""So many pictures alike are a frozen camera, if the robot moves meanwhile."""

MOVED = 0.1
"""The robot moves if it ends so far from where it was, relative to its range in the file (the longest axis)."""

COMMANDED = 0.1
"""Where no sensor measures the robot, it moves if every action of a long run has a component at least this large."""


def both_count(required: Collection[str]) -> bool:
    """Tell whether rewards and dones are both learned from, and so tell of each other."""
    return {"rewards", "dones"} <= {*required}


def check_numbers(numbers: DemoNumbers, actions: ActionRange, required: Collection[str]) -> Iterator[Occurrence]:
    """Run all checks on the numbers of a demo; `required`: which of its rewards and dones count."""
    yield from not_finite(numbers, required)
    yield from action_range(numbers, actions)
    if both_count(required):
        yield from ends(numbers)


def check_summary(summary: DemoSummary, ranges: Mapping[str, Range]) -> Iterator[Occurrence]:
    """Run all checks on a demo with its pictures; `ranges` are those of the file."""
    yield from blank(summary)
    yield from frozen(summary, ranges)
    yield from shifted(summary)
    yield from astray(summary)


def check_statistics(statistics: RunningStatistics, role: Role, file: str) -> Iterator[Issue]:
    """Run all checks on the numbers of all demos."""
    yield from action_use(statistics.actions(), file)
    if role != "prior" and statistics.records and not statistics.rewarded:
        message = "never positive: fit for prior data only (or the rewards were not recorded)"
        yield Issue(check="rewards", level="warning", where="rewards", message=message, file=file)
    for key, (low, high) in statistics.ranges.items():
        if (high == low).all():
            message = f"always {[float(f'{value:.6g}') for value in low.tolist()]}: it tells nothing"
            yield Issue(check="sensor-constant", level="note", where=f"obs/{key}", message=message, file=file)


def not_finite(numbers: DemoNumbers, required: Collection[str]) -> Iterator[Occurrence]:
    """Find NaN and infinities, in rewards where they count."""
    arrays = {"actions": numbers.actions} | ({"rewards": numbers.rewards} if "rewards" in required else {})
    arrays |= {f"obs/{key}": rows for key, rows in numbers.vectors.items()}
    for where, rows in arrays.items():
        flat = rows.reshape(len(rows), rows[:1].size)
        bad = ~np.isfinite(flat)
        if bad.any():
            row = int(bad.any(axis=1).argmax())
            message = "NaN or infinite; expected finite numbers"
            yield in_rows("finite", "error", where, message, numbers.name, bad.any(axis=1), f"{flat[row][bad[row]][0]}")


def action_range(numbers: DemoNumbers, actions: ActionRange) -> Iterator[Occurrence]:
    """Find actions outside [-1, 1]; no error if they are to be normalised."""
    size = np.where(np.isfinite(numbers.actions), np.abs(numbers.actions), 0)
    outside: NDArray[np.bool_] = np.asarray((size > 1 + ROUNDING).any(axis=1))
    if outside.any():
        row = int(outside.argmax())
        dim = int(size[row].argmax())
        message = "outside [-1, 1]; expected normalised actions (--actions min-max normalises them)"
        level: Level = "error" if actions == "unit" else "note"
        detail = f"dimension {dim} is {numbers.actions[row, dim]:.4g}; largest {size.max():.4g}"
        yield in_rows("action-range", level, "actions", message, numbers.name, outside, detail)


def action_use(dims: Iterable[ActionStatistics], file: str) -> Iterator[Issue]:
    """Find action dimensions that are always the same, or often at the edge."""
    for dim in dims:
        where, spread = f"actions, {dim.name}", dim.high - dim.low
        switch = "grip" in dim.name or sum(dim.histogram[1:-1]) < 0.05 * sum(dim.histogram)  # at one edge or the other
        if spread < 1e-6:
            message = f"always {dim.low:g}: a policy cannot learn what it does"
            yield Issue(check="action-constant", level="warning", where=where, message=message, file=file)
        elif dim.clipped > 0.3 and spread > 0.1 and not switch:
            message = f"{dim.clipped:.0%} of the steps are at +-1: the speed limit is felt, or the scale is wrong"
            yield Issue(check="action-clipped", level="note", where=where, message=message, file=file)


def ends(numbers: DemoNumbers) -> Iterator[Occurrence]:
    """Find dones that rewards contradict: time-outs marked as ends, dones a step early or late, goals without end.

    Where rewards are costs (some below 0, none above), they do not tell the goal, and nothing is said.
    """
    rewards, dones, name = numbers.rewards, numbers.dones, numbers.name
    paid = rewards > 0
    if (rewards < 0).any() and not paid.any():
        return
    unpaid = dones & ~paid
    beside = np.zeros_like(paid)
    beside[1:] |= paid[:-1] & ~dones[:-1]
    beside[:-1] |= paid[1:] & ~dones[1:]
    off_by_one, timed_out = unpaid & beside, unpaid & ~beside
    if off_by_one.any():
        message = "set one step beside the reward: shifted against it?"
        yield in_rows("dones", "warning", "dones", message, name, off_by_one)
    if timed_out[:-1].any():
        message = "set without a reward before the last step, yet the demo goes on"
        yield in_rows("dones", "warning", "dones", message, name, timed_out & (np.arange(len(dones)) < len(dones) - 1))
    elif timed_out.any():
        message = "set without a reward at the last step: a time-out marked as an end (use --ends goal or never)"
        yield in_rows("time-outs", "warning", "dones", message, name, timed_out)
    if (paid & ~dones).any() and not off_by_one.any():
        message = "not set at a rewarded step: such steps never end an episode"
        yield in_rows("dones", "note", "dones", message, name, paid & ~dones)


def blank(summary: DemoSummary) -> Iterator[Occurrence]:
    """Find pictures that are black, or all of one colour, at any step."""
    for key, pictures in summary.pictures.items():
        for code, message in ((1, "all black"), (2, "all of one colour")):
            rows = pictures.blank == code
            if rows.any():
                yield in_rows("blank", "warning", f"obs/{key}", message, summary.numbers.name, rows)


def frozen(summary: DemoSummary, ranges: Mapping[str, Range]) -> Iterator[Occurrence]:
    """Find cameras that stand still while the robot moves: from start to end, or for a while.

    Pictures are compared by checksum. A run counts only if the robot ends it elsewhere (`MOVED`), so that an arm
    which rests, however long, raises no alarm; `blank` tells of blank pictures.
    """
    for key, pictures in summary.pictures.items():
        frames = len(pictures.checksums)
        for start, stop in runs(pictures.checksums):
            long = stop - start >= min(RUN, frames)
            if not long or pictures.blank[start] or not moves(summary.numbers, ranges, start, stop):
                continue
            whole = stop - start == frames
            message = "the same picture from start to end" if whole else "the same picture while the robot moves"
            same = (np.arange(frames) >= start) & (np.arange(frames) < stop)
            detail = "" if whole else f"{stop - start} alike"
            yield in_rows("frozen", "warning", f"obs/{key}", message, summary.numbers.name, same, detail)


def runs(values: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of each longest run of equal values, two or more."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    for start, stop in pairwise(edges):
        if stop - start > 1:
            yield start, stop


def moves(numbers: DemoNumbers, ranges: Mapping[str, Range], start: int, stop: int) -> bool:
    """Tell whether the robot is elsewhere at some frame of [start, stop) than at the first: see `MOVED`."""
    keys = [key for key in position_keys(tuple(numbers.vectors)) if key in ranges]
    for key in keys:
        low, high = ranges[key]
        reach = float((high - low).max(initial=0))
        rows = numbers.vectors[key][start:stop].astype(np.float64)
        far = np.abs(rows - rows[:1])
        if reach > 0 and far.size and float(np.where(np.isfinite(far), far, 0).max()) >= MOVED * reach:
            return True
    if keys:
        return False
    commands = np.abs(numbers.actions[start : stop - 1]).max(axis=1, initial=0)
    return len(commands) >= 2 * RUN - 2 and bool((commands >= COMMANDED).all())


def shifted(summary: DemoSummary) -> Iterator[Occurrence]:
    """Find `next_obs` that are not the frames one step later, and say which they are instead.

    Without `frames` the last row of `next_obs` is itself read as the last frame, so it is compared with nothing.
    """
    for key, later in summary.next_obs.items():
        frames = summary.frames(key)
        if not summary.obs:
            frames, later = frames[: len(later)], later[:-1]
        wrong = ~_same(later, frames, 1)
        if not wrong.any():
            continue
        shifts = {0: "is obs itself, not obs one step later", 2: "is obs two steps later, not one"}
        known = (shift for shift in shifts if len(frames) > shift and _same(later, frames, shift).all())
        message = f"{shifts.get(next(known, 1), 'is not obs one step later')} (off by one?)"
        yield in_rows("next_obs", "warning", f"next_obs/{key}", message, summary.numbers.name, wrong)


def astray(summary: DemoSummary) -> Iterator[Occurrence]:
    """Find `obs` that are not the frames that are read."""
    for key, now in summary.obs.items():
        wrong = ~_same(now, summary.frames(key), 0)
        if wrong.any():
            message = "is not what frames holds (was the demo renamed? frames are what is read)"
            yield in_rows("obs", "warning", f"obs/{key}", message, summary.numbers.name, wrong)


def _same(window: NDArray[Any], frames: NDArray[Any], shift: int) -> NDArray[np.bool_]:
    """Tell for each row of a window whether it is the frame `shift` later, as far as there are frames."""
    size = min(len(window), len(frames) - shift)
    one, other = window[:size], frames[shift : shift + size]
    if one.shape != other.shape or not size:
        return np.zeros(size, np.bool_)
    alike = np.isclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True) if one.dtype.kind == "f" else one == other
    same: NDArray[np.bool_] = alike.reshape(size, -1).all(axis=1)
    return same


def constant_cameras(checksums: Mapping[str, set[int]], file: str) -> Iterator[Issue]:
    """Find cameras that show one and the same picture in all demos; takes the checksums that each camera has."""
    for key, different in checksums.items():
        if len(different) == 1:
            message = "one and the same picture in all demos looked at: the camera shows nothing"
            yield Issue(check="camera-constant", level="warning", where=f"obs/{key}", message=message, file=file)


def duplicates(demos: Iterable[tuple[str, str, str]]) -> Iterator[Issue]:
    """Find demos that are there twice, in one file or in two; takes (file, demo, checksum of the content)."""
    first: dict[str, tuple[str, str]] = {}
    again: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for file, demo, checksum in demos:
        if checksum in first:
            again[file, first[checksum][0]].append((demo, first[checksum][1]))
        else:
            first[checksum] = (file, demo)
    for (file, other), pairs in again.items():
        copy, original = pairs[0]
        place = "this file" if file == other else other
        message = f"copies of demos of {place}: {len(pairs)}; first: {copy} is {original} again"
        yield Issue(
            check="duplicates", level="warning", where="data", message=message, file=file, demo=copy, demos=len(pairs)
        )

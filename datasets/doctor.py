"""What `pixelrl inspect` tells of a file before anybody trains on it: what it holds, and what looks wrong."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from pixelrl.datasets.hdf5 import child, dataset, is_array, open_file
from pixelrl.datasets.robomimic_hdf5 import Contents, Demo, read_contents, read_demos, sensor
from pixelrl.datasets.store import check_unit_range
from pixelrl.errors import DataError
from pixelrl.simulation.video import Row

SAMPLE = 20
"""Demos whose pictures are looked at; numbers are read from all."""

NEAR_EDGE = 0.999
"""An action at least this large counts as clipped."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something to know before training: errors stop it, warnings may spoil it."""

    level: Literal["error", "warning", "note"]
    where: str
    message: str


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
    """One dimension of the action: its recorded range, and the share of steps at or beyond +-1."""

    name: str
    unit: str
    low: float
    high: float
    clipped: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a file holds. Triples are (min, median, max); `asdict` makes it JSON.

    Attributes:
        path: the file.
        bytes: its size on the disk.
        environment: the name that its `env_args` give.
        demos: their number.
        transitions: the number of those that can be learned from.
        lengths: of the demos [steps].
        returns: undiscounted sums of rewards.
        success: share of the demos with a positive reward.
        keys: the observations.
        actions: their dimensions.
        notes: note -> value -> how many demos bear it, for notes with few values.
        findings: the worst first.
    """

    path: str
    bytes: int = 0
    environment: str = ""
    demos: int = 0
    transitions: int = 0
    lengths: tuple[float, float, float] = (0, 0, 0)
    returns: tuple[float, float, float] = (0, 0, 0)
    success: float = 0.0
    keys: tuple[Key, ...] = ()
    actions: tuple[ActionSummary, ...] = ()
    notes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def inspect_file(path: Path) -> Report:
    """Read a file and report; whatever cannot be read becomes a finding, so nothing is raised."""
    try:
        contents = read_contents(path)
    except DataError as error:
        return Report(path=str(path), findings=(Finding(level="error", where="file", message=str(error)),))
    demos: list[Demo] = []
    findings: list[Finding] = []
    try:
        for demo in read_demos(replace(contents, pictures={})):
            demos.append(demo)
        findings += [*_rewards(demos), *_pictures(contents), *_shifted(contents)]
    except DataError as error:
        findings.append(Finding(level="error", where="file", message=str(error)))
    report = Report(
        path=str(path),
        bytes=path.stat().st_size,
        environment=str(contents.env_args.get("env_name", "")),
        demos=len(contents.demos),
        transitions=sum(contents.demos.values()),
        lengths=_spread(list(contents.demos.values())),
        keys=_keys(contents),
    )
    if demos:
        returns = np.array([demo.rewards.sum() for demo in demos])
        success = float(np.mean([(demo.rewards > 0).any() for demo in demos]))
        findings += _actions(contents, demos)
        actions = _action_ranges(contents, demos)
        report = replace(report, returns=_spread(returns), success=success, actions=actions, notes=_notes(demos))
    severity = ("error", "warning", "note")
    return replace(report, findings=tuple(sorted(findings, key=lambda finding: severity.index(finding.level))))


def print_report(report: Report, console: Console) -> None:
    """Print a report as tables."""
    console.print(f"[bold]{escape(report.path)}[/]  {decimal(report.bytes)}  {escape(report.environment)}")
    if report.demos:
        triple = "{:.4g} / {:.4g} / {:.4g}".format
        facts = Table("demos", "transitions", "steps (min/median/max)", "return (min/median/max)", "success")
        lengths, returns = triple(*report.lengths), triple(*report.returns)
        facts.add_row(str(report.demos), str(report.transitions), lengths, returns, f"{report.success:.1%}")
        keys = Table("observation", "shape", "type", "in memory", "compression")
        for key in report.keys:
            keys.add_row(key.name, str(key.shape), key.dtype, decimal(key.bytes), key.compression)
        actions = Table("action", "unit", "min", "max", "clipped")
        for dim in report.actions:
            actions.add_row(dim.name, dim.unit, f"{dim.low:.3f}", f"{dim.high:.3f}", f"{dim.clipped:.1%}")
        console.print(facts, keys, actions)
    for note, values in report.notes.items():
        console.print(f"{escape(note)}: " + ", ".join(f"{escape(value)} ({n})" for value, n in values.items()))
    colours = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in report.findings:
        label = f"[{colours[finding.level]}]{finding.level}[/]"
        console.print(f"{label} {escape(finding.where)}: {escape(finding.message)}")


def contact_rows(path: Path, demos: int = 6) -> list[Row]:
    """Return rows for a contact sheet: demos from all over the file, their cameras side by side.

    Raises:
        DataError: the file cannot be read.
    """
    contents = read_contents(path, proprio=())
    rows = []
    for demo in read_demos(contents, _spaced(list(contents.demos), demos)):
        cameras = [_rgb(demo.sensors[key]) for key in contents.pictures]
        alike = [camera for camera in cameras if camera.shape[1] == cameras[0].shape[1]]
        ok = demo.notes.get("success", True if (demo.rewards > 0).any() else None)
        caption = f"{demo.name} · {len(demo.actions)} steps · return {demo.rewards.sum():g}"
        rows.append(Row(caption, np.concatenate(alike, axis=2), ok))
    return rows


def _rgb(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Return three channels: grey is repeated, a fourth is dropped."""
    return frames[..., :3] if frames.shape[-1] > 1 else np.repeat(frames, 3, axis=-1)


def _spaced(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` names, evenly spaced."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in places]


def _spread(values: Sequence[float] | NDArray[Any]) -> tuple[float, float, float]:
    """Return (min, median, max)."""
    return float(np.min(values)), float(np.median(values)), float(np.max(values))


def _keys(contents: Contents) -> tuple[Key, ...]:
    """Describe every array under `obs`, also those that nobody learns from."""
    frames = sum(contents.demos.values()) + len(contents.demos)
    with open_file(contents.path) as file:
        demo = file["data"][next(iter(contents.demos))]
        home = child(demo, "frames" if "frames" in demo else "obs")
        items = {name: dataset(home, name) for name in home if is_array(home, name)}
        return tuple(
            Key(
                name=name,
                shape=item.shape[1:],
                dtype=str(item.dtype),
                bytes=frames * item.dtype.itemsize * int(np.prod(item.shape[1:])),
                compression=item.compression or "none",
            )
            for name, item in items.items()
        )


def _action_ranges(contents: Contents, demos: Sequence[Demo]) -> tuple[ActionSummary, ...]:
    """Describe every dimension of the action over all demos."""
    actions = np.concatenate([demo.actions for demo in demos])
    low, high, clipped = actions.min(axis=0), actions.max(axis=0), (np.abs(actions) >= NEAR_EDGE).mean(axis=0)
    return tuple(
        ActionSummary(name=dim.name, unit=dim.unit, low=float(low[i]), high=float(high[i]), clipped=float(clipped[i]))
        for i, dim in enumerate(contents.action)
    )


def _notes(demos: Sequence[Demo]) -> dict[str, dict[str, int]]:
    """Count the values of every note that has at most eight of them."""
    names = {name: None for demo in demos for name in demo.notes}
    counts = {name: Counter(json.dumps(d.notes[name]) for d in demos if name in d.notes) for name in names}
    return {name: dict(sorted(values.items())) for name, values in counts.items() if len(values) <= 8}


def _actions(contents: Contents, demos: Sequence[Demo]) -> Iterator[Finding]:
    """Find actions that are out of range, often clipped, or always the same."""
    try:
        for demo in demos:
            check_unit_range(demo, contents.path)
    except DataError as error:
        yield Finding(level="error", where="actions", message=str(error))
    for dim in _action_ranges(contents, demos):
        if dim.high - dim.low < 1e-6:
            yield Finding(level="warning", where=f"actions, {dim.name}", message=f"always {dim.low:g}")
        elif dim.clipped > 0.3 and dim.high - dim.low > 0.1 and dim.name != "gripper":
            message = f"{dim.clipped:.0%} of the steps are at +-1: the speed limit is felt, or the scale is wrong"
            yield Finding(level="note", where=f"actions, {dim.name}", message=message)


def _rewards(demos: Sequence[Demo]) -> Iterator[Finding]:
    """Find rewards that nobody gets, and dones that say something else than success."""
    total = len(demos)
    if not any((demo.rewards > 0).any() for demo in demos):
        message = "never positive: fit for prior data only (or the rewards were not recorded)"
        yield Finding(level="warning", where="rewards", message=message)
    unpaid = sum(bool((demo.dones & (demo.rewards <= 0)).any()) for demo in demos)
    if unpaid:
        message = f"set without a reward in {unpaid} of {total} demos: there they mark a time-out, so use ends=goal"
        yield Finding(level="warning", where="dones", message=f"{message} or never, not ends=dones")
    open_ended = sum(bool(((demo.rewards > 0) & ~demo.dones).any()) for demo in demos)
    if open_ended:
        message = f"not set at a rewarded step in {open_ended} of {total} demos: such steps never end an episode"
        yield Finding(level="note", where="dones", message=message)


def _pictures(contents: Contents) -> Iterator[Finding]:
    """Find cameras that are dark or frozen in some of the demos looked at."""
    names = _spaced(list(contents.demos), SAMPLE)
    black: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for demo in read_demos(replace(contents, vectors={}), names):
        for key, frames in demo.sensors.items():
            black[key] += int(frames.max() == 0)
            frozen[key] += int(frames.max() > 0 and bool((frames == frames[0]).all()))
    for counts, what in ((black, "all black"), (frozen, "the same picture from start to end")):
        for key, count in counts.items():
            if count:
                message = f"{what} in {count} of {len(names)} demos looked at"
                yield Finding(level="warning", where=f"obs/{key}", message=message)


def _shifted(contents: Contents) -> Iterator[Finding]:
    """Find `next_obs` that are not `obs` one step later, and `obs` that are not the frames that are read."""
    names = _spaced(list(contents.demos), SAMPLE)
    shifted: Counter[str] = Counter()
    astray: Counter[str] = Counter()
    with open_file(contents.path) as file:
        for demo in (file["data"][name] for name in names):
            if "next_obs" not in demo:
                message = "no next_obs: the last transition of such demos is dropped, and its reward with it"
                yield Finding(level="warning", where=demo.name, message=message)
                return
            for key in (*contents.pictures, *contents.vectors):
                now, later = (dataset(child(demo, group), key)[()] for group in ("obs", "next_obs"))
                shifted[key] += not np.array_equal(now[1:], later[:-1])
                astray[key] += not np.array_equal(now, sensor(demo, key)[0][: len(now)])
    for counts, group, what in (
        (shifted, "next_obs", "is not obs one step later (off by one?)"),
        (astray, "obs", "is not what frames holds (was the demo renamed? frames are what is read)"),
    ):
        for key, count in counts.items():
            if count:
                message = f"{what} in {count} of {len(names)} demos looked at"
                yield Finding(level="warning", where=f"{group}/{key}", message=message)

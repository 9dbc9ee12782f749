"""Checks between files that are trained on together: do they mean the same by the same numbers?

Each is compared with the first one, which is the task's if there is one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pixelrl.datasets.inspect.file_inspection import FileInspection
from pixelrl.datasets.inspect.issues import Issue, Level
from pixelrl.datasets.inspect.running_statistics import ActionStatistics
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.env_args import ROBOSUITE_TYPE, drawing_of

SHIFT = 2.0
"""Means of an action dimension that differ by more than this many of the larger standard deviation are told of."""

SCALE = 5.0
"""So are standard deviations and ranges of which one is more than this many times the other."""

STILL = 1e-6
"""A dimension that varies by less is always the same."""

AGREEMENT = 0.5
"""A file must open or close its gripper so surely with positive actions before signs are compared; see
`RunningStatistics.gripper`."""

RENAMING = "--task-rename or --prior-rename OLD=NEW"

UNITS = ("robots", "control_freq", "controller_configs")
"""What in `env_kwargs` decides what an action does."""


def compare(files: Sequence[FileInspection]) -> Iterator[Issue]:
    """Run all checks of this module; alike issues of several files become one."""
    first = files[0]
    found: list[Issue] = []
    for other in files[1:]:
        found += mismatch(first, other)
        found += environments(first, other)
        if len(first.dims) == len(other.dims):
            found += action_statistics(first, other)
            found += grippers(first, other)
    return merged(found)


def merged(issues: Iterable[Issue]) -> Iterator[Issue]:
    """Yield each check and place once: of the first file that has it, with how many more have it too."""
    groups: dict[tuple[str, str, str], list[Issue]] = {}
    for issue in issues:
        groups.setdefault((issue.check, issue.level, issue.where), []).append(issue)
    for first, *more in groups.values():
        yield replace(first, message=f"{first.message} (and so {len(more)} more)") if more else first


def mismatch(first: FileInspection, other: FileInspection) -> Iterator[Issue]:
    """Find cameras, sensors and actions that are not alike: training refuses them."""
    pairs: tuple[tuple[Mapping[str, Any], Mapping[str, Any], str], ...] = (
        (first.structure.cameras, other.structure.cameras, "--images"),
        (first.structure.vectors, other.structure.vectors, "--proprio"),
    )
    for expected, came, option in pairs:
        shared = [key for key in expected if came.get(key) == expected[key]]
        for key in {**expected, **came}:
            if expected.get(key) != came.get(key):
                message = f"{key} is {came.get(key, 'missing')}; expected {expected.get(key, 'missing')}"
                issue = _issue(other, "mismatch", f"obs/{key}", f"{message}, as in {first.path}", level="error")
                ways = [f"train with {option} {' '.join(shared)}"] if shared else []
                ways += [] if key in expected and key in came else [f"{RENAMING} where it is called otherwise"]
                yield replace(issue, fix=", or ".join(ways))
    if len(first.dims) != len(other.dims):
        message = f"{len(other.dims)} dimensions; expected {len(first.dims)}, as in {first.path}"
        yield _issue(other, "mismatch", "actions", message, level="error")
    elif first.dims_known and other.dims_known and first.dims != other.dims:
        differing = [index for index, dim in enumerate(first.dims) if dim != other.dims[index]]
        one, two = first.dims[differing[0]], other.dims[differing[0]]
        message = f"{len(differing)} of {len(first.dims)} dimensions mean something else; dimension {differing[0]} is "
        message += f"{_dim(two)}, expected {_dim(one)}, as in {first.path}"
        yield _issue(other, "mismatch", "actions", message, level="error")


def environments(first: FileInspection, other: FileInspection) -> Iterator[Issue]:
    """Find robots, controllers, control rates and drawings that differ, where both files name them."""
    here, there = first.structure.env_args, other.structure.env_args
    if here.get("type") == there.get("type") == ROBOSUITE_TYPE and drawing_of(here) != drawing_of(there):
        message = f"{drawing_of(there)}; but {drawing_of(here)} in {first.path}: "
        message += "what is in a picture tells which file it is from"
        yield _issue(other, "environment", "env_args, drawing", message)
    one, two = (dict(_driving(env_args)) for env_args in (here, there))
    differing = [path for path in one if path in two and one[path] != two[path]]
    for path in differing[:5]:
        message = f"{two[path]}; but {one[path]} in {first.path}: the same action moves the robot otherwise"
        yield _issue(other, "environment", f"env_args, {path}", message)


def action_statistics(first: FileInspection, other: FileInspection) -> Iterator[Issue]:
    """Find action dimensions whose distribution differs much: in the mean, in the scale, or used by one only."""
    for one, two in zip(first.statistics.actions(), other.statistics.actions(), strict=False):  # one may have none
        std, std2 = max(one.std, 1e-9), max(two.std, 1e-9)
        span, span2 = one.high - one.low, two.high - two.low
        if (span < STILL) != (span2 < STILL):
            what = f"{_use(span2)} here, {_use(span)} in {first.path}"
        elif span >= STILL and max(std / std2, std2 / std) > SCALE and max(span / span2, span2 / span) > SCALE:
            what = f"standard deviation {std2:.2g}, but {std:.2g} in {first.path}: another scale or unit?"
        elif span >= STILL and abs(one.mean - two.mean) > SHIFT * max(std, std2):
            what = f"mean {two.mean:.2g}, but {one.mean:.2g} in {first.path}, at standard deviations of {std2:.2g} and "
            what += f"{std:.2g}: another zero or sign?"
        else:
            continue
        yield _issue(other, "action-statistics", f"actions, {one.name}", what)


def grippers(first: FileInspection, other: FileInspection) -> Iterator[Issue]:
    """Find a gripper that opens with the actions that close it in the other file, or is commanded by 0 and 1."""
    named = [index for index, dim in enumerate(first.dims) if "grip" in dim.name]
    actions = first.statistics.actions(), other.statistics.actions()
    for index in named or [len(first.dims) - 1]:
        where = f"actions, {first.dims[index].name}"
        here, there = first.statistics.gripper()[index], other.statistics.gripper()[index]
        if here * there < 0 and min(abs(here), abs(there)) > AGREEMENT:
            opens = "opens" if there > 0 else "closes"
            message = f"a positive action {opens} the gripper; in {first.path} it does the opposite: flip the sign"
            yield _issue(other, "gripper-sign", where, message)
        if not named or not all(actions):
            continue
        one, two = (each[index] for each in actions)
        if _zero_to_one(one) != _zero_to_one(two) and (two if _zero_to_one(one) else one).low < -0.5:
            unsigned, signed = (first, other) if _zero_to_one(one) else (other, first)
            message = f"commands lie in [0, 1] in {unsigned.path}, in [-1, 1] in {signed.path}: bring them together"
            yield _issue(other, "gripper-range", where, message)


def _issue(file: FileInspection, check: str, where: str, message: str, level: Level = "warning") -> Issue:
    return Issue(check=check, level=level, where=where, message=message, file=str(file.path))


def _zero_to_one(dim: ActionStatistics) -> bool:
    return dim.low >= 0 and dim.high > 0


def _use(span: float) -> str:
    return "always the same" if span < STILL else f"varies by {span:.2g}"


def _driving(env_args: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (path, value as text) of everything in `env_kwargs` that decides what an action does."""
    options = env_args.get("env_kwargs", {})
    for key in UNITS if isinstance(options, dict) else ():
        yield from _flat(key, options.get(key))


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, value as text) of everything in nested mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif value is not None:
        yield path, f"{value}"


def _dim(dim: ActionDim) -> str:
    return f"{dim.name} [{dim.low:g}, {dim.high:g}] {dim.unit}"

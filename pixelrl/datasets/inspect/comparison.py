"""Checks between files that are trained on together: do they mean the same by the same numbers?

Each is compared with the first one, which is the task's if there is one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.env_args import drawing_of
from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.inspect.checks import Role
from pixelrl.datasets.inspect.issues import Issue
from pixelrl.datasets.inspect.running_statistics import Actions

SHIFT = 2.0
"""Means of an action dimension that differ by more than this many of the larger standard deviation are told of."""

SCALE = 5.0
"""So are standard deviations and ranges of which one is more than this many times the other."""

AGREEMENT = 0.5
"""How surely a source must open or close its gripper with positive actions before signs are compared; see `RunningStatistics`."""

UNITS = ("robots", "control_freq", "controller_configs")
"""What in `env_kwargs` decides what an action does."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What files that are read together are compared by.

    Attributes:
        file: its path.
        role: what it is given as.
        pictures: camera -> (H, W, C).
        vectors: observation key -> its length.
        dims: what the actions mean.
        named: whether the file says so, or could not be read.
        env_args: robomimic's description of the environment.
        actions: their statistics.
        gripper: for each action dimension, whether the gripper opens when it is positive; see `RunningStatistics.gripper`.
        rewarded: whether any demo is.
    """

    file: str
    role: Role
    pictures: Mapping[str, tuple[int, ...]]
    vectors: Mapping[str, int]
    dims: tuple[ActionDim, ...]
    named: bool
    env_args: Mapping[str, Any]
    actions: Actions
    gripper: NDArray[np.float64]
    rewarded: bool


def compare(files: Sequence[Traits]) -> Iterator[Issue]:
    """Run all checks of this module; alike issues of several files become one."""
    first = files[0]
    found: list[Issue] = list(reward(files))
    for other in files[1:]:
        found += mismatch(first, other)
        found += environments(first, other)
        if len(first.dims) == len(other.dims):
            found += statistics(first, other)
            found += grippers(first, other)
    return merged(found)


def merged(issues: Iterable[Issue]) -> Iterator[Issue]:
    """Yield each check and place once: of the first file that has it, with how many more have it too."""
    groups: dict[tuple[str, str, str], list[Issue]] = {}
    for issue in issues:
        groups.setdefault((issue.check, issue.level, issue.where), []).append(issue)
    for first, *more in groups.values():
        yield replace(first, message=f"{first.message} (and so {len(more)} more)") if more else first


def reward(files: Sequence[Traits]) -> Iterator[Issue]:
    """Find task data that nobody is rewarded in: there is no value to learn then."""
    task = [traits for traits in files if traits.role == "task"]
    if task and not any(traits.rewarded for traits in task):
        message = "no step of the task data is rewarded: there is no value to learn, and only imitation (bc) can train"
        yield Issue(check="rewards", level="error", where="rewards", message=message, file=task[0].file)


def mismatch(first: Traits, other: Traits) -> Iterator[Issue]:
    """Find cameras, sensors and actions that are not alike: training refuses them."""
    for expected, came, option in (
        (first.pictures, other.pictures, "--images"),
        (first.vectors, other.vectors, "--proprio"),
    ):
        shared = [key for key in expected if came.get(key) == expected[key]]
        for key in {**expected, **came}:
            if expected.get(key) == came.get(key):
                continue
            message = f"{key} is {_shape(came.get(key))}; expected {_shape(expected.get(key))}, as in {first.file}"
            fix = f"train with {option} {' '.join(shared)}" if shared else ""
            where = f"obs/{key}"
            yield Issue(check="mismatch", level="error", where=where, message=message, file=other.file, fix=fix)
    if len(first.dims) != len(other.dims):
        message = f"{len(other.dims)} dimensions; expected {len(first.dims)}, as in {first.file}"
        yield Issue(check="mismatch", level="error", where="actions", message=message, file=other.file)
        return
    pairs = list(zip(first.dims, other.dims, strict=True)) if first.named and other.named else []
    if differing := [index for index, (one, two) in enumerate(pairs) if one != two]:
        one, two = pairs[differing[0]]
        message = f"{len(differing)} of {len(pairs)} dimensions mean something else; dimension {differing[0]} is "
        message += f"{_dim(two)}, expected {_dim(one)}, as in {first.file}"
        yield Issue(check="mismatch", level="error", where="actions", message=message, file=other.file)


def environments(first: Traits, other: Traits) -> Iterator[Issue]:
    """Find robots, controllers, control rates and drawings that differ, where both files name them."""
    drawings = [drawing_of(each.env_args) for each in (first, other) if each.env_args.get("type") == 1]
    if len(set(drawings)) > 1:
        message = f"{drawings[1]}; but {drawings[0]} in {first.file}: what is in a picture tells which file it is from"
        yield Issue(check="environment", level="warning", where="env_args, drawing", message=message, file=other.file)
    one, two = (traits.env_args.get("env_kwargs", {}) for traits in (first, other))
    if not isinstance(one, dict) or not isinstance(two, dict):
        return
    here, there = ({path: value for key in UNITS for path, value in _flat(key, each.get(key))} for each in (one, two))
    differing = [path for path in here if path in there and here[path] != there[path]]
    for path in differing[:5]:
        message = f"{there[path]}; but {here[path]} in {first.file}: the same action moves the robot otherwise"
        yield Issue(check="environment", level="warning", where=f"env_args, {path}", message=message, file=other.file)


def statistics(first: Traits, other: Traits) -> Iterator[Issue]:
    """Find action dimensions whose distribution differs much: in the mean, in the scale, or used by one only."""
    if not first.actions.count or not other.actions.count:
        return
    for index, dim in enumerate(first.dims):
        (mean, std, span), (mean2, std2, span2) = (_moments(each.actions, index) for each in (first, other))
        still = 1e-6
        if (span < still) != (span2 < still):
            what = f"{'always the same' if span2 < still else f'varies by {span2:.2g}'} here, "
            what += f"{'always the same' if span < still else f'varies by {span:.2g}'} in {first.file}"
        elif span >= still and max(std / std2, std2 / std) > SCALE and max(span / span2, span2 / span) > SCALE:
            what = f"standard deviation {std2:.2g}, but {std:.2g} in {first.file}: another scale or unit?"
        elif span >= still and abs(mean - mean2) > SHIFT * max(std, std2):
            what = f"mean {mean2:.2g}, but {mean:.2g} in {first.file}, at standard deviations of {std2:.2g} and "
            what += f"{std:.2g}: another zero or sign?"
        else:
            continue
        yield Issue(
            check="action-statistics", level="warning", where=f"actions, {dim.name}", message=what, file=other.file
        )


def grippers(first: Traits, other: Traits) -> Iterator[Issue]:
    """Find a gripper that opens with the actions that close it in the other file, or is commanded by 0 and 1."""
    named = [index for index, dim in enumerate(first.dims) if "grip" in dim.name]
    for index in named or [len(first.dims) - 1]:
        here, there = first.gripper[index], other.gripper[index]
        where = f"actions, {first.dims[index].name}"
        if here * there < 0 and min(abs(here), abs(there)) > AGREEMENT:
            opens = "opens" if there > 0 else "closes"
            message = f"a positive action {opens} the gripper; in {first.file} it does the opposite: flip the sign"
            yield Issue(check="gripper-sign", level="warning", where=where, message=message, file=other.file)
        lows, highs = (
            [float(bound[index]) for bound in bounds]
            for bounds in ((first.actions.low, other.actions.low), (first.actions.high, other.actions.high))
        )
        positive = [low >= 0 and high > 0 for low, high in zip(lows, highs, strict=True)]
        zero_to_one, signed = (first, other) if positive[0] else (other, first)
        if named and positive[0] != positive[1] and signed.actions.low[index] < -0.5:
            message = f"commands lie in [0, 1] in {zero_to_one.file}, in [-1, 1] in {signed.file}: bring them together"
            yield Issue(check="gripper-range", level="warning", where=where, message=message, file=other.file)


def _moments(actions: Actions, index: int) -> tuple[float, float, float]:
    """Return mean, standard deviation (not quite 0) and span of a dimension."""
    span = float(actions.high[index] - actions.low[index])
    return float(actions.mean[index]), max(float(actions.std[index]), 1e-9), span


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, value as text) of everything in nested mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}", inner)
    elif value is not None:
        yield path, f"{value}"


def _shape(value: Any) -> str:
    return "missing" if value is None else str(value)


def _dim(dim: ActionDim) -> str:
    return f"{dim.name} [{dim.low:g}, {dim.high:g}] {dim.unit}"

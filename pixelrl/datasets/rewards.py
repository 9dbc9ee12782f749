"""Where the rewards of recorded episodes come from: the file, their ends, an attribute, or a file of labels."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import child, has, json_attribute, open_file, where
from pixelrl.runtime.errors import DataError

RULE = "recorded, last:K, success, success:ATTRIBUTE, or labels:FILE.json"
"""What a rule of rewards may be.

- recorded: as the file has them.
- last:K: 1 in the last K steps of each episode, else 0: for demonstrations that all succeed.
- success:ATTRIBUTE: 1 in the last step of the demos whose attribute (or note) of this name is true, else 0.
- labels:FILE.json: an object with a member for each demo: a list with the reward of each step, or the last step's.
"""


def reaches_goal(rewards: NDArray[Any], free: float) -> NDArray[np.bool_]:
    """Return the steps that reach the goal, as far as rewards tell, `[T]`: above 0; among costs, those that are free.

    Args:
        rewards: as recorded, `[T]`.
        free: what a step in the goal is paid where all others cost: the highest reward of a source; 0 where only one
            episode is known, the highest of which may be a step on the way.
    """
    costs = len(rewards) > 0 and bool(rewards.max() <= 0 and rewards.min() < free)
    return (rewards > 0) | (rewards == free) if costs else rewards > 0


def check_rule(rule: str) -> bool:
    """Tell whether a text is a rule."""
    return re.fullmatch(r"recorded|last:[1-9]\d{0,5}|success(:.+)?|labels:.+", rule) is not None


def found_anywhere(rule: str) -> str:
    """Return a rule whose file, if it has one, is found from any folder, as it is from here."""
    kind, _, detail = rule.partition(":")
    return f"labels:{Path(detail).resolve()}" if kind == "labels" else rule


def reward_episodes(
    rule: str,
    path: Path,
    demos: Mapping[str, int],
    recorded: NDArray[np.float32],
    last: NDArray[np.bool_],
    beside: Mapping[Path, Mapping[str, int]] = MappingProxyType({}),
) -> NDArray[np.float32]:
    """Return the rewards of all steps of some demos by a rule, `[T]`.

    Args:
        rule: see `RULE`.
        path: the file of the demos.
        demos: demo -> its number of steps, in their order.
        recorded: what the file has, `[T]`.
        last: the last step of each episode, of which a demo may hold several, `[T]`.
        beside: all files that the rule is for, and their demos.

    Raises:
        DataError: an attribute or a label that is missing, or is no number or truth value.
    """
    kind, _, detail = rule.partition(":")
    if kind == "recorded":
        return recorded
    if kind == "last":
        return (steps_to_stop(last) < int(detail)).astype(np.float32)
    if kind == "success":
        lengths = [*demos.values()]
        told = np.repeat(read_success(path, [*demos], detail or "success"), lengths)
        at_end = np.zeros(len(last), np.bool_)
        at_end[np.cumsum(lengths) - 1] = True
        return (told & at_end).astype(np.float32)
    return np.concatenate(read_labels(Path(detail), path, demos, beside))


def steps_to_stop(stop: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many steps are between each step and the next one that stops, 0 where it does itself, `[T]`."""
    stops = np.flatnonzero(stop)
    here = np.arange(len(stop))
    return stops[np.searchsorted(stops, here)] - here


def read_success(path: Path, names: Sequence[str], attribute: str) -> NDArray[np.bool_]:
    """Return which demos' attribute, or note, of a name is true.

    Raises:
        DataError: a demo has none, or it is no truth value.
    """
    with open_file(path) as file:
        demos = [child(child(file, "data"), name) for name in names]
        return np.array([is_success(find_success(demo, attribute), where(demo), attribute) for demo in demos])


def find_success(demo: h5py.Group, attribute: str) -> Any:
    """Return what a demo says of its success: its attribute, else its note, else its array of a name; None: nothing."""
    held: Any = demo.attrs.get(attribute, json_attribute(demo, "notes", {}).get(attribute))
    if held is None and has(demo, attribute) and isinstance(item := child(demo, attribute), h5py.Dataset):
        held = item[()]
    return held


def is_success(said: Any, place: str, attribute: str) -> bool:
    """Return whether what a demo says of its success is true.

    Raises:
        DataError: it is missing, or no truth value.
    """
    try:
        value = np.asarray(np.nan if said is None else said)
    except ValueError:  # lists of different lengths
        value = np.asarray(np.nan)
    if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
        came = "missing" if said is None else f"{str(said)[:40]!a}"
        raise DataError(f"{place}: attribute {attribute!r} is {came}; expected 0 or 1 (success or not)")
    return bool(value.item())


def read_labels(
    labels: Path, path: Path, demos: Mapping[str, int], beside: Mapping[Path, Mapping[str, int]] = MappingProxyType({})
) -> list[NDArray[np.float32]]:
    """Return the rewards of each demo of a file as a label file has them.

    Its members are named `demo_3`, or where several files are labelled by one `FILE.hdf5/demo_3`, or with as many
    folders before it as tell the files apart.

    Raises:
        DataError: no such file, no JSON object, a demo without a label, with one of another length, or with one that is
            also another's.
    """
    try:
        told = _read_object(labels, labels.stat().st_mtime_ns)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{labels}: no JSON that can be read ({error})") from error
    rewards = []
    for name, steps in demos.items():
        key = _label_key(told, path, name)
        for other, others in beside.items() if key in told else ():
            alike = name in others and _label_key(told, other, name) == key
            if alike and other.resolve() != path.resolve():
                wanted = f"{'/'.join(path.parts[-2:])}/{name}"
                raise DataError(f"{labels}: {key!r} is of {path} and of {other}; expected {wanted!r} and the like")
        label = told.get(key)
        try:
            values = np.asarray(label, np.float32)
        except (TypeError, ValueError, OverflowError):
            values = np.asarray(np.nan)
        if values.ndim == 0:
            values = np.append(np.zeros(steps - 1, np.float32), values)
        if values.shape != (steps,) or not np.isfinite(values).all():
            came = "missing" if label is None else f"{str(label)[:40]!a}"
            raise DataError(f"{labels}: {name} is {came}; expected a number, or a list of {steps} numbers, one a step")
        rewards.append(values.astype(np.float32))
    return rewards


def _label_key(told: Mapping[str, Any], path: Path, name: str) -> str:
    """Return the longest name that a demo has in a file of labels: with folders and file, with the file, or alone."""
    names = ("/".join((*path.parts[first:], name)) for first in range(len(path.parts)))
    return next((key for key in names if key in told), name)


@lru_cache(maxsize=1)
def _read_object(labels: Path, changed: int) -> dict[str, Any]:
    """Return what a file of labels holds, which is asked for once an episode; `changed` is when it was written."""
    told = json.loads(labels.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise DataError(f"{labels}: holds a {type(told).__name__}; expected an object, a member for each demo")
    return told

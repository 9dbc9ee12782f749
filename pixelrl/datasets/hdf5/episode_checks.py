"""What an episode must be to be written: nothing is changed unseen, and nothing is kept that no reader would take."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import finite, flags
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError

OURS = ("num_samples", "notes")
"""The attributes of a demo that the writer itself writes."""

FORMS = {"actions": ("f", 2, "floats (N, A)"), "rewards": ("fiub", 1, "numbers (N,)"), "dones": ("fiub", 1, "0 or 1")}
"""Array of an episode -> kinds of its type, dimensions, and both in words."""


def check_episode(episode: Episode, place: str, dims: Sequence[ActionDim]) -> None:
    """Raise unless an episode can be written as it is, and read again.

    Raises:
        DataError: arrays that disagree about its length, actions that are not finite floats `[N, A]`, rewards that are
            no numbers, dones that are neither 0 nor 1, or names and texts that HDF5 cannot hold.
    """
    steps = len(episode)
    lengths = {f"sensors/{key}": (len(value), steps + 1) for key, value in episode.sensors.items()}
    if episode.states is not None:
        lengths |= {"states": (len(episode.states), steps + 1)}
    lengths |= {"rewards": (len(episode.rewards), steps), "dones": (len(episode.dones), steps)}
    for key, (came, expected) in lengths.items():
        if came != expected or not steps:
            raise DataError(f"{place}: {key} has {came} rows beside {steps} actions; expected {max(expected, 1)}")
    for name, (kinds, ndim, wanted) in FORMS.items():
        array = np.asarray(getattr(episode, name))
        if array.dtype.kind not in kinds or array.ndim != ndim:
            raise DataError(f"{place}: {name} are {array.dtype} {array.shape}; expected {wanted}")
        (flags if name == "dones" else finite)(array, f"{place}: {name}")
        if name == "actions" and array.shape[1] != len(dims):
            raise DataError(f"{place}: {array.shape[1]} actions a step; expected {len(dims)}, as action_dims has")
    for key, value in episode.sensors.items():
        if np.asarray(value).dtype.kind not in "fiub":
            raise DataError(f"{place}: sensors/{key} holds {np.asarray(value).dtype}; expected numbers")
        if not key.isprintable() or not all(part.strip(".") for part in key.split("/")):
            raise DataError(f"{place}: a sensor is named {key!a}; expected a printable name")
    for key, text in episode.attributes.items():
        if key in OURS or not _writable(key) or not _writable(text):
            raise DataError(f"{place}: attribute {key!a} cannot be written; expected text, and none of {OURS}")


def check_dims(dims: Sequence[ActionDim], place: str) -> None:
    """Raise a `DataError` unless each action has a range."""
    for dim in dims:
        if not (math.isfinite(dim.low) and math.isfinite(dim.high) and dim.low < dim.high):
            raise DataError(f"{place}: action {dim.name} from {dim.low} to {dim.high}; expected low < high")


def json_text(value: Mapping[str, Any] | Sequence[Any], place: str) -> str:
    """Return JSON, or raise a `DataError` if a value is none: NaN, an array, a number of NumPy's."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{place}: no JSON ({error}); expected texts, finite numbers of Python, lists and dicts"
        raise DataError(message) from error


def form_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Return type and row of each array, which all episodes of a data set share."""
    return {name: f"{array.dtype} {array.shape[1:]}" for name, array in arrays.items()}


def check_form(form: Mapping[str, str], before: Mapping[str, str], place: str) -> None:
    """Raise a `DataError` unless an episode has the arrays of those before it, with the same types and rows."""
    for name in (*before, *form):
        came, expected = form.get(name, "missing"), before.get(name, "nothing of that name")
        if came != expected:
            raise DataError(f"{place}: {name} is {came}; expected {expected}, as in the episodes before")


def _writable(text: Any) -> bool:
    """Tell whether HDF5 can hold a text."""
    try:
        return isinstance(text, str) and "\0" not in text and bool(text.encode() or True)
    except UnicodeEncodeError:
        return False

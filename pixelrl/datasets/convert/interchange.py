"""What is carried from one format to another: the episodes of a data set and all that is said of them.

A reader gives a `Interchange`, a writer takes one, and `Fingerprint` tells whether the two ends hold the same.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError

Losses = Counter[str]
"""What does not come along -> in how many episodes (0: it concerns the data set as a whole)."""


@dataclass(frozen=True, kw_only=True)
class Interchange:
    """A data set between two formats.

    Where nobody recorded the state after the last step (robomimic does not), the last row of `Episode.states` repeats
    the one before; no format keeps it.

    Attributes:
        episodes: start anew and give every episode, one in memory at a time; numbers keep the types of their source.
        count: how many episodes there are.
        env_args: robomimic's description of the environment; empty if nobody knows.
        action_dims: what each dimension of the action means.
        masks: filter -> the indices of its episodes, in its own order.
    """

    episodes: Callable[[], Iterator[Episode]]
    count: int
    env_args: Mapping[str, Any]
    action_dims: tuple[ActionDim, ...]
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def episode_arrays(episode: Episode) -> dict[str, NDArray[Any]]:
    """Return every array of an episode by its name; `states` are the N before the steps."""
    arrays = {f"sensors/{key}": value for key, value in episode.sensors.items()}
    arrays |= {"actions": episode.actions, "rewards": episode.rewards, "dones": episode.dones}
    return arrays if episode.states is None else arrays | {"states": episode.states[:-1]}


def check_kinds(episode: Episode, first: Episode, place: str) -> None:
    """Raise unless an episode has the keys, shapes and types of the first.

    Raises:
        DataError: it has not.
    """
    held, expected = (
        {name: (array.dtype, array.shape[1:]) for name, array in e.items()}
        for e in map(episode_arrays, (episode, first))
    )
    for name in (*expected, *held):
        if name != "states" and held.get(name) != expected.get(name):
            came, wanted = (
                f"{kind[0]} {kind[1]}" if kind else "nothing" for kind in (held.get(name), expected.get(name))
            )
            raise DataError(f"{place}: {name} holds {came}; expected {wanted}, as in the first episode")


class Fingerprint:
    """SHA-256 of every array of a data set, over types, shapes and bytes of all episodes in their order."""

    def __init__(self, recording: Interchange) -> None:
        self.shapes: dict[str, str] = {}
        self._episodes = 0
        self._hashes: dict[str, Any] = {}
        dims = [asdict(dim) for dim in recording.action_dims]
        about = {"env_args": dict(recording.env_args), "action_dims": dims, "masks": dict(recording.masks)}
        for name, value in about.items():
            self._add(name, canonical(value).encode())

    def add(self, episode: Episode) -> None:
        """Take the next episode in."""
        for name, array in episode_arrays(episode).items():
            inner = array.shape[1:]
            self.shapes.setdefault(name, f"{array.dtype} [N{'+1' if len(array) > len(episode) else ''}{_list(inner)}]")
            self._add(name, f"{self._episodes} {array.dtype.str} {array.shape} ".encode(), np.ascontiguousarray(array))
        for name, value in (("attributes", episode.attributes), ("notes", episode.notes)):
            if value:
                self._add(name, f"{self._episodes} {canonical(dict(value))} ".encode())
        self._episodes += 1

    def digests(self) -> dict[str, str]:
        """Return name -> SHA-256 in hexadecimal."""
        return {name: value.hexdigest() for name, value in self._hashes.items()}

    def _add(self, name: str, *parts: Any) -> None:
        held = self._hashes.setdefault(name, hashlib.sha256())
        for part in parts:
            held.update(part)


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _list(shape: tuple[int, ...]) -> str:
    return "".join(f", {side}" for side in shape)


def fingerprint(recording: Interchange) -> Fingerprint:
    """Read a whole recording and return its fingerprint."""
    result = Fingerprint(recording)
    for episode in recording.episodes():
        result.add(episode)
    return result

"""What passes from one format to another: the episodes of a data set, and all that is known of them.

A reader gives a `DatasetStream`, a writer takes one, and fingerprints tell whether both ends hold the same.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.rewards import RULE, check_rule
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError

DroppedFields = Counter[str]
"""What does not come along -> in how many episodes (0: it concerns the data set as a whole)."""

NO_REWARDS = "rewards and dones, which are not there: 0 is written (--reward and --dones say more)"

MALFORMED = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
"""What reading JSON and taking it apart may raise, if somebody else wrote it."""

ZIP_ERRORS = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged zip may raise; of memory where it claims to be long."""


@contextmanager
def reading(what: str, errors: tuple[type[Exception], ...] = MALFORMED) -> Iterator[None]:
    """Turn what goes wrong within into a `DataError` that says what, and in brackets why."""
    try:
        yield
    except errors as error:
        raise DataError(f"{what} ({ascii(str(error))[1:-1][:80]})") from error


@dataclass(frozen=True, kw_only=True)
class DatasetStream:
    """A data set between two formats.

    Where the state after the last step was not recorded (robomimic does not), the last row of `Episode.states` repeats
    the one before; no format keeps it.

    Attributes:
        episodes: start anew and give every episode, one in memory at a time; numbers keep the types of their source.
            A reader may yield sensors of N rows where no frame was recorded after the last action: see `rules`.
        count: how many episodes there are.
        env_args: robomimic's description of the environment; empty if it is not known.
        action_dims: what each dimension of the action means.
        masks: filter -> the indices of its episodes, in its own order.
        names: what the source calls its episodes, say `demo_5`, by which labels and errors name them; empty: numbers.
    """

    episodes: Callable[[], Iterator[Episode]]
    count: int
    env_args: Mapping[str, Any]
    action_dims: tuple[ActionDim, ...]
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """Return what an episode is called in errors."""
        return self.names[index] if self.names else f"episode {index}"


@contextmanager
def leaving_out(names: Sequence[str], name: str) -> Iterator[None]:
    """Let an error about one of a file's demos say that it can be left out, if it is not the only one."""
    try:
        yield
    except DataError as error:
        rest = f"; --leave-out {name} leaves it out, `pixelrl inspect` tells which others have a fault"
        raise DataError(f"{error}{rest if len(names) > 1 else ''}") from error


def describe(stream: DatasetStream) -> dict[str, Any]:
    """Return what a data set is besides its episodes, as JSON values."""
    dims = [asdict(dim) for dim in stream.action_dims]
    return {"env_args": dict(stream.env_args), "action_dims": dims, "masks": dict(stream.masks)}


def described(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `DatasetStream` that `describe` told.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it told something else.
    """
    dims = tuple(ActionDim(**dim) for dim in said["action_dims"])
    masks = {name: tuple(int(index) for index in held) for name, held in said["masks"].items()}
    return {"env_args": dict(said["env_args"]), "action_dims": dims, "masks": masks}


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """What some of the formats leave open, and what is changed on the way; see `pixelrl convert --help`.

    `pictures` and `task` (the instruction) are for LeRobot; `fps` [Hz], `task` and `action_names` are by default what
    the data say. `compress` and `leave_out` (demos of the source) are for HDF5. `rules` has the others.
    """

    pictures: Literal["png", "video"] = "png"
    compress: bool = False
    fps: float | None = None
    task: str | None = None
    last_step: Literal["keep", "repeat", "drop"] = "keep"
    keys: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    bgr: bool = False
    reward: str = "recorded"
    dones: Literal["recorded", "last"] = "recorded"
    reward_shift: float = 0.0
    leave_out: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    @property
    def reward_key(self) -> str | None:
        """Return the array of the source that is to be read as rewards; None: the one that the format has for it.

        Raises:
            DataError: a rule that is none.
        """
        if re.match(r"(last|success|labels):", self.reward) and not check_rule(self.reward):
            raise DataError(f"--reward {self.reward}: expected {RULE}, or the name of an array")
        return None if check_rule(self.reward) else self.reward

    def wants(self, key: str) -> bool:
        """Tell whether a sensor of the source comes along."""
        return not self.keys or key in self.keys


class Budget:
    """Bytes that a file may unpack to: one that names the same picture over and over would fill memory and disk."""

    def __init__(self, path: Path, times: int, *, held: int | None = None) -> None:
        """Begin with so many times the size of a file, or of what is held, and 1 MB."""
        self.path, self.times = path, times
        self.left = times * (path.stat().st_size if held is None else held) + (1 << 20)

    def spend(self, size: int) -> None:
        """Account for bytes about to be made.

        Raises:
            DataError: they are more than the file can hold.
        """
        self.left -= size
        if self.left < 0:
            what = f"unpacks to more than {self.times} times its size"
            raise DataError(f"{self.path}: {what}; expected every picture stored once")


def episode_arrays(episode: Episode) -> dict[str, NDArray[Any]]:
    """Return every array of an episode by its name; `states` are the N before the steps."""
    arrays = {f"sensors/{key}": value for key, value in episode.sensors.items()}
    arrays |= {"actions": episode.actions, "rewards": episode.rewards, "dones": episode.dones}
    return arrays if episode.states is None else arrays | {"states": episode.states[:-1]}


class Fingerprint:
    """SHA-256 of every array of a data set, over types, shapes and bytes of all episodes in their order."""

    def __init__(self, stream: DatasetStream) -> None:
        self.shapes: dict[str, str] = {}
        self.episodes = 0
        self._hashes: dict[str, Any] = {}
        for name, value in describe(stream).items():
            self._add(name, _canonical(value))

    def add(self, episode: Episode) -> None:
        """Take the next episode in."""
        for name, array in episode_arrays(episode).items():
            sides = "".join(f", {side}" for side in array.shape[1:])
            self.shapes.setdefault(name, f"{array.dtype} [N{'+1' if len(array) > len(episode) else ''}{sides}]")
            kind = f"{self.episodes} {array.dtype.str} {array.shape} "
            self._add(name, kind.encode(), np.ascontiguousarray(array))
        for name, value in (("attributes", episode.attributes), ("notes", episode.notes)):
            if value:
                self._add(name, f"{self.episodes} ".encode(), _canonical(dict(value)), b" ")
        self.episodes += 1

    def digests(self) -> dict[str, str]:
        """Return name -> SHA-256 in hexadecimal."""
        return {name: value.hexdigest() for name, value in self._hashes.items()}

    def _add(self, name: str, *parts: Any) -> None:
        held = self._hashes.setdefault(name, hashlib.sha256())
        for part in parts:
            held.update(part)


def fingerprint(stream: DatasetStream) -> Fingerprint:
    """Read a whole data set and return its fingerprint."""
    result = Fingerprint(stream)
    for episode in stream.episodes():
        result.add(episode)
    return result


def _canonical(value: Any) -> bytes:
    """Return JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

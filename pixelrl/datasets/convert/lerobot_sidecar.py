"""`meta/pixelrl.hdf5`: what a data set holds beyond LeRobot's format, so that a round trip loses nothing.

LeRobot keeps N frames of N steps, numbers as float32, and knows neither simulator states nor notes. This file, which
lerobot ignores, keeps the frame after the last step, numbers that float32 would round, sensors that are neither
pictures nor float vectors, states, notes, attributes, `env_args`, what actions mean, and masks. It is believed only
where it agrees with the data beside it: whoever edits those must remove it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.hdf5.access import child, dataset, has, json_attribute, members, where
from pixelrl.datasets.convert.interchange import Interchange
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError

NAME = "meta/pixelrl.hdf5"
VERSION = 1


class SidecarWriter:
    """Write the file an episode at a time."""

    def __init__(self, path: Path, recording: Interchange, layout: Mapping[str, Any]) -> None:
        self._file = h5py.File(path, "w")
        dims = [asdict(dim) for dim in recording.action_dims]
        about: dict[str, Any] = {"env_args": recording.env_args, "masks": recording.masks, "layout": layout}
        self._file.attrs["version"] = VERSION
        for name, value in (*about.items(), ("action_dims", dims)):
            self._file.attrs[name] = json.dumps(value if isinstance(value, list) else dict(value))

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def add(self, index: int, episode: Episode, columns: set[str]) -> None:
        """Write what the parquet rows of an episode do not say; `columns` are the sensors that they do keep."""
        group = self._file.create_group(f"episode_{index}")
        group.attrs["steps"] = len(episode)
        group.attrs["notes"] = json.dumps(dict(episode.notes))
        group.attrs["attributes"] = json.dumps(dict(episode.attributes))
        for name in ("actions", "rewards"):
            array = getattr(episode, name)
            group.attrs[name] = array.dtype.str
            if not fits_float32(array):
                group[name] = array
        if episode.states is not None:
            group["states"] = episode.states[:-1]
        for key, frames in episode.sensors.items():
            if key in columns and (frames.ndim == 4 or fits_float32(frames)):
                group[f"last/{key}"] = frames[-1]
            else:
                group[f"sensors/{key}"] = frames


def fits_float32(array: NDArray[Any]) -> bool:
    """Tell whether float32 holds these very numbers."""
    return array.astype(np.float32).astype(array.dtype).tobytes() == array.tobytes()


class Sidecar:
    """The file, read: what it says of the data set, and of each episode.

    Raises:
        DataError: a file of another version, or one that does not describe so many episodes.
    """

    def __init__(self, file: h5py.File, count: int) -> None:
        self.file = file
        if file.attrs.get("version") != VERSION:
            raise DataError(f"{where(file)}: version {file.attrs.get('version')}; this pixelrl reads {VERSION}")
        if len(file) != count:
            raise self.stale(f"describes {len(file)} episodes where there are {count}")
        self.env_args = json_attribute(file, "env_args", {})
        self.layout: dict[str, dict[str, int]] = json_attribute(file, "layout", {})
        try:
            self.masks = {name: tuple(held) for name, held in json_attribute(file, "masks", {}).items()}
            self.action_dims = tuple(ActionDim(**dim) for dim in json_attribute(file, "action_dims", [], list))
        except TypeError as error:
            raise DataError(f"{where(file)}: masks or action_dims are not as pixelrl writes them ({error})") from error

    def stale(self, why: str) -> DataError:
        """Return an error about a file that no longer fits the data."""
        hint = "the data were changed since: remove this file to convert what is left"
        return DataError(f"{where(self.file)}: {why}; {hint}")

    def restore(self, index: int, episode: Episode) -> Episode:
        """Return an episode of N steps as it was; `episode` comes from the parquet rows, with N frames.

        Raises:
            DataError: the two disagree.
        """
        group = child(self.file, f"episode_{index}")
        if group.attrs.get("steps") != len(episode):
            raise self.stale(f"episode {index} has {group.attrs.get('steps')} steps where there are {len(episode)}")
        sensors = dict(episode.sensors)
        for key, last in _members(group, "last"):
            if key not in sensors or sensors[key].shape[1:] != last.shape:
                raise self.stale(f"episode {index}, {key}: {last.shape} where there is another shape, or none")
            sensors[key] = np.concatenate([sensors[key].astype(last.dtype), last[None]])
        for key, frames in _members(group, "sensors"):
            sensors[key] = self._checked(f"episode {index}, {key}", frames, sensors.get(key))
        short = [key for key, frames in sensors.items() if len(frames) != len(episode) + 1]
        if short:
            raise self.stale(f"episode {index} has no last frame of {short[0]}")
        numbers = {}
        for name in ("actions", "rewards"):
            rows = getattr(episode, name)
            exact = dataset(group, name)[()] if has(group, name) else rows.astype(_type(group, name))
            numbers[name] = self._checked(f"episode {index}, {name}", exact, rows)
        states = dataset(group, "states")[()] if has(group, "states") else None
        return Episode(
            sensors=sensors,
            dones=episode.dones,
            states=None if states is None else np.concatenate([states, states[-1:]]),
            attributes=json_attribute(group, "attributes", {}),
            notes=json_attribute(group, "notes", {}),
            **numbers,
        )

    def _checked(self, place: str, exact: NDArray[Any], rows: NDArray[Any] | None) -> NDArray[Any]:
        """Return exact numbers, if rounded they are those of the parquet rows."""
        if rows is not None and exact[: len(rows)].astype(np.float32).tobytes() != rows.astype(np.float32).tobytes():
            raise self.stale(f"{place}: other numbers than the parquet files hold")
        return exact


def _type(group: h5py.Group, name: str) -> np.dtype[Any]:
    """Return the type that an array had."""
    said = str(group.attrs.get(name))
    if not re.fullmatch(r"[<>|][fiub][1248]", said):
        raise DataError(f"{where(group)}: {name} were of type {said[:20]!r}; expected one like '<f8'")
    return np.dtype(said)


def _members(group: h5py.Group, name: str) -> list[tuple[str, NDArray[Any]]]:
    """Return the arrays of a group that may be missing."""
    held = child(group, name) if has(group, name) else None
    return [(key, dataset(held, key)[()]) for key in members(held)] if held is not None else []

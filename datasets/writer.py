"""Write episodes as they come into a file with robomimic's layout.

A file of ours has robomimic's layout to the letter, yet holds each frame once: the N + 1 frames of a demo lie in
`frames/<key>`, and `obs/<key>` and `next_obs/<key>` are HDF5 virtual datasets, two windows onto them. Virtual
datasets name their source from the root of the file, so copy such files whole, or read `frames` after copying a demo.
https://robomimic.github.io/docs/datasets/overview.html
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from pixelrl.batch import ActionDim
from pixelrl.episode import Episode
from pixelrl.errors import DataError


def unfinished_path(path: Path) -> Path:
    """Return where the episodes of a file lie until it is finished."""
    return path.with_name(f"{path.stem}.unfinished{path.suffix}")


class EpisodeWriter:
    """Write episodes one at a time; the file appears under its name when it is whole.

    Until then they lie in `NAME.unfinished.hdf5` beside it.

    Attributes:
        count: how many episodes are finished.
    """

    def __init__(
        self,
        path: Path,
        *,
        env_args: Mapping[str, Any],
        action_dims: Sequence[ActionDim],
        compress: bool = False,
        masks: Mapping[str, Sequence[str]] | None = None,
        resume: bool = False,
    ) -> None:
        self._path = path
        self._unfinished = unfinished_path(path)
        self._compress = compress
        self._masks = {name: list(demos) for name, demos in (masks or {}).items()}
        self.transitions = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = h5py.File(self._unfinished, "a" if resume else "w")
        data = self._file.require_group("data")
        data.attrs["env_args"] = json.dumps(env_args)
        data.attrs["action_dims"] = json.dumps([asdict(dim) for dim in action_dims])
        self.count = len(data)
        data.attrs["unfinished"] = self.count

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name if nothing was raised; else leave the unfinished one if it holds an episode."""
        data = self._file["data"]
        if kind is None and self.count:
            data.attrs["total"] = sum(int(demo.attrs["num_samples"]) for demo in data.values())
            del data.attrs["unfinished"]
            for name, demos in self._masks.items():
                self._file[f"mask/{name}"] = np.array([demo.encode() for demo in demos])
        self._file.close()
        if not self.count:
            self._unfinished.unlink()
        if kind is None:
            if not self.count:
                raise DataError(f"{self._path}: no episodes came to be written; expected one or more")
            self._unfinished.replace(self._path)

    def add(self, episode: Episode) -> str:
        """Write an episode and return the name of its demo."""
        name = f"demo_{self.count}"
        check_lengths(episode, f"{self._path}: {name}")
        _write_demo(self._file.create_group(f"data/{name}"), episode, self._compress)
        self.count += 1
        self.transitions += len(episode)
        self._file["data"].attrs["unfinished"] = self.count
        self._file.flush()
        return name

    def mask(self, name: str, demos: Sequence[str]) -> None:
        """Name a subset of the demos, a filter as robomimic calls it."""
        self._masks[name] = list(demos)


def write_episodes(
    path: Path,
    episodes: Iterable[Episode],
    *,
    env_args: Mapping[str, Any],
    action_dims: Sequence[ActionDim],
    compress: bool = False,
) -> int:
    """Write episodes as they come, one in memory at a time, and return the number of transitions.

    The file appears only when it is whole. The same episodes give the same bytes. `compress` shrinks pictures with
    gzip, one frame a chunk, which keeps random access fast. robomimic has no place for the state after the last step.

    Raises:
        DataError: an episode whose arrays disagree about its length, or no episode at all.
    """
    with EpisodeWriter(path, env_args=env_args, action_dims=action_dims, compress=compress) as writer:
        for episode in episodes:
            writer.add(episode)
    return writer.transitions


def check_lengths(episode: Episode, place: str) -> None:
    """Raise unless N actions stand beside N rewards and dones, and N + 1 sensor readings and states."""
    steps = len(episode)
    lengths = {f"sensors/{key}": (len(value), steps + 1) for key, value in episode.sensors.items()}
    if episode.states is not None:
        lengths |= {"states": (len(episode.states), steps + 1)}
    lengths |= {"rewards": (len(episode.rewards), steps), "dones": (len(episode.dones), steps)}
    for key, (came, expected) in lengths.items():
        if came != expected or not steps:
            raise DataError(f"{place}: {key} has {came} rows beside {steps} actions; expected {max(expected, 1)}")


def _write_demo(demo: h5py.Group, episode: Episode, compress: bool) -> None:
    """Write one episode into its group."""
    demo.attrs["num_samples"] = len(episode)
    demo.attrs["notes"] = json.dumps(dict(episode.notes))
    for name, text in episode.attributes.items():
        demo.attrs[name] = text
    demo["actions"] = episode.actions
    demo["rewards"] = episode.rewards
    demo["dones"] = episode.dones.astype(np.int64)  # robomimic's type
    if episode.states is not None:
        demo["states"] = episode.states[:-1]
    for key, frames in episode.sensors.items():
        squeeze = compress and frames.ndim == 4
        stored = demo.create_dataset(
            f"frames/{key}",
            data=frames,
            chunks=(1, *frames.shape[1:]) if squeeze else None,
            compression="gzip" if squeeze else None,
        )
        source = h5py.VirtualSource(".", stored.name, stored.shape, stored.dtype)
        for group, window in (("obs", source[:-1]), ("next_obs", source[1:])):
            layout = h5py.VirtualLayout(window.shape, stored.dtype)
            layout[:] = window
            layout.dcpl.set_obj_track_times(False)  # or the clock enters the file
            demo.require_group(group).create_virtual_dataset(key, layout)

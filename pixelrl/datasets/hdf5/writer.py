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

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.hdf5.growing import GrowingFile
from pixelrl.datasets.hdf5.reader import UNFINISHED
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import rename


def unfinished_path(path: Path) -> Path:
    """Return where the episodes of a file lie until it is finished."""
    return path.with_name(f"{path.stem}.unfinished{path.suffix}")


class EpisodeWriter:
    """Write episodes as they come, one in memory at a time; leaving the context finishes the file.

    Until then they lie in `NAME.unfinished.hdf5`, which opens at every moment and holds every episode that was added,
    whatever stops the writer: an exception, Ctrl-C, a full disk, SIGKILL. Its `/data` has the attribute `unfinished`,
    and no masks yet. Finished, it takes the name `path`; without any episode it goes. The same episodes give the same
    bytes, interrupted or not.

    Attributes:
        count: the episodes in the file.
        transitions: the actions in the file.
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
        """Begin a file, or with `resume` go on with an unfinished one if there is one.

        Args:
            path: of the finished file; one that exists is replaced in the end.
            env_args: robomimic's description of the environment, as JSON values.
            action_dims: what each dimension of the action means.
            compress: shrink pictures with gzip, one frame a chunk, which keeps random access fast.
            masks: filter -> the demos that it names, as robomimic's `mask/` has them.
            resume: see above.

        Raises:
            DataError: an unfinished file that is not to be resumed, was begun with other arguments, or is being
                written by another process.
        """
        self._path, self._compress = path, compress
        self._attributes = {
            "env_args": json.dumps(env_args),
            "action_dims": json.dumps([asdict(dim) for dim in action_dims]),
        }
        self._masks = {name: list(demos) for name, demos in (masks or {}).items()}
        self._file = self._open(unfinished_path(path), resume)
        with self._file.read() as file:
            self.transitions = sum(int(demo.attrs["num_samples"]) for demo in file["data"].values())

    @property
    def count(self) -> int:
        """Return how many episodes are in the file."""
        return len(self._file.links)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or keep it unfinished if anything was raised.

        Raises:
            DataError: no episodes came, or a mask names a demo that is not there.
        """
        unfinished = unfinished_path(self._path)
        try:
            if kind is None and self.count:
                self._finish()
        finally:
            self._file.close()
            if not self.count:
                unfinished.unlink()
        if kind is None:
            if not self.count:
                raise DataError(f"{self._path}: no episodes came to be written; expected one or more")
            rename(unfinished, self._path)

    def add(self, episode: Episode) -> str:
        """Write an episode, and return the name of its demo, say `demo_3`; it is in the file from then on.

        robomimic has no place for the state after the last step.

        Raises:
            DataError: its arrays disagree about its length, or the disk is full.
        """
        name = f"demo_{self.count}"
        _check_lengths(episode, f"{self._path}: {name}")
        try:
            self._file.add(name, lambda group: _write_demo(group, f"/data/{name}", episode, self._compress))
        except OSError as error:
            kept = f"{unfinished_path(self._path)} keeps the {self.count} before it"
            raise DataError(f"{self._path}: {name} could not be written ({error}); {kept}") from error
        self.transitions += len(episode)
        return name

    def mask(self, name: str, demos: Sequence[str]) -> None:
        """Name some of the demos, a filter as robomimic calls it; the finished file has it."""
        self._masks[name] = list(demos)

    def _open(self, path: Path, resume: bool) -> GrowingFile:
        """Open the unfinished file, new or not."""
        begun = {**self._attributes, "compress": self._compress}
        if path.exists():
            file = GrowingFile(path)
            if resume and file.links:
                for name, value in begun.items():
                    if file.attributes.get(name) != value:
                        file.close()
                        was = f"{str(file.attributes.get(name))[:60]!r}; now it is {str(value)[:60]!r}"
                        raise DataError(f"{path}: was begun with another {name}, {was}: remove it to begin anew")
                return file
            count = len(file.links)
            file.close()
            if count:
                raise DataError(f"{path}: holds {count} episodes of an interrupted writing; resume it, or remove it")
        note = "the writer of this file was interrupted, or is still at work; every episode in it is whole"
        return GrowingFile.create(path, {UNFINISHED: note, **begun})

    def _finish(self) -> None:
        """Write what only a finished file has."""
        for name, demos in self._masks.items():
            if missing := set(demos) - set(self._file.links):
                raise DataError(f"{self._path}: mask {name!r} names {min(missing)!r}, which is not in the file")

        def write(root: h5py.Group) -> None:
            root.create_group("data").attrs.update({"total": self.transitions, **self._attributes})
            for name, demos in self._masks.items():
                names = [demo.encode() for demo in demos]
                root.create_dataset(f"mask/{name}", data=np.array(names, dtype=None if names else "S1"))

        self._file.finish(write)


def write_episodes(
    path: Path,
    episodes: Iterable[Episode],
    *,
    env_args: Mapping[str, Any],
    action_dims: Sequence[ActionDim],
    compress: bool = False,
) -> int:
    """Write episodes as they come with an `EpisodeWriter`, and return the number of transitions.

    Raises:
        DataError: what the writer raises, or no episode at all.
    """
    with EpisodeWriter(path, env_args=env_args, action_dims=action_dims, compress=compress) as writer:
        for episode in episodes:
            writer.add(episode)
    return writer.transitions


def _check_lengths(episode: Episode, place: str) -> None:
    """Raise unless N actions stand beside N rewards and dones, and N + 1 sensor readings and states."""
    steps = len(episode)
    lengths = {f"sensors/{key}": (len(value), steps + 1) for key, value in episode.sensors.items()}
    if episode.states is not None:
        lengths |= {"states": (len(episode.states), steps + 1)}
    lengths |= {"rewards": (len(episode.rewards), steps), "dones": (len(episode.dones), steps)}
    for key, (came, expected) in lengths.items():
        if came != expected or not steps:
            raise DataError(f"{place}: {key} has {came} rows beside {steps} actions; expected {max(expected, 1)}")


def _write_demo(demo: h5py.Group, name: str, episode: Episode, compress: bool) -> None:
    """Write one episode into its group, whose name will be `name`."""
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
        source = h5py.VirtualSource(".", f"{name}/frames/{key}", stored.shape, stored.dtype)
        for group, window in (("obs", source[:-1]), ("next_obs", source[1:])):
            layout = h5py.VirtualLayout(window.shape, stored.dtype)
            layout[:] = window
            layout.dcpl.set_obj_track_times(False)  # or the clock enters the file
            demo.require_group(group).create_virtual_dataset(key, layout)

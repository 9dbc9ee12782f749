"""Write HDF5 files that appear whole, and episodes as they come into one with robomimic's layout.

A file of ours has robomimic's layout to the letter, yet holds each frame once: the N + 1 frames of a demo lie in
`frames/<key>`, and `obs/<key>` and `next_obs/<key>` are HDF5 virtual datasets, two windows onto them. Virtual
datasets name their source from the root of the file, so copy such files whole, or read `frames` after copying a demo.
https://robomimic.github.io/docs/datasets/overview.html
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import PARTS_NOTES, json_attribute, open_file, parts_folder
from pixelrl.datasets.hdf5.episode_checks import check_dims, check_episode, check_form, form_of, json_text
from pixelrl.datasets.hdf5.file_objects import NamedFile
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import LOCK, atomic_path, file_lock, write_json

MERGED = "merged"
"""In a folder of parts: all of them are in a whole file, which only lacks its name, or has it already."""


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file that appears at `path` when it is whole.

    Raises:
        OSError: the disk is full, or something else keeps it from being written.
    """
    with atomic_path(path) as temporary, closing(OutputFile(temporary, "w+", path)) as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield file
        finally:
            if raw.error is not None:
                raise raw.error


class OutputFile(NamedFile):
    """A file that HDF5 can always close: after an error nothing more is written, lest the library crash.

    Attributes:
        error: the first error, if any; to be raised once the library has closed the file.
    """

    error: BaseException | None = None

    def write(self, buffer: Any) -> int:
        """Write all of a block, or pretend to."""
        left = memoryview(buffer).cast("B")
        try:
            while left and self.error is None:
                left = left[super().write(left) :]  # a full disk may take a part of it before it says so
        except BaseException as error:  # also Ctrl-C
            self.error = error
        return len(buffer)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or pretend to."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size


class EpisodeWriter:
    """Write episodes as they come, one in memory at a time; leaving the context makes one file of them.

    Until then each lies in a file of its own, `NAME.hdf5.parts/demo_3.hdf5`, which is whole or absent whatever stops
    the writer: an exception, Ctrl-C, a full disk, SIGKILL. Each is a data set of one episode. In the end they are
    merged into `path`, which appears whole, and their folder goes. The same episodes give the same bytes, interrupted
    or not.

    Attributes:
        count: the episodes written.
        transitions: the actions in them.
        kept: the notes and the rewards `[N]` of each episode that an interrupted run had written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        env_args: Mapping[str, Any],
        action_dims: Sequence[ActionDim],
        compress: bool = False,
        masks: Mapping[str, Sequence[str]] | None = None,
        resume: str | None = None,
    ) -> None:
        """Begin a file, or with `resume` go on with an unfinished one if there is one.

        Args:
            path: of the finished file; one that exists is replaced in the end.
            env_args: robomimic's description of the environment, as JSON values.
            action_dims: what each dimension of the action means.
            compress: shrink pictures with gzip, one frame a chunk, which keeps random access fast.
            masks: filter -> the demos that it names, as robomimic's `mask/` has them.
            resume: the command that goes on when it is given again, say "pixelrl collect"; None: nothing does.

        Raises:
            DataError: an unfinished file that is not to be resumed, was begun with other arguments, or is being
                written by another process.
        """
        self._path = path = Path(path)
        self._parts, self._compress = parts_folder(path), compress
        self._attributes = {
            "env_args": json_text(env_args, f"{path}: env_args"),
            "action_dims": json_text([asdict(dim) for dim in action_dims], f"{path}: action_dims"),
        }
        check_dims(action_dims, str(path))
        self._dims, self._form = tuple(action_dims), dict[str, str]()
        self._masks = _masks(masks or {}, path)
        with ExitStack() as stack:
            try:
                self._parts.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(self._parts / LOCK, wait=False))
                self.kept = self._begin(resume)
            except BlockingIOError as error:
                raise DataError(f"{self._parts}: another process is writing to it; wait for it, or stop it") from error
            except (OSError, ValueError, AttributeError) as error:  # a full disk, or notes that are not ours
                raise DataError(f"{self._parts}: cannot be used ({error})") from error
            self._lock = stack.pop_all()
        self.count, self.transitions = len(self.kept), sum(len(rewards) for _, rewards in self.kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the file, or keep its parts if anything was raised; without any episode nothing is left.

        Raises:
            DataError: no episodes came, a mask names a demo that is not there, or the disk is full.
        """
        with self._lock:
            if kind is None and self.count:
                self._merge()
            if kind is None or not self.count:
                shutil.rmtree(self._parts)
        if kind is None and not self.count:
            raise DataError(f"{self._path}: no episodes came to be written; expected one or more")

    def add(self, episode: Episode) -> str:
        """Write an episode, and return the name of its demo, say `demo_3`; it is kept from then on.

        robomimic has no place for the state after the last step.

        Raises:
            DataError: what `check_episode` raises, another form than the episodes before, or the disk is full.
        """
        name = f"demo_{self.count}"
        part = self._part(name)
        check_episode(episode, f"{self._path}: {name}", self._dims)
        sensors = {f"sensors/{key}": np.asarray(value) for key, value in episode.sensors.items()}
        form = form_of({**sensors, "actions": np.asarray(episode.actions)})
        check_form(form, self._form or form, f"{self._path}: {name}")
        notes = json_text(dict(episode.notes), f"{self._path}: {name}: notes")
        try:
            with create_file(part) as file:
                self._describe(file, len(episode))
                _write_demo(file.create_group(f"data/{name}"), episode, notes, self._compress)
        except OSError as error:
            kept = f"the {self.count} before it are kept"
            raise DataError(f"{part}: could not be written ({error.strerror or error}); {kept}") from error
        self._form = form
        self.count += 1
        self.transitions += len(episode)
        return name

    def mask(self, name: str, demos: Sequence[str]) -> None:
        """Name some of the demos, a filter as robomimic calls it; the finished file has it."""
        self._masks |= _masks({name: demos}, self._path)

    def _part(self, name: str) -> Path:
        return self._parts / f"{name}.hdf5"

    def _begin(self, resume: str | None) -> list[tuple[Mapping[str, Any], NDArray[Any]]]:
        """Note what the file is begun with, and return what an interrupted run left of the same file."""
        begun = {**self._attributes, "compress": self._compress}
        held = {path.name for path in self._parts.iterdir() if not path.name.startswith(".")} - {PARTS_NOTES, MERGED}
        if held and not (self._parts / PARTS_NOTES).exists():
            raise DataError(f"{self._parts}: holds {min(held)}, which is not ours; expected nothing there")
        names = [f"demo_{index}" for index in range(len(held))]
        if missing := {self._part(name).name for name in names} - held:
            raise DataError(f"{self._parts}: lacks {min(missing)}; remove the folder to begin anew")
        if held and resume is None:
            raise DataError(f"{self._parts}: holds {len(held)} episodes of an interrupted writing; remove it")
        before = json.loads((self._parts / PARTS_NOTES).read_text(encoding="utf-8")) if held else begun
        for name, value in begun.items():
            if before.get(name) != value:
                was = f"{str(before.get(name))[:60]!r}; now it is {str(value)[:60]!r}"
                raise DataError(f"{self._parts}: was begun with another {name}, {was}: remove it to begin anew")
        write_json(self._parts / PARTS_NOTES, {**begun, "command": resume})
        return [_kept(self._part(name), name) for name in names]

    def _merge(self) -> None:
        names = [f"demo_{index}" for index in range(self.count)]
        for mask, demos in self._masks.items():
            if missing := set(demos) - set(names):
                raise DataError(f"{self._path}: mask {mask!r} names {min(missing)!r}, which is not in the file")
        try:
            with atomic_path(self._path) as temporary:
                with create_file(temporary) as file:
                    self._describe(file, self.transitions)
                    for name in names:
                        with open_file(self._part(name)) as part:
                            part.copy(f"data/{name}", file["data"], name)
                    for mask, demos in self._masks.items():
                        chosen = [demo.encode() for demo in demos]
                        file.create_dataset(f"mask/{mask}", data=np.array(chosen, dtype=None if chosen else "S1"))
                (self._parts / MERGED).touch()
        except OSError as error:
            kept = f"{self._parts} keeps all {self.count} episodes"
            raise DataError(f"{self._path}: could not be written ({error.strerror or error}); {kept}") from error

    def _describe(self, file: h5py.File, transitions: int) -> None:
        """Write what a file says of all its demos."""
        file.create_group("data").attrs.update({"total": transitions, **self._attributes})


def remove_merged(path: Path) -> None:
    """Remove the parts of a file that is there, if a run was killed between merging and removing them."""
    parts = parts_folder(path)
    if path.exists() and (parts / MERGED).exists():
        shutil.rmtree(parts)


def write_episodes(
    path: Path | str,
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


def _kept(part: Path, name: str) -> tuple[Mapping[str, Any], NDArray[Any]]:
    """Return the notes and the rewards of a part."""
    with open_file(part) as file:
        demo = file["data"][name]
        return json_attribute(demo, "notes", {}), demo["rewards"][()]


def _masks(masks: Mapping[str, Sequence[str]], path: Path) -> dict[str, list[str]]:
    """Return filters, each a list of demos; a single text would be taken letter by letter."""
    for name, demos in masks.items():
        if isinstance(demos, str):
            raise DataError(f"{path}: mask {name!r} is {demos!r}; expected a list of demos")
    return {name: list(demos) for name, demos in masks.items()}


def _write_demo(demo: h5py.Group, episode: Episode, notes: str, compress: bool) -> None:
    demo.attrs["num_samples"] = len(episode)
    demo.attrs["notes"] = notes
    demo.attrs.update(episode.attributes)
    demo["actions"] = episode.actions
    demo["rewards"] = episode.rewards
    demo["dones"] = np.asarray(episode.dones).astype(np.int64)  # robomimic's type
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

"""Read the numbers of recordings into a table, beside pictures that are there already."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pixelrl.runtime.actions import to_units
from pixelrl.datasets.buffer.frames import Frames
from pixelrl.datasets.buffer.frame_index import Part
from pixelrl.datasets.buffer.recorded_file import RecordedFile
from pixelrl.datasets.hdf5.reader import FileContents, Demo
from pixelrl.datasets.buffer.transition_table import ROUNDING, ActionRange, TransitionTable
from pixelrl.runtime.errors import DataError


def read_transitions(
    sources: Sequence[Sequence[RecordedFile]],
    parts: Mapping[Path, Part],
    images: Mapping[str, Frames],
    *,
    actions: ActionRange = "unit",
) -> TransitionTable:
    """Read the numbers of all sources into one preallocated table, demo by demo, beside pictures that are there.

    `actions="min-max"` maps each dimension's range in the data to [-1, 1] and rewrites `dims` accordingly.

    Raises:
        DataError: actions out of range, or whatever `RecordedFile.numbers` finds.
    """
    files = [(index, recording) for index, source in enumerate(sources) for recording in source]
    table = _allocate(files, parts, images)
    step = 0
    for _, recording in files:
        contents = recording.contents
        part = parts[contents.path.resolve()]
        for demo in recording.numbers():
            if actions == "unit":
                check_unit_range(demo, contents.path)
            _fill(table, demo, contents, part.first[demo.name], step)
            step += len(demo.actions)
    return _normalised(table) if actions == "min-max" else replace(table, action=table.action.clamp_(-1, 1))


def check_unit_range(demo: Demo, path: Path) -> None:
    """Raise a `DataError` unless all actions of a demo lie in [-1, 1]."""
    worst = np.unravel_index(np.abs(demo.actions).argmax(), demo.actions.shape)
    value = float(demo.actions[worst])
    if abs(value) > 1 + ROUNDING:
        raise DataError(
            f"{path}: /data/{demo.name}/actions{[int(i) for i in worst]} is {value:.4g}, {abs(value) - 1:.4g} outside "
            "[-1, 1]; expected normalised actions (--actions min-max normalises them by the range of the data)"
        )


def check_alike(files: Sequence[FileContents]) -> None:
    """Raise unless files that are read together hold the same keys, shapes and actions.

    Raises:
        DataError: names the first file that differs from the first one, and in what.
    """
    first = files[0]
    expected = _traits(first)
    for other in files[1:]:
        came = _traits(other)
        for key in expected | came:
            if expected.get(key) != came.get(key):
                raise DataError(
                    f"{other.path}: {key} is {came.get(key, 'missing')}; "
                    f"expected {expected.get(key, 'no such key')}, as in {first.path}"
                )


def _traits(contents: FileContents) -> dict[str, str]:
    """Return what files that are read together must share."""
    action = {f"action {i}": f"{d.name} [{d.low}, {d.high}] {d.unit}" for i, d in enumerate(contents.action)}
    return {key: f"{shape}" for key, shape in {**contents.pictures, **contents.vectors}.items()} | action


def _allocate(
    files: Sequence[tuple[int, RecordedFile]], parts: Mapping[Path, Part], images: Mapping[str, Frames]
) -> TransitionTable:
    """Return a table of the right size; what follows from the lengths is filled in, the rest is not."""
    contents = files[0][1].contents
    frames = sum(
        sum(part.recording.contents.demos.values()) + len(part.recording.contents.demos) for part in parts.values()
    )
    lengths = np.array([steps for _, file in files for steps in file.contents.demos.values()])
    sources = np.array([source for source, file in files for _ in file.contents.demos])
    firsts = [parts[file.contents.path.resolve()].first for _, file in files]
    starts = np.array([f[name] for f, (_, file) in zip(firsts, files, strict=True) for name in file.contents.demos])
    total = int(lengths.sum())
    demo = np.repeat(np.arange(len(lengths)), lengths)
    first: NDArray[np.int64] = starts[demo]
    begin = (lengths.cumsum() - lengths)[demo]
    last = torch.zeros(total, dtype=torch.bool)
    last[torch.from_numpy(lengths.cumsum() - 1)] = True
    return TransitionTable(
        images=images,
        proprio=torch.empty(frames, sum(contents.vectors.values())),
        action=torch.empty(total, len(contents.action)),
        reward=torch.empty(total),
        done=torch.empty(total, dtype=torch.bool),
        frame=torch.from_numpy(first + np.arange(total) - begin),
        first=torch.from_numpy(first),
        last=last,
        demo=torch.from_numpy(demo),
        source=torch.from_numpy(sources[demo]),
        dims=contents.action,
    )


def _fill(table: TransitionTable, demo: Demo, contents: FileContents, frame: int, step: int) -> None:
    """Copy a demo to its place."""
    steps = slice(step, step + len(demo.actions))
    frames = slice(frame, frame + len(demo.actions) + 1)
    if contents.vectors:
        table.proprio.numpy()[frames] = np.concatenate([demo.sensors[key] for key in contents.vectors], axis=1)
    table.action.numpy()[steps] = demo.actions
    table.reward.numpy()[steps] = demo.rewards
    table.done.numpy()[steps] = demo.dones


def _normalised(table: TransitionTable) -> TransitionTable:
    """Map the range of each action dimension to [-1, 1], and say in `dims` what -1 and 1 now mean."""
    low, high = table.action.amin(0), table.action.amax(0)
    half = ((high - low) / 2).clamp(min=1e-6)  # a constant dimension becomes 0
    middle = (high + low) / 2
    dims = tuple(
        replace(dim, low=to_units(float(m - h), dim.low, dim.high), high=to_units(float(m + h), dim.low, dim.high))
        for dim, m, h in zip(table.dims, middle, half, strict=True)
    )
    return replace(table, action=table.action.sub_(middle).div_(half).clamp_(-1, 1), dims=dims, actions="min-max")


"""A data set in memory, but for its pictures: a transition is an index, and its next frame is the one after."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.datasets.buffer.frames import FrameIndex, Frames
from pixelrl.datasets.buffer.recorded_file import Numbers, RecordedFile
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.hdf5.reader import FileContents
from pixelrl.datasets.rewards import reward_episodes
from pixelrl.runtime.actions import ROUNDING, ActionDim, ActionRange, to_units
from pixelrl.runtime.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TransitionTable:
    """F frames and the T transitions between them; demos lie one after another, sources likewise.

    Attributes:
        images: observation key -> its F pictures, wherever they live.
        proprio: float32 `[F, P]`, raw.
        action: float32 `[T, A]` in [-1, 1].
        reward: float32 `[T]`, by the rule `Source.reward`, unscaled.
        done: bool `[T]`, by the rule `Source.dones`.
        next_missing: bool `[T]`, the frame after the step was not recorded; an episode ends there.
        frame: int64 `[T]`, the frame before the transition; the frame after it is `frame + 1`.
        row: int64 `[T]`, the recorded step, counting over all files; one that two sources read has one number, also
            where they call its observations otherwise, and have frames of their own.
        last: bool `[T]`, the last transition of its demo.
        demo: int64 `[T]`, counting over all files; a demo that two sources use counts twice, and has its frames once.
        source: int64 `[T]`.
        dims: what each dimension of the action means.
        recorded: float32 `[T]`, the rewards that the files hold.
        clocks: observation keys that grow with every frame of every demo, as time does.
        actions: how they were brought to [-1, 1].
    """

    images: Mapping[str, Frames]
    proprio: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    next_missing: Tensor
    frame: Tensor
    row: Tensor
    last: Tensor
    demo: Tensor
    source: Tensor
    dims: tuple[ActionDim, ...]
    recorded: Tensor
    clocks: tuple[str, ...] = ()
    actions: ActionRange = "unit"

    def __len__(self) -> int:
        """Return T."""
        return self.action.shape[0]

    def fingerprint(self) -> str:
        """Return a checksum of what was recorded: all numbers, and some of the pictures, evenly spaced."""
        arrays = [self.action, self.reward, self.done, self.next_missing, self.last, self.source, self.proprio]
        some = torch.arange(0, len(self.proprio), max(1, len(self.proprio) // 256))
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(np.ascontiguousarray(array.numpy()).data, checksum)
        for frames in self.images.values():
            checksum = zlib.crc32(np.ascontiguousarray(frames.take(some).cpu().numpy()).data, checksum)
        return f"{len(self)} transitions, crc32 {checksum:08x}"


def read_transitions(
    sources: Sequence[Source],
    used: Sequence[Sequence[RecordedFile]],
    index: FrameIndex,
    images: Mapping[str, Frames],
    *,
    actions: ActionRange = "unit",
) -> TransitionTable:
    """Read the numbers of all sources into one table, file by file, beside pictures that are there.

    `used` are the files of each source.
    `actions="min-max"` maps each dimension's range in the data to [-1, 1] and rewrites `dims` accordingly.

    Raises:
        DataError: actions out of range, or whatever `RecordedFile.numbers` finds.
    """
    files = [file for source in used for file in source]
    numbers = [file.numbers() for file in files]
    if actions == "unit":
        for file, each in zip(files, numbers, strict=True):
            _check_unit_range(each, file.contents)
    contents, starts = files[0].contents, np.concatenate([index.first_frames(file.contents) for file in files])
    lengths = np.array([steps for file in files for steps in file.contents.demos.values()])
    demo, ends = np.repeat(np.arange(len(lengths)), lengths), lengths.cumsum()
    here = np.arange(ends[-1])
    last = here == (ends - 1)[demo]
    owner = [number for number, some in enumerate(used) for _ in some]  # of each file its source
    sizes = [sum(file.contents.demos.values()) for file in files]
    rules = [sources[number] for number in owner]
    missing = _joined([each.next_missing for each in numbers])
    cuts = np.split(last | missing, np.cumsum(sizes)[:-1])
    beside = _files_by_rule(rules, files)
    rewards = [
        reward_episodes(rule.reward, file.contents.path, file.contents.demos, each.rewards, stops, beside[rule.reward])
        for rule, file, each, stops in zip(rules, files, numbers, cuts, strict=True)
    ]
    dones = [
        stops if rule.dones == "last" else each.dones for rule, each, stops in zip(rules, numbers, cuts, strict=True)
    ]
    frames = np.concatenate([np.arange(start, start + steps + 1) for start, steps in zip(starts, lengths, strict=True)])
    proprio = np.empty((index.count, sum(contents.vectors.values())), np.float32)
    proprio[frames] = _joined([each.proprio for each in numbers])
    growing = set.intersection(*(set(each.clocks) for each in numbers))
    table = TransitionTable(
        images=images,
        proprio=torch.from_numpy(proprio),
        action=torch.from_numpy(_joined([each.actions for each in numbers])),
        reward=torch.from_numpy(_joined(rewards)),
        done=torch.from_numpy(_joined(dones)),
        next_missing=torch.from_numpy(missing),
        frame=torch.from_numpy(starts[demo] + here - (ends - lengths)[demo]),
        row=torch.from_numpy(_first_rows(files)[demo] + here - (ends - lengths)[demo]),
        last=torch.from_numpy(last),
        demo=torch.from_numpy(demo),
        source=torch.from_numpy(np.repeat(owner, sizes)),
        dims=contents.action,
        recorded=torch.from_numpy(_joined([each.rewards for each in numbers])),
        clocks=tuple(key for key in contents.vectors if key in growing),
    )
    return _normalised(table) if actions == "min-max" else replace(table, action=table.action.clamp_(-1, 1))


def _files_by_rule(rules: Sequence[Source], files: Sequence[RecordedFile]) -> dict[str, dict[Path, Mapping[str, int]]]:
    """Return rule of rewards -> the files that it is for -> their demos."""
    found: dict[str, dict[Path, Mapping[str, int]]] = {}
    for rule, file in zip(rules, files, strict=True):
        found.setdefault(rule.reward, {})[file.contents.path] = file.contents.demos
    return found


def _first_rows(files: Sequence[RecordedFile]) -> NDArray[np.int64]:
    """Return the number of the first row of each demo, `[D]`; a demo of the same file has the same."""
    firsts: dict[tuple[Path, str], int] = {}
    found, count = [], 0
    for file in files:
        path = file.contents.path.resolve()
        for name, steps in file.contents.demos.items():
            found.append(firsts.setdefault((path, name), count))
            count += steps
    return np.array(found)


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the arrays one after another, without a copy where there is one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _check_unit_range(numbers: Numbers, contents: FileContents) -> None:
    """Raise a `DataError` unless all actions lie in [-1, 1]."""
    sizes = np.abs(numbers.actions).max(axis=1)
    if sizes.max() <= 1 + ROUNDING:
        return
    ends = np.cumsum([*contents.demos.values()])
    demo = int(np.searchsorted(ends, np.flatnonzero(sizes > 1 + ROUNDING)[0], side="right"))
    name, steps = [*contents.demos.items()][demo]
    rows = numbers.actions[ends[demo] - steps : ends[demo]]
    worst = np.unravel_index(np.abs(rows).argmax(), rows.shape)
    value = float(rows[worst])
    raise DataError(
        f"{contents.path}: /data/{name}/actions{[int(i) for i in worst]} is {value:.4g}, beyond [-1, 1] by "
        f"{abs(value) - 1:.4g}; expected normalised actions (--actions min-max makes them, by the range of the data)"
    )


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

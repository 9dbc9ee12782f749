"""All frames of a data set, each once, in memory: a transition is an index, and its next frame is the one after."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from pixelrl.batch import ActionDim
from pixelrl.datasets.robomimic_hdf5 import Contents, Demo, read_demos
from pixelrl.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the frames read so far and the frames in all."""

ActionRange = Literal["unit", "min-max"]
"""Actions are normalised to [-1, 1] already, or are to be, by their range in the data."""


ROUNDING = 1e-5
"""How far beyond [-1, 1] float arithmetic may have brought an action; it is clipped."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """F frames and the T transitions between them; demos lie one after another, sources likewise.

    Attributes:
        images: observation key -> uint8 `[F, C, H, W]`.
        proprio: float32 `[F, P]`, raw.
        action: float32 `[T, A]` in [-1, 1].
        reward: float32 `[T]`, as recorded.
        done: bool `[T]`, as recorded.
        frame: int64 `[T]`, the frame before the transition; the frame after it is `frame + 1`.
        last: bool `[T]`, the last transition of its demo.
        demo: int64 `[T]`, counting over all files.
        source: int64 `[T]`.
        dims: what each dimension of the action means.
    """

    images: Mapping[str, Tensor]
    proprio: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    frame: Tensor
    last: Tensor
    demo: Tensor
    source: Tensor
    dims: tuple[ActionDim, ...]

    def __len__(self) -> int:
        """Return T."""
        return self.action.shape[0]

    def fingerprint(self) -> str:
        """Return a checksum of what was recorded: all numbers, and some of the pictures, evenly spaced."""
        arrays = [self.action, self.reward, self.done, self.last, self.source, self.proprio]
        arrays += [pictures[:: max(1, len(pictures) // 256)] for pictures in self.images.values()]
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(np.ascontiguousarray(array.numpy()).data, checksum)
        return f"{len(self)} transitions, crc32 {checksum:08x}"


def load(
    sources: Sequence[Sequence[Contents]], *, actions: ActionRange = "unit", progress: Progress | None = None
) -> Store:
    """Read the files of all sources into one preallocated store, demo by demo.

    `actions="min-max"` maps each dimension's range in the data to [-1, 1] and rewrites `dims` accordingly.

    Raises:
        DataError: files whose keys, shapes or actions differ, or whatever `read_demos` finds.
    """
    files = [(index, contents) for index, source in enumerate(sources) for contents in source]
    first = files[0][1]
    for _, contents in files[1:]:
        _check_alike(first, contents)
    store = _allocate(files)
    frames = len(store.proprio)
    frame = step = 0
    for _, contents in files:
        for demo in read_demos(contents):
            if actions == "unit":
                check_unit_range(demo, contents.path)
            _fill(store, demo, contents, frame, step)
            frame, step = frame + len(demo.actions) + 1, step + len(demo.actions)
            if progress is not None:
                progress(frame, frames)
    return _normalised(store) if actions == "min-max" else replace(store, action=store.action.clamp_(-1, 1))


def check_unit_range(demo: Demo, path: Path) -> None:
    """Raise a `DataError` unless all actions of a demo lie in [-1, 1]."""
    worst = np.unravel_index(np.abs(demo.actions).argmax(), demo.actions.shape)
    value = float(demo.actions[worst])
    if abs(value) > 1 + ROUNDING:
        raise DataError(
            f"{path}: /data/{demo.name}/actions{[int(i) for i in worst]} is {value:.4g}, {abs(value) - 1:.4g} outside "
            "[-1, 1]; expected normalised actions (--actions min-max normalises them by the range of the data)"
        )


def _check_alike(first: Contents, other: Contents) -> None:
    """Raise unless two files hold the same keys, shapes and actions."""
    expected, came = _traits(first), _traits(other)
    for key in expected | came:
        if expected.get(key) != came.get(key):
            raise DataError(
                f"{other.path}: {key} is {came.get(key, 'missing')}; "
                f"expected {expected.get(key, 'no such key')}, as in {first.path}"
            )


def _traits(contents: Contents) -> dict[str, str]:
    """Return what files that are read together must share."""
    action = {f"action {i}": f"{d.name} [{d.low}, {d.high}] {d.unit}" for i, d in enumerate(contents.action)}
    return {key: f"{shape}" for key, shape in {**contents.pictures, **contents.vectors}.items()} | action


def _allocate(files: Sequence[tuple[int, Contents]]) -> Store:
    """Return a store of the right size; what follows from the lengths is filled in, the rest is not."""
    contents = files[0][1]
    lengths = np.array([steps for _, file in files for steps in file.demos.values()])
    sources = np.array([source for source, file in files for _ in file.demos])
    total, frames = int(lengths.sum()), int(lengths.sum()) + len(lengths)
    demo = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    last = torch.zeros(total, dtype=torch.bool)
    last[torch.from_numpy(lengths.cumsum() - 1)] = True
    return Store(
        images={key: torch.empty(frames, c, h, w, dtype=torch.uint8) for key, (h, w, c) in contents.pictures.items()},
        proprio=torch.empty(frames, sum(contents.vectors.values())),
        action=torch.empty(total, len(contents.action)),
        reward=torch.empty(total),
        done=torch.empty(total, dtype=torch.bool),
        frame=torch.arange(total) + demo,  # each earlier demo has one frame more than transitions
        last=last,
        demo=demo,
        source=torch.from_numpy(np.repeat(sources, lengths)),
        dims=contents.action,
    )


def _fill(store: Store, demo: Demo, contents: Contents, frame: int, step: int) -> None:
    """Copy a demo to its place."""
    steps = slice(step, step + len(demo.actions))
    frames = slice(frame, frame + len(demo.actions) + 1)
    for key, images in store.images.items():  # NumPy copies: torch's threads would wait for busy cores
        images.numpy()[frames] = rearrange(demo.sensors[key], "n h w c -> n c h w")
    if contents.vectors:
        store.proprio.numpy()[frames] = np.concatenate([demo.sensors[key] for key in contents.vectors], axis=1)
    store.action.numpy()[steps] = demo.actions
    store.reward.numpy()[steps] = demo.rewards
    store.done.numpy()[steps] = demo.dones


def _normalised(store: Store) -> Store:
    """Map the range of each action dimension to [-1, 1], and say in `dims` what -1 and 1 now mean."""
    low, high = store.action.amin(0), store.action.amax(0)
    half = ((high - low) / 2).clamp(min=1e-6)  # a constant dimension becomes 0
    middle = (high + low) / 2
    dims = tuple(
        replace(dim, low=_physical(dim, float(m - h)), high=_physical(dim, float(m + h)))
        for dim, m, h in zip(store.dims, middle, half, strict=True)
    )
    return replace(store, action=store.action.sub_(middle).div_(half).clamp_(-1, 1), dims=dims)


def _physical(dim: ActionDim, value: float) -> float:
    """Return what a recorded action means, in the unit of its dimension."""
    return dim.low + (value + 1) / 2 * (dim.high - dim.low)

"""A data set in memory, but for its pictures: a transition is an index, and its next frame is the one after."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.buffer.frames import Frames

ActionRange = Literal["unit", "min-max"]
"""Actions are normalised to [-1, 1] already, or are to be, by their range in the data."""


ROUNDING = 1e-5
"""How far beyond [-1, 1] float arithmetic may have brought an action; it is clipped."""


@dataclass(frozen=True, kw_only=True)
class TransitionTable:
    """F frames and the T transitions between them; demos lie one after another, sources likewise.

    Attributes:
        images: observation key -> its F pictures, wherever they live.
        proprio: float32 `[F, P]`, raw.
        action: float32 `[T, A]` in [-1, 1].
        reward: float32 `[T]`, as recorded.
        done: bool `[T]`, as recorded.
        frame: int64 `[T]`, the frame before the transition; the frame after it is `frame + 1`.
        first: int64 `[T]`, the first frame of its demo.
        last: bool `[T]`, the last transition of its demo.
        demo: int64 `[T]`, counting over all files; a demo that two sources use counts twice, and has its frames once.
        source: int64 `[T]`.
        dims: what each dimension of the action means.
        actions: how they were brought to [-1, 1].
    """

    images: Mapping[str, Frames]
    proprio: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    frame: Tensor
    first: Tensor
    last: Tensor
    demo: Tensor
    source: Tensor
    dims: tuple[ActionDim, ...]
    actions: ActionRange = "unit"

    def __len__(self) -> int:
        """Return T."""
        return self.action.shape[0]

    def fingerprint(self) -> str:
        """Return a checksum of what was recorded: all numbers, and some of the pictures, evenly spaced."""
        arrays = [self.action, self.reward, self.done, self.last, self.source, self.proprio]
        some = torch.arange(0, len(self.proprio), max(1, len(self.proprio) // 256))
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(np.ascontiguousarray(array.numpy()).data, checksum)
        for frames in self.images.values():
            checksum = zlib.crc32(np.ascontiguousarray(frames.take(some).cpu().numpy()).data, checksum)
        return f"{len(self)} transitions, crc32 {checksum:08x}"

"""The pictures of a camera, each of them once, wherever they live: the door, and the simplest home behind it."""

from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


class Frames(Protocol):
    """The pictures of one camera."""

    def take(self, index: Tensor) -> Tensor:
        """Return the frames of these numbers, uint8 `[N, C, H, W]`, channels last in memory; safe in threads."""
        ...


def gather(values: Tensor, index: Tensor, *, pin: bool = False) -> Tensor:
    """Return rows `[N, ...]` of `values` on their device, in page-locked memory if asked for.

    NumPy's gather is as fast as `index_select` on one thread, and starts no others: those would wait for the
    learner's, which keep every core busy.
    """
    if values.device.type != "cpu":
        return values.index_select(0, index.to(values.device, non_blocking=True))
    taken = torch.empty(len(index), *values.shape[1:], dtype=values.dtype, pin_memory=pin)
    np.take(values.numpy(), index.numpy(), axis=0, out=taken.numpy(), mode="clip")  # "raise" would buffer
    return taken


def channels_first(pictures: Tensor) -> Tensor:
    """Return pictures `[N, H, W, C]` as `[N, C, H, W]`, where they are: convolutions like their channels last there."""
    return rearrange(pictures, "n h w c -> n c h w")


class InMemory:
    """Frames as one array in memory: the GPU's, or the machine's, from where they leave through page-locked memory.

    Args:
        pictures: uint8 `[F, H, W, C]`, as files have them.
        pin: return page-locked memory.
    """

    def __init__(self, pictures: Tensor, *, pin: bool = False) -> None:
        self.pictures, self.pin = pictures, pin

    def take(self, index: Tensor) -> Tensor:
        """Gather frames on their device."""
        return channels_first(gather(self.pictures, index, pin=self.pin))

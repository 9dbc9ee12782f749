"""From the bytes of pictures to what the networks see: shifted at random, between 0 and 1."""

import torch
from torch import Tensor

from pixelrl.learning.batch import Observation
from pixelrl.learning.noise import Noise, draw


def random_shift(images: Tensor, pad: int, generator: Noise, *, alike: bool = False, chance: float = 1.0) -> Tensor:
    """Shift each picture by up to `pad` pixels in x and y, its border repeated (DrQ, arXiv 2004.13649).

    Whole lines of pixels are copied: each line of the result is a window of a line with repeated ends. No index a
    pixel, no interpolation, no step that waits for a GPU. Channels stay last in memory where they are.

    Args:
        images: `[B, C, H, W]` of any type.
        pad: the largest shift [pixels]; 0 returns the pictures as they are.
        generator: on the pictures' device.
        alike: shift the second half of the pictures as the first.
        chance: that any is shifted.
    """
    if pad == 0:
        return images
    device = images.device
    drawn = len(images) // 2 if alike else len(images)
    shift = draw(torch.randint, (2, drawn, 1), generator, rows=1, low=-pad, high=pad + 1)
    if alike:
        shift = shift.repeat(1, 2, 1)
    if chance < 1:
        shift = shift * (draw(torch.rand, (1, 1, 1), generator, rows=None) < chance)
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    # planes [B, P, H, W, K]: either each channel is a plane, or the channels of a pixel lie together in one
    planes = images.permute(0, 2, 3, 1).unsqueeze(1) if last else images.unsqueeze(-1)
    batch, count, height, width, depth = planes.shape
    wide = torch.cat([planes[..., :1, :]] * pad + [planes] + [planes[..., -1:, :]] * pad, dim=3)
    rows = (torch.arange(height, device=device) + shift[0]).clamp(0, height - 1)
    first = torch.arange(batch * count, device=device).view(batch, count, 1) * height
    starts = ((first + rows.unsqueeze(1)) * (width + 2 * pad) + (shift[1] + pad).unsqueeze(1)) * depth
    windows = wide.flatten().unfold(0, width * depth, 1)
    moved = windows.index_select(0, starts.flatten()).view(planes.shape)
    return moved.squeeze(1).permute(0, 3, 1, 2) if last else moved.squeeze(-1)


def fractions(images: Tensor) -> Tensor:
    """Return bytes as numbers in [0, 1], in the type that the networks compute in; numbers are returned as they are."""
    if images.is_floating_point():
        return images
    kind = images.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    return images.to(dtype).mul_(1 / 255)  # in place: another copy of all pictures would cost as much as a convolution


def augment(obs: Observation, pad: int, generator: Noise, *, alike: bool = False, chance: float = 1.0) -> Observation:
    """Shift the pictures of every camera, each by its own `random_shift`, and scale them to [0, 1].

    Done once for all networks that look at them.
    """
    images = {
        key: fractions(random_shift(value, pad, generator, alike=alike, chance=chance))
        for key, value in obs.images.items()
    }
    return Observation(images=images, proprio=obs.proprio)

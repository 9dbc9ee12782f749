"""Augmentation of pictures on their device, as bytes."""

import torch
from einops import rearrange, repeat
from torch import Tensor

from pixelrl.batch import Observation


def random_shift(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift each picture by up to `pad` pixels in x and y, its border repeated (DrQ, arXiv 2004.13649, sec. 3.1).

    One gather of bytes: neither a padded copy nor interpolation, and no step that waits for a GPU.

    Args:
        images: `[B, C, H, W]` of any type.
        pad: the largest shift [pixels]; 0 returns the pictures as they are.
        generator: on the pictures' device.
    """
    if pad == 0:
        return images
    batch, channels, height, width = images.shape
    shift = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator, device=images.device)
    rows = (torch.arange(height, device=images.device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + shift[1]).clamp(0, width - 1)
    pixels = rearrange(rows * width, "b h -> b h 1") + rearrange(columns, "b w -> b 1 w")
    index = repeat(pixels, "b h w -> b c (h w)", c=channels)
    return images.flatten(2).gather(2, index).view(images.shape)


def shift_observation(obs: Observation, pad: int, generator: torch.Generator) -> Observation:
    """Apply `random_shift` to every camera of an observation."""
    images = {key: random_shift(value, pad, generator) for key, value in obs.images.items()}
    return Observation(images=images, proprio=obs.proprio)

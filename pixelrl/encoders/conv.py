"""Convolutional encoders: COG's, DrQ's, and a small one that is fast on a CPU."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.layers import Flatten


@dataclass(frozen=True, kw_only=True)
class CogCNN(PixelEncoder):
    """COG's encoder (arXiv 2010.14500, app. B): three 3x3 convolutions, max-pooling after the first two, flattened.

    48x48 pictures give 16 x 12 x 12 = 2304 features. Pooling comes before the ReLU, which gives the same numbers from a
    quarter of the work.
    """

    channels: int = 16
    """filters of each convolution"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`."""
        width = self.channels
        return nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            Flatten(),
        )


@dataclass(frozen=True, kw_only=True)
class DrqCNN(PixelEncoder):
    """DrQ's encoder (arXiv 2004.13649): four 3x3 convolutions, LayerNorm, tanh."""

    channels: int = 32
    """filters of each convolution"""
    features: int = 50
    """width of the last layer"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`."""
        convolutions: list[nn.Module] = []
        for below, stride in zip((shape[0], *[self.channels] * 3), (2, 1, 1, 1), strict=True):
            convolutions += [nn.Conv2d(below, self.channels, 3, stride), nn.ReLU(inplace=True)]
        return project(convolutions, shape, self.features, nn.Tanh())


@dataclass(frozen=True, kw_only=True)
class SmallCNN(PixelEncoder):
    """Three convolutions that shrink at once, then a linear layer with LayerNorm: cheap on a CPU.

    The first convolution, 8x8 with stride 4, costs a quarter of a 4x4 one with stride 2.
    """

    channels: tuple[int, int, int] = (16, 32, 32)
    """filters of the three convolutions"""
    features: int = 256
    """width of the last layer"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`, at least 32 pixels high and wide."""
        first, second, third = self.channels
        convolutions: list[nn.Module] = [
            nn.Conv2d(shape[0], first, 8, 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 3, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, third, 3, 1),
            nn.ReLU(inplace=True),
        ]
        return project(convolutions, shape, self.features, nn.ReLU(inplace=True))


def project(
    convolutions: list[nn.Module], shape: tuple[int, int, int], features: int, last: nn.Module
) -> nn.Sequential:
    """Append flattening, a linear layer, LayerNorm and a non-linearity to convolutions."""
    body = nn.Sequential(*convolutions, Flatten())
    with torch.no_grad():
        flat = math.prod(body(torch.zeros(1, *shape)).shape)
    return nn.Sequential(*body, nn.Linear(flat, features), nn.LayerNorm(features), last)

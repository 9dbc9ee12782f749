"""ResNet-18 on pixels, never pretrained: with GroupNorm and spatial embeddings, or as robomimic has it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pixelrl.encoders.cameras import PixelEncoder


@dataclass(frozen=True, kw_only=True)
class ResNet18(PixelEncoder):
    """ResNet-18 (arXiv 1512.03385) with GroupNorm and learned spatial embeddings, as in PTR (arXiv 2210.05178).

    8 embeddings of each of the 512 last channels: 4096 features, whatever the size of the pictures. Departures from
    PTR's code: torchvision's layers (ReLU, its initial weights), no coordinates as extra channels.
    """

    groups: int = 4
    """groups of GroupNorm"""
    embeddings: int = 8
    """learned weightings of all places, for each channel"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`."""
        layers, places = backbone(shape, "group", self.groups)
        return nn.Sequential(*layers, SpatialEmbeddings(places, self.embeddings))


@dataclass(frozen=True, kw_only=True)
class RobomimicResNet18(PixelEncoder):
    """robomimic's `VisualCore`: ResNet-18 with BatchNorm, spatial softmax, a linear layer; then its ReLU.

    For comparisons on the same weights. With BatchNorm the pictures of a batch influence each other, so a batch split
    over several devices does not give the same numbers, nor do s and s' that are encoded together (for DR3); the target
    network too normalises by the batch here, where robomimic's normalises by running statistics that it never updates
    (they stay at mean 0 and variance 1).
    """

    keypoints: int = 32
    """maps whose mean position is taken"""
    features: int = 64
    """width of the last layer"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`."""
        layers, places = backbone(shape, "batch")
        pooled = [SpatialSoftmax(places, self.keypoints), nn.Flatten()]
        return nn.Sequential(*layers, *pooled, nn.Linear(2 * self.keypoints, self.features), nn.ReLU())


def backbone(
    shape: tuple[int, int, int], norm: Literal["group", "batch"], groups: int = 1
) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Return the layers of torchvision's ResNet-18 before its pooling, and the (C, H, W) that they end with."""
    from torchvision.models import resnet18

    def group_norm(width: int) -> nn.Module:
        return nn.GroupNorm(groups, width)

    net = resnet18(weights=None, norm_layer=group_norm if norm == "group" else None)
    if shape[0] != 3:
        net.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    layers = list(net.children())[:-2]
    return layers, (512, math.ceil(shape[1] / 32), math.ceil(shape[2] / 32))


class SpatialEmbeddings(nn.Module):
    """Sum each channel over its places with F learned weightings, `[B, C, H, W] -> [B, C F]`."""

    def __init__(self, places: tuple[int, int, int], count: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(*places, count) / math.sqrt(math.prod(places)))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh and sum."""
        return torch.einsum("bchw,chwf->bcf", x, self.kernel).flatten(1)


class SpatialSoftmax(nn.Module):
    """The mean position of each of K maps, `[B, C, H, W] -> [B, K, 2]` with x and y in [-1, 1] (arXiv 1509.06113)."""

    position: Tensor

    def __init__(self, places: tuple[int, int, int], keypoints: int) -> None:
        super().__init__()
        channels, height, width = places
        self.maps = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        self.register_buffer("position", torch.stack([x.flatten(), y.flatten()], dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        """Take the softmax over all places of a map for its weight at each."""
        return torch.softmax(self.maps(x).flatten(2), dim=-1) @ self.position

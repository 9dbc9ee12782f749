"""IMPALA's residual encoder, in the size that OGBench uses for pixels."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.layers import Flatten


@dataclass(frozen=True, kw_only=True)
class ImpalaCNN(PixelEncoder):
    """IMPALA's residual network (arXiv 1802.01561, fig. 3 right), as OGBench's `impala_small` (arXiv 2410.20092).

    Each stack is a 3x3 convolution, 3x3 max-pooling with stride 2, and residual blocks of two 3x3 convolutions each.
    The paper has two blocks a stack and 256 features with ReLU; OGBench one block, 512 features with GELU, and
    Xavier-uniform weights. Departure: pooling is padded alike on both sides (there on the far side only).
    """

    channels: tuple[int, ...] = (16, 32, 32)
    """filters of each stack"""
    blocks: int = 1
    """residual blocks of each stack (the paper: 2)"""
    features: int = 512
    """width of the last layer (the paper: 256)"""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return the trunk for pictures of `(C, H, W)`."""
        layers: list[nn.Module] = []
        for below, width in zip((shape[0], *self.channels), self.channels, strict=False):
            layers += [nn.Conv2d(below, width, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [Residual(width) for _ in range(self.blocks)]
        layers += [nn.ReLU(), Flatten()]
        places = [math.ceil(side / 2 ** len(self.channels)) for side in shape[1:]]  # each stack halves, rounding up
        width = math.prod(places) * self.channels[-1]
        trunk = nn.Sequential(*layers, nn.Linear(width, self.features), nn.GELU())
        for layer in trunk.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return trunk


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), `[B, W, H, W'] -> [B, W, H, W']`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's result to its input."""
        result: Tensor = x + self.body(x)
        return result

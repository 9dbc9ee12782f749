"""From an observation to features: one trunk a camera, and proprioception beside them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelrl.learning.augment import fractions
from pixelrl.learning.batch import Observation, Spec
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class PixelEncoder(ABC):
    """The common part of every encoder's configuration; a kind of encoder says only what its trunk is."""

    @abstractmethod
    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        """Return a network from float pictures `[B, C, H, W]` in [0, 1] to features `[B, D]`."""

    def build(self, spec: Spec) -> "Cameras":
        """Return a fresh encoder with a trunk for each camera.

        Raises:
            PixelrlError: pictures too small for the convolutions.
        """
        trunks, width = [], spec.proprio_dim
        for key, shape in spec.stacks.items():
            try:
                trunks.append(self.trunk(shape))
                width += trunks[-1](torch.zeros(1, *shape)).shape[1]
            except RuntimeError as error:
                size = f"{shape[1]} x {shape[2]} pixels"
                raise PixelrlError(f"{key}: {size} do not fit {type(self).__name__} ({error})") from error
        return Cameras(spec, trunks, width)


class Cameras(nn.Module):
    """Encode every camera and append the normalised proprioception, where there is any.

    Attributes:
        features: D, the width of the result.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, trunks: Sequence[nn.Sequential], features: int) -> None:
        super().__init__()
        self.trunks, self.features = nn.ModuleList(trunks), features
        self.keys = tuple(spec.images)  # no names of modules: torch keeps some for itself
        self.register_buffer("mean", torch.tensor(spec.proprio_mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.proprio_std, dtype=torch.float32))

    def forward(self, obs: Observation) -> Tensor:
        """Encode pictures, uint8 or already scaled to [0, 1], as `[B, D]`."""
        parts = [trunk(fractions(obs.images[key])) for key, trunk in zip(self.keys, self.trunks, strict=True)]
        if len(self.mean):
            parts.append((obs.proprio - self.mean) / self.std)
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # a single part is not copied

"""From an observation to features: one trunk a camera, and proprioception beside them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelrl.encoders.layers import Bottleneck, Flatten, LocalMixing, NoisyLayer, SoftMixture
from pixelrl.learning.augment import fractions
from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.interventions import Filters
from pixelrl.learning.noise import EncoderNoise
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class PixelEncoder(ABC):
    """The common part of every encoder's configuration; a kind of encoder says only what its trunk is."""

    bottleneck: int = 0
    """numbers that are let through of each camera, for `InformationBottleneck`; 0: as many as there are"""
    mixing: float = 0.0
    """how discontinuous the gradient of the last maps may be before they are mixed (A-LIX: 0.535); 0: never mixed"""
    experts: int = 0
    """perceptrons that share the places of the last maps (Soft MoE, arXiv 2402.08609); 0: none"""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if min(self.bottleneck, self.experts) < 0 or not self.mixing >= 0:
            raise PixelrlError(
                f"encoder: bottleneck is {self.bottleneck}, mixing {self.mixing} and experts {self.experts}; all must "
                "be at least 0"
            )

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
                trunks.append(self.with_parts(key, self.trunk(shape), torch.zeros(1, *shape)))
                width += trunks[-1](torch.zeros(1, *shape)).shape[1]
            except RuntimeError as error:
                size = f"{shape[1]} x {shape[2]} pixels"
                raise PixelrlError(f"{key}: {size} do not fit {type(self).__name__} ({error})") from error
        return Cameras(spec, trunks, width)

    def with_parts(self, key: str, trunk: nn.Sequential, pictures: Tensor) -> nn.Sequential:
        """Return a camera's trunk with the layers that `mixing`, `experts` and `bottleneck` ask for, if any.

        Raises:
            PixelrlError: no maps to mix or to share, or too small ones to mix.
        """
        layers = list(trunk)
        if self.mixing or self.experts:
            at = next((place for place, layer in enumerate(layers) if isinstance(layer, Flatten)), 0)
            if not at:
                raise PixelrlError(
                    f"--encoder.mixing and --encoder.experts: {type(self).__name__} flattens no maps; use --encoder "
                    "cog, drq or impala"
                )
            _, channels, height, width = nn.Sequential(*layers[:at])(pictures).shape
            if self.mixing and min(height, width) < SMALLEST_MAP:
                raise PixelrlError(
                    f"--encoder.mixing: the last maps of {key} are {height} x {width}; it takes {SMALLEST_MAP} x "
                    f"{SMALLEST_MAP} or more: --encoder cog, drq or impala, or larger pictures"
                )
            if self.experts:
                layers[at] = SoftMixture(channels, height * width, self.experts)
            if self.mixing:
                layers.insert(at, LocalMixing((channels, height, width), self.mixing))
        if self.bottleneck:
            layers.append(Bottleneck(trunk(pictures).shape[1], self.bottleneck))
        return nn.Sequential(*layers)


SMALLEST_MAP = 8
"""Places that a map must have at each side to be mixed: the score of a place takes its eight neighbours."""


class Cameras(nn.Module):
    """Encode every camera and append the normalised proprioception, where there is any.

    Attributes:
        features: D, the width of the result.
        noisy: whether some layer learns with noise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec, trunks: Sequence[nn.Sequential], features: int) -> None:
        super().__init__()
        self.trunks, self.features = nn.ModuleList(trunks), features
        self.noisy = any(isinstance(module, NoisyLayer) for module in self.modules())
        self.keys = tuple(spec.images)  # no names of modules: torch keeps some for itself
        self.register_buffer("mean", torch.tensor(spec.proprio_mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(spec.proprio_std, dtype=torch.float32))

    def forward(self, obs: Observation, noise: EncoderNoise | None = None) -> Tensor:
        """Encode pictures, uint8 or already scaled to [0, 1], as `[B, D]`."""
        parts = []
        for key, trunk in zip(self.keys, self.trunks, strict=True):
            assert isinstance(trunk, nn.Sequential)
            x = fractions(obs.images[key])
            for layer in trunk:
                x = layer(x, noise) if isinstance(layer, NoisyLayer) else layer(x)
            parts.append(x)
        if len(self.mean):
            parts.append((obs.proprio - self.mean) / self.std)
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]  # a single part is not copied

    def filters(self, obs: Observation) -> list[Filters]:
        """Return the filters of all layers that another layer of the same trunk reads, rectified and perhaps pooled."""
        found: list[Filters] = []
        with torch.no_grad():
            for key, trunk in zip(self.keys, self.trunks, strict=True):
                assert isinstance(trunk, nn.Sequential)
                found += filters_of(trunk, fractions(obs.images[key]))
        return found


def filters_of(trunk: nn.Sequential, x: Tensor) -> Iterator[Filters]:
    """Yield the filters of the layers of a trunk that sees pictures `[B, C, H, W]`; see `Cameras.filters`."""
    before: nn.Conv2d | nn.Linear | None = None
    activity, places = None, 1
    for layer in trunk:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if before is not None and activity is not None:
                yield Filters(before, activity, layer, places)
            before, activity, places = layer, None, 1
        elif isinstance(layer, Flatten):
            places = x.shape[2] * x.shape[3]
        elif not isinstance(layer, nn.ReLU | nn.MaxPool2d | LocalMixing):
            before = None
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            activity = x.flatten(2).mean(2) if x.dim() == 4 else x

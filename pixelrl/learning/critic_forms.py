"""What a critic puts out, and how that is fitted to a number: one value, or a histogram of values."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """One number, fitted by its squared error."""

    @property
    def outputs(self) -> int:
        """Return K, how many numbers are put out."""
        return 1

    def start(self) -> Tensor | None:
        """Return the bias that the last layer starts with, `[K]`; None: near zero."""
        return None

    def value(self, outputs: Tensor) -> Tensor:
        """Return Q, `[...]`, of outputs `[..., K]`."""
        return outputs.squeeze(-1)

    def loss(self, outputs: Tensor | None, value: Tensor, target: Tensor) -> Tensor:
        """Return the error of each row, `[E, B]`, of Q `[E, B]` against targets `[B]`."""
        return (value - target).square()


@dataclass(frozen=True, kw_only=True)
class HLGauss(Scalar):
    """A histogram of values, fitted by cross-entropy to a Gaussian around the target (Stop Regressing, 2403.03950).

    Bins of equal width w; p_k is the Gaussian's mass in bin k, its standard deviation `sigma` w, made to sum to 1;
    Q = sum_k softmax(outputs)_k z_k with centres z_k. The bins reach 3 standard deviations beyond the values that are
    to be represented, and targets are cut to those: without that margin values at the edge come out too near the
    middle, and zeros compound. A perfect fit has the loss of the Gaussian's own entropy: 1.20 nats at `sigma` 0.75.

    Weights of other terms do not carry over from a scalar critic: this loss is in nats, that one in rewards squared.

    Attributes:
        low, high: the range of the returns.
        bins: K.
        sigma: of the Gaussian, in widths of a bin.
    """

    low: float = 0.0
    high: float = 10.0
    bins: int = 101
    sigma: float = 0.75

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            PixelrlError: names the option, what came, and what would be right.
        """
        for name, allowed, rule in (
            ("high", -math.inf < self.low < self.high < math.inf, f"above low, {self.low}"),
            ("sigma", self.sigma > 0, "above 0"),
            ("bins", self.bins > 6 * self.sigma + 1, f"above {6 * self.sigma + 1:g}, of which a margin takes its part"),
        ):
            if not allowed:
                raise PixelrlError(f"HLGauss: {name} is {getattr(self, name)}; it must be {rule}")

    @property
    def outputs(self) -> int:
        """Return K."""
        return self.bins

    @property
    def width(self) -> float:
        """Return the width of a bin."""
        return (self.high - self.low) / (self.bins - 6 * self.sigma)

    def edges(self, device: torch.device | None = None) -> Tensor:
        """Return the edges of the bins, float32 `[K + 1]`."""
        margin = 3 * self.sigma * self.width
        return torch.linspace(self.low - margin, self.high + margin, self.bins + 1, device=device)

    def start(self) -> Tensor | None:
        """Return a bias by which every Q starts at 0, or at the nearest value that can be represented."""
        return self.encode(torch.zeros(())).clamp(min=1e-8).log()

    def encode(self, target: Tensor) -> Tensor:
        """Return the histogram of each target, `[..., K]`."""
        edges = self.edges(target.device)
        away = (edges - target.float().clamp(self.low, self.high).unsqueeze(-1)) / (self.sigma * self.width)
        mass = torch.erf(away / math.sqrt(2)) / 2
        return mass.diff(dim=-1) / (mass[..., -1:] - mass[..., :1]).clamp(min=1e-10)

    def value(self, outputs: Tensor) -> Tensor:
        """Return Q, `[...]`, the mean of the histogram."""
        edges = self.edges(outputs.device)
        return outputs.float().softmax(-1) @ ((edges[1:] + edges[:-1]) / 2)

    def loss(self, outputs: Tensor | None, value: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each row, `[E, B]`, in nats."""
        assert outputs is not None
        return -(self.encode(target) * outputs.float().log_softmax(-1)).sum(-1)


CriticForm = Scalar
"""What a critic puts out."""

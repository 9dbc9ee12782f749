"""What a critic puts out, and how that is fitted: one value, a histogram of values, or quantiles of returns."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, smooth_l1_loss

from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class CriticForm:
    """What a critic puts out."""

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
        """Return the error of each row, `[E, B]`, of outputs `[E, B, K]` or Q `[E, B]` against targets `[B]`."""
        raise NotImplementedError

    def least_loss(self, target: Tensor) -> Tensor | None:
        """Return what a perfect fit to targets `[B]` loses on average, a scalar; None: nothing."""
        return None


@dataclass(frozen=True, kw_only=True)
class Scalar(CriticForm):
    """One number, fitted by its squared error, or by Huber's."""

    huber: float | None = None
    """beta: 0.5 d^2 / beta for errors |d| < beta and |d| - 0.5 beta beyond it; None: d^2 (RIQL: 1 / sigma^2)"""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if self.huber is not None and not self.huber > 0:
            raise PixelrlError(f"form: huber is {self.huber}; it must be above 0, or None")

    def loss(self, outputs: Tensor | None, value: Tensor, target: Tensor) -> Tensor:
        """Return the error of each row, `[E, B]`, of Q `[E, B]` against targets `[B]`."""
        if self.huber is None:
            return (value - target).square()
        return smooth_l1_loss(value, target.expand_as(value), reduction="none", beta=self.huber)


@dataclass(frozen=True, kw_only=True)
class HLGauss(CriticForm):
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

    def least_loss(self, target: Tensor) -> Tensor | None:
        """Return the mean entropy of the targets' histograms [nats], a scalar."""
        entropy: Tensor = torch.special.entr(self.encode(target)).sum(-1)
        return entropy.mean()


@dataclass(frozen=True, kw_only=True)
class Quantile(CriticForm):
    """Quantiles of the return at levels (2 i - 1) / 2 K (QR-DQN, arXiv 1710.10044; QTD, arXiv 2305.18388).

    Q is their mean.
    Each is fitted to samples y_j, the target's quantiles, by sum_i mean_j |level_i - [d < 0]| Huber_kappa(d) / kappa
    with d = y_j - theta_i. What counts of several critics counts quantile by quantile.
    """

    quantiles: int = 32
    """K"""
    kappa: float = 1.0
    """below this size errors count squared; small against the rewards' scale: the loss is nearly absolute"""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if self.quantiles < 2 or not self.kappa > 0:
            raise PixelrlError(
                f"Quantile: quantiles is {self.quantiles} and kappa {self.kappa}; they must be at least 2 and above 0"
            )

    @property
    def outputs(self) -> int:
        """Return K."""
        return self.quantiles

    def value(self, outputs: Tensor) -> Tensor:
        """Return Q, `[...]`, the mean of the quantiles."""
        return outputs.mean(-1)

    def loss(self, outputs: Tensor | None, value: Tensor, target: Tensor) -> Tensor:
        """Return the error of each row, `[E, B]`, of quantiles `[E, B, K]` to samples `[B, M]` or numbers `[B]`."""
        assert outputs is not None
        count = outputs.shape[-1]
        level = (torch.arange(count, device=outputs.device) + 0.5) / count
        samples = target if target.dim() == 2 else target.unsqueeze(-1)
        error = samples.unsqueeze(-2) - outputs.unsqueeze(-1)  # [E, B, K, M]
        size = huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.kappa) / self.kappa
        return ((level.unsqueeze(-1) - (error < 0).float()).abs() * size).mean(-1).sum(-1)

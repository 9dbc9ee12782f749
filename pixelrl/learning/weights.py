"""How much a term counts: a number, or a bound that a learned multiplier enforces."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class AtMost:
    """Weigh a term by a multiplier that grows while the term exceeds `bound` and shrinks while it stays below.

    Dual ascent on the Lagrangian of `minimise the other terms subject to E[term] <= bound`. SAC's temperature
    (arXiv 1812.05905, eq. 17: at most minus the target entropy) and CQL's Lagrange form (arXiv 2006.04779:
    a conservative gap of at most tau) are the same thing. The gap here is the unweighted term.

    Attributes:
        bound: what the term's mean may be at most.
        start: the multiplier at the first step, positive.
        rate: learning rate of the multiplier's logarithm.
    """

    bound: float
    start: float = 1.0
    rate: float = 3e-4

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not self.start > 0:
            raise PixelrlError(f"AtMost: start is {self.start}; a multiplier must be positive")
        if not self.rate >= 0:
            raise PixelrlError(f"AtMost: rate is {self.rate}; it must be at least 0")


Weight = float | AtMost


class Multiplier(nn.Module):
    """The learned multiplier of an `AtMost`, kept positive by its logarithm."""

    def __init__(self, rule: AtMost) -> None:
        super().__init__()
        self.rule = rule
        self.log = nn.Parameter(torch.tensor(float(rule.start)).log())

    @property
    def value(self) -> Tensor:
        """Return the multiplier, a positive scalar without gradient."""
        return self.log.detach().exp()

    def ascend(self, term: Tensor) -> Tensor:
        """Return the loss whose descent is ascent on the dual, as SAC's reference code writes it: in the logarithm."""
        excess = term.detach().float() - self.rule.bound
        return -self.log * excess.nan_to_num(0.0, 0.0, 0.0)  # a step that overflows in fp16 is skipped here too

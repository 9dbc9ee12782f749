"""Expectile regression of a value network: what the better of the recorded actions are worth."""

from dataclasses import dataclass

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Need, Term
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Expectile(Term):
    """Fit V(s) to an expectile of Q(s, a) over the recorded actions; no other action is asked about.

    mean_i |expectile - [u_i < 0]| u_i^2, u = Q'(s, a) - V(s), with Q' of the target critics (IQL, arXiv 2110.06169,
    eq. 5); what counts of several critics is what `Recipe.backup` says (IQL: the minimum; RIQL: a quantile).

    Attributes:
        expectile: 0.5 fits the mean; towards 1, the best recorded action.
    """

    expectile: float = 0.7

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not 0 < self.expectile < 1:
            raise PixelrlError(f"Expectile: expectile is {self.expectile}; it must be between 0 and 1, both excluded")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it trains a value network."""
        return ("value",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the asymmetric squared error."""
        value, above = context.state_value, context.advantage
        share = (self.expectile - (above.detach() < 0).float()).abs()
        return (share * above.square()).mean(), {"value": value.detach().mean(), "advantage": above.detach().mean()}

"""Behaviour cloning."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Need, Term


@dataclass(frozen=True, kw_only=True)
class BC(Term):
    """Imitate the recorded actions: -mean_i log pi(a_i | s_i), or mean_i |mode(s_i) - a_i|^2.

    Among the actor's terms it trains the policy. Among the critic's, it shapes the encoder that both share: the
    critic's objective moves only the critic's parameters, so there it is an auxiliary loss on the features.

    Attributes:
        loss: `likelihood`, or `squared_error` of the policy's mode, summed over the dimensions (TD3+BC, ReBRAC).
    """

    loss: Literal["likelihood", "squared_error"] = "likelihood"
    imitates: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it needs a density, or a gradient of the mode."""
        return ("density",) if self.loss == "likelihood" else ("smooth mode",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the loss and, to read, the distance between mode and recorded action."""
        error = context.policy.mode - context.batch.action
        metrics = {"distance": error.detach().abs().mean()}
        if self.loss == "squared_error":
            return error.square().sum(-1).mean(), metrics
        return -context.log_prob.mean(), metrics

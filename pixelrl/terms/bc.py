"""Behaviour cloning."""

from dataclasses import dataclass

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext


@dataclass(frozen=True, kw_only=True)
class BC(Term):
    """Imitate the recorded actions: -mean_i log pi(a_i | s_i).

    Among the actor's terms it trains the policy. Among the critic's, it shapes the encoder that both share: the
    critic's objective moves only the critic's parameters, so there it is an auxiliary loss on the features.
    """

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the negative log-likelihood and, to read, the distance between mode and recorded action."""
        distance = (context.policy.mode.detach() - context.batch.action).abs().mean()
        return -context.log_prob.mean(), {"distance": distance}

"""Soft actor-critic's policy objective, in two terms."""

from dataclasses import dataclass, field

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext
from pixelrl.learning.weights import AtMost, Weight


@dataclass(frozen=True, kw_only=True)
class MaximizeQ(Term):
    """Prefer actions that the critics value: -mean_i min_e Q_e(s_i, a~pi(s_i)) (arXiv 1812.05905, eq. 7)."""

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return minus the smaller Q of the policy's own action."""
        return -context.q_policy.value.amin(0).mean(), {}


@dataclass(frozen=True, kw_only=True)
class Entropy(Term):
    """Stay random: mean_i log pi(a~pi(s_i) | s_i) - dim(A).

    With the default weight, `AtMost(bound=0)`, the learned multiplier is SAC's temperature and the entropy is held
    at -dim(A) or above (arXiv 1812.05905, eq. 17).
    """

    weight: Weight = field(default=AtMost(bound=0.0))

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return how far the policy's entropy is below its target."""
        action, log_prob = context.policy_action
        return log_prob.mean() - action.shape[-1], {"entropy": -log_prob.detach().mean()}

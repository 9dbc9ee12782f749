"""Soft actor-critic's policy objective, in two terms."""

from dataclasses import dataclass, field

from torch import Tensor

from pixelrl.learning.backup import EnsembleRule
from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Need, Term
from pixelrl.learning.weights import AtMost, Weight


@dataclass(frozen=True, kw_only=True)
class MaximizeQ(EnsembleRule, Term):
    """Prefer actions that the critics value: -mean_i min_e Q_e(s_i, a~pi(s_i)) (arXiv 1812.05905, eq. 7).

    Attributes:
        aggregate, quantile, subset: what counts of the critics' values, see `EnsembleRule`.
        normalize: divide by mean_i |Q|, held fixed, so that other terms' weights do not depend on the rewards' scale
            (TD3+BC, arXiv 2106.06860).
    """

    normalize: bool = False

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return minus Q of the policy's own action."""
        value = self.of_critics(context.q_policy.value, context.generator)
        loss = -value.mean()
        if self.normalize:
            loss = loss / value.detach().abs().mean().clamp(min=1e-6)
        return loss, {}


@dataclass(frozen=True, kw_only=True)
class Entropy(Term):
    """Stay random: mean_i log pi(a~pi(s_i) | s_i) - dim(A).

    With the default weight, `AtMost(bound=0)`, the learned multiplier is SAC's temperature and the entropy is held
    at -dim(A) or above (arXiv 1812.05905, eq. 17).
    """

    weight: Weight = field(default=AtMost(bound=0.0))

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it needs a density."""
        return ("density",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return how far the policy's entropy is below its target."""
        own = context.policy_action
        assert own.log_prob is not None
        log_prob = own.mean(own.log_prob).mean()
        return log_prob - own.actions.shape[-1], {"entropy": -log_prob.detach()}

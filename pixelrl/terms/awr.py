"""Advantage-weighted regression: imitate the better actions more."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext


@dataclass(frozen=True, kw_only=True)
class AdvantageWeighted(Term):
    """Imitate recorded actions by how much better than the policy's own they are.

    -mean_i w_i log pi(a_i | s_i), w = min(exp(A / temperature), limit), as in AWAC (arXiv 2006.09359), with
    A(s, a) = min_e Q_e(s, a) - mean_n min_e Q_e(s, a_n), a_n ~ pi(s).

    Attributes:
        temperature: in units of Q; small: only the best actions count.
        samples: how many actions of the policy stand for its value.
        limit: the largest weight of one transition.
    """

    temperature: float = 1.0
    samples: int = 4
    limit: float = 20.0

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the weighted negative log-likelihood."""
        with torch.no_grad():
            own = context.policy.actions(self.samples, context.generator)
            value = context.q_values(own).value.amin(0).mean(0)
            advantage = context.q_data.value.amin(0) - value
            weight = (advantage / self.temperature).exp().clamp(max=self.limit)
        loss = -(weight * context.log_prob).mean()
        return loss, {"advantage": advantage.mean(), "weight": weight.mean()}

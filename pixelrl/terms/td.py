"""Temporal-difference error."""

from dataclasses import dataclass

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext


@dataclass(frozen=True, kw_only=True)
class TD(Term):
    """Fit Q(s, a) to r + discount min_e Q_target(s', a'), a' ~ pi(s').

    sum_e mean_i (Q_e(s_i, a_i) - y_i)^2: clipped double Q-learning as in SAC (arXiv 1812.05905, eq. 5) without the
    entropy in the backup, which COG leaves out.

    Attributes:
        target_range: bounds for y, where the task's rewards bound every return; None leaves y alone (as COG).
    """

    target_range: tuple[float, float] | None = None

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the squared error, summed over the ensemble."""
        target = context.td_target
        if self.target_range is not None:
            target = target.clamp(*self.target_range)
        error = context.q_data.value - target
        loss = error.square().mean(-1).sum()
        return loss, {"target": target.mean(), "error": error.detach().abs().mean()}

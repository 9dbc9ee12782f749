"""Temporal-difference error."""

from dataclasses import dataclass

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext


@dataclass(frozen=True, kw_only=True)
class TD(Term):
    """Fit Q(s, a) to r + discount min_e Q_target(s', a'), a' ~ pi(s'), or as `Recipe.backup` says.

    sum_e mean_i (Q_e(s_i, a_i) - y_i)^2: clipped double Q-learning as in SAC (arXiv 1812.05905, eq. 5) without the
    entropy in the backup, which COG leaves out. Critics of another form than `Scalar` have a loss of their own.

    Attributes:
        target_range: bounds for y, where the task's rewards bound every return; None leaves y alone (as COG).
    """

    target_range: tuple[float, float] | None = None

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the squared error, summed over the ensemble."""
        target = context.td_target
        if self.target_range is not None:
            target = target.clamp(*self.target_range)
        data = context.q_data
        loss = context.form.loss(data.outputs, data.value, target).mean(-1).sum()
        return loss, {"target": target.mean(), "error": (data.value.detach() - target).abs().mean()}

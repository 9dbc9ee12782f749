"""Temporal-difference error."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.critic_forms import Quantile
from pixelrl.learning.term import Term
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class TD(Term):
    """Fit Q(s, a) to r + discount min_e Q_target(s', a'), a' ~ pi(s'), or as `Recipe.backup` says.

    sum_e mean_i (Q_e(s_i, a_i) - y_i)^2: clipped double Q-learning as in SAC (arXiv 1812.05905, eq. 5) without the
    entropy in the backup, which COG leaves out. y is `UpdateContext.td_target`. Critics of another form than `Scalar`
    have a loss of their own.

    Attributes:
        target_range: bounds for y, where the task's rewards bound every return; None leaves y alone (as COG).
        target: `backup`, or `returns`: what the recording paid, say as a warm-up (arXiv 2406.13376).
    """

    target_range: tuple[float, float] | None = None
    target: Literal["backup", "returns"] = "backup"

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if self.target_range is not None and not self.target_range[0] < self.target_range[1]:
            raise PixelrlError(f"TD: target_range is {self.target_range}; it must be a number and a higher one")

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the squared error, summed over the ensemble; `least` is what a perfect fit would have."""
        if self.target == "returns":
            target = context.batch.return_to_go
        else:
            target = context.td_samples if isinstance(context.form, Quantile) else context.td_target
        if self.target_range is not None:
            target = target.clamp(*self.target_range)
        data = context.q_data
        loss = context.form.loss(data.outputs, data.value, target).mean(-1).sum()
        mean = target.mean(-1) if target.dim() == 2 else target
        metrics = {"target": target.mean(), "error": (data.value.detach() - mean).abs().mean()}
        least = context.form.least_loss(target)
        return loss, metrics if least is None else metrics | {"least": least * len(data.value)}


@dataclass(frozen=True, kw_only=True)
class FunctionalRegularization(Term):
    """Keep Q near what it was, in place of a slow target: sum_e mean_i (Q_e(s_i, a_i) - Q'_e(s_i, a_i))^2.

    With `Backup(network="online")`, `tau` 1 and `target_every` 1000 this is functional regularisation (arXiv
    2106.02613), and the weight its kappa (1 there): targets are current, and how fast Q may move is a number.
    """

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the squared distance, summed over the ensemble."""
        distance = context.q_data.value - context.target_q_data
        return distance.square().mean(-1).sum(), {"distance": distance.detach().abs().mean()}

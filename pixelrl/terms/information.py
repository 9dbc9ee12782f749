"""Information bottleneck: what an encoder lets through has a price."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Need, Term
from pixelrl.learning.weights import Weight


@dataclass(frozen=True, kw_only=True)
class InformationBottleneck(Term):
    """Let little of the pictures through: sum_e mean_i KL(Normal(mean(s_i), std(s_i)^2) || Normal(0, 1)), in nats.

    The variational information bottleneck (arXiv 1612.00410) on the critics' encodings of s, with weight beta; the
    other terms see a sample of that normal distribution, and the policy in the world its mean. Of several cameras the
    sum; an encoder that critics share counts once for each. It goes among the critic's terms.
    """

    weight: Weight = 1e-3

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it needs an encoder with a bottleneck."""
        return ("bottleneck",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the mean information, summed over the ensemble."""
        encoders = len(context.encoding)
        information = torch.stack(context.information).mean(-1).sum() / encoders
        return information * context.ensemble, {"nats": information.detach()}

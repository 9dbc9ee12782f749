"""DR3: an explicit penalty on the similarity of consecutive features."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.noise import draw
from pixelrl.learning.term import Term


@dataclass(frozen=True, kw_only=True)
class DR3(Term):
    """Keep the features of consecutive state-actions from aligning.

    sum_e 1/B sum_i [discount_i > 0] phi_e(s_i, a_i) . phi_e(s'_i, a'_i) (arXiv 2112.04716): the raw dot product,
    neither normalised nor made absolute; a' is the action of the Bellman backup. Pairs are those of a backup: a step
    that truly ends has none and does not count, but in B, so that no row's weight depends on the others. The paper sums
    over i; the mean makes the weight independent of the batch size. It does not transfer between sites or widths.

    Attributes:
        site: what phi is. `last_hidden`: the layer that multiplies Q's last linear layer (the paper). `encoding`: the
            encoder's output, before the action comes in (a fork of COG by members of the group, at weight 0.001), once
            for each critic, also where all of them share it.
        stop_gradient: hold phi(s', a') fixed. The paper finds leaving it free slightly better.
        pairs: `shuffled` takes s' of a row drawn at random: a placebo, which lowers norms and parts no pairs.
    """

    site: Literal["last_hidden", "encoding"] = "last_hidden"
    stop_gradient: bool = False
    pairs: Literal["consecutive", "shuffled"] = "consecutive"

    @property
    def through_next(self) -> bool:
        """Return whether phi(s', a') moves, too."""
        return not self.stop_gradient

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the mean dot product in float32, summed over the ensemble."""
        here, there = self.features(context)
        if self.stop_gradient:
            there = there.detach()
        backed_up = context.batch.discount > 0
        if self.pairs == "shuffled":  # by chance: batches lie in the order of their sources
            order = draw(torch.rand, backed_up.shape, context.generator, rows=0).argsort()
            there, backed_up = there.index_select(-2, order), backed_up[order]
        dot = (here.float() * there.float()).sum(-1)
        mean = torch.where(backed_up, dot, torch.zeros_like(dot)).mean(-1)
        return mean.expand(context.ensemble).sum(), {}

    def features(self, context: UpdateContext) -> tuple[Tensor, Tensor]:
        """Return phi of s and of s', each `[E, B, F]`."""
        if self.site == "encoding":
            return context.encoding, context.next_encoding
        return context.q_data.features, context.q_next.features

"""Penalties on features that are not DR3's: the placebos and rivals that a claim about DR3 must beat."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Term


@dataclass(frozen=True, kw_only=True)
class NormPenalty(Term):
    """Keep features small: sum_e mean_i |phi_e(s_i, a_i)|^2.

    What DR3 does to the norm of features, without what it does to their direction: phi -> c phi, w -> w / c leaves Q
    alone and divides DR3's product by 1 / c^2, so that a smaller norm alone lowers it.

    Attributes:
        site: what phi is, as in `DR3`.
    """

    site: Literal["last_hidden", "encoding"] = "last_hidden"

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the mean squared norm in float32, summed over the ensemble."""
        features = context.encoding if self.site == "encoding" else context.q_data.features
        squared = features.float().square().sum(-1).mean(-1)
        return squared.expand(context.ensemble).sum(), {"norm": squared.detach().mean().sqrt()}


@dataclass(frozen=True, kw_only=True)
class RankPenalty(Term):
    """Keep features from collapsing onto few directions: sum_e sigma_max(Phi_e)^2 - sigma_min(Phi_e)^2.

    Implicit under-parameterisation (arXiv 2010.14498) penalises the singular values of a batch's features
    Phi = [phi(s_i, a_i)] with weight 0.001 at 32 rows. Departure: Phi is divided by sqrt(B), so that the weight does
    not depend on the batch size; the paper's is 0.032 here.

    The gradient is exact where singular values are simple: sigma^2 = |Phi v|^2 with the right singular vector v held
    fixed. Vectors come from the smaller of the two Gram matrices; on CUDA that waits for the device, so that a step
    with this term cannot be captured as a graph.
    """

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the gap between the extreme singular values, squared, summed over the ensemble."""
        features = context.q_data.features.float()
        largest, smallest = extreme_singular_values(features / features.shape[-2] ** 0.5)
        return (largest - smallest).sum(), {"sigma_max": largest.detach().sqrt().mean()}


def extreme_singular_values(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squares of the largest and of the smallest of the min(B, F) singular values of `[E, B, F]`, `[E]`."""
    rows, width = features.shape[-2:]
    wide = rows < width
    matrix = features.mT if wide else features  # [E, R, min(B, F)]
    with torch.no_grad():
        gram = matrix.mT @ matrix
        vectors = torch.linalg.eigh(gram)[1]  # in ascending order
        lowest, highest = vectors[..., :1], vectors[..., -1:]
    return (matrix @ highest).square().sum((-2, -1)), (matrix @ lowest).square().sum((-2, -1))

"""What a term is: one additive part of a loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.weights import Weight

Need = Literal["density", "smooth mode", "flow", "one-step flow", "value", "bottleneck"]
"""What a term may need of a recipe: a policy with a density, one whose mode has a gradient, a flow (with a one-step
network), a value network, an encoder with a bottleneck."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One additive part of a loss.

    A step may be compiled or captured: draw noise by `draw(..., context.generator)`, and
    decide by `torch.where`, not `if`.

    Attributes:
        weight: a number, or `AtMost(bound=...)` for a learned multiplier.
        imitates: it trains the policy and its encoder: among the critic's terms, nothing but a shared encoder.
    """

    weight: Weight = 1.0
    imitates: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """What a recipe must have for this term to work."""
        return ()

    @property
    def through_next(self) -> bool:
        """Whether its gradient goes through the critic's encoding of s', too: then s and s' are encoded in one pass."""
        return False

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the unweighted scalar and whatever is worth logging; only the learner weighs and sums."""
        raise NotImplementedError

"""Advantage-weighted regression: imitate the better actions more."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.policies import own_actions
from pixelrl.learning.term import Need, Term
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class AdvantageWeighted(Term):
    """Imitate recorded actions by how much better than usual they are.

    -mean_i w_i log pi(a_i | s_i), w = min(exp(A / temperature), limit), as in AWAC (arXiv 2006.09359) with
    A(s, a) = min_e Q_e(s, a) - mean_n min_e Q_e(s, a_n), a_n ~ pi(s), or as in IQL (arXiv 2110.06169) with
    A(s, a) = Q'(s, a) - V(s), Q' of the target critics, by the backup's aggregate.

    Attributes:
        temperature: in units of Q; small: only the best actions count (IQL: 1 / beta).
        advantage: over what `policy` does, or over `value`, V(s).
        samples: how many actions of the policy stand for its value; of a deterministic one its own, without noise.
        limit: the largest weight of one transition (IQL: 100).
        loss: of imitation, as in `BC`.
    """

    temperature: float = 1.0
    advantage: Literal["policy", "value"] = "policy"
    samples: int = 4
    limit: float = 20.0
    loss: Literal["likelihood", "squared_error"] = "likelihood"

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        for name, allowed, rule in (
            ("temperature", self.temperature > 0, "above 0"),
            ("samples", self.samples >= 1, "at least 1"),
            ("limit", self.limit > 0, "above 0"),
        ):
            if not allowed:
                raise PixelrlError(f"AdvantageWeighted: {name} is {getattr(self, name)}; it must be {rule}")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return whether it needs a density, and a value network."""
        density: tuple[Need, ...] = ("density",) if self.loss == "likelihood" else ()
        return (*density, "value") if self.advantage == "value" else density

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the weighted loss of imitation."""
        with torch.no_grad():
            advantage = context.advantage if self.advantage == "value" else self.over_policy(context)
            weight = (advantage / self.temperature).exp().clamp(max=self.limit)
        if self.loss == "squared_error":
            each = (context.policy.mode - context.batch.action).square().sum(-1)
        else:
            each = -context.log_prob
        return (weight * each).mean(), {"advantage": advantage.mean(), "weight": weight.mean()}

    def over_policy(self, context: UpdateContext) -> Tensor:
        """Return by how much Q of the recorded action exceeds that of the policy's, `[B]`."""
        own = own_actions(context.policy, self.samples, context.generator)
        return context.q_data.value.amin(0) - context.q_values(own).value.amin(0).mean(0)

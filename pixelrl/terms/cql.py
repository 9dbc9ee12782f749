"""Conservative Q-learning's regulariser."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.noise import draw
from pixelrl.learning.term import Need, Term
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class CQL(Term):
    """Push down a soft maximum of Q over actions, and up Q of the recorded ones.

    CQL(H) (arXiv 2006.04779): sum_e mean_i [log sum_a exp Q_e(s_i, a) - Q_e(s_i, a_i)], the sum over
    actions estimated by importance sampling from three proposals: uniform on [-1, 1]^A, pi(s) and pi(s').
    A dimension that a policy only switches is proposed in its two positions, each with chance 1/2.

    Departure: the estimate is divided by the number of samples (a constant, so no gradient changes), which makes the
    term an estimate of log of the integral of exp Q, whatever the number of samples.
    With `weight=AtMost(bound=tau)` this is CQL's Lagrange form; tau bounds this unweighted, summed gap.

    Attributes:
        uniform: how many actions are drawn uniformly (COG: 1).
        policy: how many from pi(s) (COG: 1).
        next_policy: how many from pi(s') (COG: 1).
        temperature: T in T log mean exp(Q / T) (COG: 1).
        calibrated: a sampled action of pi(s) or pi(s') is worth at least the recorded return (Cal-QL, arXiv
            2303.05479): Q is not pushed below what was reached from s. Uniform samples stay as they are.
        task_only: rows of the first source alone count, the task's (still over B): in states of prior data no recorded
            action is preferred. COG: False.
    """

    uniform: int = 1
    policy: int = 1
    next_policy: int = 1
    temperature: float = 1.0
    calibrated: bool = False
    task_only: bool = False

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if min(self.uniform, self.policy, self.next_policy) < 0 or not self.uniform + self.policy + self.next_policy:
            raise PixelrlError("CQL: uniform, policy and next_policy must be at least 0, and one of them at least 1")
        if not self.temperature > 0:
            raise PixelrlError(f"CQL: temperature is {self.temperature}; it must be above 0")

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return whether it needs a density: samples of a policy are weighed by theirs."""
        return ("density",) if self.policy or self.next_policy else ()

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the conservative gap, summed over the ensemble."""
        with torch.no_grad():
            action, log_density = self.propose(context)
        value = context.q_values(action).value
        if self.calibrated:
            uniform, own = value[:, : self.uniform], value[:, self.uniform :]
            value = torch.cat([uniform, torch.maximum(own, context.batch.return_to_go)], 1)
        soft_max = self.soft_maximum(value, log_density)
        gap = soft_max - context.q_data.value
        if self.task_only:
            gap = gap * (context.batch.source == 0)
        gap = gap.mean(-1)
        return gap.sum(), {"gap": gap.detach().mean(), "sampled_q": value.detach().mean()}

    def propose(self, context: UpdateContext) -> tuple[Tensor, Tensor]:
        """Draw `[N, B, A]` actions and return the log-densities `[N, B]` that they were drawn with."""
        batch, width = context.batch.action.shape
        shape = (self.uniform, batch, width)
        device = context.batch.action.device
        uniform = context.possible(draw(torch.rand, shape, context.generator, rows=1) * 2 - 1)
        actions, densities = [uniform], [torch.full(shape[:2], -width * math.log(2.0), device=device)]
        for state, count in (("policy", self.policy), ("next_policy", self.next_policy)):
            if count:
                sampled, log_prob = getattr(context, state).sample(count, context.generator)
                actions.append(sampled)
                densities.append(log_prob)
        return torch.cat(actions), torch.cat(densities)

    def soft_maximum(self, value: Tensor, log_density: Tensor) -> Tensor:
        """Return T log mean_n exp(Q_n / T) / density_n, float32 `[E, B]`, of values `[E, N, B]`."""
        weighed = value.float() / self.temperature - log_density
        return self.temperature * (weighed.logsumexp(1) - math.log(value.shape[1]))

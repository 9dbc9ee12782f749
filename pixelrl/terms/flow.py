"""Flow policies: imitation by flow matching, and a one-step policy that is kept near the flow."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pixelrl.learning.actors import FlowActions
from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.noise import draw
from pixelrl.learning.term import Need, Term


@dataclass(frozen=True, kw_only=True)
class FlowMatching(Term):
    """Imitate the recorded actions, several modes of them, by a flow from noise.

    mean over i and dimensions of |v(s_i, x_t, t) - (a_i - x_0)|^2 with x_0 ~ Normal(0, 1), t ~ U(0, 1) and
    x_t = (1 - t) x_0 + t a_i (FQL, arXiv 2502.02538). Among the critic's terms it shapes a shared encoder, as `BC`.
    """

    imitates: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it trains a flow."""
        return ("flow",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the mean squared error of the velocity."""
        policy, action = flow_of(context), context.batch.action
        start = draw(torch.randn, (1, *action.shape), context.generator, rows=1)
        time = draw(torch.rand, (1, len(action), 1), context.generator, rows=1)
        velocity = policy.velocity((1 - time) * start + time * action, time)
        return (velocity - (action - start)).square().mean(), {}


@dataclass(frozen=True, kw_only=True)
class FlowDistillation(Term):
    """Keep the one-step policy near the flow: mean over i and dimensions of |mu(s_i, z) - flow(s_i, z)|^2 (FQL).

    The flow's end is held fixed. With `MaximizeQ` beside it, this is FQL's actor, and the weight its alpha: 0.03 to 10
    with `MaximizeQ(normalize=True)`, 100 to 300 without it on OGBench's pixels.
    """

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return that it trains a one-step policy."""
        return ("one-step flow",)

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the mean squared distance."""
        policy = flow_of(context)
        noise = draw(torch.randn, (1, *policy.shape), context.generator, rows=1)
        with torch.no_grad():
            aim = policy.along_flow(noise).clamp(-1, 1)
        return (policy.at_once(noise) - aim).square().mean(), {}


def flow_of(context: UpdateContext) -> FlowActions:
    """Return the policy in s, which recipes have checked to be a flow."""
    assert isinstance(context.policy, FlowActions)
    return context.policy

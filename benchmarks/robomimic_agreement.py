"""Whether robomimic's CQL and ours do the same work: their losses on the same weights and the same sampled actions.

What robomimic defines otherwise, and what is done about it:

- It encodes the pictures anew for every action that is judged. That is what is measured.
- Its conservative term sums over the 3 N sampled actions where ours takes the mean: log(3 N) more for each critic.
- Each critic has a loss and an optimiser of its own; our loss is their sum, with the same gradients.
- Its policy's loss counts the log-density, ours how far the entropy is below its target: dim(A) less.
- It moves the policy before the critics sample from it, ours takes all gradients at the same weights: the losses are
  compared with learning rates of zero.
- log(1 - tanh^2) has 1e-6 inside; ours is exact. The log of the deviation is clamped to [-4.96, 2.01], ours to [-5, 2].
- By default it learns the conservative weight (the mean gap of a critic is to be 5; ours bounds the sum of both). Its
  dual step differentiates the whole critic loss once more, to move that one number; ours is free. With
  `robomimics_recipe(learned=False)` the weight is 1 in both.
- Its target networks normalise by running statistics that `soft_update` never copies (RobomimicResNet18); so do ours.
- Its critics' backward pass goes on into the policy, whose gradient is then thrown away.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.robomimic_cql import GAP, conservative_term, robomimic_update, robomimics_batch, take_weights
from pixelrl.learning.batch import Batch, Spec
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.terms.cql import CQL

COUNTS = ("uniform", "policy", "next_policy")
"""The three kinds of sampled actions."""


@dataclass(frozen=True, kw_only=True)
class WatchedCQL(CQL):
    """CQL that remembers the context of the last step and the actions that it proposed."""

    seen: dict[str, Any] = field(default_factory=dict, compare=False)

    def propose(self, context: UpdateContext) -> tuple[Tensor, Tensor]:
        """Propose, and remember."""
        action, log_density = super().propose(context)
        self.seen.update(context=context, action=action)
        return action, log_density


def compare_losses(recipe: Recipe, spec: Spec, batch: Batch, algo: Any) -> dict[str, tuple[float, float]]:
    """Return ours and robomimic's of each loss and gradient norm, on one batch, the same weights and sampled actions.

    Both run the very update that is timed, with learning rates of zero (robomimic's target networks do move). Ours
    samples; robomimic is given the same actions.

    Returns:
        `td` and `cql` (unweighted, summed over the critics) and `policy`, each without the constants that the
        definitions differ in; `critic gradient` and `policy gradient`, L2 norms; `encoder gradient error`, how far the
        gradients of the critics' encoders are apart, relative to their length, and 0. Gradients agree less than losses:
        now and then rounding moves a unit across the kink of its ReLU (by itself some 0.3 % of an encoder's gradient),
        and robomimic's gradient is a sum of passes that nearly cancel.
    """
    given = conservative_term(recipe)
    watched = WatchedCQL(**{name: getattr(given, name) for name in ("weight", *COUNTS, "temperature")})
    terms = tuple(watched if isinstance(term, CQL) else term for term in recipe.critic)
    learner = Learner(replace(recipe, critic=terms, critic_lr=0.0, actor_lr=0.0, tau=0.0), spec, algo.device)
    take_weights(learner, algo)
    metrics = {name: float(value) for name, value in learner.update(batch).items()}
    with _frozen(algo), _given(algo, watched) as td:
        info = robomimic_update(algo, robomimics_batch(batch, spec))
    members = range(1, recipe.ensemble + 1)
    total = sum(info[f"critic/critic{member}_loss"].item() for member in members)
    target = GAP if isinstance(watched.weight, AtMost) else 0.0
    constant = recipe.ensemble * (target - math.log(sum(getattr(watched, name) for name in COUNTS)))
    squares = sum(info[f"critic/critic{member}_grad_norms"] for member in members)
    policy_loss = metrics["actor/loss"] + metrics["actor/entropy/weight"] * spec.action_dim
    networks = learner.networks
    return {
        "td": (metrics["critic/td"], sum(td)),
        "cql": (metrics["critic/watchedcql"], (total - sum(td)) / info["critic/cql_weight"] + constant),
        "policy": (policy_loss, info["actor/loss"].item()),
        "critic gradient": (_norm(_gradients(networks.critic)), math.sqrt(squares)),
        "policy gradient": (_norm(_gradients(networks.actor)), math.sqrt(info["actor/grad_norms"])),
        "encoder gradient error": (_encoder_error(learner, algo), 0.0),
    }


def _norm(tensors: list[Tensor]) -> float:
    return float(nn.utils.get_total_norm(tensors))


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def _encoder_error(learner: Learner, algo: Any) -> float:
    """Return how far the gradients of the critics' encoders are apart, as a share of their length."""
    ours = [gradient for encoder in learner.networks.critic.encoders for gradient in _gradients(encoder)]
    theirs = [gradient for critic in algo.nets["critic"] for gradient in _gradients(critic.nets["encoder"])]
    return _norm([a - b for a, b in zip(ours, theirs, strict=True)]) / _norm(theirs)


@contextmanager
def _frozen(algo: Any) -> Iterator[None]:
    """Set all of robomimic's learning rates to zero for a while."""
    single = [algo.optimizers[name] for name in ("actor", "entropy", "cql") if name in algo.optimizers]
    groups = [group for optimiser in (*single, *algo.optimizers["critic"]) for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = 0.0
    yield
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


@contextmanager
def _given(algo: Any, watched: WatchedCQL) -> Iterator[list[float]]:
    """Have robomimic sample what `watched` saw ours sample; yield a list that gets each critic's TD loss.

    Only where the noise comes from is replaced: the actions and their log-densities are computed by robomimic, from
    its own distribution.
    """
    context: UpdateContext = watched.seen["context"]
    uniform, policy, later = torch.split(watched.seen["action"], [getattr(watched, name) for name in COUNTS])
    queue = [context.policy_action[0], context.next_action, policy, later]  # in the order of its calls
    losses: list[float] = []
    td_loss = algo.td_loss_fcn

    def sample(dist: Any, sample_shape: object = None) -> tuple[Tensor, Tensor]:
        base = dist.base_dist
        with torch.no_grad():
            noise = (queue.pop(0).double().atanh() - base.mean) / base.stddev
        before = base.mean + base.stddev * noise.float()
        return torch.tanh(before), dist.log_prob(torch.tanh(before), pre_tanh_value=before).unsqueeze(-1)

    class Uniform:
        def __init__(self, *shape: int) -> None:
            assert shape == uniform.shape

        def uniform_(self, low: float, high: float) -> Tensor:
            return uniform

    def noted(*arguments: Tensor) -> Tensor:
        loss: Tensor = td_loss(*arguments)
        losses.append(loss.item())
        return loss

    with (
        patch.object(algo, "_get_actions_and_log_prob", sample),
        patch.object(algo, "td_loss_fcn", noted),
        patch("torch.FloatTensor", Uniform),
    ):
        yield losses
    assert not queue

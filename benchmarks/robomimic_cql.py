"""robomimic 0.3.0's CQL with the same nets as ours, and whether it has the same losses.

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
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any
from unittest.mock import patch

import torch
from einops import rearrange
from torch import Tensor, nn

from pixelrl.encoders.resnet import RobomimicResNet18
from pixelrl.learning.actors import GaussianActor
from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.heads import EnsembleLinear
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Critic
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.cql import CQL
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD

COUNTS = ("uniform", "policy", "next_policy")
"""The three kinds of sampled actions."""

GAP = 5.0
"""robomimic's default for what the conservative gap of a critic is to be at most."""


def robomimics_recipe(actions: int = 10, batch_size: int = 16, *, learned: bool = True) -> Recipe:
    """Return robomimic's CQL as a recipe: its nets, `actions` samples of each kind, its rates, no augmentation.

    With `learned`, its default, the conservative term is weighed by a multiplier; else by 1.
    """
    bound = AtMost(bound=2 * (GAP - math.log(3 * actions)), rate=1e-3)  # of the two critics' gaps, as ours defines them
    conservative = CQL(weight=bound if learned else 1.0, uniform=actions, policy=actions, next_policy=actions)
    return Recipe(
        critic=(TD(), conservative),
        actor=(MaximizeQ(), Entropy(weight=AtMost(bound=0.0, start=1.0, rate=3e-4))),
        encoder=RobomimicResNet18(),
        critic_hidden=(300, 400),
        actor_hidden=(300, 400),
        steps=1,
        batch_size=batch_size,
        critic_lr=1e-3,
        actor_lr=3e-4,
        shift=0,
        precision="fp32",
    )


def conservative_term(recipe: Recipe) -> CQL:
    """Return the recipe's CQL term."""
    return next(term for term in recipe.critic if isinstance(term, CQL))


@contextmanager
def quiet_robomimic() -> Iterator[None]:
    """Hold back what robomimic prints: advice, tables, bars.

    Raises:
        PixelrlError: robomimic is not installed.
    """
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImportError as error:
        raise PixelrlError(f"robomimic: {error}; expected robomimic 0.3.0: pip install 'pixelrl[robomimic]'") from error


def build_robomimic(recipe: Recipe, spec: Spec, device: torch.device) -> Any:
    """Return robomimic's `CQL` with the nets and settings of `robomimics_recipe`."""
    with quiet_robomimic():
        from robomimic.algo import algo_factory
        from robomimic.config import config_factory
        from robomimic.utils import obs_utils
    config, cql = config_factory("cql"), conservative_term(recipe)
    with config.unlocked():
        config.observation.modalities.obs.rgb = list(spec.images)
        config.observation.modalities.obs.low_dim = list(spec.proprio)
        config.observation.encoder.rgb.core_kwargs.update(
            feature_dimension=64,
            backbone_class="ResNet18Conv",
            backbone_kwargs={"pretrained": False, "input_coord_conv": False},
            pool_class="SpatialSoftmax",
            pool_kwargs={"num_kp": 32, "learnable_temperature": False, "temperature": 1.0, "noise_std": 0.0},
        )
        config.algo.critic.num_random_actions = cql.uniform
        config.algo.critic.target_q_gap = GAP if isinstance(cql.weight, AtMost) else None
        config.algo.critic.layer_dims = recipe.critic_hidden
        config.algo.actor.layer_dims = recipe.actor_hidden
        config.algo.critic.ensemble.n = recipe.ensemble
        config.algo.discount, config.algo.target_tau = recipe.gamma, recipe.tau
    shapes = OrderedDict([*spec.images.items(), *((key, (size,)) for key, size in spec.proprio.items())])
    with quiet_robomimic():
        obs_utils.initialize_obs_utils_with_config(config)
        algo = algo_factory("cql", config, shapes, spec.action_dim, device)
    algo.set_train()
    return algo


def robomimics_batch(batch: Batch, spec: Spec) -> dict[str, Any]:
    """Return a batch as robomimic's loader gives it: a time axis of 1, pictures uint8 `[B, 1, H, W, C]`."""

    def observe(obs: Observation) -> dict[str, Tensor]:
        parts = torch.split(obs.proprio, list(spec.proprio.values()), dim=-1) if spec.proprio else ()
        images = {key: rearrange(value, "b c h w -> b 1 h w c").contiguous() for key, value in obs.images.items()}
        return images | {key: part.unsqueeze(1) for key, part in zip(spec.proprio, parts, strict=True)}

    return {
        "obs": observe(batch.obs),
        "next_obs": observe(batch.next_obs),
        "actions": batch.action.unsqueeze(1),
        "rewards": batch.reward.unsqueeze(1),
        "dones": (batch.discount == 0).float().unsqueeze(1),
    }


def robomimic_update(algo: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Take one step as robomimic's training loop does, and return what it reports."""
    ready = algo.process_batch_for_training(batch)
    ready = algo.postprocess_batch_for_training(ready, obs_normalization_stats=None)
    info: dict[str, Any] = algo.train_on_batch(ready, epoch=1, validate=False)
    return info


@torch.no_grad()
def take_weights(learner: Learner, algo: Any) -> None:
    """Copy all of robomimic's weights, running statistics and multipliers into our learner."""
    networks = learner.networks
    for ours, theirs in ((networks.critic, algo.nets["critic"]), (networks.target, algo.nets["critic_target"])):
        _take_critics(ours, list(theirs))
    networks.target.eval()
    policy = algo.nets["actor"].nets
    assert isinstance(networks.actor, GaussianActor)
    _take_encoder(networks.actor.encoder, policy["encoder"])
    for mine, layer in zip(_linears(networks.actor.trunk), _linears(policy["mlp"]), strict=True):
        mine.load_state_dict(layer.state_dict())
    decoder = policy["decoder"].nets
    networks.actor.last.weight.copy_(torch.cat([decoder["mean"].weight, decoder["scale"].weight]))
    networks.actor.last.bias.copy_(torch.cat([decoder["mean"].bias, decoder["scale"].bias]))
    learner.actor.multipliers["entropy"].log.fill_(algo.log_entropy_weight.item())
    for multiplier in learner.critic.multipliers.values():
        multiplier.log.fill_(algo.log_cql_weight.item())


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _take_critics(ours: Critic, theirs: list[Any]) -> None:
    """Stack robomimic's critics; their first layer takes the encoding and then the action."""
    for mine, critic in zip(ours.encoders, theirs, strict=True):
        _take_encoder(mine, critic.nets["encoder"])
    head = ours.learning_head
    stacks = [(*_linears(critic.nets["mlp"]), *_linears(critic.nets["decoder"])) for critic in theirs]
    for index, target in enumerate([head.from_state, *head.layers, head.last]):
        assert isinstance(target, EnsembleLinear) and target.bias is not None
        for member, stack in enumerate(stacks):
            weight = stack[index].weight.T
            if index == 0:
                width = target.weight.shape[1]
                head.from_action.weight[member].copy_(weight[width:])
                weight = weight[:width]
            target.weight[member].copy_(weight)
            target.bias[member, 0].copy_(stack[index].bias)


def _take_encoder(ours: Any, theirs: Any) -> None:
    """Copy an encoder: the layers of each camera come in the same order."""
    for key, trunk in zip(ours.keys, ours.trunks, strict=True):
        given = theirs.nets["obs"].obs_nets[key]
        pairs = [*zip(trunk.parameters(), given.parameters(), strict=True)]
        pairs += zip(_statistics(trunk), _statistics(given), strict=True)
        for mine, value in pairs:
            mine.copy_(value)


def _statistics(module: nn.Module) -> list[Tensor]:
    return [value for name, value in module.named_buffers() if "running" in name]


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

    Both run the very update that is timed, but nothing moves (robomimic's target networks do). Ours samples;
    robomimic is given the same actions.

    Returns:
        `td` and `cql` (unweighted, summed over the critics) and `policy`, each without the constants that the
        definitions differ in; `critic gradient` and `policy gradient`, L2 norms, which agree less: now and then
        rounding moves a unit across the kink of its ReLU, and robomimic's is a sum of passes that nearly cancel;
        `encoder gradient error`, see `_encoder_error`, beside 0.
    """
    given = conservative_term(recipe)
    watched = WatchedCQL(**{name: getattr(given, name) for name in ("weight", *COUNTS, "temperature")})
    terms = tuple(watched if isinstance(term, CQL) else term for term in recipe.critic)
    learner = Learner(replace(recipe, critic=terms, critic_lr=0.0, actor_lr=0.0, tau=0.0), spec, algo.device)
    take_weights(learner, algo)
    metrics = {name: float(value) for name, value in learner.update(batch).items()}
    still = patch("torch.optim.Adam.step", lambda *_, **__: None)  # ours has learning rates of zero
    with still, _given(algo, watched) as td:
        info = robomimic_update(algo, robomimics_batch(batch, spec))
    members = range(1, recipe.ensemble + 1)
    total = sum(info[f"critic/critic{member}_loss"].item() for member in members)
    target = GAP if isinstance(watched.weight, AtMost) else 0.0
    constant = recipe.ensemble * (target - math.log(sum(getattr(watched, name) for name in COUNTS)))
    squares = sum(info[f"critic/critic{member}_grad_norms"] for member in members)
    policy_loss = metrics["actor/loss"] + metrics["actor/entropy/weight"] * spec.action_dim
    return {
        "td": (metrics["critic/td"], sum(td)),
        "cql": (metrics["critic/watchedcql"], (total - sum(td)) / info["critic/cql_weight"] + constant),
        "policy": (policy_loss, info["actor/loss"].item()),
        "critic gradient": (_gradient_norm(learner.networks.critic), math.sqrt(squares)),
        "policy gradient": (_gradient_norm(learner.networks.actor), math.sqrt(info["actor/grad_norms"])),
        "encoder gradient error": (_encoder_error(learner, algo), 0.0),
    }


def _encoder_error(learner: Learner, algo: Any) -> float:
    """Return how far the gradients of the critics' encoders are apart, as a share of their length."""
    ours, theirs = [], []
    for encoder, critic in zip(learner.networks.critic.encoders, algo.nets["critic"], strict=True):
        ours += [parameter.grad for parameter in encoder.parameters()]
        theirs += [parameter.grad for parameter in critic.nets["encoder"].parameters()]
    norm = nn.utils.get_total_norm
    return float(norm([a - b for a, b in zip(ours, theirs, strict=True)]) / norm(theirs))


def _gradient_norm(module: nn.Module) -> float:
    return float(nn.utils.get_total_norm([each.grad for each in module.parameters() if each.grad is not None]))


@contextmanager
def _given(algo: Any, watched: WatchedCQL) -> Iterator[list[float]]:
    """Have robomimic sample what `watched` saw ours sample; yield a list that gets each critic's TD loss.

    Only where the noise comes from is replaced: the actions and their log-densities are computed by robomimic, from
    its own distribution.
    """
    context: UpdateContext = watched.seen["context"]
    uniform, policy, later = torch.split(watched.seen["action"], [getattr(watched, name) for name in COUNTS])
    queue = [context.policy_action.actions[0], context.next_action, policy, later]  # in the order of its calls
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

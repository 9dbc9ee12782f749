"""robomimic 0.3.0's CQL with the same nets as ours: to build, to feed, to step, and to take weights from."""

import math
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from pixelrl.encoders.resnet import RobomimicResNet18
from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Critic, EnsembleLinear
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.cql import CQL
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD

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
    head = ours.head
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
    for key, trunk in ours.trunks.items():
        given = theirs.nets["obs"].obs_nets[key]
        pairs = [*zip(trunk.parameters(), given.parameters(), strict=True)]
        pairs += zip(_statistics(trunk), _statistics(given), strict=True)
        for mine, value in pairs:
            mine.copy_(value)


def _statistics(module: nn.Module) -> list[Tensor]:
    return [value for name, value in module.named_buffers() if "running" in name]

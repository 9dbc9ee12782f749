"""Networks of a recipe: their modules, their random weights, and the arithmetic they compute in."""

import torch
from torch import nn

from pixelrl.learning.batch import Spec
from pixelrl.learning.heads import CriticHead, InjectedHead
from pixelrl.learning.networks import Critic, Networks, ValueNetwork
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError


def build_networks(recipe: Recipe, spec: Spec) -> Networks:
    """Return fresh networks of a recipe for data of these shapes; without critic terms, no critic but an empty one."""
    shared, ensemble, width = recipe.shared_encoder, recipe.ensemble if recipe.critic else 0, spec.action_width

    def critic() -> Critic:
        encoders = [recipe.encoder.build(spec) for _ in range(1 if shared else ensemble)]
        features: int = (encoders or [recipe.encoder.build(spec)])[0].features  # type: ignore[assignment]
        head = CriticHead(
            features,
            width,
            recipe.critic_hidden,
            ensemble,
            recipe.layer_norm,
            layer_norm_place=recipe.layer_norm_place,
            feature_norm=recipe.feature_norm,
            last_layer_start=recipe.last_layer_start,
            form=recipe.form,
        )
        return Critic(encoders, InjectedHead(head) if recipe.intervention.may_inject else head)

    critics = critic(), critic()
    own = None if shared else recipe.encoder.build(spec)
    features: int = (own or critics[0].encoders[0]).features  # type: ignore[assignment]
    actor, value = recipe.policy.build(features, width, recipe.actor_hidden, own), None
    if recipe.value:
        own = None if shared else recipe.encoder.build(spec)
        norm = recipe.layer_norm_place if recipe.layer_norm else None
        value = ValueNetwork(features, recipe.critic_hidden, norm, own)
    return Networks(
        *critics,
        actor,
        value,
        shared=shared,
        acting=recipe.acting,
        target_actor=recipe.target_actor,
        keeps_average=recipe.intervention.keeps_average,
        action_width=width,
    )


def fresh_networks(recipe: Recipe, spec: Spec, device: torch.device, seed: int) -> Networks:
    """Return networks with the random weights of a seed; no other generator is touched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return build_networks(recipe, spec).to(device)


def independent_rows(networks: nn.Module) -> bool:
    """Tell whether what networks make of a row depends on no other row."""
    return not any(isinstance(module, nn.BatchNorm2d) for module in networks.modules())


def check_independent_rows(networks: Networks, world_size: int) -> None:
    """Raise a `PixelrlError` if what networks make of a row depends on the other rows, which lie on all ranks."""
    if world_size > 1 and not independent_rows(networks):
        raise PixelrlError(
            f"--encoder: this one's BatchNorm mixes the pictures of a batch, and {world_size} ranks see a part of "
            "it each; use one without (resnet18 has GroupNorm), or one rank"
        )


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of the networks' arithmetic; auto: bf16 on a GPU that computes in it, float32 elsewhere."""
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

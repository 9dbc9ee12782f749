"""Networks of a recipe: their modules, their random weights, and the arithmetic they compute in."""

import torch
from torch import nn

from pixelrl.learning.batch import Spec
from pixelrl.learning.networks import Networks
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError


def build_networks(recipe: Recipe, spec: Spec) -> Networks:
    """Return fresh networks of a recipe for data of these shapes; without critic terms, no critic but an empty one."""
    return Networks(
        spec,
        recipe.encoder,
        shared=recipe.shared_encoder,
        ensemble=recipe.ensemble if recipe.critic else 0,
        critic_hidden=recipe.critic_hidden,
        actor_hidden=recipe.actor_hidden,
        layer_norm=recipe.layer_norm,
        layer_norm_place=recipe.layer_norm_place,
        feature_norm=recipe.feature_norm,
        last_layer_start=recipe.last_layer_start,
        form=recipe.form,
        policy=recipe.policy,
        acting=recipe.acting,
        value=bool(recipe.value),
        target_actor=recipe.target_actor,
        may_inject=recipe.intervention.may_inject,
        keeps_average=recipe.intervention.keeps_average,
    )


def fresh_networks(recipe: Recipe, spec: Spec, device: torch.device, seed: int) -> Networks:
    """Return networks with the random weights of a seed; no other generator is touched."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        return build_networks(recipe, spec).to(device)


def check_independent_rows(networks: Networks, world_size: int) -> None:
    """Raise a `PixelrlError` if what networks make of a row depends on the other rows, which lie on all ranks."""
    if world_size > 1 and any(isinstance(module, nn.BatchNorm2d) for module in networks.modules()):
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

"""The learner: networks, two objectives, their optimisers, and one gradient step."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import chain

import torch
from torch import Tensor, nn

from pixelrl.batch import Batch, Metrics, Spec
from pixelrl.config import Recipe
from pixelrl.diagnostics import diagnose
from pixelrl.networks import Networks
from pixelrl.seeding import derive
from pixelrl.update import Term, Update
from pixelrl.weights import AtMost, Multiplier


class Objective:
    """A weighted sum of terms, the parameters that it moves, and the optimiser that moves them.

    Args:
        name: prefix of its metrics.
        terms: every term that may be asked for, each with the name that it logs under.
        parameters: what the gradient is taken for; nothing else ever changes.
        lr: Adam's learning rate.
        device: of the learned multipliers.
    """

    def __init__(
        self, name: str, terms: Iterable[Term], parameters: Iterable[nn.Parameter], lr: float, device: torch.device
    ) -> None:
        self.name, self.lr = name, lr
        self.parameters = list(parameters)
        self.optimiser = adam(self.parameters, lr)
        rules = {term_name(term): term.weight for term in terms if isinstance(term.weight, AtMost)}
        learned = {key: Multiplier(rule).to(device) for key, rule in rules.items()}
        groups = [{"params": [each.log], "lr": each.rule.rate} for each in learned.values()]
        self.multipliers = learned
        self.dual_optimiser = adam(groups, 0.0) if groups else None

    def evaluate(self, terms: tuple[Term, ...], update: Update) -> tuple[Tensor, Tensor | None, Metrics]:
        """Return the loss, the loss of the multipliers (None if no term has one), and metrics."""
        total = torch.zeros((), device=update.batch.action.device)
        dual: Tensor | None = None
        metrics: Metrics = {}
        for term in terms:
            if term.weight == 0:
                continue  # as if it were absent: it neither costs anything nor draws noise
            key = term_name(term)
            value, extra = term(update)
            if isinstance(term.weight, AtMost):
                multiplier = self.multipliers[key]
                ascent = multiplier.ascend(value)
                dual = ascent if dual is None else dual + ascent
                metrics[f"{self.name}/{key}/weight"] = multiplier.value
                total = total + multiplier.value * value
            else:
                total = total + term.weight * value
            metrics[f"{self.name}/{key}"] = value.detach()
            metrics |= {f"{self.name}/{key}/{label}": item.detach() for label, item in extra.items()}
        metrics[f"{self.name}/loss"] = total.detach()
        return total, dual, metrics


def term_name(term: Term) -> str:
    """Return the name that a term logs under, say `cql`."""
    return type(term).__name__.lower()


def adam(parameters: Iterable[object], lr: float) -> torch.optim.Adam:
    """Return Adam in its fused form: one kernel for all tensors, on CUDA and on the CPU."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)  # type: ignore[arg-type]


class Learner:
    """Everything that a checkpoint holds, and the step that changes it.

    Args:
        recipe: what to learn and how.
        spec: shapes and scales, read from the data.
        device: where to compute.
    """

    def __init__(self, recipe: Recipe, spec: Spec, device: torch.device) -> None:
        self.recipe, self.spec, self.device = recipe, spec, device
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(derive(recipe.seed, "weights"))
            self.networks = build_networks(recipe, spec).to(device)
        self.generator = torch.Generator(device).manual_seed(derive(recipe.seed, "noise"))
        networks = self.networks
        self.critic = Objective("critic", recipe.critic, networks.critic.parameters(), recipe.critic_lr, device)
        self.actor = Objective(
            "actor", chain(recipe.warmup, recipe.actor), networks.actor.parameters(), recipe.actor_lr, device
        )
        self.dtype = compute_dtype(recipe.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.step = 0

    def update(self, batch: Batch, *, measure: bool = False) -> Metrics:
        """Take one gradient step of both objectives on B transitions.

        Both gradients are taken at the same parameters, before either optimiser moves.

        Args:
            batch: on the learner's device.
            measure: also run the diagnostics, which cost about one more pass.
        """
        recipe = self.recipe
        update = Update(self.networks, batch, self.generator, shift=recipe.shift)
        actor_terms = recipe.warmup if self.step < recipe.warmup_steps else recipe.actor
        jobs = [job for job in ((self.critic, recipe.critic), (self.actor, actor_terms)) if job[1]]
        with self.autocast():
            losses = [(objective, *objective.evaluate(terms, update)) for objective, terms in jobs]
        metrics: Metrics = {}
        for objective, loss, dual, measured in losses:
            differentiate(self.scaler.scale(loss), objective.parameters)
            if dual is not None:
                differentiate(dual, [each.log for each in objective.multipliers.values()])
            metrics |= measured
        if measure and recipe.critic:
            noise = self.generator.get_state()
            with self.autocast():
                metrics |= diagnose(update, self.spec.sources)
            self.generator.set_state(noise)  # so that looking changes nothing that is learned
        for objective, _, dual, _ in losses:
            objective.optimiser.param_groups[0]["lr"] = objective.lr * self.lr_factor
            self.scaler.step(objective.optimiser)
            if dual is not None and objective.dual_optimiser is not None:
                objective.dual_optimiser.step()
        if recipe.critic:
            self.networks.update_target(recipe.tau)
        if self.scaler.is_enabled():
            self.scaler.update()
            if measure:  # reading it waits for the device
                metrics["precision/loss_scale"] = torch.tensor(self.scaler.get_scale())
        self.step += 1
        return metrics

    @property
    def lr_factor(self) -> float:
        """The factor on the learning rates at this step: from 1 to `final_lr` along a half cosine."""
        last, progress = self.recipe.final_lr, self.step / self.recipe.steps
        return last + (1 - last) * (1 + math.cos(math.pi * progress)) / 2

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the networks' arithmetic.

        Its cache of cast weights stays off: a weight may be cast under `no_grad` first and want its gradient later.
        """
        mixed = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=mixed, cache_enabled=False)


def build_networks(recipe: Recipe, spec: Spec) -> Networks:
    """Return fresh networks of a recipe for data of these shapes."""
    return Networks(
        spec,
        recipe.encoder,
        shared=recipe.shared_encoder,
        ensemble=recipe.ensemble,
        critic_hidden=recipe.critic_hidden,
        actor_hidden=recipe.actor_hidden,
        layer_norm=recipe.layer_norm,
    )


def differentiate(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Put d loss / d parameter into each parameter's `grad`, and touch nothing else."""
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of the networks' arithmetic."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

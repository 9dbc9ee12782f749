"""The learner: networks, two objectives, their optimisers, and one gradient step."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Batch, Metrics, Spec
from pixelrl.learning.context import Term, UpdateContext
from pixelrl.learning.diagnostics import diagnose
from pixelrl.learning.divergence import DivergenceMonitor
from pixelrl.learning.flat import Flat
from pixelrl.learning.networks import Networks
from pixelrl.learning.noise import SharedGenerator
from pixelrl.learning.objective import Gradients, Objective, term_name
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import LostRankError, PixelrlError
from pixelrl.runtime.profiling import span
from pixelrl.runtime.seeding import derive


class Findings(NamedTuple):
    """What a learner finds on a batch, before anything moves.

    Attributes:
        metrics: what is worth logging.
        gradients: for each objective that moves, that of each parameter, scaled.
        duals: for each of them, that of each multiplier's logarithm.
        seen: what the guard saw.
    """

    metrics: Metrics
    gradients: list[Gradients]
    duals: list[Gradients]
    seen: Tensor


Derive = Callable[[Batch], Findings]
"""A way to a learner's findings on a batch."""


class Learner:
    """Everything that a checkpoint holds, and the step that changes it.

    Args:
        recipe: what to learn and how.
        spec: shapes and scales, read from the data.
        device: where to compute.
        distributed: our place among those that learn together; every batch is our share of one.

    Raises:
        PixelrlError: an encoder whose numbers depend on who else is in the batch, on several ranks.
    """

    def __init__(
        self, recipe: Recipe, spec: Spec, device: torch.device, distributed: Distributed = SINGLE_PROCESS
    ) -> None:
        self.recipe, self.spec, self.device, self.distributed = recipe, spec, device, distributed
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(derive(recipe.seed, "weights"))
            self.networks = build_networks(recipe, spec).to(device)
        self.generator = SharedGenerator(device)
        self.generator.manual_seed(derive(recipe.seed, "noise"))
        self.generator.distributed = distributed
        networks = self.networks
        check_independent_rows(networks, distributed.world_size)
        self.critic = Objective("critic", recipe.critic, networks.critic.parameters(), recipe.critic_lr, device)
        self.target = Flat(networks.target.parameters())
        self.actor = Objective(
            "actor", chain(recipe.warmup, recipe.actor), networks.actor.parameters(), recipe.actor_lr, device
        )
        self.dtype = compute_dtype(recipe.precision, device)
        named = (("critic", recipe.critic), ("actor", recipe.warmup), ("actor", recipe.actor))
        names = [f"{side}/{term_name(term)}" for side, terms in named for term in terms]
        self.guard = DivergenceMonitor(names, spec.sources, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.together = any(term.reaches_next for term in recipe.critic if term.weight != 0)
        self.step = 0

    def update(self, batch: Batch, *, measure: bool = False, derive: Derive | None = None) -> Metrics:
        """Take one gradient step of both objectives on B transitions; nothing here waits for the device.

        Both gradients are taken at the same parameters, before either optimiser moves.

        Args:
            batch: on the learner's device.
            measure: also run the diagnostics, which cost about one more pass.
            derive: another way to the gradients; see `differentiate`.
        """
        noise = self.generator.get_state()
        try:
            metrics = self.differentiate(batch, measure=measure, derive=derive)
            self.distributed.all_reduce_mean(self.slopes)
        except LostRankError:
            self.generator.set_state(noise)  # the step is not taken: whoever goes on draws the same for it
            raise
        self.advance()
        if measure:
            metrics = self.distributed.mean_metrics(metrics)
        if measure and self.scaler.is_enabled():  # reading them waits for the device
            metrics["precision/loss_scale"] = torch.tensor(self.scaler.get_scale())
            metrics["precision/skipped"] = torch.tensor(float(self.skipped()))
        return metrics

    @property
    def objectives(self) -> list[tuple[Objective, tuple[Term, ...]]]:
        """The objectives that move at this step, each with its terms."""
        recipe = self.recipe
        actor_terms = recipe.warmup if self.warming else recipe.actor
        return [pair for pair in ((self.critic, recipe.critic), (self.actor, actor_terms)) if pair[1]]

    @property
    def warming(self) -> bool:
        """Whether the actor follows the warm-up's terms at this step: all steps of a phase run the same kernels."""
        return self.step < self.recipe.warmup_steps

    def differentiate(self, batch: Batch, *, measure: bool = False, derive: Derive | None = None) -> Metrics:
        """Evaluate the objectives on a batch and leave each one's gradient in `flat.whole.grad`; nothing moves.

        The multipliers' gradients lie in their own `grad`. Whatever several ranks must agree on goes between this and
        `advance`.

        Args:
            batch: on the learner's device.
            measure: also run the diagnostics.
            derive: another way to the findings of `derive`, say a recording; not with `measure`.
        """
        if derive is not None and not measure:
            findings = derive(batch)
            self.keep(findings)
            return findings.metrics
        update = self.scratch_pad(batch)
        findings = self.derive(update)
        self.keep(findings)
        metrics = findings.metrics
        if measure and self.recipe.critic:
            noise = self.generator.get_state()
            with self.autocast(), span("diagnostics"):
                metrics = metrics | diagnose(update, self.spec.sources, self.distributed)
            self.generator.set_state(noise)  # so that looking changes nothing that is learned
        return metrics

    def scratch_pad(self, batch: Batch) -> UpdateContext:
        """Return the scratch pad of one step on a batch."""
        return UpdateContext(self.networks, batch, self.generator, shift=self.recipe.shift, together=self.together)

    def derive(self, update: UpdateContext) -> Findings:
        """Evaluate the objectives and their gradients; nothing that outlives the step changes but the generator."""
        with self.autocast():
            losses = [objective.evaluate(terms, update) for objective, terms in self.objectives]
        metrics: Metrics = {}
        parts: dict[str, Tensor] = {}
        gradients, duals = [], []
        for loss in losses:
            with span(f"backward {loss.objective.name}"):
                found, dual = loss.gradients(self.scaler)
            gradients.append(found)
            duals.append(dual)
            metrics |= loss.metrics
            parts |= loss.parts
        with span("guard"):
            seen = self.guard.look(update, parts)
        return Findings(metrics=metrics, gradients=gradients, duals=duals, seen=seen)

    def keep(self, findings: Findings) -> None:
        """Bring gradients to where `advance` looks for them, and let the guard note what it saw."""
        for (objective, _), found, duals in zip(self.objectives, findings.gradients, findings.duals, strict=True):
            objective.flat.gather(found)
            for multiplier, slope in zip(objective.multipliers.values(), duals, strict=True):
                multiplier.log.grad = slope  # None, where the term is not asked for now: then Adam leaves it alone
        self.guard.note(findings.seen)

    @property
    def slopes(self) -> list[Tensor]:
        """What `advance` follows, as `differentiate` left it: a gradient an objective, and one a multiplier."""
        moving = [objective for objective, _ in self.objectives]
        found = [objective.flat.whole.grad for objective in moving]
        found += [each.log.grad for objective in moving for each in objective.multipliers.values()]
        return [slope for slope in found if slope is not None]

    def advance(self) -> None:
        """Move every parameter that has a gradient, then the target networks, and count the step."""
        self.schedule()
        self.move()
        self.step += 1

    def schedule(self) -> None:
        """Set the learning rates of this step."""
        for objective, _ in self.objectives:
            objective.optimiser.param_groups[0]["lr"].fill_(objective.lr * self.lr_factor)

    def move(self) -> None:
        """Move parameters, multipliers, targets and the loss scale; nothing here depends on the step's number."""
        for objective, _ in self.objectives:
            with span(f"optimise {objective.name}"):
                self.scaler.step(objective.optimiser)
                if objective.dual_optimiser is not None:
                    objective.dual_optimiser.step()
        if self.recipe.critic:
            with torch.no_grad(), span("target"):  # target <- (1 - tau) target + tau critic
                self.target.whole.lerp_(self.critic.flat.whole, self.recipe.tau)
        if self.scaler.is_enabled():
            self.scaler.update()

    def check(self) -> None:
        """Raise a `DivergenceError` if a step has gone wrong (see `DivergenceMonitor`); this waits for the device."""
        self.guard.check(self.step, self.distributed)

    def skipped(self) -> int:
        """Return how many steps of an objective were skipped because its fp16 gradient overflowed: Adam's are fewer."""
        objectives = [objective for objective, _ in self.objectives]
        return sum(self.step - int(each.optimiser.state[each.flat.whole]["step"]) for each in objectives)

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
    """Return fresh networks of a recipe for data of these shapes; without critic terms, no critic but an empty one."""
    return Networks(
        spec,
        recipe.encoder,
        shared=recipe.shared_encoder,
        ensemble=recipe.ensemble if recipe.critic else 0,
        critic_hidden=recipe.critic_hidden,
        actor_hidden=recipe.actor_hidden,
        layer_norm=recipe.layer_norm,
    )


def check_independent_rows(networks: Networks, world_size: int) -> None:
    """Raise a `PixelrlError` if what networks make of a row depends on the other rows, which lie on all ranks."""
    if world_size > 1 and any(isinstance(module, nn.BatchNorm2d) for module in networks.modules()):
        raise PixelrlError(
            f"--encoder: this one's BatchNorm mixes the pictures of a batch, and {world_size} ranks see a part of "
            "it each; use one without (resnet18 has GroupNorm), or one rank"
        )


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of the networks' arithmetic."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

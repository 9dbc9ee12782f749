"""The learner: networks, two objectives, target networks, and one gradient step."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Batch, Metrics, Spec
from pixelrl.learning.build import check_independent_rows, compute_dtype, fresh_networks, independent_rows
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.divergence import DivergenceMonitor
from pixelrl.learning.interventions import Site
from pixelrl.learning.networks import Networks
from pixelrl.learning.noise import Noise, SharedGenerator
from pixelrl.learning.objective import Gradients, Objective, term_name
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.rounding import rounding
from pixelrl.learning.term import Term
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import LostRankError
from pixelrl.runtime.seeding import derive


class Direction(NamedTuple):
    """Where one step is to go; nothing has moved yet.

    Attributes:
        gradients: of each objective that moves.
        metrics: what is worth logging.
        observed: what the divergence monitor observed.
    """

    gradients: list[Gradients]
    metrics: Metrics
    observed: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """Return all gradients that there are."""
        return [each for gradients in self.gradients for each in gradients if each is not None]


class Learner:
    """Everything that a checkpoint holds, and the step that changes it.

    Args:
        recipe: what to learn and how.
        spec: shapes and scales, read from the data.
        device: where to compute.
        distributed: our place among the ranks that learn together; every batch is our share of one.
        teacher: networks for `Distillation` to imitate; they never change, and no checkpoint holds them.

    Raises:
        PixelrlError: an encoder whose numbers depend on the other rows of a batch, on several ranks.
    """

    def __init__(
        self,
        recipe: Recipe,
        spec: Spec,
        device: torch.device,
        distributed: Distributed = SINGLE_PROCESS,
        teacher: Networks | None = None,
    ) -> None:
        self.recipe, self.spec, self.device, self.distributed = recipe, spec, device, distributed
        self.networks = fresh_networks(recipe, spec, device, derive(recipe.seed, "weights"))
        self.teacher = None if teacher is None else teacher.to(device).eval().requires_grad_(False)
        check_independent_rows(self.networks, distributed.world_size)
        self.generator = SharedGenerator(device)
        self.generator.manual_seed(derive(recipe.seed, "noise"))
        self.generator.distributed = distributed
        nets, decay = self.networks, recipe.weight_decay

        def objective(name: str, terms: Iterable[Term], network: nn.Module | None, lr: float) -> Objective:
            return Objective(name, terms, network, lr, device, decay)

        critic_terms = chain(recipe.critic_warmup, recipe.critic)
        value_lr = recipe.critic_lr if recipe.value_lr is None else recipe.value_lr
        self.critic = objective("critic", critic_terms, nets.critic, recipe.critic_lr)
        self.value = objective("value", recipe.value, nets.value, value_lr)
        self.actor = objective("actor", chain(recipe.warmup, recipe.actor), nets.actor, recipe.actor_lr)
        self.dtype = compute_dtype(recipe.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        named = [("critic", recipe.critic), ("critic", recipe.critic_warmup), ("value", recipe.value)]
        named += [("actor", recipe.warmup), ("actor", recipe.actor)]
        names = [f"{side}/{term_name(term)}" for side, terms in named for term in terms]
        self.monitor = DivergenceMonitor(names, spec.sources, device)
        through_next = any(term.weight != 0 and term.through_next for term in recipe.critic)
        self.at_once = through_next and not nets.critic.noisy and independent_rows(nets.critic)
        self.step = 0
        self.whole = True  # no step is half done

    def update(self, batch: Batch, differentiate: "Differentiate | None" = None) -> Metrics:
        """Take one gradient step of every objective, all at the same parameters; nothing here waits for the device.

        Args:
            batch: B transitions on the learner's device.
            differentiate: another way to the direction, say compiled.

        Raises:
            LostRankError: another rank is gone; the step is not taken.
        """
        with self.restoring_noise(), rounding(self.networks.actor, self.recipe.weight_bits):
            differentiate = differentiate or self.differentiate
            direction = differentiate(batch, self.generator, self.objectives, self.loss_scale())
            self.distributed.all_reduce_mean(direction.tensors)
            self.add_noise(direction.tensors)
        self.set_learning_rates()
        self.move(direction)
        self.finish_step(batch)
        return direction.metrics

    def differentiate(self, batch: Batch, noise: Noise, objectives: "Objectives", scale: Tensor) -> Direction:
        """Return the gradients of objectives, times `scale`. Pure but for `noise`, so that torch can compile it."""
        context = self.context(batch, noise)
        with self.autocast():
            losses = [objective.loss(terms, context) for objective, terms in objectives]
        return Direction(
            gradients=[loss.gradients(scale) for loss in losses],
            metrics={name: value for loss in losses for name, value in loss.metrics.items()},
            observed=self.monitor.observe(
                context, {name: value for loss in losses for name, value in loss.parts.items()}
            ),
        )

    def context(self, batch: Batch, noise: Noise) -> UpdateContext:
        """Return what the terms of a step share."""
        recipe = self.recipe
        return UpdateContext(
            self.networks,
            batch,
            noise,
            shift=recipe.shift,
            shift_alike=recipe.shift_alike,
            shift_chance=recipe.shift_chance,
            backup=recipe.backup,
            teacher=self.teacher,
            learning=True,
            at_once=self.at_once,
        )

    def move(self, direction: Direction) -> None:
        """Move parameters and multipliers, then soft targets, and the loss scale; no step number matters here."""
        self.monitor.record(direction.observed)
        for (objective, _), gradients in zip(self.objectives, direction.gradients, strict=True):
            objective.step(gradients, self.scaler)
        if self.recipe.target_every == 1:
            self.networks.follow(self.recipe.tau)
        self.scaler.update()

    def finish_step(self, batch: Batch) -> None:
        """Count a step that learned from a batch, and do what is not done at every one."""
        self.whole, self.step = False, self.step + 1
        if self.recipe.target_every > 1 and self.step % self.recipe.target_every == 0:
            self.networks.follow(self.recipe.tau)
        self.recipe.intervention.after(self.step, self.site(batch))  # where another rank may be lost
        self.whole = True

    def site(self, batch: Batch) -> Site:
        """Return what an intervention after this step may look at and change."""
        return Site(
            networks=self.networks,
            objectives=self.learned,
            fresh=self.fresh_networks,
            context=lambda: UpdateContext(self.networks, batch, self.generator),
            distributed=self.distributed,
        )

    def fresh_networks(self) -> Networks:
        """Return networks as they may be at the start of a run, others at each step."""
        return fresh_networks(self.recipe, self.spec, self.device, derive(self.recipe.seed, "weights", self.step))

    def add_noise(self, gradients: list[Tensor]) -> None:
        """Add the recipe's noise to gradients, the same on all ranks."""
        if self.recipe.gradient_noise:
            deviation = math.sqrt(self.recipe.gradient_noise / (1 + self.step) ** 0.55) * float(self.loss_scale())
            for gradient in gradients:
                gradient.add_(torch.randn(gradient.shape, generator=self.generator, device=self.device) * deviation)

    @contextmanager
    def restoring_noise(self) -> Iterator[None]:
        """Put the noise back if another rank is gone: the ranks that go on draw the same for this step."""
        noise = self.generator.get_state()
        try:
            yield
        except LostRankError:
            self.generator.set_state(noise)
            raise

    def set_learning_rates(self) -> None:
        """Set the learning rates of this step."""
        for objective, _ in self.objectives:
            objective.set_learning_rate(self.lr_factor)

    @property
    def objectives(self) -> "Objectives":
        """The objectives that move at this step, each with its terms."""
        recipe, (warming, moves, _) = self.recipe, self.phase
        critic = recipe.critic_warmup if warming and recipe.critic_warmup else recipe.critic
        actor = recipe.warmup if warming and recipe.warmup else recipe.actor
        pairs = ((self.critic, critic), (self.value, recipe.value), (self.actor, actor if moves else ()))
        return [pair for pair in pairs if pair[1]]

    @property
    def phase(self) -> "Phase":
        """What decides which objectives move at this step."""
        recipe, step = self.recipe, self.step
        return step < recipe.warmup_steps, step % recipe.actor_every == 0, recipe.intervention.injects(step)

    @property
    def lr_factor(self) -> float:
        """The factor on the learning rates at this step: from 1 to `final_lr`, after a rise from 0."""
        recipe, progress = self.recipe, self.step / self.recipe.steps
        left = (1 + math.cos(math.pi * progress)) / 2 if recipe.schedule == "cosine" else max(0.0, 1 - progress)
        risen = min(1.0, (self.step + 1) / recipe.lr_warmup) if recipe.lr_warmup else 1.0
        return risen * (recipe.final_lr + (1 - recipe.final_lr) * left)

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the networks' arithmetic.

        Its cache of cast weights stays off: a weight may be cast under `no_grad` first and want its gradient later.
        """
        mixed = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype, enabled=mixed, cache_enabled=False)

    def loss_scale(self) -> Tensor:
        """Return the factor on fp16's losses, a scalar; 1 in other arithmetic."""
        scale: Tensor = self.scaler.scale(torch.ones((), device=self.device))
        return scale

    def check(self) -> None:
        """Raise a `DivergenceError` if a step has gone wrong (see `DivergenceMonitor`); this waits for the device."""
        self.monitor.check(self.step, self.distributed)

    def skipped(self) -> int:
        """Return how many steps of an objective were skipped because its fp16 gradient overflowed: Adam's are fewer."""
        moves = {self.actor: -(-self.step // self.recipe.actor_every)}
        taken = {each: int(each.optimiser.state[each.parameters[0]]["step"]) for each, _ in self.objectives}
        return sum(moves.get(each, self.step) - count for each, count in taken.items())

    @property
    def learned(self) -> tuple[Objective, ...]:
        """Every objective, whether it moves at this step or not."""
        return (self.critic, self.value, self.actor)


Objectives = list[tuple[Objective, tuple[Term, ...]]]
"""Objectives, each with the terms that count at a step."""

Differentiate = Callable[[Batch, Noise, Objectives, Tensor], Direction]
"""A way from a batch to the direction of a step; see `Learner.differentiate`."""

Phase = tuple[bool, bool, bool]
"""Whether a step belongs to the warm-up, whether the actor moves, and whether the critic's head was injected."""

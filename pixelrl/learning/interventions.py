"""What is done to the networks between steps, against a loss of plasticity: a function of the seed and the step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Observation
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.heads import EnsembleLinear, EnsembleNorm, InjectedHead
from pixelrl.learning.networks import Networks
from pixelrl.learning.objective import Objective
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Site:
    """What an intervention may look at and change.

    Attributes:
        networks: all that is learned.
        objectives: whose optimisers remember moments of the parameters.
        fresh: returns networks as they may be at the start of a run, others at each step, always the same at one.
        context: returns what terms share, on the batch of the step that was just taken; looking draws no noise.
        distributed: the ranks that learn together: what a batch decides is decided by all their rows.
    """

    networks: Networks
    objectives: Sequence[Objective]
    fresh: Callable[[], Networks]
    context: Callable[[], UpdateContext]
    distributed: Distributed

    def forget(self, parameter: Tensor, where: Tensor | None = None) -> None:
        """Set Adam's moments of a parameter to 0, or those of the entries that are `where`."""
        every = torch.ones_like(parameter, dtype=torch.bool) if where is None else where
        for objective in self.objectives:
            state = objective.optimiser.state.get(parameter, {})
            for name in state.keys() & {"exp_avg", "exp_avg_sq"}:
                state[name].masked_fill_(every, 0)


RULES: dict[str, tuple[Callable[[float], bool], str]] = {
    "every": (lambda every: every >= 1, "at least 1"),
    "at": (lambda at: at >= 1, "at least 1"),
    "keep": (lambda keep: 0 <= keep <= 1, "between 0 and 1"),
    "threshold": (lambda threshold: threshold >= 0, "at least 0"),
    "decay": (lambda decay: 0 < decay <= 1, "above 0 and at most 1"),
}


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """Nothing is done."""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        for name, (allows, rule) in RULES.items():
            if hasattr(self, name) and not allows(value := getattr(self, name)):
                raise PixelrlError(f"intervention: {name} is {value}; it must be {rule}")

    def after(self, step: int, site: Site) -> None:
        """Intervene, if the recipe says so, after so many steps."""

    @property
    def keeps_average(self) -> bool:
        """Tell whether networks keep a running average of themselves, which acts."""
        return False

    def injects(self, step: int) -> bool:
        """Tell whether the critic's head has been injected before this step."""
        return False

    @property
    def may_inject(self) -> bool:
        """Tell whether the critic's head must have room for an injection."""
        return False


@dataclass(frozen=True, kw_only=True)
class Periodic(Intervention):
    """Something is done every so many steps."""

    every: int = 2_000
    """steps between two of them"""

    def after(self, step: int, site: Site) -> None:
        """Intervene, if the recipe says so, after so many steps."""
        if step % self.every == 0:
            with torch.no_grad():
                self.apply(site)

    def apply(self, site: Site) -> None:
        """Do it."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Reset(Periodic):
    """Start the critics' last layer, or their whole head, anew (arXiv 2205.07802); target network alike.

    Encoders stay, and moments of what is new are forgotten. Adam's count of steps goes on.
    """

    what: Literal["last", "head"] = "last"
    """what starts anew"""

    def apply(self, site: Site) -> None:
        """Do it."""
        fresh = site.fresh().critic.learning_head
        for critic in (site.networks.critic, site.networks.target):
            old, new = (head.last if self.what == "last" else head for head in (critic.learning_head, fresh))
            for parameter, start in zip(old.parameters(), new.parameters(), strict=True):
                parameter.copy_(start)
                site.forget(parameter)


@dataclass(frozen=True, kw_only=True)
class ShrinkPerturb(Periodic):
    """Shrink all weights of critics and actor, and add fresh ones: keep theta + (1 - keep) fresh (arXiv 1910.08475)."""

    keep: float = 0.8
    """the share of what was learned"""

    def apply(self, site: Site) -> None:
        """Do it."""
        fresh = site.fresh()
        for old, new in ((site.networks.critic, fresh.critic), (site.networks.actor, fresh.actor)):
            torch._foreach_lerp_(list[Tensor](old.parameters()), list[Tensor](new.parameters()), 1 - self.keep)


class Filters(NamedTuple):
    """The W filters of a layer of an encoder.

    Attributes:
        before: what puts them out.
        activity: of each, a mean over its places, `[B, W]`.
        after: what reads them, each at so many `places`: once, or flattened with the W filters of a place together.
    """

    before: nn.Conv2d | nn.Linear
    activity: Tensor
    after: nn.Conv2d | nn.Linear
    places: int


@runtime_checkable
class HasFilters(Protocol):
    """An encoder that tells its filters."""

    def filters(self, obs: Observation) -> list[Filters]:
        """Return the filters of all layers but the last."""
        ...


@dataclass(frozen=True, kw_only=True)
class ReDo(Periodic):
    """Recycle dormant units of the critics' hidden layers (arXiv 2302.12902).

    A unit is dormant where mean |h_i| over a batch is at most `threshold` times the mean over its layer, h being what
    the non-linearity puts out, before a LayerNorm that comes after it. It gets fresh weights before it, a bias of 0,
    and weights of 0 behind it; their moments are forgotten. A LayerNorm also moves the layer's other units then: the
    fresh unit counts in its mean and deviation. Departures: Adam's one count of steps goes on; with `encoders`, an
    encoder's last layer, whose readers are many, residual blocks, and the encoder that an actor has for itself are
    left alone.
    """

    threshold: float = 0.1
    """at most this share of the layer's mean activity is dormant"""
    encoders: bool = False
    """also recycle filters of the critics' encoders, whose activity is a mean over all places"""

    def apply(self, site: Site) -> None:
        """Do it."""
        self.recycle_heads(site)
        if self.encoders:
            self.recycle_filters(site)

    def recycle_filters(self, site: Site) -> None:
        """Recycle filters of encoders that know theirs."""
        obs = site.context().obs
        for encoder, new in zip(site.networks.critic.encoders, site.fresh().critic.encoders, strict=True):
            if not isinstance(encoder, HasFilters) or not isinstance(new, HasFilters):
                raise PixelrlError(
                    f"intervention: encoders is True; {type(encoder).__name__} does not tell its filters"
                )
            for filters, fresh in zip(encoder.filters(obs), new.filters(obs), strict=True):
                dormant = dormant_units(filters.activity.unsqueeze(0), self.threshold, site.distributed)[0]  # [W]
                old, start = filters.before, fresh.before
                overwrite(site, old.weight, dormant.view(-1, *[1] * (old.weight.dim() - 1)), start.weight)
                if old.bias is not None:
                    overwrite(site, old.bias, dormant, torch.zeros_like(old.bias))
                behind = filters.after.weight
                columns = dormant.repeat(filters.places).view(1, -1, *[1] * (behind.dim() - 2))
                overwrite(site, behind, columns, torch.zeros_like(behind))

    def recycle_heads(self, site: Site) -> None:
        """Recycle hidden units of the critics' heads."""
        context, head, fresh = site.context(), site.networks.critic.learning_head, site.fresh().critic.learning_head
        activities = head.activities(context.state_embedding, context.batch.action.unsqueeze(0))
        before = [(head.from_state, fresh.from_state), *zip(head.layers, fresh.layers, strict=True)]
        after = [*head.layers, head.last]
        for place, activity in enumerate(activities):
            dormant = dormant_units(activity, self.threshold, site.distributed)  # [E, W]
            columns = dormant.unsqueeze(1)
            replaced = [before[place], *([(head.from_action, fresh.from_action)] if place == 0 else [])]
            for old, new in replaced:
                assert isinstance(old, EnsembleLinear) and isinstance(new, EnsembleLinear)
                overwrite(site, old.weight, columns, new.weight)
                if old.bias is not None:
                    overwrite(site, old.bias, columns, torch.zeros_like(old.bias))
            if isinstance(norm := head.norms[place], EnsembleNorm):
                overwrite(site, norm.gain, columns, torch.ones_like(norm.gain))
                overwrite(site, norm.bias, columns, torch.zeros_like(norm.bias))
            outgoing = after[place].weight
            overwrite(site, outgoing, dormant.unsqueeze(2), torch.zeros_like(outgoing))


def dormant_units(activity: Tensor, threshold: float, distributed: Distributed = SINGLE_PROCESS) -> Tensor:
    """Return which of W units are dormant, bool `[E, W]`, of activities `[E, B, W]` on each rank."""
    size = activity.abs().mean(1)
    distributed.all_reduce_mean([size])
    score = size / (size.mean(-1, keepdim=True) + 1e-9)
    dormant: Tensor = score <= threshold
    return dormant


def overwrite(site: Site, parameter: Tensor, where: Tensor, value: Tensor) -> None:
    """Set the entries of a parameter that are `where` to those of `value`, and forget their moments."""
    mask = where.expand_as(parameter)
    parameter.copy_(torch.where(mask, value, parameter))
    site.forget(parameter, mask)


@dataclass(frozen=True, kw_only=True)
class HareTortoise(Periodic):
    """Keep an average of critics and actor, and set both to it now and then (arXiv 2406.02596); the average acts.

    tortoise <- decay tortoise + (1 - decay) hare after every step; hare <- tortoise every so many. Moments go on. The
    paper's settings for RL are not published: `every` is far above 1 / (1 - decay) here.
    """

    decay: float = 0.999
    """of the average"""

    @property
    def keeps_average(self) -> bool:
        """Tell whether networks keep a running average of themselves, which acts."""
        return True

    def after(self, step: int, site: Site) -> None:
        """Follow, and perhaps set back."""
        networks = site.networks
        assert networks.average is not None
        hare = [*networks.critic.parameters(), *networks.actor.parameters()]
        tortoise = list[Tensor](networks.average.parameters())
        with torch.no_grad():
            torch._foreach_lerp_(tortoise, list[Tensor](hare), 1 - self.decay)
            present = (*networks.critic.buffers(), *networks.actor.buffers())
            for kept, now in zip(networks.average.buffers(), present, strict=True):
                kept.copy_(now)  # statistics of normalisation, which are averages already
            if step % self.every == 0:
                torch._foreach_copy_(list[Tensor](hare), tortoise)


@dataclass(frozen=True, kw_only=True)
class PlasticityInjection(Intervention):
    """Freeze the critics' heads at a step and learn on in fresh ones, without a change of Q (arXiv 2305.15555).

    Q = h + (h1 - h2) with the frozen head h, a fresh head h1 that learns, and its frozen copy h2. Encoders learn on;
    phi is that of h1. Target network alike.
    """

    at: int = 3_000
    """steps before it"""

    @property
    def may_inject(self) -> bool:
        """Tell whether the critic's head must have room for an injection."""
        return True

    def injects(self, step: int) -> bool:
        """Tell whether the critic's head has been injected before this step."""
        return step >= self.at

    def after(self, step: int, site: Site) -> None:
        """Inject, at the step."""
        if step != self.at:
            return
        fresh = site.fresh().critic.learning_head
        with torch.no_grad():
            for critic in (site.networks.critic, site.networks.target):
                assert isinstance(critic.head, InjectedHead)
                critic.head.inject(fresh)
            for parameter in site.networks.critic.learning_head.parameters():
                site.forget(parameter)

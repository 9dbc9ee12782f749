"""The probe: any snapshot on the same fixed, un-augmented transitions, so that steps and recipes can be compared.

Figures that training logs are of the batch that is about to be learned from: augmented, small, and another one each
time. These are a function of the networks, the rows and a seed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor, nn

from pixelrl.learning.actors import SquashedGaussian
from pixelrl.learning.backup import Backup
from pixelrl.learning.batch import Batch, Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.heads import InjectedHead
from pixelrl.learning.networks import Networks
from pixelrl.learning.objective import term_name
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.term import Term
from pixelrl.terms.distillation import Distillation
from pixelrl.training.diagnostics import activity, by_source, measure_rows, summarise_rows

CHUNK = 256
"""Rows that are looked at together: the memory that a probe takes does not grow with its rows."""

PAIRS = ("features/dot", "features/dot_recorded", "features/cosine", "encoding/dot")
"""What is measured of the pairs of a backup: rows that truly end have none."""

DORMANT = 0.025
"""A unit is dormant if its mean activation is at most this part of its layer's mean (ReDo, arXiv 2302.12902)."""


def probe(
    networks: Networks,
    recipe: Recipe,
    batch: Batch,
    sources: tuple[str, ...],
    seed: int = 0,
    stay: tuple[float, ...] = (),
    progress: Callable[[int], object] = lambda rows: None,
) -> Metrics:
    """Measure networks on fixed rows.

    Args:
        networks: as `read_networks` returns them.
        recipe: theirs; its backup says which action a' is the arm's own.
        batch: the rows, on the CPU; augmentation is off.
        sources: their names, as `Spec.sources`.
        seed: of the actions that are drawn.
        stay: an action in [-1, 1] to compare the recorded ones with, say that which moves nothing.
        progress: is told how many rows were measured since it was last told.

    Returns:
        Everything that `diagnose` measures, those in `PAIRS` of the pairs of a backup alone, and beside it
        `features/dot_recorded` with the action that was recorded in s' in place of the backup's a',
        `features/dot_random` and `encoding/dot_random` of pairs (s_i, s'_j) drawn at random,
        `features/dormant` (see `activity`), `features/self_excitation` (see `self_excitation`),
        `q/return_error` |Q - return to go|, with `stay` also `q/margin` Q(s, recorded) - Q(s, stay),
        `policy/distance` from mode to recorded action, `policy/log_prob` of policies that have a density and
        `policy/log_std` of Gaussians, of all rows and of each source's; and
        `gradient/PART/TERM` norms and `gradient/PART/TERM.TERM` cosines of the terms' weighted gradients, PART being
        the critic's encoder or head, the value network, or the actor. A learned weight counts as 1. Of two sources
        `gradient/PART/TERM@ONE.TERM@OTHER`, the cosine between their rows' gradients. Without critics, only the
        policy's.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, kept = dict[str, list[Tensor]](), dict[str, list[Tensor]]()
    gradients, apart = dict[str, Tensor](), dict[str, Tensor]()
    for chunk in split(batch, CHUNK):
        context = UpdateContext(networks, chunk, generator, backup=recipe.backup)
        found, features = probe_rows(context, has_critics=bool(recipe.critic), stay=stay)
        for store, new in ((rows, found), (kept, features)):
            for name, value in new.items():
                store.setdefault(name, []).append(value)
        for name, value in term_gradients(context, recipe).items():
            gradients[name] = gradients.get(name, 0) + value * len(chunk) / len(batch)
        for index, source in enumerate(sources if len(sources) > 1 else ()):
            part = chunk.map(lambda tensor, kept=chunk.source == index: tensor[kept])  # type: ignore[misc]
            if len(part):
                context = UpdateContext(networks, part, generator, backup=recipe.backup)
                for name, value in term_gradients(context, recipe).items():
                    apart[f"{name}@{source}"] = apart.get(f"{name}@{source}", 0) + value * len(part)
        progress(len(chunk))
    whole = {name: torch.cat(values, -1) for name, values in rows.items()}
    policy = {name: value for name, value in whole.items() if name.startswith("policy/")}
    metrics = {name: value.mean() for name, value in policy.items()}
    if len(sources) > 1:
        metrics |= by_source({name: value[None] for name, value in policy.items()}, batch.source, sources)
    if recipe.critic:
        features = {name: torch.cat(values, 1) for name, values in kept.items()}
        metrics |= feature_metrics(whole, features, batch, networks, sources, generator)
    return metrics | compare_gradients(gradients) | compare_sources(apart)


def split(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield the rows of a batch, at most `size` at a time."""
    for start in range(0, len(batch), size):
        yield batch.map(lambda tensor, start=start: tensor[start : start + size])  # type: ignore[misc]


def probe_rows(
    context: UpdateContext, *, has_critics: bool, stay: tuple[float, ...] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what is measured of each row, `[..., B]`, and, `[E | 1, B, F]`, features in s and s' and activity."""
    with torch.no_grad():
        policy, action = context.policy, context.batch.action
        rows = {"policy/distance": (policy.mode - action).abs().mean(-1)}
        if policy.has_density:
            rows["policy/log_prob"] = context.log_prob
        if isinstance(policy, SquashedGaussian):
            rows["policy/log_std"] = policy.log_std.mean(-1)
        if not has_critics:
            return rows, {}
        more, here = measure_rows(context)
        critic = context.networks.critic
        recorded = critic.q_values(critic.embed_state(context.next_encoding), context.batch.next_action).features
        more["features/dot_recorded"] = (here * recorded.float()).sum(-1)
        more["q/return_error"] = (context.q_data.value - context.batch.return_to_go).abs()
        if stay:
            still = torch.tensor(stay).repeat(action.shape[1] // len(stay)).expand_as(action)
            more["q/margin"] = context.q_data.value - context.q_values(still).value
        features = {
            "here": here,
            "active": activity(context),
            "there": context.q_next.features.float(),
            "encoding": context.encoding.float(),
            "next_encoding": context.next_encoding.float(),
        }
        return rows | more, {name: value.detach() for name, value in features.items()}


def feature_metrics(
    rows: dict[str, Tensor],
    features: dict[str, Tensor],
    batch: Batch,
    networks: Networks,
    sources: tuple[str, ...],
    generator: torch.Generator,
) -> Metrics:
    """Return the means of the rows, those of pairs over the pairs of a backup, and what all features together tell."""
    here, there = features["here"], features["there"]
    other = torch.randperm(len(batch), generator=generator)
    rows = {name: value for name, value in rows.items() if not name.startswith("policy/")}
    rows["features/dot_random"] = (here * there[:, other]).sum(-1)
    both = features["encoding"] * features["next_encoding"][:, other]
    rows["encoding/dot_random"] = both.sum(-1).expand(len(here), -1)
    metrics = summarise_rows(rows, here, features["active"], batch.source, networks, sources)
    paired = batch.discount > 0
    pairs = {name: rows[name][:, paired] for name in PAIRS}
    metrics |= {name: value.mean() for name, value in pairs.items()}
    metrics |= by_source(pairs, batch.source[paired], sources)
    metrics["features/dormant"] = torch.stack([dormant_share(member) for member in features["active"]]).mean()
    excited = [self_excitation(one, two, batch.discount) for one, two in zip(here, there, strict=True)]
    metrics["features/self_excitation"] = torch.stack(excited).mean()
    return metrics


def dormant_share(features: Tensor, threshold: float = DORMANT) -> Tensor:
    """Return the share of the F units of `[B, F]` features that are dormant."""
    activation = features.abs().mean(0)
    return (activation <= threshold * activation.mean()).float().mean()


def self_excitation(here: Tensor, there: Tensor, discount: Tensor) -> Tensor:
    """Return the largest real part of the F eigenvalues of Phi^T (gamma Phi' - Phi) / B, `[F, F]`; NaN if not finite.

    Above zero the last layer's TD update feeds on itself (SEEM, arXiv 2310.04411, with the kernel of the last layer).
    The matrix of the rows, (gamma Phi' - Phi) Phi^T / B, `[B, B]`, has the same eigenvalues but for zeros: B - F more
    with B > F. They do not count here, so that the figure can be below zero.

    Args:
        here: Phi, `[B, F]`.
        there: Phi', `[B, F]`.
        discount: gamma of each row, 0 at an end, `[B]`.
    """
    matrix = here.double().T @ (discount[:, None] * there - here).double() / len(here)
    if not matrix.isfinite().all():
        return torch.tensor(torch.nan)
    largest: Tensor = torch.linalg.eigvals(matrix).real.max().float()
    return largest


def term_gradients(context: UpdateContext, recipe: Recipe) -> dict[str, Tensor]:
    """Return the weighted gradient of each term with respect to each part that it moves, flat, as `PART/TERM`."""
    networks = context.networks
    sides: Sequence[tuple[Sequence[Term], dict[str, nn.Module]]] = (
        (recipe.critic, {"encoder": networks.critic.encoders, "head": networks.critic.head}),
        (recipe.actor, {"actor": networks.actor}),
        (recipe.value, {} if networks.value is None else {"value": networks.value}),
    )
    found: dict[str, Tensor] = {}
    for terms, parts in sides:
        for term in terms:
            if term.weight == 0 or (isinstance(term, Distillation) and context.teacher is None):
                continue
            value = term(context)[0] * (term.weight if isinstance(term.weight, int | float) else 1.0)
            for part, module in parts.items():
                parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
                pieces = torch.autograd.grad(
                    value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                if parameters:
                    found[f"{part}/{term_name(term)}"] = torch.cat([piece.flatten() for piece in pieces])
    return found


def compare_gradients(gradients: dict[str, Tensor]) -> Metrics:
    """Return the norm of each gradient, and the cosine between each two of the same part that are not zero."""
    metrics: Metrics = {f"gradient/{name}": value.norm() for name, value in gradients.items()}
    for one, two in combinations(gradients, 2):
        part, first = one.split("/")
        other, second = two.split("/")
        size = gradients[one].norm() * gradients[two].norm() if part == other else torch.zeros(())
        if size > 0:
            metrics[f"gradient/{part}/{first}.{second}"] = gradients[one] @ gradients[two] / size
    return metrics


def compare_sources(gradients: dict[str, Tensor]) -> Metrics:
    """Return the cosine between the gradients of each `PART/TERM@SOURCE` of two sources, unless one is zero."""
    metrics: Metrics = {}
    for one, two in combinations(gradients, 2):
        (name, _), (other, source) = one.split("@"), two.split("@")
        size = gradients[one].norm() * gradients[two].norm()
        if name == other and size > 0:
            metrics[f"gradient/{one}.{name.split('/')[1]}@{source}"] = gradients[one] @ gradients[two] / size
    return metrics


def learnable(networks: Networks) -> Networks:
    """Let gradients be taken of what learns in networks that were read from a file; no number is changed."""
    networks.critic.requires_grad_(True)
    if isinstance(networks.critic.head, InjectedHead):
        networks.critic.head.freeze()
    networks.actor.requires_grad_(True)
    if networks.value is not None:
        networks.value.requires_grad_(True)
    return networks


def with_recorded_actions(recipe: Recipe) -> Recipe:
    """Return a recipe for reading a probe's rows: only steps after which an action was recorded, or that truly end."""
    return replace(recipe, backup=Backup(action="recorded"))

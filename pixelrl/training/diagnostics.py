"""What happens inside the critic: measured always, whatever the terms, and without changing anything."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pixelrl.learning.batch import Batch, Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.critic_forms import Quantile
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Networks
from pixelrl.learning.noise import draw
from pixelrl.learning.policies import own_actions
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.terms.cql import CQL

SRANK_DELTA = 0.01
GAP, UNIFORM_GAP = CQL(uniform=4, policy=4, next_policy=4), CQL(uniform=12, policy=0, next_policy=0)
"""How the conservative gap is measured, whatever term is trained with; the second where policies have no density."""


def srank(features: Tensor, delta: float = SRANK_DELTA) -> Tensor:
    """Return the effective rank of `[B, F]` features (srank, arXiv 2010.14498).

    The least k for which the k largest singular values hold 1 - delta of their sum: at most min(B, F), 0 if all
    features are 0, and NaN if one of them is not finite.
    """
    singular = torch.linalg.svdvals(features.float().nan_to_num(0.0, 0.0, 0.0))
    held: Tensor = singular.cumsum(0)
    rank = ((held < (1 - delta) * held[-1]).sum() + (held[-1] > 0)).float()
    return torch.where(features.isfinite().all(), rank, torch.nan)


def dead_share(features: Tensor) -> Tensor:
    """Return the share of the F units of `[B, F]` non-negative features that are 0 for every row."""
    dead: Tensor = (features <= 0).all(0)
    return dead.float().mean()


def measure(learner: Learner, batch: Batch) -> Metrics:
    """Measure a learner's critics, if it has any, on a batch before it learns from it; see `diagnose`."""
    if not learner.recipe.critic:
        return {}
    with unchanged(learner), learner.autocast():
        context = learner.context(batch, learner.generator)
        return diagnose(context, learner.spec.sources, learner.distributed)


@contextmanager
def unchanged(learner: Learner) -> Iterator[None]:
    """Put the noise and the networks' running statistics back in the end, so that looking changes nothing."""
    noise = learner.generator.get_state()
    buffers = [(buffer, buffer.clone()) for buffer in learner.networks.buffers()]
    try:
        yield
    finally:
        learner.generator.set_state(noise)
        for buffer, before in buffers:
            buffer.copy_(before)


def precision_metrics(learner: Learner) -> Metrics:
    """Return the loss scale and the skipped steps of an fp16 learner; reading them waits for the device."""
    if not learner.scaler.is_enabled():
        return {}
    scale, skipped = learner.scaler.get_scale(), float(learner.skipped())
    return {"precision/loss_scale": torch.tensor(scale), "precision/skipped": torch.tensor(skipped)}


def diagnose(context: UpdateContext, sources: tuple[str, ...], distributed: Distributed = SINGLE_PROCESS) -> Metrics:
    """Measure the critics on one batch, with the rows of all ranks; each figure is a mean over the ensemble.

    Returns:
        `features/dot` phi(s, a) . phi(s', a'), `features/cosine`, `features/norm` |phi|, `features/last_layer` the
        norm of the weights that multiply phi (both together are free to trade), `encoding/dot` and `encoding/norm` of
        the encoder's output (with its proprioception), `features/srank`,
        `features/dead` (see `activity`); `q/data`, `q/policy` of an action drawn from the policy, or of a deterministic
        policy's own without noise, `q/random`, `q/td_error` |Q - what `TD` fits it to| (whatever `target_range` says;
        of quantiles the mean of what they are fitted to), `q/policy_minus_data` (above zero the critics prefer unseen
        actions), `q/cql_gap`. Those with one value a row come once more for each source, as `q/data@task`.
    """
    with torch.no_grad():
        (rows, here), active = measure_rows(context), activity(context)
        gathered = distributed.all_gather(torch.stack(list(rows.values())), -1)
        rows = dict(zip(rows, gathered, strict=True))
        here, active = distributed.all_gather(here, 1), distributed.all_gather(active, 1)
        source = distributed.all_gather(context.batch.source, 0)
        return summarise_rows(rows, here, active, source, context.networks, sources)


def activity(context: UpdateContext) -> Tensor:
    """Return how active the last hidden units are at the recorded actions, float32 `[E, B, F]`.

    That is phi, but where a LayerNorm comes after the non-linearity: then it is what the non-linearity puts out, since
    a dead unit is not 0 any more once it is normalised.
    """
    critic = context.networks.critic
    if not critic.learning_head.norm_after:
        return context.q_data.features.float()
    return critic.head.activities(context.state_embedding, context.batch.action.unsqueeze(0))[-1].float()


def measure_rows(context: UpdateContext) -> tuple[dict[str, Tensor], Tensor]:
    """Return what `diagnose` measures of each row, `[E, B]`, and phi of the recorded actions, float32 `[E, B, F]`."""
    with torch.no_grad():
        batch = context.batch
        here, there = context.q_data.features.float(), context.q_next.features.float()
        norm = here.norm(dim=-1)
        dot = (here * there).sum(-1)
        encoding, later = context.encoding.float(), context.next_encoding.float()
        cosine = dot / (norm * there.norm(dim=-1)).clamp(min=1e-12)
        random = draw(torch.rand, batch.action.shape, context.generator, rows=0) * 2 - 1
        own = own_actions(context.policy, 1, context.generator)
        sampled = context.q_values(torch.cat([own, random.unsqueeze(0)])).value
        q_data = context.q_data.value
        target = context.td_samples.mean(-1) if isinstance(context.form, Quantile) else context.td_target
        gap = GAP if context.policy.has_density else UNIFORM_GAP
        proposed, log_density = gap.propose(context)
        soft_maximum = gap.soft_maximum(context.q_values(proposed).value, log_density)
        return {
            "features/dot": dot,
            "features/cosine": cosine,
            "features/norm": norm,
            "encoding/dot": (encoding * later).sum(-1).expand_as(dot),
            "encoding/norm": encoding.norm(dim=-1).expand_as(dot),
            "q/data": q_data,
            "q/policy": sampled[:, 0],
            "q/random": sampled[:, 1],
            "q/td_error": (q_data - target).abs(),
            "q/policy_minus_data": sampled[:, 0] - q_data,
            "q/cql_gap": soft_maximum - q_data,
        }, here


def summarise_rows(
    rows: dict[str, Tensor],
    features: Tensor,
    active: Tensor,
    source: Tensor,
    networks: Networks,
    sources: tuple[str, ...],
) -> Metrics:
    """Return the means of rows, also of each source's, and what all features and activities `[E, B, F]` tell."""
    metrics: Metrics = {
        "features/srank": torch.stack([srank(member) for member in features]).mean(),
        "features/dead": torch.stack([dead_share(member) for member in active]).mean(),
        "features/last_layer": networks.critic.head.last.weight.detach().norm(dim=(1, 2)).mean(),
    }
    for name, value in rows.items():
        metrics[name] = value.mean()
    return metrics | by_source(rows, source, sources)


def by_source(rows: dict[str, Tensor], source: Tensor, sources: tuple[str, ...]) -> Metrics:
    """Average each `[E, B]` measurement over the rows of each source, NaN where the batch has none of it."""
    metrics: Metrics = {}
    for index, label in enumerate(sources):
        mask = (source == index).float()
        for name, value in rows.items():
            metrics[f"{name}@{label}"] = (value.mean(0) * mask).sum() / mask.sum()
    return metrics

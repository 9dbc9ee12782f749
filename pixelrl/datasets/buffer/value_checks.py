"""Whether a critic can learn a value from the rewards of a mixture: `train` refuses here, and `inspect` tells."""

import torch

from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.learning.critic_forms import HLGauss
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import DataError


def check_values(mixture: Mixture, target_range: tuple[float, float] | None) -> None:
    """Raise unless a critic can learn a value from these rewards; the first source is the task.

    Raises:
        DataError: no reward at all; costs beside data whose rewards are zero by rule, or a shift of these, which would
            be worth more than every demonstration; or returns that the range of targets cuts off.
    """
    ledger = mixture.ledger
    task, first = ledger.sources[0], mixture.sources[0]
    of_task, table = mixture.table.source == 0, mixture.transitions
    if not table.reward[of_task].any():
        raise DataError(
            f"{first.files[0]}: no transition of the task data has a reward, so there is nothing to learn a value "
            "from; give data with successes, say where they are (--task-reward last:1), or use a recipe without a "
            "critic, such as bc"
        )
    if not table.folded[of_task & table.sampled].any():
        raise DataError(
            f"{first.files[0]}: the steps of the task data that have a reward are left out, so there is nothing to "
            "learn a value from (the ledger tells why); --ends goal keeps a last step that reaches the goal"
        )
    unpaid = [s for s in mixture.sources if s.reward_scale == 0 and s.reward_shift >= task.returns[2]]
    if unpaid and task.returns[2] <= 0 and (table.reward[of_task] < 0).any():
        raise DataError(
            f"the rewards of the task are costs, with returns of {task.returns[0]:.4g} to {task.returns[2]:.4g}, but a "
            f"step of {unpaid[0].name} counts {unpaid[0].reward_shift:g}: it would be worth more than every "
            f"demonstration; {_shift(mixture, 0)}"
        )
    _check_unrewarded(mixture)
    if target_range is not None:
        check_range(mixture, target_range)


def _check_unrewarded(mixture: Mixture) -> None:
    """Raise a `DataError` if every step of an unrewarded source is paid, and more than the task's steps on average."""
    paid = mixture.transitions.reward[(mixture.table.source == 0) & mixture.transitions.sampled]
    mean, lowest = float(paid.double().mean()), float(paid.min())
    for source in mixture.sources[1:]:
        if source.reward_scale == 0 and source.reward_shift > max(0.0, mean):
            raise DataError(
                f"source {source.name!r}: its rewards do not count (reward_scale=0), yet each of its steps is paid "
                f"reward_shift={source.reward_shift:g}, and those of the task {mean:.4g} on average: it would be worth "
                f"more than the demonstrations; expected at most reward_shift={lowest:g}, the task's lowest reward"
            )


def check_calibration(mixture: Mixture, recipe: Recipe) -> None:
    """Raise a `DataError` if Q is held above recorded returns that are no bound: later costs are missing."""
    if not any(getattr(term, "calibrated", False) for term in (*recipe.critic, *recipe.critic_warmup)):
        return
    table = mixture.transitions
    ended = torch.full((int(table.episode.max()) + 1,), -1)
    ends = (table.discount == 0).nonzero().squeeze(1)
    ended[table.episode[ends]] = ends  # the last one of each episode
    unbounded = table.sampled & (table.reward < 0) & (torch.arange(len(table.reward)) > ended[table.episode])
    if count := int(unbounded.sum()):
        raise DataError(
            f"CQL is calibrated by recorded returns, but {count} steps with costs lie in recordings that do not end "
            f"(ends={recipe.ends}), whose returns are no lower bound; give --critic.cql.no-calibrated, --ends goal or "
            "dones and data that end, or rewards of at least 0 (--reward-shift)"
        )


def check_range(mixture: Mixture, target_range: tuple[float, float]) -> None:
    """Raise a `DataError` unless all returns lie in the range to which targets are cut."""
    low, high = target_range
    slack = 1e-3 * (high - low)
    for number, source in enumerate(mixture.ledger.sources):
        least, most = source.bounds
        if low - slack <= least and most <= high + slack:
            continue
        lower, upper = f"{min(low, least):.4g}", f"{max(high, most):.4g}"
        form = f"with --form hl_gauss: --form.low {lower} --form.high {upper}"
        advice = f"--critic.td.target-range {lower} {upper} ({form}) holds them"
        if least < low - slack and (mixture.transitions.reward[mixture.table.source == number] < 0).any():
            advice = _shift(mixture, number)
        raise DataError(
            f"source {source.name!r}: returns reach from {least:.4g} to {most:.4g}, but the recipe cuts every target "
            f"to [{low:g}, {high:g}]; {advice}, as may another --reward-scale"
        )


def _shift(mixture: Mixture, number: int) -> str:
    """Return how the rewards of a source become at least 0."""
    lowest = mixture.transitions.reward[mixture.table.source == number].min()
    shift = torch.tensor(mixture.sources[number].reward_shift) - lowest  # both rounded to float32
    return f"--reward-shift {shift:g} makes a step cost nothing"


def target_range_of(recipe: Recipe) -> tuple[float, float] | None:
    """Return the range to which a recipe cuts its targets, if it does: by terms of the critic, and by its histogram."""
    terms = (getattr(term, "target_range", None) for term in (*recipe.critic_warmup, *recipe.critic))
    ranges = [found for found in terms if found is not None]
    if isinstance(recipe.form, HLGauss):
        ranges.append((recipe.form.low, recipe.form.high))
    if not ranges:
        return None
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low >= high:
        told = " and ".join(f"[{one:g}, {other:g}]" for one, other in ranges)
        raise DataError(f"the recipe cuts its targets to {told}, which have nothing in common")
    return low, high

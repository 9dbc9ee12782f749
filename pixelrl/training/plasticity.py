"""The plasticity probe: how well critics can still learn something new, beside fresh ones (arXiv 2303.01486)."""

from copy import deepcopy

import torch

from pixelrl.learning.batch import Batch, Metrics, Spec
from pixelrl.learning.build import fresh_networks
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.networks import Networks
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.seeding import derive
from pixelrl.training.probe import learnable, split

ROWS = 128
"""Rows of a step."""


def plasticity(networks: Networks, recipe: Recipe, spec: Spec, batch: Batch, steps: int, seed: int = 0) -> Metrics:
    """Regress copies of critics, and fresh critics, on new random targets; nothing of `networks` changes.

    The target of row i is z_i + the mean of what the critic says of all rows at first, z_i ~ Normal(0, 1): 1 is what
    a critic reaches that learns nothing. Adam with the recipe's rate for critics, from new moments; heads that an
    injection froze stay. Targets and batches are a function of the seed, so that snapshots can be compared. The mean
    is ours.

    Returns:
        `plasticity/loss` mean_e mean_i (Q_e(s_i, a_i) - y_i)^2 after so many steps, `plasticity/fresh` the same of
        fresh networks, and `plasticity/lost`, their difference.
    """
    fresh = fresh_networks(recipe, spec, torch.device("cpu"), derive(seed, "plasticity"))
    metrics: Metrics = {
        f"plasticity/{name}": regress(each, recipe, batch, steps, seed)
        for name, each in (("loss", networks), ("fresh", fresh))
    }
    return metrics | {"plasticity/lost": metrics["plasticity/loss"] - metrics["plasticity/fresh"]}


def regress(networks: Networks, recipe: Recipe, batch: Batch, steps: int, seed: int) -> torch.Tensor:
    """Return the mean squared error, a scalar, after so many steps of a copy of the critics towards random targets."""
    copy = learnable(deepcopy(networks))
    generator = torch.Generator().manual_seed(derive(seed, "targets"))
    target = torch.randn(len(batch), generator=generator) + values(copy, batch).mean()
    optimiser = torch.optim.Adam(copy.critic.parameters(), recipe.critic_lr)
    for _ in range(steps):
        rows = torch.randint(len(batch), (min(ROWS, len(batch)),), generator=generator)
        some = batch.map(lambda tensor, rows=rows: tensor[rows])  # type: ignore[misc]
        loss = (UpdateContext(copy, some, generator).q_data.value - target[rows]).square().mean(-1).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return (values(copy, batch) - target).square().mean()


def values(networks: Networks, batch: Batch) -> torch.Tensor:
    """Return Q of the recorded actions, `[E, B]`, without gradient."""
    with torch.no_grad():
        contexts = (UpdateContext(networks, part, torch.Generator()) for part in split(batch, ROWS))
        return torch.cat([context.q_data.value for context in contexts], 1)

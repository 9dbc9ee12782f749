"""What is measured inside the critic."""

import math
from typing import Any

import pytest
import torch

from pixelrl.launch.recipes import quick_cog, quick_cog_dr3
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.critic_forms import Quantile
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.policies import DeterministicPolicy
from pixelrl.training.diagnostics import activity, by_source, dead_share, diagnose, srank
from tests.tiny import known, make_learner, make_networks, measured_update, seeded, shrink, transitions


def with_singular_values(*values: float) -> torch.Tensor:
    """Return an [8, F] matrix with these singular values."""
    generator = seeded()
    left = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0][:, : len(values)]
    right = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator))[0]
    return left @ torch.diag(torch.tensor(values)) @ right


@pytest.mark.parametrize(
    ("values", "delta", "rank"),
    [
        ((5.0, 0.0, 0.0), 0.01, 1),
        ((1.0, 1.0, 1.0, 1.0), 0.01, 4),
        ((98.0, 0.5, 0.8, 0.7), 0.01, 3),  # 98, 98.8, 99.5 %
        ((98.0, 1.5, 0.3, 0.2), 0.01, 2),  # 98, 99.5 %
        ((60.0, 30.0, 10.0), 0.2, 2),
    ],
)
def test_srank_counts_singular_values_up_to_their_share(values: tuple[float, ...], delta: float, rank: int) -> None:
    assert srank(with_singular_values(*values), delta).item() == rank


def test_srank_of_dead_features_is_not_the_highest() -> None:
    assert srank(torch.zeros(8, 4)).item() <= 1


def test_dead_units_are_zero_in_every_row() -> None:
    features = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])
    assert dead_share(features).item() == 0.5


def test_rows_are_averaged_by_their_source() -> None:
    rows = {"q/data": torch.tensor([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]])}  # means over the ensemble: 2, 3, 4
    metrics = by_source(rows, torch.tensor([0, 1, 0]), ("task", "prior", "other"))
    assert metrics["q/data@task"].item() == 3
    assert metrics["q/data@prior"].item() == 3
    assert math.isnan(metrics["q/data@other"].item())
    uneven = by_source(rows, torch.tensor([1, 1, 0]), ("task", "prior"))
    assert (uneven["q/data@task"].item(), uneven["q/data@prior"].item()) == (4, 2.5)


def test_figures_by_hand() -> None:
    # phi and phi' of two critics on two rows
    here = torch.tensor([[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 0.0]]])
    there = torch.tensor([[[4.0, 3.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 5.0]]])
    update = known(
        transitions(size=2),
        make_networks(),
        q_data=CriticOutput(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), here),
        q_next=CriticOutput(torch.zeros(2, 2), there),
        td_target=torch.tensor([2.0, 2.0]),
    )
    update.networks.critic.head.last.weight.data.fill_(0.5)  # eight numbers in each critic
    first, second = update.encoding.detach()
    metrics = {name: value.item() for name, value in diagnose(update, ("task", "prior")).items()}
    assert metrics["features/dot"] == pytest.approx((24 + 0 + 2 + 0) / 4)
    assert metrics["features/cosine"] == pytest.approx((24 / 25 + 0 + 1 + 0) / 4)
    assert metrics["features/norm"] == pytest.approx((5 + 2 + 1 + 1) / 4)
    assert metrics["features/last_layer"] == pytest.approx(2**0.5)
    assert metrics["encoding/norm"] == pytest.approx(torch.cat([first, second]).norm(dim=-1).mean().item())
    both = torch.stack([first, second]) * update.next_encoding.detach()
    assert metrics["encoding/dot"] == pytest.approx(both.sum(-1).mean().item(), rel=1e-5)
    assert metrics["features/dead"] == pytest.approx((0 + 0.5) / 2)
    assert metrics["features/srank"] == pytest.approx((2 + 1) / 2)
    assert metrics["q/data"] == pytest.approx(2.5)
    assert metrics["q/td_error"] == pytest.approx((1 + 0 + 1 + 2) / 4)
    assert metrics["q/data@task"] == pytest.approx(2) and metrics["q/data@prior"] == pytest.approx(3)
    assert metrics["q/policy_minus_data"] == pytest.approx(metrics["q/policy"] - 2.5)


@pytest.mark.parametrize("place", ["before", "after"])
def test_dead_units_are_those_whose_non_linearity_is_silent(place: Any) -> None:
    networks = make_networks(layer_norm=True, layer_norm_place=place)
    layer = networks.critic.head.layers[0]
    with torch.no_grad():  # of 8 units: 2 never fire, and the others always do
        networks.critic.head.norms[1].bias.fill_(10 if place == "before" else 0)
        networks.critic.head.norms[1].bias[:, :, :2] = -10 if place == "before" else 0
        layer.weight.mul_(0.01)
        layer.bias.copy_(torch.tensor([-5.0, -5, 1, 2, 3, 4, 5, 6]))
    update = UpdateContext(networks, transitions(), seeded())
    assert diagnose(update, ("task", "prior"))["features/dead"].item() == 0.25
    assert torch.equal(activity(update), update.q_data.features) == (place == "before")


def test_a_deterministic_policy_is_judged_by_its_own_action() -> None:
    networks = make_networks(policy=DeterministicPolicy(noise=5.0))
    update = UpdateContext(networks, transitions(), seeded())
    found = diagnose(update, ("task", "prior"))
    own = update.q_values(update.policy.mode).value
    assert found["q/policy"].item() == pytest.approx(own.mean().item(), rel=1e-5)
    difference = (own - update.q_data.value).mean().item()
    assert found["q/policy_minus_data"].item() == pytest.approx(difference, rel=1e-4, abs=1e-6)


def test_td_error_of_quantiles_is_that_of_what_they_are_fitted_to() -> None:
    # quantiles of two target critics (0, 4) and (3, 1): the lesser of each are 0 and 1, the lesser mean is 2
    update = known(
        transitions(size=2),
        make_networks(form=Quantile(quantiles=2)),
        q_data=CriticOutput(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.ones(2, 2, 8)),
        td_samples=torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        td_target=torch.tensor([2.0, 2.0]),
    )
    assert diagnose(update, ("task", "prior"))["q/td_error"].item() == pytest.approx((0.5 + 1.5 + 2.5 + 3.5) / 4)


def test_policy_and_random_actions_are_told_apart() -> None:
    # a critic that likes what the policy does: Q = relu(a_0) in both members
    networks = make_networks()
    networks.actor.last.weight.data.zero_()
    networks.actor.last.bias.data.copy_(torch.tensor([5.0, 0, 0, -5, -5, -5]))  # a_0 = 1
    head = networks.critic.head
    for parameter in head.parameters():
        parameter.data.zero_()
    head.from_action.weight.data[:, 0, 0] = 1
    head.layers[0].weight.data[:, 0, 0] = 1
    head.last.weight.data[:, 0, 0] = 1
    metrics = diagnose(UpdateContext(networks, transitions(size=600), seeded()), ("task", "prior"))
    assert metrics["q/policy"].item() == pytest.approx(1, abs=1e-3)
    assert metrics["q/random"].item() == pytest.approx(0.25, abs=0.03)  # E[relu(U(-1, 1))]


def test_they_are_logged_with_and_without_dr3() -> None:
    names = []
    for recipe in (quick_cog(), quick_cog_dr3()):
        found = measured_update(make_learner(shrink(recipe)), transitions())
        names.append({name for name in found if name.startswith(("features/", "q/"))})
    assert names[0] == names[1]
    assert {"features/dot", "features/srank", "q/cql_gap@prior", "features/dot@task"} <= names[0]
    assert not any("/" in name and name.startswith(("features/", "q/")) for name in unmeasured())


def unmeasured() -> list[str]:
    return list(make_learner(shrink(quick_cog())).update(transitions()))

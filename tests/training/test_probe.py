"""The probe of a snapshot: numbers by hand, and nothing but the rows and the seed matters."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pixelrl.launch.recipes import RECIPES, quick_bc, quick_cog_dr3
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.interventions import PlasticityInjection
from pixelrl.learning.recipe import Recipe
from pixelrl.training import probe as probing
from pixelrl.training.probe import (
    compare_gradients,
    compare_sources,
    dormant_share,
    learnable,
    probe,
    self_excitation,
    term_gradients,
    with_recorded_actions,
)
from tests.tiny import SPEC, gradients, learn, make_learner, make_networks, seeded, shrink, transitions

RECIPE = shrink(quick_cog_dr3())


def test_dormant_units_are_weak_for_their_layer() -> None:
    # means 1, 0.02, 2.98: the layer's mean is 4/3, and 0.02 <= 0.025 x 4/3 < 1
    assert dormant_share(torch.tensor([[1.0, 0.0, 3.0], [1.0, 0.04, 2.96]])).item() == pytest.approx(1 / 3)


def test_self_excitation_is_the_largest_eigenvalue() -> None:
    # Phi = 1, Phi' = 2, gamma 0.9: (0.9 x 2 - 1) x 1 = 0.8 of one row; an end counts as -1
    one, two = torch.ones(2, 1), 2 * torch.ones(2, 1)
    assert self_excitation(one, two, torch.tensor([0.9, 0.9])).item() == pytest.approx(0.8)
    assert self_excitation(one, two, torch.tensor([0.9, 0.0])).item() == pytest.approx(-0.1)
    # the same as of the [B, B] matrix, whose other eigenvalues are 0
    here, there = torch.rand(6, 3, generator=seeded(1)), torch.rand(6, 3, generator=seeded(2)) * 3
    whole = (0.9 * there @ here.T - here @ here.T) / 6
    expected = torch.linalg.eigvals(whole).real.max().item()
    assert self_excitation(here, there, torch.full((6,), 0.9)).item() == pytest.approx(expected, rel=1e-4)


def test_self_excitation_of_more_rows_than_features_can_be_below_zero() -> None:
    # F = 1: (0 - 1 - 4) / 2; the [2, 2] matrix of the rows also has an eigenvalue of 0
    here, ends = torch.tensor([[1.0], [2.0]]), torch.zeros(2)
    assert self_excitation(here, here, ends).item() == pytest.approx(-2.5)


def test_dormant_units_are_looked_for_before_the_norm() -> None:
    networks = learnable(make_networks(layer_norm=True, layer_norm_place="after"))
    with torch.no_grad():  # 2 of 8 units never fire; normalised, they are -mean / std
        networks.critic.head.layers[0].weight.mul_(0.01)
        networks.critic.head.layers[0].bias.copy_(torch.tensor([-5.0, -5, 1, 2, 3, 4, 5, 6]))
    recipe = replace(RECIPE, shared_encoder=False, critic=tuple(term for term in RECIPE.critic if not term.imitates))
    assert probe(networks, recipe, transitions(), SPEC.sources)["features/dormant"].item() == 0.25


def test_gradients_after_an_injection_are_those_of_what_learns() -> None:
    recipe = replace(RECIPE, intervention=PlasticityInjection(at=2))
    networks = learn(make_learner(recipe), 3).networks.eval().requires_grad_(False)
    context = UpdateContext(learnable(networks), transitions(), seeded(), backup=recipe.backup)
    found = term_gradients(context, recipe)["head/td"]
    learning = networks.critic.learning_head
    assert len(found) == sum(parameter.numel() for parameter in learning.parameters())
    expected = gradients(recipe.critic[0](context)[0], learning)
    assert torch.equal(found, torch.cat([each.flatten() for each in expected])) and found.any()


def test_gradients_are_compared_within_a_part() -> None:
    found = compare_gradients(
        {"head/td": torch.tensor([3.0, 4.0]), "head/cql": torch.tensor([0.0, 2.0]), "actor/bc": torch.ones(2)}
    )
    assert found["gradient/head/td"].item() == 5 and found["gradient/head/td.cql"].item() == pytest.approx(0.8)
    assert not any("bc." in name or ".bc" in name for name in found)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_every_recipe_can_be_probed(make: Callable[[], Recipe]) -> None:
    recipe = shrink(make())
    with_recorded_actions(recipe)
    networks, batch = make_learner(recipe).networks, transitions(size=6)
    found = probe(learnable(networks), recipe, batch, SPEC.sources, seed=1)
    assert found["features/norm"].isfinite() if recipe.critic else found["policy/distance"].isfinite()


def test_probe_is_a_function_of_networks_rows_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    networks, batch = make_networks(shared_encoder=True), transitions(size=12)
    first = probe(learnable(networks), RECIPE, batch, SPEC.sources, seed=1)
    again = probe(networks, RECIPE, batch, SPEC.sources, seed=1)
    assert {key: value.item() for key, value in first.items()} == {key: value.item() for key, value in again.items()}
    monkeypatch.setattr(probing, "CHUNK", 5)  # what draws nothing does not depend on the chunks
    apart = probe(networks, RECIPE, batch, SPEC.sources, seed=1)
    for name in ("features/norm", "features/dot_recorded", "features/srank", "q/return_error@task", "policy/log_std",
                 "gradient/encoder/bc", "gradient/actor/bc"):  # fmt: skip
        assert apart[name].item() == pytest.approx(first[name].item(), rel=1e-4), name


def test_pairs_are_those_of_a_backup() -> None:
    networks, batch = learnable(make_networks(shared_encoder=True)), transitions(size=12)
    same = replace(batch, next_obs=batch.obs, next_action=batch.action)
    figures = probe(networks, RECIPE, same, SPEC.sources)
    context = UpdateContext(networks, same, seeded())
    with torch.no_grad():
        squared = context.q_data.features.square().sum(-1)[:, same.discount > 0].mean()
    assert figures["features/dot_recorded"].item() == pytest.approx(squared.item(), rel=1e-4)
    task = same.source == 0
    with torch.no_grad():
        squared = context.q_data.features.square().sum(-1)[:, (same.discount > 0) & task].mean()
    assert figures["features/dot_recorded@task"].item() == pytest.approx(squared.item(), rel=1e-4)
    assert figures["encoding/dot"] > figures["encoding/dot_random"]  # with itself, and with another row
    assert {"gradient/head/td", "gradient/encoder/td.cql", "gradient/head/td.dr3", "q/td_error@prior"} <= figures.keys()


def test_gradients_are_those_of_the_learner() -> None:
    learner, batch = make_learner(RECIPE), transitions()
    networks = learner.networks
    found = term_gradients(UpdateContext(networks, batch, seeded()), RECIPE)
    term = RECIPE.critic[2]
    assert type(term).__name__ == "BC" and term.weight == 1.0
    loss, _ = term(UpdateContext(networks, batch, seeded()))
    expected = torch.autograd.grad(loss, list(networks.critic.encoders.parameters()))
    assert torch.equal(found["encoder/bc"], torch.cat([each.flatten() for each in expected]))
    assert not found["head/bc"].any()


def test_policy_without_critics_has_a_probe() -> None:
    recipe = shrink(quick_bc())
    batch = transitions()
    figures = probe(make_learner(recipe).networks, recipe, batch, SPEC.sources)
    policy = ("policy/log_std", "policy/log_prob", "policy/distance")
    parts = {source: (batch.source == index).float().mean() for index, source in enumerate(SPEC.sources)}
    for name in policy:
        apart = sum(figures[f"{name}@{source}"] * part for source, part in parts.items())
        torch.testing.assert_close(apart, figures[name])
    assert set(figures) == {
        *(f"{name}{source}" for name in policy for source in ("", "@task", "@prior")),
        *("gradient/actor/bc", "gradient/actor/bc@task.bc@prior"),
    }


def test_margin_compares_recorded_actions_with_one_that_stays() -> None:
    networks, batch = learnable(make_networks(shared_encoder=True)), transitions(size=12)
    same = replace(batch, action=torch.tensor([0.1, -0.2, 1.0]).expand(12, 3))
    figures = [probe(networks, RECIPE, same, SPEC.sources, stay=stay) for stay in ((0.1, -0.2, 1.0), (0.0, 0.0, 0.0))]
    assert figures[0]["q/margin"] == 0 != figures[1]["q/margin"]
    context = UpdateContext(networks, same, seeded())
    expected = (context.q_data.value - context.q_values(torch.zeros(12, 3)).value).mean()
    torch.testing.assert_close(figures[1]["q/margin"], expected)
    assert "q/margin" not in probe(networks, RECIPE, same, SPEC.sources)


def test_gradients_of_two_sources_are_compared_term_by_term() -> None:
    found = {"head/td@task": torch.tensor([1.0, 0.0]), "head/td@prior": torch.tensor([3.0, 4.0])}
    found |= {"head/cql@task": torch.ones(2), "head/cql@prior": torch.zeros(2), "encoder/td@task": torch.ones(2)}
    assert {key: value.item() for key, value in compare_sources(found).items()} == {
        "gradient/head/td@task.td@prior": pytest.approx(0.6)
    }

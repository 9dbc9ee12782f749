"""The recipes say what was published."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pixelrl.encoders.conv import CogCNN
from pixelrl.launch.recipes import RECIPES, bc, cog, cog_dr3, quick_bc, quick_cog, quick_cog_dr3
from pixelrl.learning.actors import Actor
from pixelrl.learning.heads import FINAL_LAYER
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD


def test_cog_is_as_published() -> None:
    recipe = cog()
    assert recipe.critic == (
        TD(target_range=None),
        CQL(weight=1.0, uniform=1, policy=1, next_policy=1, temperature=1.0),
    )
    assert [type(term) for term in recipe.actor] == [MaximizeQ, Entropy]
    assert [type(term) for term in recipe.warmup] == [BC, Entropy] and recipe.warmup_steps == 10_000
    assert recipe.encoder == CogCNN(channels=16) and not recipe.shared_encoder and recipe.ensemble == 2
    assert recipe.critic_hidden == (1024, 512, 256)
    assert recipe.actor_hidden == (1024, 512, 256, 256, 256, 256)
    assert (recipe.gamma, recipe.tau, recipe.batch_size) == (0.99, 0.005, 256)
    assert (recipe.critic_lr, recipe.actor_lr) == (3e-4, 1e-4)
    assert (recipe.n_step, recipe.ends, recipe.reward_scale, recipe.task_share) == (1, "never", 1.0, None)
    assert recipe.proprio == () and not recipe.layer_norm and recipe.shift == 4
    assert Actor.LOG_STD == (-5, 2) and FINAL_LAYER == 1e-4


def temperature(recipe: Recipe) -> AtMost:
    (weight,) = [term.weight for term in recipe.actor if isinstance(term, Entropy)]
    assert isinstance(weight, AtMost)
    return weight


def test_temperature_of_cog_starts_at_one_and_aims_at_minus_dim_a() -> None:
    assert (temperature(cog()).bound, temperature(cog()).start) == (0.0, 1.0)


def test_temperature_of_cog_learns_as_fast_as_its_policy() -> None:
    assert temperature(cog()).rate == cog().actor_lr == 1e-4


def test_dr3_is_the_only_difference_where_it_is_added() -> None:
    authors = DR3(weight=0.001, site="encoding", stop_gradient=True)
    assert cog_dr3() == replace(cog(), critic=(*cog().critic, authors))
    paper = DR3(weight=0.001, site="last_hidden", stop_gradient=False)
    assert quick_cog_dr3() == replace(quick_cog(), critic=(*quick_cog().critic, paper))


@pytest.mark.parametrize(("imitation", "whole"), [(bc, cog), (quick_bc, quick_cog)])
def test_the_baselines_share_their_networks_and_data(
    imitation: Callable[[], Recipe], whole: Callable[[], Recipe]
) -> None:
    one, other = imitation(), whole()
    assert one.actor == (BC(),) and one.critic == one.warmup == ()
    for field in ("encoder", "actor_hidden", "shift", "batch_size", "actor_lr", "task_share", "images", "proprio"):
        assert getattr(one, field) == getattr(other, field)


def test_quick_targets_cannot_exceed_what_the_rewards_allow() -> None:
    recipe = quick_cog()
    assert recipe.critic[0] == TD(target_range=(0.0, recipe.reward_scale)) and recipe.ends == "goal"


def test_recipes_are_named_by_their_functions_and_the_first_is_the_quickest() -> None:
    assert all(name == make.__name__ and make.__doc__ for name, make in RECIPES.items())
    quick = {"quick_cog_dr3", "quick_cog", "quick_bc", "quick_awr_dr3", "quick_cog_penalties"}
    assert set(RECIPES) == quick | {"cog_dr3", "cog", "bc"}
    assert all(make() == make() for make in RECIPES.values())

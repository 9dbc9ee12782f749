"""The recipes say what was published."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pixelrl.encoders.conv import CogCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.launch.recipes import RECIPES, bc, cog, cog_dr3, quick_bc, quick_cog, quick_cog_dr3
from pixelrl.learning.actors import GaussianActor
from pixelrl.learning.heads import FINAL_LAYER
from pixelrl.learning.policies import FlowPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
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
    assert GaussianActor.LOG_STD == (-5, 2) and FINAL_LAYER == 1e-4


FAMILIES = ["sarsa", "mc", "onestep", "iql", "riql", "rebrac", "calql", "fql", "ifql", "hlgauss_cog", "qtd_cog"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_published_and_a_quick_form(name: str) -> None:
    published, quick = RECIPES[name](), RECIPES[f"quick_{name}"]()
    assert type(published.policy) is type(quick.policy) and type(published.form) is type(quick.form)
    assert published.backup.action == quick.backup.action and bool(published.value) == bool(quick.value)
    assert published.steps == 500_000 and quick.steps == quick_cog().steps


def test_visual_recipes_keep_ogbenchs_protocol() -> None:
    for name in ("iql", "riql", "rebrac", "fql", "ifql", "qc"):
        recipe = RECIPES[name]()
        assert recipe.encoder == ImpalaCNN(channels=(16, 32, 32), blocks=1, features=512)
        assert (recipe.history, recipe.batch_size, recipe.steps, recipe.gamma) == (3, 256, 500_000, 0.99)
        assert (recipe.critic_lr, recipe.actor_lr, recipe.tau) == (3e-4, 3e-4, 0.005)
        assert (recipe.shift, recipe.shift_alike, recipe.shift_chance) == (3, True, 0.5)
        assert (recipe.ends, recipe.proprio, recipe.layer_norm_place) == ("masks", (), "after")


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
    assert next(iter(RECIPES)) == "quick_cog_dr3"
    assert all(make() == make() for make in RECIPES.values())


@pytest.mark.parametrize("name", ["quick_cog", "quick_fql", "quick_sarsa"])
def test_imitation_that_would_train_nothing_is_refused(name: str) -> None:
    recipe = RECIPES[name]()
    with pytest.raises(PixelrlError, match=r"trains nothing there without a shared encoder; --critic\.\w+\.weight 0"):
        replace(recipe, shared_encoder=False)
    without = tuple(replace(term, weight=0.0) if term.imitates else term for term in recipe.critic)
    assert not replace(recipe, shared_encoder=False, critic=without).shared_encoder


def test_a_one_step_policy_that_nothing_trains_is_refused() -> None:
    flow = FlowPolicy(one_step=True)
    with pytest.raises(PixelrlError, match=r"policy\.one_step is True, and no term .*; give --policy\.no-one-step"):
        replace(RECIPES["quick_ifql"](), policy=flow)
    assert RECIPES["quick_fql"]().policy == flow


def test_values_of_what_was_recorded_end_in_the_goal() -> None:
    assert {RECIPES[name]().ends for name in ("sarsa", "mc", "onestep", "calql", "hlgauss_cog")} == {"goal"}

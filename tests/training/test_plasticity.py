"""The plasticity probe: what cannot learn is told from what can, and nothing changes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from pixelrl.launch.recipes import quick_cog
from pixelrl.learning.interventions import PlasticityInjection
from pixelrl.training import plasticity as probing
from pixelrl.training.plasticity import plasticity, regress, values
from tests.tiny import SPEC, learn, make_learner, make_networks, same, shrink, transitions

RECIPE = shrink(quick_cog(), critic_lr=1e-2)


def test_dead_critics_have_lost_their_plasticity() -> None:
    networks, batch = make_networks(shared_encoder=True), transitions(size=12)
    figures = plasticity(networks, RECIPE, SPEC, batch, 60)
    with torch.no_grad():
        head = networks.critic.learning_head
        head.layers[-1].weight.zero_()  # type: ignore[union-attr]
        head.layers[-1].bias.fill_(-1.0)  # type: ignore[union-attr]
    dead = plasticity(networks, RECIPE, SPEC, batch, 60)
    assert dead["plasticity/fresh"] == figures["plasticity/fresh"]
    assert dead["plasticity/lost"] > 0.2 > 0.5 * figures["plasticity/loss"]
    assert dead["plasticity/lost"] == dead["plasticity/loss"] - dead["plasticity/fresh"]


def test_without_a_step_the_error_is_that_of_the_targets() -> None:
    networks, batch = make_learner(RECIPE).networks, transitions(size=600)
    before = {key: value.clone() for key, value in networks.state_dict().items()}
    error = regress(networks, RECIPE, batch, 0, 3)
    assert 0.8 < error < 1.2  # Q starts alike everywhere, and targets are Normal(its mean, 1)
    assert error == regress(networks, RECIPE, batch, 0, 3) != regress(networks, RECIPE, batch, 0, 4)
    regress(networks, RECIPE, batch.map(lambda tensor: tensor[:12]), 2, 3)
    assert all(torch.equal(value, before[key]) for key, value in networks.state_dict().items())
    assert values(networks, batch).shape == (2, 600)


def test_heads_that_an_injection_froze_learn_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, intervention=PlasticityInjection(at=1))
    networks, copies = learn(make_learner(recipe), 2).networks, []
    monkeypatch.setattr(probing, "deepcopy", lambda each: copies.append(deepcopy(each)) or copies[-1])
    regress(networks, recipe, transitions(size=12), 3, 0)
    old, new = networks.critic.head, copies[0].critic.head
    assert same(old.old, new.old) and same(old.start, new.start) and not same(old.trained, new.trained)

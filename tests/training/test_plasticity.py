"""The plasticity probe: what cannot learn is told from what can, and nothing changes."""

import torch

from pixelrl.launch.recipes import quick_cog
from pixelrl.training.plasticity import plasticity, regress, values
from tests.tiny import SPEC, make_learner, make_networks, shrink, transitions

RECIPE = shrink(quick_cog(), critic_lr=1e-2)


def test_dead_critics_have_lost_their_plasticity() -> None:
    networks, batch = make_networks(shared=True), transitions(size=12)
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

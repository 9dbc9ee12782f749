"""Interventions: what is done to networks between steps, and what is not."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pixelrl.launch.recipes import quick_cog
from pixelrl.learning.interventions import (
    HareTortoise,
    Intervention,
    PlasticityInjection,
    ReDo,
    Reset,
    ShrinkPerturb,
    dormant_units,
)
from pixelrl.learning.learner import Learner
from pixelrl.runtime.errors import PixelrlError
from tests.tiny import learn, make_learner, observation, same, shrink, transitions


def learner_with(intervention: Intervention, **changes: Any) -> Learner:
    return make_learner(shrink(quick_cog(), warmup_steps=0, intervention=intervention, **changes))


def moments_of(learner: Learner, parameter: torch.Tensor) -> torch.Tensor:
    return learner.critic.optimiser.state[parameter]["exp_avg"]


@pytest.mark.parametrize(
    "intervention",
    [Reset(every=50), ReDo(every=50), ShrinkPerturb(every=50), HareTortoise(every=50), PlasticityInjection(at=50)],
    ids=lambda each: type(each).__name__,
)
def test_nothing_is_done_before_its_time(intervention: Intervention) -> None:
    plain, other = learn(learner_with(Intervention()), 4), learn(learner_with(intervention), 4)
    obs = observation()
    torch.testing.assert_close(plain.networks.policy(obs).mode, other.networks.policy(obs).mode, rtol=0, atol=0)
    one, two = (each.context(transitions(), each.generator).q_data.value for each in (plain, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("what", ["last", "head"])
def test_reset_starts_the_head_anew_and_keeps_the_encoder(what: str) -> None:
    learner = learn(learner_with(Reset(every=4, what=what)), 3)  # type: ignore[arg-type]
    plain = learn(learner_with(Intervention()), 4)
    learn(learner, 1)
    head, other = learner.networks.critic.learning_head, plain.networks.critic.learning_head
    assert not torch.equal(head.last.weight, other.last.weight) and head.last.weight.abs().max() < 2e-4
    assert not moments_of(learner, head.last.weight).any()
    assert same(learner.networks.critic.encoders, plain.networks.critic.encoders)
    assert torch.equal(head.from_state.weight, other.from_state.weight) == (what == "last")
    target = learner.networks.target.learning_head
    assert torch.equal(target.last.weight, head.last.weight)


def test_shrink_and_perturb_moves_towards_fresh_weights() -> None:
    learner, plain = learn(learner_with(ShrinkPerturb(every=2, keep=0.25)), 2), learn(learner_with(Intervention()), 2)
    fresh = learner.site(transitions()).fresh()
    for ours, theirs, new in zip(
        learner.networks.actor.parameters(), plain.networks.actor.parameters(), fresh.actor.parameters(), strict=True
    ):
        torch.testing.assert_close(ours, 0.25 * theirs + 0.75 * new)


def test_dormant_units_by_hand() -> None:
    activity = torch.tensor([[[0.0, 1.0, 2.0, 0.0], [0.0, 3.0, 2.0, 0.2]]])  # scores 0, 1.951, 1.951, 0.0976
    assert dormant_units(activity, 0.1).tolist() == [[True, False, False, True]]
    assert dormant_units(activity, 0.0).tolist() == [[True, False, False, False]]


def test_redo_recycles_dead_units_without_a_change_of_q() -> None:
    learner = learner_with(ReDo(every=3, threshold=0.0), critic_lr=0.0, shift=0)
    head = learner.networks.critic.learning_head
    with torch.no_grad():
        head.last.weight.normal_()
        head.layers[0].weight[0, :, 2] = 0  # unit 2 of the first critic's last layer is dead
        head.layers[0].bias[0, 0, 2] = -1.0
    learn(learner, 2)
    batch = transitions(2)  # that of the step: units that are dead there may live elsewhere
    before = learner.context(batch, learner.generator).q_data.value.clone()
    weight = head.layers[0].weight.clone()
    learn(learner, 1)
    changed = (head.layers[0].weight != weight).any(1)  # [E, W]
    assert changed[0, 2] and head.layers[0].bias[0, 0, 2] == 0 and head.last.weight[0, 2] == 0
    assert not moments_of(learner, head.layers[0].weight)[0, :, 2].any()
    after = learner.context(batch, learner.generator).q_data.value
    torch.testing.assert_close(after, before)


def test_hare_and_tortoise_average_and_set_back() -> None:
    learner = learner_with(HareTortoise(every=3, decay=0.9))
    start = {key: value.clone() for key, value in learner.networks.actor.state_dict().items()}
    learn(learner, 1)
    average = learner.networks.average
    assert average is not None
    for key, value in average.actor.state_dict().items():
        torch.testing.assert_close(value, 0.9 * start[key] + 0.1 * learner.networks.actor.state_dict()[key])
    learn(learner, 2)
    assert same(average.actor, learner.networks.actor) and same(average.critic, learner.networks.critic)
    learn(learner, 1)
    assert not same(average.actor, learner.networks.actor)  # they share no memory
    obs = observation()
    assert not torch.equal(learner.networks.act(obs), learner.networks.policy(obs).mode)  # the tortoise acts


def test_injection_leaves_q_as_it_was_to_the_bit() -> None:
    learner = learn(learner_with(PlasticityInjection(at=4)), 3)
    plain = learn(learner_with(Intervention()), 4)
    learn(learner, 1)
    for seed in (0, 1):
        one, two = (each.context(transitions(seed), each.generator).q_data for each in (learner, plain))
        assert torch.equal(one.value, two.value)
    head = learner.networks.critic.learning_head
    assert not torch.equal(head.last.weight, plain.networks.critic.learning_head.last.weight)
    assert not moments_of(learner, head.last.weight).any()


def test_injected_critic_learns_in_fresh_weights_alone() -> None:
    learner = learn(learner_with(PlasticityInjection(at=2)), 2)
    head: Any = learner.networks.critic.head
    frozen = {key: value.clone() for key, value in head.old.state_dict().items()}
    value = learner.context(transitions(), learner.generator).q_data.value.clone()
    trained = head.trained.from_state.weight.clone()
    learn(learner, 2)
    assert all(torch.equal(frozen[key], now) for key, now in head.old.state_dict().items())
    assert not torch.equal(trained, head.trained.from_state.weight)
    assert not torch.equal(learner.context(transitions(), learner.generator).q_data.value, value)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: Reset(every=0), "every is 0"), (lambda: ShrinkPerturb(keep=1.5), "keep is 1.5")],
)
def test_impossible_interventions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        make()


def test_interventions_are_the_same_in_every_run_of_a_seed() -> None:
    recipe = shrink(quick_cog(), warmup_steps=0, intervention=ShrinkPerturb(every=2))
    one, other = learn(make_learner(recipe), 4), learn(make_learner(recipe), 4)
    assert same(one.networks, other.networks)
    assert not same(one.networks, learn(make_learner(replace(recipe, seed=1)), 4).networks)

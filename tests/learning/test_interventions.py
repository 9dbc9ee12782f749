"""Interventions: what is done to networks between steps, and what is not."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.layers import Flatten
from pixelrl.launch.recipes import quick_bc, quick_cog
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


@dataclass(frozen=True, kw_only=True)
class TwoConvolutions(PixelEncoder):
    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        convolutions = (nn.Conv2d(shape[0], 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        linear = nn.Linear(4 * shape[1] * shape[2], 5)
        return nn.Sequential(*convolutions, Flatten(), linear, nn.LayerNorm(5), nn.ReLU())


@dataclass(frozen=True, kw_only=True)
class Normalised(TwoConvolutions):
    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        return nn.Sequential(nn.BatchNorm2d(shape[0]), *super().trunk(shape))


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


@pytest.mark.parametrize("place", ["before", "after"])
def test_redo_finds_units_whose_relu_is_silent_wherever_the_norm_stands(place: str) -> None:
    learner = learner_with(ReDo(every=1, threshold=0.0), layer_norm=True, layer_norm_place=place)
    head = learner.networks.critic.learning_head
    with torch.no_grad():  # unit 3 of the first layer and units 0 and 1 of the second never fire
        head.from_state.weight[:, :, 3], head.from_state.bias[:, :, 3], head.from_action.weight[:, :, 3] = 0, -50, 0
        head.layers[0].weight.fill_(1e-3)
        head.layers[0].bias.copy_(torch.tensor([-5.0, -5, 2, 2, 2, 2, 2, 2]))
        head.last.weight.fill_(1)
        ReDo(every=1, threshold=0.0).apply(learner.site(transitions()))
    assert head.from_state.weight[:, :, 3].all() and not head.from_state.bias[:, :, 3].any()
    assert head.layers[0].weight[:, :3, :2].all() and not head.layers[0].weight[:, 3, 2:].any()
    assert head.layers[0].bias[:, 0].tolist() == 2 * [[0, 0, 2, 2, 2, 2, 2, 2]]
    assert head.last.weight[:, :, 0].tolist() == 2 * [[0, 0, 1, 1, 1, 1, 1, 1]]


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


def test_tortoise_by_hand() -> None:
    learner = learner_with(HareTortoise(every=3))
    average, site, hare = learner.networks.average, learner.site(transitions()), learner.networks.actor.last.weight
    assert average is not None
    with torch.no_grad():
        average.actor.last.weight.zero_()
        for step, (value, expected) in enumerate([(1.0, 0.001), (2.0, 0.002999)], 1):
            hare.fill_(value)
            learner.recipe.intervention.after(step, site)
            torch.testing.assert_close(average.actor.last.weight, torch.full_like(hare, expected))
        learner.recipe.intervention.after(3, site)
    torch.testing.assert_close(hare.detach(), torch.full_like(hare, 0.002999 * 0.999 + 0.002))


def test_tortoise_has_the_hares_statistics() -> None:
    learner = learner_with(HareTortoise(decay=0.9), encoder=Normalised())
    learn(learner, 1)
    networks = learner.networks
    assert networks.average is not None
    pairs = [*zip(networks.average.critic.buffers(), networks.critic.buffers(), strict=True)]
    assert pairs and all(torch.equal(own, theirs) for own, theirs in pairs)


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
    [
        (lambda: Reset(every=0), "every is 0; it must be at least 1"),
        (lambda: ShrinkPerturb(keep=1.5), "keep is 1.5; it must be between 0 and 1"),
        (lambda: PlasticityInjection(at=0), "at is 0; it must be at least 1"),
        (lambda: HareTortoise(decay=2.0), "decay is 2.0; it must be above 0 and at most 1"),
        (lambda: ReDo(threshold=-1.0), "threshold is -1.0; it must be at least 0"),
    ],
)
def test_impossible_interventions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        make()


@pytest.mark.parametrize("intervention", [Reset(), ReDo(), PlasticityInjection()])
def test_interventions_in_critics_are_refused_where_there_are_none(intervention: Intervention) -> None:
    with pytest.raises(PixelrlError, match=f"{type(intervention).__name__}; it changes critics, and there are no"):
        replace(quick_bc(), intervention=intervention)
    replace(quick_bc(), intervention=ShrinkPerturb())


def test_interventions_are_the_same_in_every_run_of_a_seed() -> None:
    recipe = shrink(quick_cog(), warmup_steps=0, intervention=ShrinkPerturb(every=2))
    one, other = learn(make_learner(recipe), 4), learn(make_learner(recipe), 4)
    assert same(one.networks, other.networks)
    assert not same(one.networks, learn(make_learner(replace(recipe, seed=1)), 4).networks)


def test_redo_recycles_a_dead_filter_without_a_change_of_q() -> None:
    encoder = TwoConvolutions()
    learner = learner_with(
        ReDo(every=3, threshold=0.0, encoders=True), critic_lr=0.0, actor_lr=0.0, shift=0, encoder=encoder
    )
    plain = learner_with(Intervention(), critic_lr=0.0, actor_lr=0.0, shift=0, encoder=encoder)
    for each in (learner, plain):
        for trunk in each.networks.critic.encoders[0].trunks:  # type: ignore[union-attr]
            with torch.no_grad():
                trunk[0].weight[1], trunk[0].bias[1] = 0, -1  # filter 1 of 3 is dead, and so is 2 of the next 4
                trunk[2].bias.fill_(1)
                trunk[2].weight[2], trunk[2].bias[2] = 0, -1
            assert trunk[2].weight[:, 1].any() and trunk[5].weight[:, 2::4].any()
    learn(learner, 3)
    learn(plain, 3)
    for trunk, old in zip(
        learner.networks.critic.encoders[0].trunks,  # type: ignore[union-attr]
        plain.networks.critic.encoders[0].trunks,  # type: ignore[union-attr]
        strict=True,
    ):
        assert trunk[0].weight[1].all() and trunk[2].weight[2].any() and trunk[0].bias[1] == trunk[2].bias[2] == 0
        assert not trunk[2].weight[[0, 1, 3], 1].any() and not trunk[5].weight[:, 2::4].any()
        for one, two in ((trunk[0].weight, old[0].weight), (trunk[5].weight.T, old[5].weight.T)):
            kept = [0, 2] if len(one) == 3 else [i for i in range(len(one)) if i % 4 != 2]
            assert torch.equal(one[kept], two[kept])
        assert not moments_of(learner, trunk[0].weight)[1].any() and moments_of(learner, trunk[0].weight)[0].any()
    batch = transitions(2)
    before, after = (each.context(batch, each.generator).q_data.value for each in (plain, learner))
    torch.testing.assert_close(after, before)


def test_redo_wants_an_encoder_that_tells_its_filters() -> None:
    learner = learner_with(ReDo(every=1, encoders=True))
    del learner.networks.critic.encoders[0]
    learner.networks.critic.encoders.append(torch.nn.Identity())
    with pytest.raises(PixelrlError, match="Identity does not tell its filters"):
        ReDo(every=1, encoders=True).recycle_filters(learner.site(transitions()))

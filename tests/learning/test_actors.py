"""Actors: points, flows, and how they act in the world."""

import pytest
import torch
from torch import nn

from pixelrl.learning.actors import FlowActions, FlowActor, PointAction, SquashedGaussian
from pixelrl.learning.batch import Observation
from pixelrl.learning.hybrid import HybridActions
from pixelrl.learning.policies import (
    NOISE_ROWS,
    Acting,
    DeterministicPolicy,
    FlowPolicy,
    GaussianPolicy,
    HybridPolicy,
    PolicyForm,
)
from pixelrl.runtime.errors import PixelrlError
from tests.tiny import make_networks, observation, seeded, transitions


def flow_actor(*, one_step: bool = True, steps: int = 4) -> FlowActor:
    torch.manual_seed(0)
    return FlowActor(5, 3, (8, 8), None, steps=steps, one_step=one_step)


def test_point_action_is_the_same_whatever_is_drawn_but_for_clipped_noise() -> None:
    policy = PointAction(torch.tensor([[0.5, -3.0]]), noise=0.2, clip=0.5)
    own = policy.reparameterised(seeded())
    assert own.log_prob is None and own.weight is None and torch.equal(own.actions[0], policy.mode)
    noise = torch.tensor([[[1.0, 1.0]], [[10.0, -10.0]]])
    expected = policy.mode + torch.tensor([[[0.2, 0.2]], [[0.5, -0.5]]])
    torch.testing.assert_close(policy.of_noise(noise), expected.clamp(-1, 1))
    drawn = policy.actions(200, seeded())
    assert drawn.shape == (200, 1, 2) and 0 < (drawn - policy.mode).abs().max() <= 0.5


@pytest.mark.parametrize("ask", [lambda policy: policy.sample(1, seeded()), lambda policy: policy.log_prob(None)])
def test_policy_without_a_density_says_so(ask: object) -> None:
    with pytest.raises(PixelrlError, match="only --policy gaussian and hybrid have a density"):
        ask(PointAction(torch.zeros(1, 2), 0.1, 0.1))  # type: ignore[operator]


def hybrid(logit: list[float], *, rows: int = 1) -> HybridActions:
    """Return a policy of three dimensions: 0 and 2 are switches, 1 is Gaussian."""
    gaussian = SquashedGaussian(torch.full((rows, 1), 0.3), torch.full((rows, 1), -1.0))
    return HybridActions(gaussian, torch.tensor([logit]).repeat(rows, 1), torch.tensor([1, 0, 2]), 0.9)


def test_switches_are_on_as_often_as_they_say_and_nothing_lies_between() -> None:
    policy = hybrid([1.0, -2.0])
    torch.testing.assert_close(policy.mode, torch.tensor([[0.9, torch.tensor(0.3).tanh().item(), -0.9]]))
    noise = torch.randn(20000, 1, 3, generator=seeded())
    for drawn in (policy.of_noise(noise), policy.sample(20000, seeded())[0]):
        switches = drawn[:, 0, [0, 2]]
        assert set(switches.flatten().tolist()) == set(torch.tensor([-0.9, 0.9]).tolist())
        torch.testing.assert_close(
            (switches > 0).float().mean(0), torch.sigmoid(torch.tensor([1.0, -2.0])), atol=0.02, rtol=0
        )
    torch.testing.assert_close(policy.of_noise(noise)[..., [1]], policy.gaussian.of_noise(noise[..., [0]]))


def test_density_of_a_hybrid_policy_adds_up_to_one() -> None:
    policy = hybrid([1.0, -2.0], rows=4000)
    grid = torch.linspace(-0.9995, 0.9995, 4000)
    total = 0.0
    for first in (-0.9, 0.9):
        for last in (-0.9, 0.9):
            action = torch.stack([torch.full_like(grid, first), grid, torch.full_like(grid, last)], 1)
            total += torch.trapezoid(policy.log_prob(action).exp(), grid).item()
    assert total == pytest.approx(1, abs=1e-3)
    actions, log_prob = policy.sample(1, seeded())
    torch.testing.assert_close(policy.log_prob(actions[0]), log_prob[0], atol=1e-4, rtol=1e-4)


def test_expectation_over_switches_is_exact_and_so_is_its_gradient() -> None:
    policy = hybrid([0.5, -1.0], rows=2)
    policy.logit.requires_grad_()
    own = policy.reparameterised(seeded())
    assert own.weight is not None and own.actions.shape == (4, 2, 3)
    torch.testing.assert_close(own.weight.sum(0), torch.ones(2))
    worth = torch.tensor([1.0, 5.0, -2.0, 3.0])  # of off-off, on-off, off-on, on-on
    chance, other = torch.sigmoid(torch.tensor([0.5, -1.0]))
    expected = (1 - other) * ((1 - chance) * 1 + chance * 5) + other * ((1 - chance) * -2 + chance * 3)
    mean = own.mean(worth[:, None].expand(-1, 2))
    torch.testing.assert_close(mean, expected.expand(2))
    mean[0].backward()
    slope = chance * (1 - chance) * ((1 - other) * (5 - 1) + other * (3 + 2))
    torch.testing.assert_close(policy.logit.grad[0, 0], slope)  # type: ignore[index]
    assert own.log_prob is not None
    density = policy.gaussian.log_prob(own.actions[0][:, [1]]).expand(4, -1)
    torch.testing.assert_close(own.log_prob - own.weight.log(), density, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("policy", "crosses"), [(GaussianPolicy(), False), (HybridPolicy(level=0.9), True)])
def test_only_a_switch_crosses_a_valley_of_q(policy: PolicyForm, crosses: bool) -> None:
    """As a gripper is recorded: Q is highest at one end, lower at the other, and lowest between."""
    torch.manual_seed(0)
    actor = policy.build(4, 2, (16,), None)
    actor.last.bias.data[1] = 1.5  # type: ignore[union-attr, index]
    optimiser = torch.optim.Adam(actor.parameters(), 1e-2)
    features = torch.rand(32, 4, generator=seeded())
    for _ in range(300):
        own = actor(features).reparameterised(seeded())
        q = 3 * own.actions[..., -1].square() - own.actions[..., -1] - own.actions[..., 0].square()
        optimiser.zero_grad()
        (-own.mean(q).mean()).backward()
        optimiser.step()
    assert bool((actor(features).mode[:, -1] < 0).all()) is crosses


@pytest.mark.parametrize("switches", [(3,), (-4,), (0, -3), (0, 1, 2)])
def test_switches_that_an_action_does_not_have_are_refused(switches: tuple[int, ...]) -> None:
    with pytest.raises(PixelrlError, match="expected some of the dimensions 0 to 2, each once"):
        HybridPolicy(switches=switches).build(4, 3, (8,), None)


def test_flow_of_a_constant_velocity_moves_noise_by_it() -> None:
    actor = flow_actor(one_step=False, steps=7)
    nn.init.zeros_(actor.flow.last.weight)
    actor.flow.last.bias.data.copy_(torch.tensor([0.1, -0.2, 0.0]))
    policy = actor(torch.rand(6, 5))
    noise = torch.rand(4, 6, 3) * 0.5
    torch.testing.assert_close(policy.of_noise(noise), noise + torch.tensor([0.1, -0.2, 0.0]))
    torch.testing.assert_close(policy.of_noise(noise + 5), torch.ones(4, 6, 3))  # cut to what an action may be


def test_flow_takes_eulers_steps_in_time() -> None:
    actor = flow_actor(one_step=False, steps=2)
    policy = actor(torch.rand(1, 5))
    noise = torch.randn(1, 1, 3)
    half = noise + policy.velocity(noise, torch.zeros(1, 1, 1)) / 2
    expected = half + policy.velocity(half, torch.full((1, 1, 1), 0.5)) / 2
    torch.testing.assert_close(policy.along_flow(noise), expected)


def test_one_step_policy_is_the_one_that_acts_and_is_refused_where_there_is_none() -> None:
    policy = flow_actor()(torch.rand(2, 5))
    noise = torch.randn(3, 2, 3)
    torch.testing.assert_close(policy.of_noise(noise), policy.at_once(noise).clamp(-1, 1))
    with pytest.raises(PixelrlError, match="wants the flow's one-step policy"):
        flow_actor(one_step=False)(torch.rand(2, 5)).at_once(noise)


FORMS = [
    GaussianPolicy(),
    HybridPolicy(),
    DeterministicPolicy(noise=0.7, noise_clip=2.0),
    FlowPolicy(steps=2, one_step=False),
]
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)


@each_form
def test_acting_by_the_mode_is_the_policys_mode(form: PolicyForm) -> None:
    networks = make_networks(policy=form)
    obs = observation()
    assert torch.equal(networks.act(obs), networks.policy(obs).mode)


@each_form
@pytest.mark.parametrize("shared", [False, True])
def test_acting_by_the_best_takes_the_action_that_critics_value_most(form: PolicyForm, shared: bool) -> None:
    networks = make_networks(shared_encoder=shared, policy=form, acting=Acting(kind="best", samples=9))
    obs = observation()
    actions = networks.policy(obs).of_noise(networks.noise[:9].unsqueeze(1))
    critic = networks.critic
    value = critic.q_values(critic.embed_state(critic.encode(obs)), actions).value.amin(0)
    assert len(value.argmax(0).unique()) > 1
    torch.testing.assert_close(networks.act(obs), actions[value.argmax(0), torch.arange(6)])


@each_form
def test_acting_by_samples_is_a_function_of_what_is_seen(form: PolicyForm) -> None:
    networks = make_networks(policy=form, acting=Acting(kind="sample"))
    obs = observation()
    first = networks.act(obs)
    assert torch.equal(networks.act(obs), first)
    brighter = {key: value.clone() for key, value in obs.images.items()}
    next(iter(brighter.values()))[:, 0, 0, 0] ^= 1
    moved = networks.act(Observation(images=brighter, proprio=obs.proprio))
    assert ((moved - first).abs().amax(-1) > 1e-3).all()  # one bit of a picture, another noise
    assert networks.noise.shape == (NOISE_ROWS, 3)


def test_noise_for_acting_is_the_same_in_every_run() -> None:
    one, other = (make_networks(acting=Acting(kind="sample"), seed=seed) for seed in (0, 1))
    assert torch.equal(one.noise, other.noise)
    assert "noise" not in one.state_dict()


@pytest.mark.parametrize("samples", [0, NOISE_ROWS + 1])
def test_acting_with_more_samples_than_there_is_noise_is_refused(samples: int) -> None:
    with pytest.raises(PixelrlError, match=f"acting: samples is {samples}; it must be between 1 and {NOISE_ROWS}"):
        Acting(kind="best", samples=samples)


def test_flow_policy_learns_two_modes_where_one_gaussian_aims_between_them() -> None:
    torch.manual_seed(0)
    actor = FlowActor(1, 1, (64, 64), None, steps=10, one_step=False)
    optimiser, features = torch.optim.Adam(actor.parameters(), lr=3e-3), torch.zeros(256, 1)
    for _ in range(300):
        action = torch.where(torch.rand(256, 1) < 0.5, -0.7, 0.7)
        policy = actor(features)
        assert isinstance(policy, FlowActions)
        start, time = torch.randn(1, 256, 1), torch.rand(1, 256, 1)
        velocity = policy.velocity((1 - time) * start + time * action, time)
        loss = (velocity - (action - start)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    drawn = actor(torch.zeros(1, 1)).actions(500, seeded()).flatten()
    assert ((drawn.abs() - 0.7).abs() < 0.15).float().mean() > 0.85
    assert 0.3 < (drawn > 0).float().mean() < 0.7


def test_slow_actor_follows_and_gives_the_backups_actions() -> None:
    networks = make_networks(policy=DeterministicPolicy(), target_actor=True)
    obs = transitions().obs
    with torch.no_grad():
        for parameter in networks.actor.parameters():
            parameter.add_(0.5)
    before = networks.policy(obs, target=True).mode
    assert not torch.equal(before, networks.policy(obs).mode)
    networks.follow(1.0)
    torch.testing.assert_close(networks.policy(obs, target=True).mode, networks.policy(obs).mode)


def test_way_to_act_may_be_changed_after_training() -> None:
    networks, obs = make_networks(), observation()
    networks.set_acting(None)
    assert torch.equal(networks.act(obs), networks.policy(obs).mode)
    networks.set_acting("best")
    assert not torch.equal(networks.act(obs), networks.policy(obs).mode)
    with pytest.raises(PixelrlError, match="--acting worst: there is mode, sample, best"):
        networks.set_acting("worst")

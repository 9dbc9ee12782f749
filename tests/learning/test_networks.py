"""The critic ensemble and the squashed-Gaussian actor."""

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from pixelrl.encoders.conv import CogCNN
from pixelrl.learning.actors import SquashedGaussian
from pixelrl.learning.batch import Observation
from pixelrl.learning.heads import FINAL_LAYER, CriticHead, CriticOutput, EnsembleLinear
from pixelrl.learning.networks import Critic
from tests.tiny import SPEC, gradients, make_networks, moved, networks_of, observation, same, seeded


def q_of(critic: Critic, obs: Observation, action: Tensor) -> CriticOutput:
    """Judge actions in states, from the pictures on."""
    return critic.q_values(critic.embed_state(critic.encode(obs)), action)


def plain_member(head: CriticHead, member: int, *, layer_norm: bool) -> nn.Sequential:
    """Return one member of an ensemble as the perceptron of (features, action) that one would write by hand."""

    def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
        layer = nn.Linear(*weight.shape)
        assert bias is not None
        layer.weight.data, layer.bias.data = weight.T.clone(), bias[0].clone()
        return layer

    first = torch.cat([head.from_state.weight[member], head.from_action.weight[member]])
    assert head.from_state.bias is not None and head.from_action.bias is None
    layers: list[nn.Module] = [linear(first, head.from_state.bias[member])]
    for layer in [*head.layers, head.last]:
        assert isinstance(layer, EnsembleLinear) and layer.bias is not None
        layers.append(linear(layer.weight[member], layer.bias[member]))
    body: list[nn.Module] = []
    for layer in layers[:-1]:
        assert isinstance(layer, nn.Linear)
        body += [layer, nn.LayerNorm(layer.out_features) if layer_norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*body, layers[-1])


@pytest.mark.parametrize("layer_norm", [False, True])
def test_each_member_is_an_ordinary_perceptron_of_features_and_action(layer_norm: bool) -> None:
    torch.manual_seed(0)
    head = CriticHead(features=7, actions=3, hidden=(16, 12, 8), ensemble=3, layer_norm=layer_norm)
    nn.init.normal_(head.last.weight)
    encoding, action = torch.randn(3, 5, 7), torch.randn(4, 5, 3)
    value, features, _ = head(head.from_state(encoding), action)
    assert value.shape == (3, 4, 5) and features.shape == (3, 4, 5, 8)
    for member in range(3):
        plain = plain_member(head, member, layer_norm=layer_norm)
        inputs = torch.cat([encoding[member].expand(4, 5, 7), action], dim=-1)
        torch.testing.assert_close(features[member], plain[:-1](inputs))
        torch.testing.assert_close(value[member], plain(inputs)[..., 0])


def test_the_first_layer_starts_as_if_it_were_not_split() -> None:
    torch.manual_seed(0)
    head = CriticHead(features=60, actions=4, hidden=(200,), ensemble=2, layer_norm=False)
    for parameter in (head.from_state.weight, head.from_action.weight, head.from_state.bias):
        assert parameter is not None
        assert parameter.abs().max().item() == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert head.last.weight.abs().max() <= FINAL_LAYER == 1e-4


@pytest.mark.parametrize("shared", [False, True])
def test_actions_judged_at_once_are_judged_as_if_alone(shared: bool) -> None:
    critic = make_networks(shared_encoder=shared).critic
    encoding = critic.encode(observation())
    assert encoding.shape[0] == (1 if shared else 2)
    state = critic.embed_state(encoding)
    actions = torch.rand(4, 6, 3, generator=seeded()) * 2 - 1
    value, features, _ = critic.q_values(state, actions)
    for n, action in enumerate(actions):
        alone = critic.q_values(state, action)
        torch.testing.assert_close(alone.value, value[:, n])
        torch.testing.assert_close(alone.features, features[:, n])
    assert value.std(1).min() > 1e-4  # the action does matter


@pytest.mark.parametrize("batch", [1, 5])
def test_a_single_row_keeps_its_dimension(batch: int) -> None:
    critic = make_networks().critic
    value, features, _ = q_of(critic, observation(size=batch), torch.zeros(batch, 3))
    assert value.shape == (2, batch) and features.shape == (2, batch, 8)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_what_one_member_learns_does_not_move_the_other(layer_norm: bool) -> None:
    networks = make_networks(layer_norm=layer_norm)
    critic, obs, action = networks.critic, observation(), torch.zeros(6, 3)
    before = q_of(critic, obs, action).value
    for parameter, gradient in zip(critic.parameters(), gradients(before[0].sum(), critic), strict=True):
        parameter.data -= 0.1 * gradient
    after = q_of(critic, obs, action).value
    assert not torch.allclose(after[0], before[0])
    torch.testing.assert_close(after[1], before[1], rtol=0, atol=0)


def test_members_start_differently_and_the_target_starts_as_the_critic() -> None:
    networks = make_networks()
    value = q_of(networks.critic, observation(), torch.zeros(6, 3)).value
    assert (value[0] - value[1]).abs().min() > 0
    assert same(networks.critic, networks.target)
    assert not any(parameter.requires_grad for parameter in networks.target.parameters())


def test_one_encoder_for_all_or_one_each() -> None:
    shared, apart = make_networks(shared_encoder=True), make_networks(shared_encoder=False)
    assert len(shared.critic.encoders) == 1 and shared.actor.encoder is None
    assert len(apart.critic.encoders) == 2 and apart.actor.encoder is not None
    obs = observation()
    for networks, reaches_the_critic in ((shared, True), (apart, False)):
        loss = networks.policy(obs).mode.square().sum()
        assert moved(gradients(loss, networks.critic)) == reaches_the_critic
    given = shared.critic.encode(obs)
    torch.testing.assert_close(shared.policy(obs, given).mode, shared.policy(obs).mode, rtol=0, atol=0)


def gaussian(seed: int = 0) -> tuple[SquashedGaussian, TransformedDistribution]:
    """Return our distribution and torch's."""
    generator = seeded(seed)
    mean, log_std = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator) * 0.5 - 0.5
    base = Independent(Normal(mean, log_std.exp()), 1)
    return SquashedGaussian(mean, log_std), TransformedDistribution(base, [TanhTransform()])


def test_densities_are_those_of_torch() -> None:
    ours, theirs = gaussian()
    action = torch.rand(5, 3, generator=seeded(1)) * 1.9 - 0.95
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mode, ours.mean.tanh())


def test_a_density_integrates_to_one() -> None:
    policy = SquashedGaussian(torch.tensor([[0.3]]), torch.tensor([[-0.5]]))
    edges = torch.linspace(-1, 1, 4001)
    middles = torch.tensor([(low + high) / 2 for low, high in pairwise(edges.tolist())])
    mass = policy.log_prob(middles[:, None]).exp().sum() * (2 / 4000)
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_a_sample_knows_its_own_density() -> None:
    policy, _ = gaussian()
    action, log_prob = policy.sample(200, seeded(2))
    assert action.shape == (200, 5, 3) and log_prob.shape == (200, 5)
    inside = (action.abs() < 0.99).all(-1)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(policy.log_prob(action)[inside], log_prob[inside], rtol=1e-3, atol=1e-3)


def test_samples_follow_the_distribution_and_the_generator() -> None:
    policy = SquashedGaussian(torch.tensor([[0.5, -1.0]]), torch.tensor([[-1.0, -2.0]]))
    before = policy.sample(20_000, seeded())[0].atanh()[:, 0]
    torch.testing.assert_close(before.mean(0), policy.mean[0], atol=0.01, rtol=0)
    torch.testing.assert_close(before.std(0), policy.log_std[0].exp(), atol=0.01, rtol=0)
    assert torch.equal(policy.sample(3, seeded(4))[0], policy.sample(3, seeded(4))[0])
    assert not torch.equal(policy.sample(3, seeded(4))[0], policy.sample(3, seeded(5))[0])


def test_samples_are_differentiable_in_mean_and_spread() -> None:
    mean, log_std = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    action, log_prob = SquashedGaussian(mean, log_std).sample(1, seeded())
    # a = tanh(mean + std * noise): da/dmean = 1 - a^2
    (slope,) = torch.autograd.grad(action.sum(), mean, retain_graph=True)
    torch.testing.assert_close(slope, 1 - action[0].detach() ** 2)
    assert all(gradient.abs().min() > 0 for gradient in torch.autograd.grad(log_prob.sum(), (mean, log_std)))


@pytest.mark.parametrize("log_std", [-5.0, 2.0])
def test_the_border_is_finite(log_std: float) -> None:
    mean = torch.tensor([[0.0], [9.0], [-9.0], [30.0]], requires_grad=True)
    spread = torch.full((4, 1), log_std, requires_grad=True)
    policy = SquashedGaussian(mean, spread)
    action, own = policy.sample(50, seeded())
    assert (action.abs() == 1).any()
    for total in (own.sum(), policy.log_prob(torch.ones(4, 1)).sum(), policy.log_prob(-torch.ones(4, 1)).sum()):
        assert total.isfinite()
        assert all(
            gradient.isfinite().all() for gradient in torch.autograd.grad(total, (mean, spread), retain_graph=True)
        )


def test_the_spread_stays_within_cogs_range_and_the_fresh_policy_is_broad() -> None:
    networks = make_networks()
    for value, bound in ((100.0, 2.0), (-100.0, -5.0)):
        networks.actor.last.weight.data.zero_()
        networks.actor.last.bias.data.fill_(value)
        policy = networks.policy(observation())
        assert (policy.log_std == bound).all() and policy.mean.shape == (6, SPEC.action_dim)


def test_fresh_judgements_and_actions_are_near_zero() -> None:
    torch.manual_seed(0)
    fresh = networks_of(SPEC, encoder=CogCNN())
    obs = observation()
    assert q_of(fresh.critic, obs, torch.ones(6, 3)).value.abs().max() < 0.01
    assert fresh.policy(obs).mode.abs().max() < 0.01


@pytest.mark.parametrize("place", ["before", "after"])
def test_norms_of_critics_and_value_network_stand_alike(place: Literal["before", "after"]) -> None:
    networks = make_networks(value=True, layer_norm=True, layer_norm_place=place)
    assert networks.value is not None
    kinds = [type(layer).__name__ for layer in networks.value.trunk]
    pair = ["LayerNorm", "ReLU"] if place == "before" else ["ReLU", "LayerNorm"]
    assert kinds == ["Linear", *pair, "Linear", *pair]

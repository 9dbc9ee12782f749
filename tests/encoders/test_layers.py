"""Layers that learn with noise: numbers by hand, and no trace of them in the world."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import SmallCNN
from pixelrl.encoders.layers import (
    Bottleneck,
    Flatten,
    LocalMixing,
    SoftMixture,
    discontinuity,
    divergence_from_normal,
    moved,
)
from pixelrl.encoders.resnet import ResNet18
from pixelrl.launch.recipes import quick_cog, quick_cog_dr3
from pixelrl.learning.noise import EncoderNoise
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.information import InformationBottleneck
from pixelrl.training.execution import make_step
from tests.tiny import SPEC, known, learn, make_learner, observation, seeded, shrink, transitions


@dataclass(frozen=True, kw_only=True)
class WideCNN(PixelEncoder):
    """Maps as large as the pictures."""

    def trunk(self, shape: tuple[int, int, int]) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(shape[0], 2, 3, padding=1), nn.ReLU(), Flatten())


RAMP = torch.arange(16.0).view(1, 4, 4)


def test_score_of_a_gradient_by_hand() -> None:
    sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2).unsqueeze(0)
    assert discontinuity(torch.ones(2, 4, 4)).item() == 0
    assert discontinuity(sign).item() == pytest.approx(1.17569, abs=1e-5)
    assert discontinuity(RAMP).item() == pytest.approx(0.215189, abs=1e-5)
    assert discontinuity(1e-4 * RAMP).item() == pytest.approx(0.215189, abs=1e-5)


def test_maps_are_read_beside_their_places() -> None:
    x = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    for by, expected in (
        (0.0, [0, 1, 4]),
        (1.0, [1, 4, 4]),
        (-1.0, [0, 0, 1]),
        (0.25, [0.25, 1.75, 4]),
        (-9.0, [0] * 3),
    ):
        assert moved(x, torch.tensor(by), 3).flatten().tolist() == expected


def test_mixing_stays_within_its_reach_and_rests_without_noise() -> None:
    mixing = LocalMixing((1, 4, 35), goal=0.5)
    mixing.reach = 2.0
    x = torch.arange(35.0).expand(2, 1, 4, 35)
    assert mixing(x) is x and mixing(x, EncoderNoise(None)) is x
    mixed = mixing(x, EncoderNoise(seeded()))
    away = (mixed - x)[..., 5:-5]
    assert 0 < away.abs().max() <= 1  # half of the reach, and alike everywhere
    assert away.max().item() == pytest.approx(away.min().item(), abs=1e-5)
    with torch.no_grad():
        mixing.amount.zero_()
    torch.testing.assert_close(mixing(x, EncoderNoise(seeded())), x)


def test_information_by_hand() -> None:
    # mean 1, std 1: 1/2; mean 0, std 2: (4 - 1) / 2 - log 2
    mean, log_std = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]]).log()
    assert divergence_from_normal(mean, log_std).tolist() == pytest.approx([0.5 + 1.5 - 0.6931472])
    assert not divergence_from_normal(torch.zeros(3, 4), torch.zeros(3, 4)).any()


def test_bottleneck_lets_a_sample_through_while_it_learns() -> None:
    layer, x = Bottleneck(5, 3), torch.randn(4, 5, generator=seeded())
    with torch.no_grad():
        layer.log_std.weight.zero_()
        layer.log_std.bias.fill_(0.5)
    noise = EncoderNoise(seeded(1))
    drawn = torch.randn(4, 3, generator=seeded(1))
    torch.testing.assert_close(layer(x, noise), layer.mean(x) + torch.tensor(0.5).exp() * drawn)
    quiet = EncoderNoise(None)
    assert torch.equal(layer(x, quiet), layer(x)) and torch.equal(layer(x), layer.mean(x))
    assert torch.equal(quiet.information[0], noise.information[0]) and quiet.information[0].shape == (4,)


@pytest.mark.parametrize(("encoders", "expected"), [(1, 6.0), (2, 3.0)])
def test_information_counts_once_for_each_critic(encoders: int, expected: float) -> None:
    found = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])]  # of one encoder's cameras, or of two
    context = known(encoding=torch.zeros(encoders, 3, 4), information=found, ensemble=2)
    value, metrics = InformationBottleneck()(context)
    assert value.item() == expected and metrics["nats"] == value / 2


def noisy(**changes: object) -> Recipe:
    return shrink(quick_cog(), encoder=WideCNN(**changes), warmup_steps=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"bottleneck": 3}, {"mixing": 0.5}], ids=str)
def test_noise_is_for_learning_alone(changes: dict[str, float]) -> None:
    learner = learn(make_learner(noisy(**changes)), 2)
    context, obs = learner.context(transitions(), learner.generator), observation()
    assert not torch.equal(context.encoding[0], learner.networks.critic.encode(context.obs)[0])
    before = learner.generator.get_state()
    assert torch.equal(learner.networks.act(obs), learner.networks.act(obs))
    quiet = learner.site(transitions()).context()
    assert torch.equal(quiet.encoding, learner.networks.critic.encode(quiet.obs))
    assert torch.equal(learner.generator.get_state(), before)


def test_amount_of_mixing_follows_the_score_of_the_gradient() -> None:
    for score, change in ((10.0, 0.002), (0.0, -0.002)):
        learner = make_learner(noisy(mixing=0.535))
        (first, second) = learner.critic.tuned
        first.slope = lambda gradient, score=score: 0.535 - torch.tensor(score)  # type: ignore[method-assign]
        metrics = learner.update(transitions())
        assert first.amount.item() == pytest.approx(0.5 + change, abs=1e-6)  # Adam's first step is its rate
        assert second.amount.item() != 0.5 and metrics["critic/mixing/0"] == 0.5
        assert not first.probe.any() and first.probe.grad is None


def test_slope_of_mixing_is_goal_minus_score() -> None:
    mixing = LocalMixing((1, 4, 4), goal=0.535)
    assert mixing.slope(RAMP).item() == pytest.approx(0.535 - 0.215189, abs=1e-5)


def test_amount_of_mixing_stays_between_zero_and_one() -> None:
    learner = make_learner(noisy(mixing=0.535))
    for module, at in zip(learner.critic.tuned, (0.0, 1.0), strict=True):
        module.amount.data.fill_(at)
        module.slope = lambda gradient, at=at: torch.tensor(0.5 - at)  # type: ignore[method-assign]
    learn(learner, 2)
    assert [module.amount.item() for module in learner.critic.tuned] == [0.0, 1.0]


def test_information_falls_under_its_price() -> None:
    nats = []
    for weight in (0.0, 1.0):
        critic = (*quick_cog().critic, InformationBottleneck(weight=weight))
        learner = learn(make_learner(replace(noisy(bottleneck=4), critic=critic, critic_lr=1e-2)), 30)
        context = learner.context(transitions(99), learner.generator)
        nats.append(InformationBottleneck()(context)[0].item())
    assert nats[1] < 0.5 * nats[0]


def test_price_without_a_bottleneck_is_refused() -> None:
    critic = (*quick_cog().critic, InformationBottleneck())
    with pytest.raises(PixelrlError, match="InformationBottleneck, which needs an encoder with a bottleneck: --enc"):
        replace(quick_cog(), critic=critic)


@pytest.mark.parametrize(
    ("encoder", "size", "said"),
    [
        (lambda: SmallCNN(mixing=0.5), 48, "last maps of front_image are 3 x 3; it takes 8 x 8 or more"),
        (lambda: ResNet18(mixing=0.5), 64, "ResNet18 flattens no maps"),
        (lambda: ResNet18(experts=2), 64, "ResNet18 flattens no maps"),
        (lambda: WideCNN(mixing=-0.5), 12, "mixing -0.5 and experts 0; all must be at least 0"),
        (lambda: WideCNN(bottleneck=-1), 12, "bottleneck is -1, "),
    ],
)
def test_maps_that_cannot_be_mixed_are_refused(encoder: object, size: int, said: str) -> None:
    spec = replace(SPEC, images={"front_image": (3, size, size)})
    with pytest.raises(PixelrlError, match=said):
        encoder().build(spec)  # type: ignore[operator]


def test_encoders_without_noise_are_what_they_were() -> None:
    learner = learn(make_learner(shrink(quick_cog_dr3())), 1)
    assert not learner.critic.tuned and learner.critic.moved == learner.critic.optimised
    names = [name for name, _ in learner.networks.named_parameters()]
    assert not any("amount" in name or "mean" in name or "phi" in name for name in names)


def test_experts_that_share_all_places_alike_by_hand() -> None:
    layer = SoftMixture(2, 2, experts=2, width=3)
    x = torch.eye(2).view(1, 2, 1, 2)  # two places, (1, 0) and (0, 1)
    with torch.no_grad():
        layer.phi.zero_()  # each slot is their mean, and each place takes half of what each expert says
    slots = torch.full((2, 1, 2), 0.5)
    said = layer.second(torch.relu(layer.first(slots))).mean(0)
    torch.testing.assert_close(layer(x), said.repeat(1, 2))


def test_experts_do_not_mind_the_order_of_places() -> None:
    layer, x = SoftMixture(3, 6, experts=4), torch.randn(2, 3, 2, 3, generator=seeded())
    plain = layer(x).view(2, 6, 3)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    turned = layer(x.flatten(2)[..., order].view(x.shape)).view(2, 6, 3)
    torch.testing.assert_close(turned, plain[:, order])
    assert plain.std(1).min() > 1e-3 and layer.slots == 2


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"bottleneck": 3}, {"mixing": 0.5}, {"experts": 2}], ids=str)
def test_compiled_steps_with_parts_are_the_same_steps(changes: dict[str, float]) -> None:
    recipe = noisy(**changes)
    eager, compiled = make_learner(recipe), make_learner(recipe)
    step = make_step(compiled, "compile")
    for number in range(3):
        eager.update(transitions(number))
        step(transitions(number))
    for a, b in zip(eager.networks.parameters(), compiled.networks.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

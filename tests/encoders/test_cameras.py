"""From an observation to features."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import nn

from pixelrl.encoders.cameras import Cameras, PixelEncoder
from pixelrl.encoders.conv import CogCNN, DrqCNN, SmallCNN
from pixelrl.runtime.errors import PixelrlError
from tests.tiny import SPEC, observation


def only(*shape: int) -> object:
    """Return a spec with one camera and no proprioception."""
    return replace(SPEC, images={"front_image": shape}, proprio={}, proprio_mean=(), proprio_std=())


@pytest.mark.parametrize(
    ("encoder", "shape", "features"),
    [
        (CogCNN(), (3, 48, 48), 2304),  # 16 x 12 x 12
        (CogCNN(channels=2), (1, 12, 20), 2 * 3 * 5),
        (DrqCNN(), (9, 84, 84), 50),
        (SmallCNN(), (3, 48, 48), 256),
        (SmallCNN(features=10), (3, 32, 40), 10),
    ],
)
def test_widths(encoder: PixelEncoder, shape: tuple[int, int, int], features: int) -> None:
    spec = only(*shape)
    built = encoder.build(spec)  # type: ignore[arg-type]
    assert built.features == features
    assert built(observation(size=2, spec=spec)).shape == (2, features)  # type: ignore[arg-type]


def test_cogs_encoder_is_three_3x3x16_convolutions_and_ends_above_zero() -> None:
    trunk = CogCNN().trunk((3, 48, 48))
    convolutions = [layer for layer in trunk if isinstance(layer, nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size, layer.stride) for layer in convolutions] == [
        (16, (3, 3), (1, 1))
    ] * 3
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in trunk) == 2
    assert trunk(torch.rand(2, 3, 48, 48)).min() == 0  # post-ReLU, where DR3's authors take phi


def test_cogs_encoder_is_what_the_paper_draws() -> None:
    trunk, pictures = CogCNN(channels=4).trunk((3, 12, 20)), torch.rand(5, 3, 12, 20)
    first, second, third = (layer for layer in trunk if isinstance(layer, nn.Conv2d))
    pool, relu = nn.MaxPool2d(2), torch.relu  # the ReLU first
    drawn = relu(third(pool(relu(second(pool(relu(first(pictures))))))))
    torch.testing.assert_close(trunk(pictures), rearrange(drawn, "b c h w -> b (h w c)"))
    assert [name for name, _ in trunk.named_parameters()][::2] == ["0.weight", "3.weight", "6.weight"]


def test_cameras_stand_side_by_side_and_readings_are_normalised() -> None:
    obs = observation(size=4)
    encoder = CogCNN(channels=2).build(SPEC)
    features = encoder(obs)
    assert encoder.features == features.shape[1] == 2 * 3 * 3 + 2 * 2 * 3 + 4
    front = encoder.trunks[0](obs.images["front_image"] / 255)
    wrist = encoder.trunks[1](obs.images["wrist_image"] / 255)
    mean, std = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 0.5, 0.1])
    torch.testing.assert_close(features, torch.cat([front, wrist, (obs.proprio - mean) / std], dim=1))
    assert not any(parameter.shape == mean.shape and parameter is encoder.mean for parameter in encoder.parameters())


def test_bytes_become_fractions() -> None:
    spec = only(1, 2, 2)
    encoder = Cameras(spec, [nn.Sequential(nn.Flatten())], 4)  # type: ignore[arg-type]
    obs = observation(size=3, spec=spec)  # type: ignore[arg-type]
    torch.testing.assert_close(encoder(obs), obs.images["front_image"].flatten(1) / 255)


def test_readings_alone_are_enough() -> None:
    blind = replace(SPEC, images={})
    encoder = SmallCNN().build(blind)
    assert encoder.features == 4 and encoder(observation(spec=blind)).shape == (6, 4)


@pytest.mark.parametrize("build", [SmallCNN, DrqCNN, CogCNN])
def test_each_build_is_fresh(build: Callable[[], PixelEncoder]) -> None:
    spec = only(3, 48, 48)
    one, other = build().build(spec), build().build(spec)  # type: ignore[arg-type]
    obs = observation(spec=spec)  # type: ignore[arg-type]
    assert not torch.equal(one(obs), other(obs))


@pytest.mark.parametrize(
    ("encoder", "size"), [(CogCNN(), 3), (DrqCNN(), 8), (SmallCNN(), 31)], ids=lambda value: type(value).__name__
)
def test_a_picture_that_is_too_small_is_named(encoder: PixelEncoder, size: int) -> None:
    with pytest.raises(PixelrlError, match=f"front_image.*{size}"):
        encoder.build(only(3, size, size))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [32, 48])
def test_the_small_encoder_takes_the_size_that_it_promises(size: int) -> None:
    assert SmallCNN().build(only(3, size, size)).features == 256  # type: ignore[arg-type]


def test_a_history_is_more_channels_of_one_picture() -> None:
    spec = replace(SPEC, history=3)
    encoder = CogCNN(channels=2).build(spec)
    assert encoder.features == CogCNN(channels=2).build(SPEC).features
    assert next(encoder.trunks[0].parameters()).shape[1] == 9
    assert encoder(observation(spec=spec)).shape == (6, encoder.features)

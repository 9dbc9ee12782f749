"""Random shift."""

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad as padded

from pixelrl.learning.augment import augment, fractions, random_shift
from tests.tiny import observation, seeded


def offsets(picture: Tensor, shifted: Tensor, pad: int) -> list[tuple[int, int]]:
    """Return where in the edge-padded picture `[C, H, W]` the shifted one is found."""
    _, height, width = picture.shape
    wide = padded(picture[None].float(), (pad,) * 4, mode="replicate")[0]
    places = [(y, x) for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
    return [
        (y - pad, x - pad) for y, x in places if torch.equal(wide[:, y : y + height, x : x + width], shifted.float())
    ]


def test_each_picture_becomes_a_window_of_itself_with_its_edge_repeated() -> None:
    images = torch.randint(0, 256, (300, 3, 5, 7), generator=seeded(), dtype=torch.uint8)  # not square
    shifted = random_shift(images, 2, seeded(1))
    found = [offsets(image, result, 2) for image, result in zip(images, shifted, strict=True)]
    assert all(len(places) == 1 for places in found)
    counts = [sum(places[0] == (y, x) for places in found) for y in range(-2, 3) for x in range(-2, 3)]
    assert min(counts) > 0 and sum(counts) == 300  # each of the 25 shifts occurs


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_type_is_kept_and_the_generator_decides(dtype: torch.dtype) -> None:
    images = torch.arange(8 * 3 * 6 * 6).reshape(8, 3, 6, 6).to(dtype)
    once, again, other = (random_shift(images, 2, seeded(seed)) for seed in (1, 1, 2))
    assert once.dtype == dtype and once.shape == images.shape
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_no_shift_is_the_picture_itself_and_costs_no_noise() -> None:
    images, generator = torch.rand(2, 3, 4, 4), seeded()
    assert random_shift(images, 0, generator) is images
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_a_shift_larger_than_the_picture_shows_its_edge() -> None:
    images = rearrange(torch.arange(4.0), "w -> 1 1 1 w")
    seen = {tuple(random_shift(images, 9, seeded(seed)).flatten().tolist()) for seed in range(200)}
    assert {(0.0,) * 4, (3.0,) * 4, (0.0, 1.0, 2.0, 3.0)} <= seen


def by_pixel(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift pixel by pixel, as one would write it down."""
    batch, _, height, width = images.shape
    down, right = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator)[..., 0].tolist()
    result = torch.empty_like(images)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                row, column = min(max(y + down[b], 0), height - 1), min(max(x + right[b], 0), width - 1)
                result[b, :, y, x] = images[b, :, row, column]
    return result


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5, 3, 6, 4), (2, 1, 3, 7), (3, 4, 2, 2)])
def test_lines_are_moved_as_pixels_would_be(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, shape, generator=seeded(), dtype=torch.uint8).to(memory_format=layout)
    shifted = random_shift(images, 3, seeded(1))
    assert torch.equal(shifted, by_pixel(images, 3, seeded(1)))
    assert shifted.is_contiguous(memory_format=layout)


def test_bytes_become_fractions_once() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    scaled = fractions(images)
    torch.testing.assert_close(scaled, torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert fractions(scaled) is scaled
    with torch.autocast("cpu", torch.bfloat16):
        assert fractions(images).dtype == torch.bfloat16


def test_cameras_move_apart_and_readings_not_at_all() -> None:
    obs = observation(size=40)
    picture = obs.images["front_image"]
    both = type(obs)(images={"left": picture, "right": picture}, proprio=obs.proprio)
    shifted = augment(both, 2, seeded())
    assert not torch.equal(shifted.images["left"], shifted.images["right"])
    assert shifted.proprio is obs.proprio


def test_pictures_of_s_and_of_its_successor_may_be_shifted_alike() -> None:
    images = torch.randint(0, 256, (40, 3, 5, 7), generator=seeded(), dtype=torch.uint8)
    shifted = random_shift(images.repeat(2, 1, 1, 1), 2, seeded(1), alike=True)
    assert torch.equal(shifted[:40], shifted[40:]) and not torch.equal(shifted[:40], images)


def test_some_batches_may_be_left_alone() -> None:
    images = torch.randint(0, 256, (6, 3, 5, 7), generator=seeded(), dtype=torch.uint8)
    alone = sum(torch.equal(random_shift(images, 2, seeded(seed), chance=0.3), images) for seed in range(300))
    assert 0.6 < alone / 300 < 0.8

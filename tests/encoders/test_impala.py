"""IMPALA's encoder is as published."""

import pytest
import torch
from torch import nn

from pixelrl.encoders.impala import ImpalaCNN, Residual


@pytest.mark.parametrize(
    ("shape", "places"),
    [((3, 48, 48), (6, 6)), ((9, 64, 64), (8, 8)), ((3, 84, 100), (11, 13)), ((3, 128, 128), (16, 16))],
)
def test_each_stack_halves_the_picture_rounding_up(shape: tuple[int, int, int], places: tuple[int, int]) -> None:
    trunk = ImpalaCNN().trunk(shape)
    (linear,) = [layer for layer in trunk if isinstance(layer, nn.Linear)]
    assert (linear.in_features, linear.out_features) == (32 * places[0] * places[1], 512)
    assert trunk(torch.rand(2, *shape)).shape == (2, 512)


@pytest.mark.parametrize(("blocks", "convolutions"), [(1, 9), (2, 15)])
def test_a_stack_is_a_convolution_and_residual_blocks_of_two(blocks: int, convolutions: int) -> None:
    layers = list(ImpalaCNN(blocks=blocks).trunk((3, 48, 48)).modules())
    found = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert len(found) == convolutions and {layer.kernel_size for layer in found} == {(3, 3)}
    assert [layer.out_channels for layer in found] == [w for w in (16, 32, 32) for _ in range(1 + 2 * blocks)]
    assert all(not layer.bias.any() for layer in found if layer.bias is not None)


def test_a_residual_block_adds_to_its_input() -> None:
    block = Residual(2)
    x = torch.randn(1, 2, 4, 4)
    with torch.no_grad():
        assert not torch.equal(block(x), x)
        for parameter in block.body[3].parameters():
            parameter.zero_()
        assert torch.equal(block(x), x)

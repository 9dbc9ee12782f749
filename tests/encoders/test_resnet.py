"""ResNet-18: with GroupNorm no picture sees another; as robomimic has it, it is robomimic's."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18, SpatialEmbeddings, SpatialSoftmax


@pytest.mark.parametrize("shape", [(3, 48, 48), (9, 64, 64), (3, 84, 100), (3, 128, 128)])
def test_widths(shape: tuple[int, int, int]) -> None:
    pictures = torch.rand(2, *shape)
    with torch.no_grad():
        assert ResNet18().trunk(shape)(pictures).shape == (2, 512 * 8)
        assert RobomimicResNet18().trunk(shape)(pictures).shape == (2, 64)


def test_with_group_norm_no_picture_sees_another() -> None:
    trunk = ResNet18().trunk((3, 48, 48))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trunk.modules())
    assert {layer.num_groups for layer in trunk.modules() if isinstance(layer, nn.GroupNorm)} == {4}
    pictures = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(trunk(pictures)[:1], trunk(pictures[:1]), atol=1e-5, rtol=1e-4)


def test_spatial_embeddings_weigh_every_place_of_a_channel() -> None:
    pool = SpatialEmbeddings((2, 1, 3), 2)
    x = torch.tensor([[[[1.0, 2.0, 3.0]], [[10.0, 20.0, 30.0]]]])  # [1, C = 2, H = 1, W = 3]
    with torch.no_grad():
        pool.kernel[..., 0] = 1  # the first sums a channel, the second picks its middle
        pool.kernel[..., 1] = torch.tensor([0.0, 1.0, 0.0])
        assert pool(x).tolist() == [[6.0, 2.0, 60.0, 20.0]]


def test_spatial_softmax_tells_where_a_map_is_bright() -> None:
    pool = SpatialSoftmax((2, 3, 5), 2)
    x = torch.zeros(1, 2, 3, 5)
    x[0, 0, 2, 0] = 100  # bottom left: x = -1, y = 1
    with torch.no_grad():
        pool.maps.weight.copy_(torch.eye(2)[..., None, None])
        pool.maps.bias.zero_()  # type: ignore[union-attr]
        torch.testing.assert_close(pool(x), torch.tensor([[[-1.0, 1.0], [0.0, 0.0]]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_robomimics_is_robomimics(training: bool) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    from robomimic.models.obs_core import VisualCore

    theirs = VisualCore(
        input_shape=[3, 84, 100],
        backbone_class="ResNet18Conv",
        backbone_kwargs={"pretrained": False},
        pool_class="SpatialSoftmax",
        pool_kwargs={"num_kp": 32},
        feature_dimension=64,
    )
    ours = RobomimicResNet18().trunk((3, 84, 100))
    names = OrderedDict(theirs.named_parameters())
    with torch.no_grad():
        for mine, value in zip(ours.parameters(), names.values(), strict=True):
            mine.copy_(value)
        pictures = torch.rand(4, 3, 84, 100)
        expected = torch.relu(theirs.train(training)(pictures))
        torch.testing.assert_close(ours.train(training)(pictures), expected, atol=1e-5, rtol=1e-4)
        assert expected.any()

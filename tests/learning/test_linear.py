"""Products by oneDNN are those of torch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pixelrl.learning import linear as module
from pixelrl.learning.linear import Linear, OneDNNs, ensemble_linear
from tests.tiny import seeded

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this build of torch has no oneDNN"
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed)).requires_grad_()


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *given: Tensor) -> None:
    """Compare results and all gradients."""
    one, other = ours(*given), theirs(*given)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    slope = torch.randn(one.shape, generator=seeded(9))
    for a, b in zip(torch.autograd.grad(one, given, slope), torch.autograd.grad(other, given, slope), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


SIZES = [(1, 17, 16), (6, 40, 33), (128, 260, 192)]
THIN = [(5, 4, 32), (5, 32, 1), (1, 1, 1)]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES + THIN)
@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("apart", [False, True])
def test_each_member_multiplies_its_own(rows: int, inputs: int, outputs: int, members: int, apart: bool) -> None:
    x = numbers(members if apart else 1, rows, inputs)
    weight, bias = numbers(members, inputs, outputs, seed=1), numbers(members, 1, outputs, seed=2)
    agree(ensemble_linear, lambda x, weight, bias: x @ weight + bias, x, weight, bias)
    agree(lambda x, weight: ensemble_linear(x, weight, None), lambda x, weight: x @ weight, x, weight)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SIZES + THIN)
def test_a_linear_layer_is_torchs(rows: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(inputs, outputs), nn.Linear(inputs, outputs)
    theirs.load_state_dict(ours.state_dict())
    x = numbers(rows, inputs)
    given = (x, *ours.parameters()), (x, *theirs.parameters())
    results = ours(x), theirs(x)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
    slope = torch.randn(results[0].shape, generator=seeded(9))
    pairs = [torch.autograd.grad(result, leaves, slope) for result, leaves in zip(results, given, strict=True)]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_matrices_of_some_size_go_to_onednn_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    plain = module.product

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(tuple(weight.shape))
        return plain(x, weight, bias)

    monkeypatch.setattr(module, "product", watched)
    layer = Linear(32, 16)
    layer(torch.ones(4, 32))
    assert seen == [(16, 32)]
    Linear(32, 8)(torch.ones(4, 32))
    Linear(8, 32)(torch.ones(4, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(4, 32)).dtype == torch.bfloat16
    layer.double()(torch.ones(4, 32, dtype=torch.float64))
    assert len(seen) == 1


@needs_onednn
def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    x, weight = numbers(1, 4, 32), numbers(1, 32, 16, seed=1).detach()
    result = OneDNNs.apply(x, weight, None)
    (slope,) = torch.autograd.grad(result.sum(), x)
    torch.testing.assert_close(slope, weight.sum(2).expand(4, -1).unsqueeze(0))


@needs_onednn
def test_an_export_holds_standard_operators() -> None:
    with torch.no_grad():
        program = torch.export.export(Linear(32, 16).eval(), (torch.ones(4, 32),))
    assert "mkldnn" not in program.graph_module.code

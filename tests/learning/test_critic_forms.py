"""What critics put out: histograms, norms, and what they start from."""

import pytest
import torch

from pixelrl.launch.recipes import quick_cog
from pixelrl.learning.critic_forms import HLGauss, Scalar
from pixelrl.learning.heads import CriticHead, InjectedHead
from pixelrl.runtime.errors import PixelrlError
from tests.tiny import shrink


class Bare(HLGauss):
    """Five bins on [0, 10] without a margin, as the numbers worked out by hand have them."""

    @property
    def width(self) -> float:
        return 2.0

    def edges(self, device: torch.device | None = None) -> torch.Tensor:
        return torch.linspace(0, 10, 6, device=device)


BARE = Bare(low=0.0, high=10.0, bins=6, sigma=0.75)


@pytest.mark.parametrize(
    ("target", "histogram", "decoded"),
    [
        (5.0, (0.02234, 0.22994, 0.49544, 0.22994, 0.02234), 5.0),
        (0.0, (0.81758, 0.17476, 0.00760, 0.00006, 0.0), 1.38029),
        (4.5, None, 4.50666),
    ],
)
def test_histogram_by_hand(target: float, histogram: tuple[float, ...] | None, decoded: float) -> None:
    encoded = BARE.encode(torch.tensor(target))
    if histogram is not None:
        torch.testing.assert_close(encoded, torch.tensor(histogram), atol=1e-5, rtol=0)
    assert BARE.value(encoded.clamp(min=1e-30).log()).item() == pytest.approx(decoded, abs=1e-4)


@pytest.mark.parametrize("target", [0.0, 1e-3, 3.7, 10.0])
def test_margin_takes_the_bias_from_the_edges(target: float) -> None:
    form = HLGauss(low=0.0, high=10.0)
    encoded = form.encode(torch.tensor(target))
    assert encoded.sum().item() == pytest.approx(1, abs=1e-5)
    assert form.value(encoded.clamp(min=1e-30).log()).item() == pytest.approx(target, abs=5e-3)
    entropy = -(encoded * encoded.clamp(min=1e-30).log()).sum().item()
    assert entropy == pytest.approx(1.2003, abs=0.02)
    assert form.least_loss(torch.tensor([target, target])).item() == pytest.approx(entropy)
    assert form.loss(encoded.clamp(min=1e-30).log(), torch.zeros(()), torch.tensor(target)).item() == pytest.approx(
        entropy
    )


def test_targets_beyond_the_range_are_cut() -> None:
    form = HLGauss(low=0.0, high=1.0)
    assert torch.equal(form.encode(torch.tensor(7.0)), form.encode(torch.tensor(1.0)))


def test_loss_pulls_outputs_towards_the_histogram() -> None:
    form = HLGauss(bins=11)
    outputs = torch.randn(2, 3, 11, requires_grad=True)
    target = torch.tensor([1.0, 5.0, 9.0])
    loss = form.loss(outputs, form.value(outputs), target)
    assert loss.shape == (2, 3)
    (slope,) = torch.autograd.grad(loss.sum(), outputs)
    torch.testing.assert_close(slope, outputs.softmax(-1) - form.encode(target))


def test_every_q_starts_at_zero_whatever_the_range() -> None:
    for form in (HLGauss(low=-1.0, high=11.0), HLGauss(low=0.0, high=10.0), Scalar()):
        head = CriticHead(7, 3, (16, 8), 2, False, form=form)
        output = head(head.from_state(torch.randn(2, 5, 7)), torch.randn(4, 5, 3))
        assert output.value.shape == (2, 4, 5) and output.value.abs().max() < 0.02
        assert (output.outputs is None) == (form.outputs == 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 1.0, "high": 1.0}, "high is 1.0; it must be above low, 1.0"),
        ({"bins": 5}, "bins is 5; it must be above 5.5"),
        ({"sigma": 0.0}, "sigma is 0.0; it must be above 0"),
    ],
)
def test_histogram_that_cannot_be_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        HLGauss(**options)  # type: ignore[arg-type]


def test_feature_norm_leaves_directions_and_slopes_across_them() -> None:
    torch.manual_seed(0)
    head = CriticHead(4, 2, (8, 6), 1, False, feature_norm=True)
    plain = CriticHead(4, 2, (8, 6), 1, False)
    plain.load_state_dict(head.state_dict())
    state, action = torch.randn(1, 3, 8), torch.randn(1, 3, 2)
    normed, raw = head(state, action).features, plain(state, action).features
    torch.testing.assert_close(normed, raw / raw.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(head(state, action).value, head.last(normed[:, 0]).mT)
    raw = raw.detach().requires_grad_()
    length = raw / raw.norm(dim=-1, keepdim=True)
    (slope,) = torch.autograd.grad((length @ torch.arange(6.0)).sum(), raw)
    torch.testing.assert_close((slope * raw).sum(-1), torch.zeros(1, 1, 3), atol=1e-5, rtol=0)


def test_layer_norm_after_the_activation_has_mean_zero_and_length_of_its_width() -> None:
    torch.manual_seed(0)
    before = CriticHead(4, 2, (32, 16), 2, True)
    after = CriticHead(4, 2, (32, 16), 2, True, layer_norm_place="after")
    after.load_state_dict(before.state_dict())
    state, action = torch.randn(2, 5, 32), torch.randn(3, 5, 2)
    phi = after(state, action).features
    torch.testing.assert_close(phi.mean(-1), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(phi.square().sum(-1), torch.full((2, 3, 5), 16.0), atol=0.1, rtol=0)
    phi = before(state, action).features
    assert bool((phi >= 0).all()) and not bool((after(state, action).features >= 0).all())


def test_activities_are_those_of_the_non_linearity_before_a_norm_after_it() -> None:
    head = CriticHead(1, 1, (2, 3), 1, True, layer_norm_place="after")
    with torch.no_grad():
        head.from_action.weight.fill_(1)
        head.layers[0].weight.copy_(torch.tensor([[1.0, -1, 0], [0, 0, 0]]))
        head.layers[0].bias.copy_(torch.tensor([[0.0, 0, 2]]))
    state, action = torch.tensor([[[2.5, -4.0]]]), torch.full((1, 1, 1), 0.5)
    first, second = head.activities(state, action)
    assert first.tolist() == [[[3.0, 0.0]]]  # normalised: 1, -1
    torch.testing.assert_close(second, torch.tensor([[[1.0, 0.0, 2.0]]]), atol=1e-4, rtol=0)
    injected = InjectedHead(head)
    for place in ("before", "after"):
        plain = CriticHead(1, 1, (2, 3), 1, place == "before", layer_norm_place=place)  # type: ignore[arg-type]
        pairs = zip(plain.activities(state, action), plain.hidden(state, action), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)
    injected.inject(CriticHead(1, 1, (2, 3), 1, True, layer_norm_place="after"))
    shared = injected.embed_state(torch.ones(1, 1, 1))
    own = injected.trained.activities(injected.trained.embed_state(torch.ones(1, 1, 1)), action)
    assert all(torch.equal(one, two) for one, two in zip(injected.activities(shared, action), own, strict=True))


@pytest.mark.parametrize(("normed", "start", "bound"), [(False, None, 1e-4), (True, None, 0.1), (True, 0.5, 0.5)])
def test_last_layer_starts_as_large_as_it_is_told(normed: bool, start: float | None, bound: float) -> None:
    last = CriticHead(4, 2, (8, 200), 2, False, feature_norm=normed, last_layer_start=start).last
    assert last.weight.abs().max().item() == pytest.approx(bound, rel=0.05)


def test_last_layer_that_starts_at_zero_is_refused_below_it() -> None:
    with pytest.raises(PixelrlError, match=r"last_layer_start is -1.0; it must be at least 0, or None"):
        shrink(quick_cog(), last_layer_start=-1.0)

"""Numbers and learned multipliers as weights."""

import pytest
import torch

from pixelrl.learning.weights import AtMost, Multiplier
from pixelrl.runtime.errors import PixelrlError


def test_a_multiplier_starts_where_it_is_told_and_stays_positive() -> None:
    multiplier = Multiplier(AtMost(bound=0, start=0.05))
    assert multiplier.value.item() == pytest.approx(0.05)
    multiplier.log.data -= 50
    assert multiplier.value.item() > 0
    assert not multiplier.value.requires_grad


@pytest.mark.parametrize(("term", "slope"), [(5.0, -3.0), (2.0, 0.0), (-1.0, 3.0)])
def test_ascent_goes_up_above_the_bound_and_down_below(term: float, slope: float) -> None:
    multiplier = Multiplier(AtMost(bound=2.0))
    value = torch.tensor(term, requires_grad=True)
    (gradient,) = torch.autograd.grad(multiplier.ascend(value), multiplier.log)
    assert gradient.item() == slope  # of the loss that is descended: -(term - bound)


def test_the_term_is_not_moved_by_its_multiplier() -> None:
    value = torch.tensor(1.0, requires_grad=True)
    loss = Multiplier(AtMost(bound=0)).ascend(value)
    assert torch.autograd.grad(loss, value, allow_unused=True) == (None,)


@pytest.mark.parametrize("start", [0.0, -1.0])
def test_a_multiplier_that_cannot_be_positive_is_refused(start: float) -> None:
    with pytest.raises(PixelrlError, match="start"):
        AtMost(bound=0.0, start=start)

"""The moment at which an episode went wrong, by hand."""

import numpy as np
import pytest

from pixelrl.simulation.evaluation.failures import steepest_fall


def critics(*lowest: float) -> np.ndarray:
    """Return the values of two critics, the second of which is the more hopeful."""
    return np.array([(value, value + 1) for value in lowest], np.float32)


def test_fall_is_where_the_lowest_critic_falls_most_over_three_steps() -> None:
    fall = steepest_fall(critics(1, 1.1, 1.2, 2, 2.1, 1.5, 0.5, 0.1, 0.1, 0.1))
    assert fall is not None
    assert fall[:2] == (4, 7) and fall.before == pytest.approx(2.0) and fall.after == pytest.approx(0.1)


def test_single_low_value_of_the_critics_does_not_count() -> None:
    fall = steepest_fall(critics(1, 1, 0.9, 0.6, 0.4, 0.4, 0.4, 0.4, 9, 0.4, 0.4, 0.4))
    assert fall is not None and fall.end <= 5


@pytest.mark.parametrize("values", [(1, 2, 3, 4, 5), (2, 2, 2, 2, 2), (1,)])
def test_episode_whose_values_never_fall_has_no_fall(values: tuple[float, ...]) -> None:
    assert steepest_fall(critics(*values)) is None


def test_short_episode_falls_over_all_that_it_has() -> None:
    fall = steepest_fall(critics(3, 3, 1))
    assert fall is not None and fall[:2] == (0, 2)

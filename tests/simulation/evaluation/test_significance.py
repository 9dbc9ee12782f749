"""Tests and intervals over replicates, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.simulation.evaluation.significance import (
    compare_pairs,
    equivalent,
    mean_bootstrap,
    mean_t,
    performance_profile,
    permutation,
    probability_of_improvement,
    sign_flip,
)


def test_sign_flips_are_counted_exactly() -> None:
    # 1, 2, 3: only +++ and --- reach 6: 2 / 8. With 1, 2, -3 the sum is 0, which all 8 reach
    assert sign_flip([1, 2, 3]) == 2 / 8
    assert sign_flip([1, 2, -3]) == 1.0
    # 1, 1, -1 sum to 1; all 8 sums are odd, so each is at least 1 in size
    assert sign_flip([1, 1, -1]) == 1.0
    # the least p of n replicates is 2 / 2^n: with 5 never below 0.05
    assert [sign_flip([0.1] * n) for n in (5, 6, 16)] == [2 / 2**5, 2 / 2**6, 2 / 2**16]


def test_sign_flips_of_many_replicates_are_drawn_by_a_seed() -> None:
    values = np.random.default_rng(3).normal(0.35, 1, 25)
    p = sign_flip(values)
    assert p == sign_flip(values) != sign_flip(values, seed=1)
    exact = math.erfc(abs(values.sum()) / math.sqrt(2 * (values**2).sum()))  # signs' sum is nearly normal
    assert p == pytest.approx(exact, abs=0.02)


def test_permutations_are_counted_exactly() -> None:
    # of C(4, 2) = 6 ways to take two of 1 2 3 4 only {1, 2} and {3, 4} are as far apart as 2: 2 / 6
    assert permutation([[3, 4]], [[1, 2]]) == pytest.approx(2 / 6)
    assert permutation([[1, 4]], [[2, 3]]) == 1.0
    # unequal sizes: {4} against {1, 2, 3}: gap 2; {1}: -2; {2}, {3}: 2/3: 2 of 4
    assert permutation([[4]], [[1, 2, 3]]) == pytest.approx(2 / 4)


def test_permutations_stay_within_their_task() -> None:
    # each task alone: 1 of 2 ways; both together 2 of 4 are as extreme: (+, +) and (-, -)
    assert permutation([[1], [101]], [[0], [100]]) == pytest.approx(0.5, abs=0.01)


def test_intervals_of_a_mean() -> None:
    # 1 .. 5: mean 3, sd sqrt(2.5), t(0.975, 4) = 2.776: half width 1.963; at 90 % t = 2.132: 1.507
    assert mean_t([1, 2, 3, 4, 5]) == pytest.approx((1.037, 4.963), abs=1e-3)
    assert mean_t([1, 2, 3, 4, 5], 0.9) == pytest.approx((1.493, 4.507), abs=1e-3)
    assert mean_bootstrap([0, 1]) == (0.0, 1.0)
    low, high = mean_bootstrap(np.arange(100))  # 49.5 +- 1.96 x 28.87 / 10
    assert (low, high) == pytest.approx((49.5 - 5.66, 49.5 + 5.66), abs=0.3)


def test_equivalence_needs_the_whole_interval_within_the_margin() -> None:
    assert equivalent([1, 2, 3, 4, 5], 4.51) and not equivalent([1, 2, 3, 4, 5], 4.50)
    assert not equivalent([-1, 1, -1, 1, -1, 1], 0.1)  # a mean of 0 is no proof


def test_improvement_and_profile() -> None:
    assert probability_of_improvement([1, 2], [1, 0]) == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert performance_profile([0.0, 0.5, 1.0], [0.0, 0.5, 0.6]).tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_few_replicates_have_no_p() -> None:
    few = compare_pairs([0.9] * 5, [0.1] * 5, 0.1)
    assert few["p"] is None and not few["equivalent"] and few["difference"] == pytest.approx(0.8)
    enough = compare_pairs([0.9] * 6, [0.1] * 6, 0.1)
    assert enough["p"] == 2 / 64 and enough["n"] == 6 and enough["improvement"] == 1.0
    assert compare_pairs([0.5] * 6, [0.45] * 6, 0.1)["equivalent"]
    assert compare_pairs([0.9], [0.1], 0.1)["interval_95"] is None


def test_true_nulls_are_rejected_as_rarely_as_promised() -> None:
    """Of 400 studies without a difference 5 % at most are misjudged, and three standard errors more by chance."""
    random = np.random.default_rng(0)

    def rates(n: int) -> NDArray[np.float64]:
        return random.binomial(40, random.beta(1.1, 1.6, (400, n))) / 40

    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    for n in (6, 8, 10):
        one, two = rates(n), rates(n)
        assert np.mean([sign_flip(row) <= 0.05 for row in one - two]) <= bound
    one, two = rates(6), rates(6)
    assert np.mean([permutation([a], [b]) <= 0.05 for a, b in zip(one, two, strict=True)]) <= bound
    shared = random.normal(0, 0.3, (400, 8, 1)) + random.normal(0, 0.1, (400, 8, 2))
    assert np.mean([sign_flip(row[:, 0] - row[:, 1]) <= 0.05 for row in shared]) <= bound
    assert np.mean([equivalent(row[:, 0] - row[:, 1] + 0.1, 0.1) for row in shared]) <= bound  # at the margin's edge

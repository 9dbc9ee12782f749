"""Statistics against numbers worked out by hand."""

import json
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from scipy.special import xlogy

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.evaluation.rollout import Outcome
from pixelrl.simulation.evaluation.statistics import (
    confidence_sequence,
    holm,
    interquartile_mean,
    mcnemar,
    paired_score_interval,
    percentiles,
    stratified_bootstrap,
    summarise,
    verdict_on,
    wilson,
)


def test_wilson_matches_published_numbers() -> None:
    """Newcombe (Statistics in Medicine, 1998), table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_wilson_matches_its_equation() -> None:
    """49 of 50: centre (p + z^2/2n) / (1 + z^2/n), half-width z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)."""
    p, n, z = 49 / 50, 50, 1.959964
    centre, half = p + z**2 / (2 * n), z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    assert wilson(49, 50) == pytest.approx(((centre - half) / scale, (centre + half) / scale), abs=1e-6)


def outcome(index: int, *, success: bool, length: int) -> Outcome:
    return Outcome(index=index, seed=100 + index, success=success, return_=float(success), length=length)


def test_summary_is_ordered_and_is_json() -> None:
    summary = summarise(
        [
            outcome(2, success=True, length=4),
            outcome(0, success=False, length=12),
            outcome(1, success=True, length=5),
            outcome(3, success=True, length=3),
        ]
    )
    assert summary["episodes"] == 4 and summary["restarts"] == 0
    twice = [replace(outcome(index, success=True, length=3), restarts=index) for index in range(3)]
    assert summarise(twice)["restarts"] == 3
    assert summary["successes"] == 3
    assert summary["success_rate"] == 0.75
    assert summary["success_interval_95"] == list(wilson(3, 4))
    assert summary["mean_return"] == 0.75
    assert summary["mean_length"] == 6.0
    assert [row["index"] for row in summary["outcomes"]] == [0, 1, 2, 3]
    assert summary["outcomes"][1] == {"index": 1, "seed": 101, "success": True, "return": 1.0, "length": 5}
    assert json.loads(json.dumps(summary)) == summary


def test_summary_of_no_episode_is_refused() -> None:
    with pytest.raises(SimulationError, match="no episode"):
        summarise([])


def test_mcnemar_counts_only_the_starts_that_differ() -> None:
    # 8 starts solved by the first alone, 1 by the second alone: p = 2 (C(9,0) + C(9,1)) / 2^9 = 20 / 512.
    first = [True] * 8 + [False] + [True] * 5 + [False] * 6
    second = [False] * 8 + [True] + [True] * 5 + [False] * 6
    assert mcnemar(first, second) == {"won": 8, "lost": 1, "p": pytest.approx(20 / 512)}
    assert mcnemar(second, first)["p"] == pytest.approx(20 / 512)
    assert mcnemar(first, first) == {"won": 0, "lost": 0, "p": 1.0}
    with pytest.raises(ValueError, match="shorter"):
        mcnemar(first, second[:3])


def test_score_interval_where_no_start_tells_two_policies_apart() -> None:
    # z^2 / (n + z^2) with z = 1.6449 and n = 200
    low, high = paired_score_interval(0, 0, 200)
    assert (low, high) == pytest.approx((-0.013348, 0.013348), abs=1e-5)
    assert paired_score_interval(0, 0, 20)[1] > 0.1  # few starts leave room for a difference


@pytest.mark.parametrize(("won", "lost", "pairs"), [(8, 1, 20), (1, 1, 200), (0, 9, 30), (20, 0, 20)])
def test_score_interval_holds_what_the_likelihood_does_not_refute(won: int, lost: int, pairs: int) -> None:
    def score(gap: float) -> float:
        rates = np.linspace(0, 1, 200_001)  # of `lost`; that of `won` is larger by the gap
        rest = 1 - 2 * rates - gap
        with np.errstate(divide="ignore", invalid="ignore"):
            chances = [xlogy(won, rates + gap), xlogy(lost, rates), xlogy(pairs - won - lost, rest)]
        likelihood = np.where((rest >= 0) & (rates + gap >= 0), sum(chances), -np.inf)
        best = rates[np.nanargmax(likelihood)]
        return float((won - lost - pairs * gap) / np.sqrt(pairs * (2 * best + gap - gap * gap)))

    low, high = paired_score_interval(won, lost, pairs)
    assert -1 <= low < (won - lost) / pairs <= high <= 1
    assert score(low) == pytest.approx(1.6449, abs=2e-3)
    assert high == 1 or score(high) == pytest.approx(-1.6449, abs=2e-3)
    assert paired_score_interval(lost, won, pairs) == pytest.approx((-high, -low), abs=1e-6)


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order() -> None:
    # sorted 0.01, 0.03, 0.04 -> 3 x 0.01, 2 x 0.03, and 1 x 0.04 raised to the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_verdict_needs_significance() -> None:
    assert verdict_on(0.2, 0.049) == "better"
    assert verdict_on(-0.2, 0.049) == "worse"
    assert verdict_on(0.2, 0.051) == "undetermined"


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    assert interquartile_mean([np.array([0.0, 0.4]), np.array([0.6, 100.0])]) == pytest.approx(0.5)


def test_strata_keep_their_runs() -> None:
    # runs of one task are alike, so resampling within tasks changes nothing; across tasks it would
    means = stratified_bootstrap([np.array([0.2, 0.2]), np.array([0.8, 0.8])])
    assert np.allclose(means, 0.5)
    spread = percentiles(stratified_bootstrap([np.array([0.0, 1.0])]))
    assert spread == (0.0, 1.0)


def test_score_interval_agrees_with_the_normal_approximation() -> None:
    # 40 starts won, 10 lost of 200: the mean difference is 0.15, its standard error sqrt((0.25 - 0.15^2) / 200)
    half = 1.96 * sqrt((0.25 - 0.15**2) / 200)
    assert paired_score_interval(40, 10, 200, 0.95) == pytest.approx((0.15 - half, 0.15 + half), abs=0.005)


def test_confidence_sequence_inverts_its_mixture() -> None:
    """After 3 successes: B(3.5, 0.5) / B(0.5, 0.5) = 5/16, so the low end solves (5/16) / p^3 = 20."""
    assert confidence_sequence(3, 0) == pytest.approx(((5 / 16 / 20) ** (1 / 3), 1.0))
    low, high = confidence_sequence(0, 3)
    assert (low, 1 - high) == pytest.approx((0.0, (5 / 16 / 20) ** (1 / 3)))
    assert confidence_sequence(0, 0) == (0.0, 1.0)


def test_confidence_sequence_may_be_looked_at_after_every_episode() -> None:
    """Of 200 policies of rate 0.8, watched for 150 episodes, one in twenty at most is misjudged; not so Wilson's."""
    random = np.random.default_rng(0)
    missed = {"sequence": 0, "wilson": 0}
    for _ in range(200):
        wins = np.cumsum(random.random(150) < 0.8)
        steps = range(5, 151, 5)
        for name, interval in (
            ("sequence", lambda s, n: confidence_sequence(s, n - s)),
            ("wilson", wilson),
        ):
            looks = [interval(int(wins[n - 1]), n) for n in steps]
            missed[name] += not all(low <= 0.8 <= high for low, high in looks)
    assert missed["sequence"] <= 10 < missed["wilson"]

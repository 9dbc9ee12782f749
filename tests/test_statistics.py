"""Statistics against numbers worked out by hand."""

import json
from math import sqrt

import pytest

from pixelrl.errors import SimulationError
from pixelrl.simulation.rollout import Outcome
from pixelrl.simulation.statistics import mcnemar, summarise, wilson


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


def test_a_summary_is_ordered_and_is_json() -> None:
    summary = summarise(
        [
            outcome(2, success=True, length=4),
            outcome(0, success=False, length=12),
            outcome(1, success=True, length=5),
            outcome(3, success=True, length=3),
        ]
    )
    assert summary["episodes"] == 4
    assert summary["successes"] == 3
    assert summary["success_rate"] == 0.75
    assert summary["success_interval_95"] == list(wilson(3, 4))
    assert summary["mean_return"] == 0.75
    assert summary["mean_length"] == 6.0
    assert [row["index"] for row in summary["outcomes"]] == [0, 1, 2, 3]
    assert summary["outcomes"][1] == {"index": 1, "seed": 101, "success": True, "return": 1.0, "length": 5}
    assert json.loads(json.dumps(summary)) == summary


def test_no_episode_is_no_evaluation() -> None:
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

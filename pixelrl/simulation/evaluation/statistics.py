"""What an evaluation says about a policy, and how sure we may be."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln
from scipy.stats import binomtest, norm, trim_mean

from pixelrl.runtime.errors import SimulationError

if TYPE_CHECKING:
    from pixelrl.simulation.evaluation.rollout import Outcome

Verdict = Literal["better", "worse", "undetermined"]
RESAMPLES = 10_000


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a success rate, (low, high) in [0, 1].

    Unlike the textbook's rate +- 1.96 standard errors, it stays honest for few episodes and for rates near 0 and 1.
    """
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Compare two policies on the same starts by the exact McNemar test (two-sided).

    Only the starts on which they differ tell: if neither policy is better, each of those is a fair coin.

    Args:
        first: whether each episode of the one succeeded.
        second: the same of the other, from the same starts in the same order.

    Returns:
        `won`: starts that only the first solved; `lost`: those that only the second solved; `p`.
    """
    pairs = list(zip(first, second, strict=True))
    won = sum(one and not other for one, other in pairs)
    lost = sum(other and not one for one, other in pairs)
    return {"won": won, "lost": lost, "p": float(binomtest(won, won + lost).pvalue) if won + lost else 1.0}


def paired_score_interval(won: int, lost: int, pairs: int, confidence: float = 0.9) -> tuple[float, float]:
    """Return Tango's score interval of the difference of two success rates on the same starts (Tango, 1998).

    Unlike a bootstrap's, it is no point where no start tells the two apart: (-z^2, z^2) / (n + z^2) then.

    Args:
        won: starts that only the first solved.
        lost: those that only the second solved.
        pairs: n, all starts.
        confidence: of the interval; both ends of one of 0.9 are one-sided bounds at 0.95.
    """
    critical = float(norm.ppf((1 + confidence) / 2))

    def score(gap: float) -> float:
        """How many standard deviations the difference lies above `gap`, if that is the true one."""
        b, c = (2 * pairs - won + lost) * gap - won - lost, -lost * gap * (1 - gap)
        least = (math.sqrt(max(0.0, b * b - 8 * pairs * c)) - b) / (4 * pairs)  # the likeliest rate of `lost`
        deviation = math.sqrt(max(pairs * (2 * least + gap * (1 - gap)), 1e-300))
        return (won - lost - pairs * gap) / deviation

    seen, edge = (won - lost) / pairs, 1 - 1e-12
    low = brentq(lambda gap: score(gap) - critical, -edge, seen - 1e-12) if seen > -1 else -1.0
    high = brentq(lambda gap: score(gap) + critical, seen + 1e-12, edge) if seen < 1 else 1.0
    return float(low), float(high)


def verdict_on(difference: float, p: float, alpha: float = 0.05) -> Verdict:
    """Return a verdict on the first of two policies: `undetermined` unless p is at most alpha."""
    if p > alpha or difference == 0:
        return "undetermined"
    return "better" if difference > 0 else "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number (Holm, 1979): the chance of any false verdict stays at most alpha."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def interquartile_mean(scores: Sequence[NDArray[np.float64]]) -> float:
    """Return the mean of the middle half of all scores: steadier than the median, less moved by outliers than the mean.

    Agarwal et al. (2021, arXiv 2108.13264), sec. 4.3.

    Args:
        scores: of each task, the scores of its runs, `[runs]`.
    """
    return float(trim_mean(np.concatenate(scores), 0.25))


def stratified_bootstrap(scores: Sequence[NDArray[np.float64]], seed: int = 0) -> NDArray[np.float64]:
    """Return `[RESAMPLES]` interquartile means of scores whose runs are drawn anew within each task.

    Agarwal et al. (2021, arXiv 2108.13264), sec. 4.1. Their percentiles are the interval; with three runs or fewer it
    is too narrow, as every bootstrap of so few is.
    """
    random = np.random.default_rng(seed)
    drawn = [runs[random.integers(len(runs), size=(RESAMPLES, len(runs)))] for runs in scores]
    means: NDArray[np.float64] = trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    return means


def confidence_sequence(successes: int, failures: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return an interval of a success rate that may be looked at after every episode.

    With probability 1 - alpha it holds the true rate at *all* times at once, so that one may stop whenever one likes
    (a fixed interval, looked at again and again, errs far more often). It consists of the rates p that the likelihood
    ratio of a Beta(1/2, 1/2) mixture does not refute: by Ville's inequality that ratio exceeds 1 / alpha with
    probability alpha at most (Robbins, 1970; Howard et al., 2021, arXiv 1810.08240).
    """
    mixture = betaln(successes + 0.5, failures + 0.5) - betaln(0.5, 0.5)

    def excess(p: float) -> float:
        """The log of the ratio against the rate p, above its threshold."""
        likelihood = (successes * math.log(p) if successes else 0.0) + (failures * math.log1p(-p) if failures else 0.0)
        return float(mixture - likelihood + math.log(alpha))

    if successes + failures == 0:
        return 0.0, 1.0
    edge, rate = 1e-12, min(max(successes / (successes + failures), 1e-9), 1 - 1e-9)
    low = brentq(excess, edge, rate) if successes and excess(edge) > 0 else 0.0
    high = brentq(excess, rate, 1 - edge) if failures and excess(1 - edge) > 0 else 1.0
    return float(low), float(high)


def percentiles(samples: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval that holds this share of bootstrap samples, its ends equally likely to be exceeded."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def summarise(outcomes: Iterable["Outcome"]) -> dict[str, Any]:
    """Return the success rate with its 95 % interval, means, and every episode by index, ready for JSON.

    Raises:
        SimulationError: there is no outcome.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.index)
    if not ordered:
        raise SimulationError("no episode was finished, so there is nothing to summarise")
    successes = sum(outcome.success for outcome in ordered)
    return {
        "episodes": len(ordered),
        "successes": successes,
        "success_rate": successes / len(ordered),
        "success_interval_95": list(wilson(successes, len(ordered))),
        "mean_return": float(np.mean([outcome.return_ for outcome in ordered])),
        "mean_length": float(np.mean([outcome.length for outcome in ordered])),
        "restarts": sum(outcome.restarts for outcome in ordered),
        "outcomes": [
            {
                "index": outcome.index,
                "seed": outcome.seed,
                "success": outcome.success,
                "return": outcome.return_,
                "length": outcome.length,
            }
            for outcome in ordered
        ],
    }

"""What an evaluation says about a policy, and how sure we may be."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pixelrl.errors import SimulationError
from pixelrl.simulation.rollout import Outcome


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


def summarise(outcomes: Iterable[Outcome]) -> dict[str, Any]:
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

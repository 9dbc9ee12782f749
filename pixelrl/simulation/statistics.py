"""What an evaluation says about a policy, and how sure we may be."""

from collections.abc import Iterable
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

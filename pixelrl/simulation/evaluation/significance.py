"""What several runs say about a recipe: tests and intervals over replicates, paired where they share seeds.

A replicate is one number a recipe, say the success rate of one training. Episodes are nested in it and are never drawn
anew by themselves: what a recipe does differs from training to training more than one training's episodes do.
"""

import math
from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from pixelrl.simulation.evaluation.statistics import RESAMPLES, percentiles

FEWEST = 6
"""Replicates below which there is no verdict: with five no sign-flip test can reach 0.05 (its least p is 2 / 2^5)."""

LARGEST_EXACT = 20
"""Replicates up to which all 2^n signs are tried."""

RELABELLINGS = 200_000
"""Most ways to divide the runs of two recipes that are all tried (10 + 10 runs have 184,756)."""

DRAWS = 100_000
"""Of a test that draws instead of trying everything."""

ROUNDING = 1e-9
"""Statistics that differ by less are equal, so that sums in another order count as what they are."""


def sign_flip(differences: ArrayLike, seed: int = 0) -> float:
    """Return the two-sided p of paired differences `[n]` by Fisher's sign-flip test of their mean.

    If neither recipe is better, each difference could as well have the other sign. Up to 20 replicates all signs are
    tried; beyond, 100,000 are drawn by the seed, and the observed ones count as one more.
    """
    values = np.asarray(differences, np.float64)
    reached = abs(values.sum()) - ROUNDING
    if len(values) <= LARGEST_EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= reached).mean())
    random, drawn = np.random.default_rng(seed), 0
    for _ in range(DRAWS // 1000):
        signs = random.integers(2, size=(1000, len(values))) * 2.0 - 1
        drawn += int((np.abs(signs @ values) >= reached).sum())
    return (1 + drawn) / (1 + DRAWS)


def permutation(first: Sequence[ArrayLike], second: Sequence[ArrayLike], seed: int = 0) -> float:
    """Return the two-sided p of unpaired runs by the permutation test of the difference of means.

    If neither recipe is better, any run could as well be the other's. Runs are exchanged within their task alone.

    Args:
        first: of each task, the scores of the first recipe's runs, `[n]`.
        second: the same of the second's, `[m]`.
        seed: of the draws where there are more than 200,000 ways, or several tasks.
    """
    pools = []
    for one, two in zip(first, second, strict=True):
        pools.append((np.concatenate([one, two]).astype(np.float64), len(np.asarray(one))))
    reached = abs(sum(_gap(pool, pool[:size].sum(), size) for pool, size in pools)) - ROUNDING
    pool, size = pools[0]
    if len(pools) == 1 and (ways := math.comb(len(pool), size)) <= RELABELLINGS:
        chosen = np.fromiter(chain.from_iterable(combinations(range(len(pool)), size)), np.int64, ways * size)
        gaps = _gap(pool, pool[chosen.reshape(ways, size)].sum(1), size)
        return float((np.abs(gaps) >= reached).mean())
    random, gaps = np.random.default_rng(seed), np.zeros(DRAWS)
    for pool, size in pools:
        gaps += [_gap(pool, random.permutation(pool)[:size].sum(), size) for _ in range(DRAWS)]
    return float((1 + (np.abs(gaps) >= reached).sum()) / (1 + DRAWS))


def _gap(pool: NDArray[np.float64], taken: Any, size: int) -> Any:
    """Return the mean of `size` scores that sum to `taken`, minus that of the rest of the pool."""
    return taken / size - (pool.sum() - taken) / (len(pool) - size)


def mean_bootstrap(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of replicates `[n]`, or of their paired differences."""
    return percentiles(mean_samples(values, seed), confidence)


def mean_samples(values: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Return `[RESAMPLES]` means of `[n]` values drawn anew."""
    known = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    means: NDArray[np.float64] = known[drawn].mean(1)
    return means


def mean_t(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of `[n]` replicates, n at least 2: wider than the bootstrap's for few."""
    known = np.asarray(values, np.float64)
    half = t.ppf((1 + confidence) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return float(known.mean() - half), float(known.mean() + half)


def equivalent(differences: ArrayLike, margin: float) -> bool:
    """Tell whether there is no difference that matters: the 90 % t interval lies within +-margin.

    That is the two one-sided tests at 5 % (TOST; Schuirmann, 1987).
    """
    low, high = mean_t(differences, 0.90)
    return -margin < low and high < margin


def probability_of_improvement(first: ArrayLike, second: ArrayLike) -> float:
    """Return how often a run of the first recipe beats one of the second, ties counting half (arXiv 2108.13264)."""
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float((np.sign(one[:, None] - two[None]).mean() + 1) / 2)


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the share of `[n]` runs that reach each of `[k]` thresholds, `[k]` (arXiv 2108.13264, sec. 4.3)."""
    profile: NDArray[np.float64] = (np.asarray(scores)[:, None] >= np.asarray(thresholds)[None]).mean(0)
    return profile


def compare_pairs(first: ArrayLike, second: ArrayLike, margin: float) -> dict[str, Any]:
    """Compare two recipes on replicates that they share, in the same order.

    Returns:
        `n`; `difference` of the means; its intervals `interval_95` (paired bootstrap), `t_interval_95` and
        `t_interval_90`; `p` (sign flips; None for fewer than six replicates); `equivalent` within the margin (False for
        fewer than six); `improvement`, the probability of it. Intervals are None for a single replicate.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    differences = one - two
    enough, several = len(differences) >= FEWEST, len(differences) > 1
    return {
        "n": len(differences),
        "difference": float(differences.mean()),
        "interval_95": mean_bootstrap(differences) if several else None,
        "t_interval_95": mean_t(differences) if several else None,
        "t_interval_90": mean_t(differences, 0.90) if several else None,
        "p": sign_flip(differences) if enough else None,
        "equivalent": enough and equivalent(differences, margin),
        "improvement": probability_of_improvement(one, two),
    }

"""Compare evaluations of policies: differences, intervals, p values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.evaluation.significance import (
    FEWEST,
    compare_pairs,
    mean_samples,
    mean_t,
    permutation,
    probability_of_improvement,
)
from pixelrl.simulation.evaluation.statistics import (
    holm,
    interquartile_mean,
    mcnemar,
    paired_score_interval,
    percentiles,
    stratified_bootstrap,
    verdict_on,
    wilson,
)

PAIRED = "exact McNemar test on the same starts; difference: score interval (Tango, 1998)"
REPLICATES = "exact sign-flip test over runs that share a training seed; difference: paired bootstrap over runs"
ACROSS = "permutation test of the mean over runs, unpaired; difference: stratified bootstrap over runs"

PICTURE_OPTIONS = ("camera_", "use_camera_obs", "render_", "has_", "renderer")
"""Beginnings of the names of an environment's options that change pictures alone."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is compared: one policy, or several runs of one recipe.

    Attributes:
        name: as the user wrote it.
        evaluations: the contents of one `evaluation.json` a run, in the order of their paths.
    """

    name: str
    evaluations: tuple[Mapping[str, Any], ...]

    @property
    def successes(self) -> list[bool]:
        """Return whether each episode succeeded, run by run."""
        return [bool(each["success"]) for run in self.evaluations for each in run["outcomes"]]

    @property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Return the success rates of the runs, by environment."""
        rates: dict[str, list[float]] = {}
        for run in self.evaluations:
            rates.setdefault(environment(run), []).append(run["success_rate"])
        return {name: np.array(values) for name, values in sorted(rates.items())}

    @property
    def by_seed(self) -> dict[tuple[str, int], Mapping[str, Any]]:
        """Return the runs by environment and training seed; none unless each has its own."""
        runs = {
            (environment(run), seed): run
            for run in self.evaluations
            if (seed := run.get("policy", {}).get("training_seed")) is not None
        }
        return runs if len(runs) == len(self.evaluations) else {}


def adjust(comparisons: Sequence[dict[str, Any]], alpha: float) -> None:
    """Add p values adjusted for their number (Holm) and verdicts; too few runs have neither a p nor a verdict."""
    tested = [each for each in comparisons if each["p"] is not None]
    for each in comparisons:
        each |= {"p_adjusted": None, "verdict": "undetermined"}
    for each, p in zip(tested, holm([each["p"] for each in tested]), strict=True):
        each |= {"p_adjusted": p, "verdict": verdict_on(each["difference"], p, alpha)}


def compare_methods(names: Sequence[str], *, alpha: float = 0.05, margin: float = 0.1) -> dict[str, Any]:
    """Compare the first method with each of the others; p values are adjusted for their number (Holm).

    Args:
        names: two or more, each a directory with an `evaluation.json`, such a file, or a glob of them: the runs of one
            method.
        alpha: how often a verdict may be wrong where there is no difference.
        margin: largest difference of success rates that does not matter, for runs that share seeds or starts.

    Returns:
        `alpha`; `methods`, with what each reached by itself; and `comparisons`, with the verdicts.

    Raises:
        PixelrlError: no evaluation there, or evaluations that cannot be compared.
    """
    if len(names) < 2:
        raise PixelrlError(f"compare needs two methods or more, such as runs/a runs/b; got {len(names)}")
    if not 0 < alpha < 1:
        raise PixelrlError(f"--alpha is {alpha}; it must lie between 0 and 1")
    if not 0 < margin < 1:
        raise PixelrlError(f"--margin is {margin}; it must lie between 0 and 1")
    first, *others = [read_method(name) for name in names]
    comparisons = [compare_two(first, other, margin) for other in others]
    adjust(comparisons, alpha)
    methods = [describe(method) for method in (first, *others)]
    return {"alpha": alpha, "methods": methods, "comparisons": comparisons}


def read_method(name: str) -> Method:
    """Read the evaluations of a method."""
    paths = sorted(map(Path, glob(name, recursive=True))) or [Path(name)]  # noqa: PTH207 (a pattern)
    evaluations = []
    for path in paths:
        file = path / "evaluation.json" if path.is_dir() else path
        try:
            evaluation = json.loads(file.read_text())
            evaluation["success_rate"], [(each["success"], each["seed"]) for each in evaluation["outcomes"]]
        except FileNotFoundError as error:
            raise PixelrlError(f"{file}: no such file; `pixelrl evaluate {path}` writes it") from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise PixelrlError(f"{file}: not an evaluation that `pixelrl evaluate` wrote ({error!r})") from error
        evaluations.append(evaluation)
        if len(paths) > 1 and evaluation.get("until") is not None:
            raise PixelrlError(
                f"{file}: was stopped by --until, so its rate leans to one side; evaluate each run without it"
            )
    return Method(name=name, evaluations=tuple(evaluations))


def environment(evaluation: Mapping[str, Any]) -> str:
    """Return the name of an evaluation's environment."""
    return str(evaluation.get("env_args", {}).get("env_name", "unknown"))


def starts_of(evaluation: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return where each episode of an evaluation began, in a file of states or a scene, and its seed."""
    states = evaluation.get("starts")
    begin = f"initial states {states['sha256']}" if states else scene_of(evaluation)
    return [(begin, int(each["seed"])) for each in evaluation["outcomes"]]


def scene_of(evaluation: Mapping[str, Any]) -> str:
    """Return an evaluation's environment and its options, without those of its pictures."""
    options = (evaluation.get("env_args", {}).get("env_kwargs") or {}).items()
    scene = {key: value for key, value in options if not key.startswith(PICTURE_OPTIONS)}
    return f"{environment(evaluation)} {json.dumps(scene, sort_keys=True)}"


def describe(method: Method) -> dict[str, Any]:
    """Return what a method reached by itself."""
    successes = method.successes
    scores = list(method.scores.values())
    body: dict[str, Any] = {
        "name": method.name,
        "runs": len(method.evaluations),
        "episodes": len(successes),
        "successes": sum(successes),
    }
    if len(method.evaluations) == 1:
        (run,) = method.evaluations
        stopped = run.get("until") is not None  # Wilson's interval, of a number fixed before, would be too short
        interval = run["success_interval_95"] if stopped else wilson(sum(successes), len(successes))
        return body | {"rate": sum(successes) / len(successes), "interval_95": interval}
    rates = np.concatenate(scores)
    low, high = mean_t(rates)
    body |= {"rate": float(rates.mean()), "interval_95": (max(0.0, low), min(1.0, high))}
    middle = {"iqm": interquartile_mean(scores), "iqm_interval_95": percentiles(stratified_bootstrap(scores))}
    return body | middle


def compare_two(first: Method, second: Method, margin: float) -> dict[str, Any]:
    """Compare two methods: by their starts where each is one run, else by runs, paired where these share seeds."""
    body: dict[str, Any] = {"first": first.name, "second": second.name}
    if len(first.evaluations) == len(second.evaluations) == 1:
        if starts_of(first.evaluations[0]) != starts_of(second.evaluations[0]):
            raise from_other_starts(first, second)
        one, two = first.successes, second.successes
        difference = (sum(one) - sum(two)) / len(one)
        counts = mcnemar(one, two)
        bounds_at = partial(paired_score_interval, int(counts["won"]), int(counts["lost"]), len(one))
        interval, (low, high) = bounds_at(0.95), bounds_at(0.9)
        body |= {"test": PAIRED, "difference": difference, "interval_95": interval, **counts, "margin": margin}
        bounds = {"score_interval_90": (low, high), "non_inferior": high < margin}
        return body | bounds | {"equivalent": -margin < low and high < margin}
    paired, other = first.by_seed, second.by_seed
    if paired and paired.keys() == other.keys():
        if any(starts_of(run) != starts_of(other[key]) for key, run in paired.items()):
            raise from_other_starts(first, second)
        mine, others = ([float(runs[key]["success_rate"]) for key in paired] for runs in (paired, other))
        return body | {"test": REPLICATES, "margin": margin, **compare_pairs(mine, others, margin)}
    ours, theirs = first.scores, second.scores
    if ours.keys() != theirs.keys():
        raise PixelrlError(f"{first.name} was evaluated in {', '.join(ours)}, {second.name} in {', '.join(theirs)}")
    if {*map(scene_of, first.evaluations)} != {*map(scene_of, second.evaluations)}:
        raise from_other_starts(first, second)
    return body | {"test": ACROSS, **compare_unpaired(list(ours.values()), list(theirs.values()))}


def from_other_starts(first: Method, second: Method) -> PixelrlError:
    """Return the error of methods that were not tried alike."""
    return PixelrlError(
        f"{first.name} and {second.name} were evaluated from other starts; evaluate both in the same environment, with "
        "the same options, --seed and --episodes, or from the same --starts"
    )


def compare_unpaired(ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Compare the scores of two methods' runs, those of each environment apart; too few runs have no p."""
    gaps = [one.mean() - two.mean() for one, two in zip(ours, theirs, strict=True)]
    count = min(sum(map(len, ours)), sum(map(len, theirs)))
    drawn = [
        mean_samples(one, seed=2 * task) - mean_samples(two, seed=2 * task + 1)
        for task, (one, two) in enumerate(zip(ours, theirs, strict=True))
    ]
    return {
        "n": count,
        "difference": float(np.mean(gaps)),
        "interval_95": percentiles(np.mean(drawn, axis=0)),
        "p": permutation(ours, theirs) if count >= FEWEST else None,
        "improvement": float(np.mean([probability_of_improvement(*pair) for pair in zip(ours, theirs, strict=True)])),
    }

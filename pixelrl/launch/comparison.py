"""Compare evaluations of policies: differences, intervals, p values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.evaluation.statistics import (
    holm,
    interquartile_mean,
    mcnemar,
    paired_bootstrap,
    percentiles,
    stratified_bootstrap,
    verdict_on,
    wilson,
)

PAIRED = "exact McNemar test on the same starts; difference: paired bootstrap over starts"
ACROSS = "difference of interquartile means over runs; stratified bootstrap over runs"

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
    def starts(self) -> list[tuple[str, int]]:
        """Return where each episode began, and its seed, run by run."""
        return [(start_of(run), int(each["seed"])) for run in self.evaluations for each in run["outcomes"]]

    @property
    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Return the success rates of the runs, by environment."""
        rates: dict[str, list[float]] = {}
        for run in self.evaluations:
            rates.setdefault(environment(run), []).append(run["success_rate"])
        return {name: np.array(values) for name, values in sorted(rates.items())}


def compare_methods(names: Sequence[str], *, alpha: float = 0.05) -> dict[str, Any]:
    """Compare the first method with each of the others; p values are adjusted for their number (Holm).

    Args:
        names: two or more, each a directory with an `evaluation.json`, such a file, or a glob of them: the runs of one
            method.
        alpha: how often a verdict may be wrong where there is no difference.

    Returns:
        `alpha`; `methods`, with what each reached by itself; and `comparisons`, with the verdicts.

    Raises:
        PixelrlError: no evaluation there, or evaluations that cannot be compared.
    """
    if len(names) < 2:
        raise PixelrlError(f"compare needs two methods or more, such as runs/a runs/b; got {len(names)}")
    if not 0 < alpha < 1:
        raise PixelrlError(f"--alpha is {alpha}; it must lie between 0 and 1")
    first, *others = [read_method(name) for name in names]
    comparisons = [compare_two(first, other) for other in others]
    for each, p in zip(comparisons, holm([each["p"] for each in comparisons]), strict=True):
        each |= {"p_adjusted": p, "verdict": verdict_on(each["difference"], p, alpha)}
    methods = [describe(method) for method in (first, *others)]
    return {"alpha": alpha, "methods": methods, "comparisons": comparisons}


def read_method(name: str) -> Method:
    """Read the evaluations of a method.

    Raises:
        PixelrlError: there are none, or one is not an evaluation.
    """
    paths = expand_glob(name) or [Path(name)]
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
    return Method(name=name, evaluations=tuple(evaluations))


def expand_glob(pattern: str) -> list[Path]:
    """Return the paths that a glob matches, sorted; none if it is no glob."""
    path = Path(pattern)
    return (
        sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if any(c in pattern for c in "*?[") else []
    )


def environment(evaluation: Mapping[str, Any]) -> str:
    """Return the name of an evaluation's environment."""
    return str(evaluation.get("env_args", {}).get("env_name", "unknown"))


def start_of(evaluation: Mapping[str, Any]) -> str:
    """Return what decides how an evaluation's episodes begin, beside their seeds: a file of initial states, or a scene.

    A scene is an environment and its options, without those of its pictures.
    """
    if states := evaluation.get("starts"):
        return f"initial states {states['sha256']}"
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
        return body | {"rate": sum(successes) / len(successes), "interval_95": wilson(sum(successes), len(successes))}
    return body | {"rate": interquartile_mean(scores), "interval_95": percentiles(stratified_bootstrap(scores))}


def compare_two(first: Method, second: Method) -> dict[str, Any]:
    """Compare two methods.

    Raises:
        PixelrlError: they were evaluated on other starts or environments.
    """
    body = {"first": first.name, "second": second.name}
    if len(first.evaluations) == len(second.evaluations) == 1:
        if first.starts != second.starts:
            raise PixelrlError(
                f"{first.name} and {second.name} were evaluated from other starts; evaluate both in the same "
                "environment, with the same options, --seed and --episodes, or from the same --starts"
            )
        one, two = first.successes, second.successes
        difference = (sum(one) - sum(two)) / len(one)
        interval = paired_bootstrap(one, two)
        return body | {"test": PAIRED, "difference": difference, "interval_95": interval, **mcnemar(one, two)}
    ours, theirs = first.scores, second.scores
    if ours.keys() != theirs.keys():
        raise PixelrlError(f"{first.name} was evaluated in {', '.join(ours)}, {second.name} in {', '.join(theirs)}")
    mine, other = list(ours.values()), list(theirs.values())
    samples = stratified_bootstrap(mine, seed=1) - stratified_bootstrap(other, seed=2)
    difference = interquartile_mean(mine) - interquartile_mean(other)
    p = min(1.0, 2 * min(float((samples <= 0).mean()), float((samples >= 0).mean())) + 1 / len(samples))
    return body | {"test": ACROSS, "difference": difference, "interval_95": percentiles(samples), "p": p}

"""What the records of a study say: a table of arms, paired comparisons, and the sentences that follow."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from scipy.stats import spearmanr

from pixelrl.launch.study_design import Arm, Comparison, Study
from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.evaluation.significance import FEWEST, compare_pairs, mean_bootstrap, mean_t
from pixelrl.simulation.evaluation.statistics import holm, interquartile_mean, verdict_on

Records = Mapping[tuple[int, str], Mapping[str, Any]]

MECHANISM = ("features/dot", "features/norm", "features/cosine", "features/srank", "policy/distance@prior")
"""Figures of the probe that are set against success."""

PROBED = (
    *("features/dot", "features/dot_recorded", "features/dot_random", "features/norm"),
    *("features/cosine", "features/srank", "features/last_layer", "q/data"),
    *("q/policy_minus_data", "q/td_error", "q/return_error"),
    *("policy/distance", "policy/distance@prior", "policy/log_prob"),
)
"""Figures of the probe that are drawn against steps."""


def analyse(study: Study, records: Records) -> dict[str, Any]:
    """Return everything that a study's page, figures and tables show, as JSON values.

    The outcome of a run is its mean success over the steps `evaluate.late`; a failed run's is 0 at every step.

    Raises:
        PixelrlError: an arm stops at the peak of a figure that no record has.
    """
    arms = {name: describe(study, arm, records) for name, arm in study.arms.items()}
    comparisons = [compare(study, each, arms) for each in study.comparisons]
    add_verdicts(study, comparisons)
    words = {each["name"]: each["words"] for each in comparisons}
    claims = [
        claim.sentence
        for claim in study.claims
        if len(records) == len(study.runs())  # nothing is claimed before the plan is done
        and all({*words[name]} & {*allowed} for name, allowed in claim.when.items())
    ]
    failed = [
        {"replicate": replicate, "arm": arm, "failed": record["failed"]}
        for (replicate, arm), record in sorted(records.items())
        if record["failed"]
    ]
    return {
        "study": study.name,
        **{key: getattr(study, key) for key in ("question", "steps", "late", "episodes", "margin", "alpha")},
        "planned": len(study.runs()),
        "done": len(records),
        "arms": arms,
        "comparisons": comparisons,
        "pooled_sd": pooled_sd(comparisons),
        "claims": claims,
        "failed": failed,
        "mechanism": mechanism(study, records),
        "probe": {name: probe_curves(study, records, name) for name in PROBED},
        "hours": round(sum(sum(each["spent"].values()) for each in records.values()) / 3600, 2),
        "commits": sorted({str(each["commit"]) for each in records.values()}),
        "machines": sorted({str(each["machine"]["processor"]) for each in records.values()}),
    }


def rates(study: Study, record: Mapping[str, Any]) -> dict[int, float]:
    """Return a run's success rate at each step."""
    if record["failed"]:
        return dict.fromkeys(study.steps, 0.0)
    return {each["step"]: each["successes"] / each["episodes"] for each in record["evaluations"]}


def late_success(study: Study, curve: Mapping[int, float]) -> float:
    """Return the mean success over the late steps."""
    return float(np.mean([curve[step] for step in study.late]))


def outcomes_of(study: Study, arm: Arm, records: Records) -> dict[int, tuple[float, dict[int, float]]]:
    """Return an arm's outcome on each replicate, and its success rate by step.

    Of an arm that stops at a peak, that step counts alone; a run without the figure has no outcome.

    Raises:
        PixelrlError: no run has the figure.
    """
    mine = {run[0]: record for run, record in records.items() if run[1] == (arm.of if arm.stop_at_peak else arm.name)}
    found: dict[int, tuple[float, dict[int, float]]] = {}
    names: set[str] = set()
    for replicate in study.replicates if study.episodes else ():
        if replicate not in mine:
            continue
        record = mine[replicate]
        curve = rates(study, record)
        if arm.stop_at_peak is None or record["failed"]:
            found[replicate] = late_success(study, curve), curve
            continue
        names.update(*record["probe"].values())
        figures = {int(step): each.get(arm.stop_at_peak) for step, each in record["probe"].items()}
        known = {step: value for step, value in figures.items() if value is not None}
        if known:
            stopped = curve[max(known, key=lambda step: known[step])]
            found[replicate] = stopped, dict.fromkeys(study.steps, stopped)
    if names and arm.stop_at_peak not in names:
        raise PixelrlError(
            f"arms.{arm.name}.stop_at_peak: no record has the figure {arm.stop_at_peak!r}; "
            f"they have {', '.join(sorted(names))}"
        )
    return found


def describe(study: Study, arm: Arm, records: Records) -> dict[str, Any]:
    """Return what an arm reached: outcomes by replicate, their mean with its intervals, and the curve."""
    found = outcomes_of(study, arm, records)
    body: dict[str, Any] = {"label": arm.label, "n": len(found), "outcomes": {}, "curves": {}, "mean": None}
    body["stopped"] = arm.stop_at_peak is not None
    if not found:
        return body | {"sd": None, "iqm": None, "interval_95": None, "by_step": {}}
    late = np.array([value for value, _ in found.values()])
    several = len(late) > 1
    by_step = {step: mean_and_interval([curve[step] for _, curve in found.values()]) for step in study.steps}
    return body | {
        "outcomes": {replicate: value for replicate, (value, _) in found.items()},
        "curves": {replicate: curve for replicate, (_, curve) in found.items()},
        "mean": float(late.mean()),
        "sd": float(late.std(ddof=1)) if several else None,
        "iqm": interquartile_mean([late]),
        "interval_95": mean_t(late) if several else None,
        "by_step": by_step,
    }


def compare(study: Study, asked: Comparison, arms: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two arms on the replicates that both have, and that the comparison counts."""
    first, second = (outcomes(arms[name], asked.steps) for name in (asked.first, asked.second))
    counted = asked.replicates or study.replicates
    shared = [replicate for replicate in counted if replicate in first and replicate in second]
    body: dict[str, Any] = {"name": asked.name, "confirmatory": asked.confirmatory, "n": len(shared)}
    body |= {"first": asked.first, "second": asked.second, "steps": asked.steps}
    body["differences"] = {each: first[each] - second[each] for each in shared}
    if not shared:
        return body | {"difference": None, "interval_95": None, "p": None, "equivalent": False, "sd": None}
    pairs = np.array([[first[each], second[each]] for each in shared])
    found = body | compare_pairs(pairs[:, 0], pairs[:, 1], study.margin)
    found["sd"] = float((pairs[:, 0] - pairs[:, 1]).std(ddof=1)) if len(shared) > 1 else None
    one, other = (arms[name]["curves"] for name in (asked.first, asked.second))
    for key, steps in (("all_steps", study.steps), ("last_step", study.steps[-1:])):
        over = mean_and_interval([np.mean([one[each][step] - other[each][step] for step in steps]) for each in shared])
        found[key] = {"difference": over["mean"], "interval_95": over["interval_95"]}
    if not asked.confirmatory:
        found["p"] = None
    return found


def outcomes(arm: Mapping[str, Any], steps: Sequence[int]) -> Mapping[int, float]:
    """Return an arm's outcomes by replicate: late success, or the mean success at some steps."""
    if not steps:
        return cast(Mapping[int, float], arm["outcomes"])
    return {each: float(np.mean([curve[step] for step in steps])) for each, curve in arm["curves"].items()}


def mean_and_interval(values: Sequence[Any]) -> dict[str, Any]:
    """Return the mean over replicates and its bootstrap interval; None of one replicate."""
    return {"mean": float(np.mean(values)), "interval_95": mean_bootstrap(values) if len(values) > 1 else None}


def pooled_sd(comparisons: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the SD of paired differences over the confirmatory comparisons, which tells of no direction."""
    known = [each["sd"] for each in comparisons if each["confirmatory"] and each["sd"] is not None]
    return float(np.sqrt(np.square(known).mean())) if known else None


def add_verdicts(study: Study, comparisons: Sequence[dict[str, Any]]) -> None:
    """Add to each comparison what it came to (`words`), and the sentence that may be said of it."""
    tested = [each for each in comparisons if each["p"] is not None]
    for each, adjusted in zip(tested, holm([each["p"] for each in tested]), strict=True):
        each["p_adjusted"] = adjusted
    for each in comparisons:
        each.setdefault("p_adjusted", None)
        if not each["confirmatory"]:
            words = ["exploratory"]
        elif each["n"] < FEWEST:
            words = ["too few"]
        else:
            words = ["equivalent"] if each["equivalent"] else []
            verdict = verdict_on(each["difference"], each["p_adjusted"], study.alpha)
            if verdict != "undetermined" or not words:
                words.insert(0, verdict)
        each["words"], each["sentence"] = words, ""
        each["sentence"] = sentence(study, each)


def sentence(study: Study, found: Mapping[str, Any]) -> str:
    """Return what may be said of a comparison, and no more."""
    first, second = (study.arms[found[key]].label for key in ("first", "second"))
    n, at = found["n"], f" at {', '.join(map(str, found['steps']))} steps" if found["steps"] else ""
    if found["difference"] is None:
        return f"{first} and {second}{at}: no replicate that counts has both."
    by = f"{points(found['difference'])} points{at}"
    if found["interval_95"] is not None:
        low, high = map(points, found["interval_95"])
        by += f", 95 % interval {low} to {high}"
    by += f", {n} replicate{'s' * (n > 1)}"
    margin = f"{100 * study.margin:.0f} points"
    match found["words"][0]:
        case "too few":
            return f"{first} against {second}: no verdict ({by}; six are the least)."
        case "exploratory":
            return f"{first} against {second}, exploratory: {by}. Looked at beside the plan: no verdict."
        case "better" | "worse" as word:
            small = f", and yet within {margin}" if found["equivalent"] else ""
            return f"{first} is {word} than {second} in this setting{small} ({by}; p = {found['p_adjusted']:.2g})."
        case "equivalent":
            return f"No difference that matters between {first} and {second} in this setting: within {margin} ({by})."
    needed = math.ceil((2.8 * found["sd"] / study.margin) ** 2)
    return (
        f"{first} against {second}: undetermined ({by}; p = {found['p_adjusted']:.2g}). About {max(needed, FEWEST)} "
        f"replicates would show a difference of {margin} in four of five studies."
    )


def points(value: float) -> str:
    """Return a difference of rates in points, with its sign."""
    return f"{100 * value:+.0f}"


def mechanism(study: Study, records: Records) -> dict[str, Any]:
    """Return, for figures of the probe, a dot a run (outcome, figure at the last step), and Spearman's rho.

    `within` is the mean of the rhos within arms of at least four runs: across arms, a figure goes with success as soon
    as one arm moves both.
    """
    found: dict[str, Any] = {}
    for name in MECHANISM:
        dots = []
        for (replicate, arm), record in records.items() if study.episodes else ():
            value = record["probe"].get(str(study.steps[-1]), {}).get(name)
            if value is not None and arm in study.arms:
                late = late_success(study, rates(study, record))
                dots.append({"arm": arm, "replicate": replicate, "outcome": late, "value": value})
        arms = {dot["arm"] for dot in dots}
        groups = [[dot for dot in dots if dot["arm"] == arm] for arm in sorted(arms)]
        within = [each for group in groups if len(group) >= 4 and (each := rho(group)) is not None]
        found[name] = {"dots": dots, "rho": rho(dots), "within": float(np.mean(within)) if within else None}
    return found


def probe_curves(study: Study, records: Records, name: str) -> dict[str, Any]:
    """Return a figure of the probe by arm and step: its values over replicates, their mean and bootstrap interval."""
    found: dict[str, Any] = {}
    for arm in study.tried:
        for step in study.steps:
            probes = [each["probe"].get(str(step), {}) for key, each in records.items() if key[1] == arm.name]
            values = [value for each in probes if (value := each.get(name)) is not None]
            if values:
                found.setdefault(arm.name, {})[step] = {"values": values} | mean_and_interval(values)
    return found


def rho(dots: Sequence[Mapping[str, Any]]) -> float | None:
    """Return Spearman's rank correlation of outcome and figure; None where it is not defined."""
    columns = [[dot[key] for dot in dots] for key in ("outcome", "value")]
    if len(dots) < 3 or any(len({*column}) < 2 for column in columns):
        return None
    return float(spearmanr(*columns).statistic)

"""Trainings as one HTML page: curves with what they mean, data, evaluations, command and machine."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelrl.launch.reports.pages import write_page
from pixelrl.launch.reports.run_curves import Curve, colour_of, draw_curves, legend, over_runs
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.metrics_log import read_figures

MEANING = {
    "q/data": "Q of recorded actions: what the critic thinks of the data. Bounded by the returns, if all is well.",
    "q/policy_minus_data": "Q of the policy's actions minus Q of recorded ones: far above 0, it dreams of unseen ones.",
    "q/td_error": "Distance of Q from its target. Rising late: the critic is losing what it knew.",
    "q/cql_gap": "Soft maximum of Q over actions minus Q of the data: how conservative the critic is.",
    "q/random": "Q of random actions. Near Q of the data: the critic hardly looks at actions.",
    "features/dot": "phi(s, a) . phi(s', a'), DR3's penalty. Rising for ever: features of consecutive steps align.",
    "features/cosine": "The same without the length of features: 1 means one direction for both.",
    "features/norm": "|phi|, the length of features; it trades against the last layer's weights.",
    "features/last_layer": "The norm of the weights that multiply phi.",
    "features/srank": "Effective rank of the features of a batch: falling, they use fewer directions.",
    "features/dead": "Share of units that are 0 for the whole batch.",
    "time/data_wait": "Share of the time in which the learner waited for its batches.",
}
"""What a figure says, for who reads it for the first time."""


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One training as it lies on the disk.

    Attributes:
        path: of its directory.
        config: `config.json`.
        curves: figure -> step -> value, of `metrics.csv`.
        successes: environment -> step -> share of successes, of its evaluations.
        evaluations: what each evaluation says in one line.
        training: what `training.json` says, in the cells of a table.
        ledger: what it learned from, a line each; empty while it runs.
    """

    path: Path
    config: Mapping[str, Any]
    curves: Mapping[str, Mapping[int, float]]
    successes: Mapping[str, Mapping[int, float]]
    evaluations: tuple[str, ...]
    training: tuple[str, ...]
    ledger: tuple[str, ...]


def read_run(path: Path) -> LoggedRun:
    """Read what a training has logged, also while it runs.

    Raises:
        PixelrlError: it is no run, or its files are damaged.
    """
    if not (path / "config.json").is_file():
        raise PixelrlError(f"{path}: not a training run: it has no config.json")
    try:
        config = json.loads((path / "config.json").read_text())
        curves = read_figures(path / "metrics.csv") if (path / "metrics.csv").is_file() else {}
        training = json.loads((path / "training.json").read_text()) if (path / "training.json").is_file() else {}
        found = [json.loads(file.read_text()) for file in sorted(path.glob("**/evaluation.json"))]
        successes: dict[str, dict[int, float]] = {}
        for each in found:
            if (step := each["policy"].get("step")) is not None:  # of an exported policy nobody says which it is
                successes.setdefault(environment_of(each), {})[int(step)] = float(each["success_rate"])
        lines = tuple(evaluation_line(each) for each in found)
        cells, ledger = training_cells(training), tuple(map(str, training.get("data", ())))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise PixelrlError(f"{path}: its record is damaged ({error!r})") from error
    told = {"evaluations": lines, "training": cells, "ledger": ledger}
    return LoggedRun(path=path, config=config, curves=curves, successes=successes, **told)


def environment_of(result: Mapping[str, Any]) -> str:
    """Return the name of an evaluation's environment."""
    return str(result["env_args"]["env_name"])


def evaluation_line(result: Mapping[str, Any]) -> str:
    """Return an evaluation in one line."""
    low, high = result["success_interval_95"]
    when = f", step {result['policy'].get('step')}" if result["policy"].get("step") else ""
    share = f"{result['successes']} of {result['episodes']} succeed"
    return f"{environment_of(result)}{when}: {share}, 95 % interval {low:.0%} to {high:.0%}"


def write_run_page(path: Path, methods: Mapping[str, Sequence[LoggedRun]], record: Mapping[str, Any]) -> None:
    """Write the page, atomically; `methods`: name -> runs that differ in their seeds."""
    names = list(methods)
    title = f"Training of {names[0]}" if len(names) == 1 else f"{len(names)} methods"
    groups = [(head, figures) for head, wanted in groups_of(methods) if (figures := draw_group(methods, wanted))]
    runs = [(name, run) for name, runs in methods.items() for run in runs]
    write_page(
        path,
        "run.html.j2",
        title=title,
        names=names,
        legend=legend(names),
        groups=groups,
        successes=draw_successes(methods),
        evaluations=[(name, run.path.name, line) for name, run in runs for line in run.evaluations],
        data=[
            (name, run.path.name, source, str(len(files)), rule_of(run, source))
            for name, run in runs
            for source, files in run.config.get("data", {}).items()
        ],
        ledgers=[(name, run.path.name, run.ledger) for name, run in runs if run.ledger],
        trainings=[(name, run.path.name, *run.training) for name, run in runs],
        differences=differences(methods),
        record=record,
    )


def groups_of(methods: Mapping[str, Sequence[LoggedRun]]) -> list[tuple[str, list[str]]]:
    """Return the headings of figures, and the figures under each."""
    every = list(dict.fromkeys(name for runs in methods.values() for run in runs for name in run.curves))
    plain = [name for name in every if "@" not in name]
    known = [name for name in MEANING if name in plain]
    sources = [name for name in every if "@" in name and name.split("@")[0] in ("q/data", "q/td_error", "features/dot")]
    terms = [name for name in plain if name.split("/")[0] in ("critic", "value", "actor")]
    rest = [name for name in plain if name not in (*known, *terms)]
    heads = ("What the critic thinks", "By source of the data", "Terms of the losses", "More")
    return list(zip(heads, (known, sources, terms, rest), strict=True))


def draw_group(methods: Mapping[str, Sequence[LoggedRun]], wanted: Sequence[str]) -> list[tuple[str, Any, str]]:
    """Return each figure's name, drawing and meaning, where some run has it."""
    known = {name: curves_of(methods, "curves", name) for name in wanted}
    return [(name, draw_curves(curves), meaning_of(name)) for name, curves in known.items() if curves]


def meaning_of(name: str) -> str:
    """Return what a figure says, also one of a source, or of a term of a loss."""
    plain, _, source = name.partition("@")
    objective, _, rest = plain.partition("/")
    if plain in MEANING:
        return MEANING[plain] + (f" Of rows of {source} alone." if source else "")
    if objective not in ("critic", "value", "actor"):
        return ""
    if rest == "loss":
        return f"The whole loss of the {objective}: its terms, weighted and summed."
    return (
        f"A term of the {objective}'s loss, before its weight." if "/" not in rest else "What the term logs beside it."
    )


def draw_successes(methods: Mapping[str, Sequence[LoggedRun]]) -> dict[str, Any]:
    """Return environment -> the drawing of successes against steps, of those in which some run was evaluated."""
    environments = sorted({name for runs in methods.values() for run in runs for name in run.successes})
    known = {name: curves_of(methods, "successes", name) for name in environments}
    return {name: draw_curves(curves, (0.0, 1.0)) for name, curves in known.items()}


def curves_of(methods: Mapping[str, Sequence[LoggedRun]], kind: str, name: str) -> list[Curve]:
    """Return the curve of each method of which some run has a figure, or was evaluated in an environment."""
    found = (
        over_runs([getattr(run, kind).get(name, {}) for run in runs], colour_of(place))
        for place, runs in enumerate(methods.values())
    )
    return [curve for curve in found if curve is not None]


def rule_of(run: LoggedRun, source: str) -> str:
    """Return what is said of a source of a run."""
    rules = run.config.get("sources", {}).get(source, {})
    return ", ".join(f"{key} {value}" for key, value in rules.items() if value not in (None, ""))


def training_cells(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is said of a training: steps, seconds, version, machine, command; of one that runs, only that."""
    if not training:
        return ("running", "", "", "", "")
    version = f"{training['version']}, {(training['commit'] or 'no checkout')[:7]}"
    machine = ", ".join(f"{key} {value}" for key, value in training["machine"].items() if value is not None)
    seconds = f"{training['training_seconds']:.0f}"
    return str(training["steps"]), seconds, version, machine, " ".join(training["command"])


def differences(methods: Mapping[str, Sequence[LoggedRun]]) -> list[tuple[str, ...]]:
    """Return the recipe's options in which the first runs of methods differ: option, and each method's value."""
    recipes = [flat(runs[0].config.get("recipe", {})) for runs in methods.values()]
    keys = list(dict.fromkeys(key for recipe in recipes for key in recipe if key != "seed"))
    rows = [(key, *(recipe.get(key, "-") for recipe in recipes)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Return the leaves of nested JSON values by their paths; terms of a loss under their classes."""
    if isinstance(value, dict):
        parts = [flat(item, f"{name}.{key}" if name else key) for key, item in value.items() if key != "is"]
        leaves = {key: text for part in parts for key, text in part.items()}
        return ({name: str(value["is"])} if "is" in value and name else {}) | leaves
    if isinstance(value, list) and value and all(isinstance(item, dict) and "is" in item for item in value):
        parts = [flat(item, f"{name}.{item['is'].lower()}") for item in value]
        return {key: text for part in parts for key, text in part.items()}
    if isinstance(value, float) and math.isfinite(value):
        return {name: f"{value:g}"}
    return {name: json.dumps(value)}

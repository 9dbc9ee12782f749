"""A study as one TOML file: which arms are trained on which replicates, how they are tried, and what may be concluded.

See docs/study.md for every key.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.options import told_in_a_line
from pixelrl.launch.study_design import Arm, Claim, Comparison, Study
from pixelrl.launch.toml_table import TomlTable
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import PixelrlError

OURS = ("task", "prior", "source", "out", "seed", "seeds", "snapshot-every", "resume", "threads", "profile")
"""Options of `pixelrl train` that a study sets itself."""

OURS_OF_EVALUATE = ("seed", "episodes", "out", "until", "select", "step", "workers", "starts", "token_file")
"""Options of `pixelrl evaluate` that a study sets itself, or that do not go with these."""

WASTE = 50
"""How many snapshots a run may write for each that is tried."""

VERDICTS = ("better", "worse", "equivalent", "undetermined", "too few", "exploratory")
"""What a comparison may come to."""


def read_study(path: Path) -> Study:
    """Read a study, and check every key and every option of its arms.

    Raises:
        PixelrlError: no such file, or one that is no study; it names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        body = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PixelrlError(f"{path}: not TOML ({error})") from error
    top = TomlTable(path, "", body)
    seeds = top.take("replicates", [int], needed=True)
    values = read_evaluation(top) | read_data(top) | read_probe(top)
    arms = read_arms(top, seeds, math.gcd(*values["steps"]))
    values |= {
        "question": top.take("question", str, needed=True),
        "replicates": seeds,
        "seed": top.take("seed", int, 0),
        "order": top.take("order", str, "random"),
        "alpha": top.take("alpha", float, 0.05),
        "margin": top.take("margin", float, 0.1),
    }
    comparisons = read_comparisons(top, arms, values["steps"] if values["episodes"] else (), seeds)
    claims = read_claims(top, {each.name for each in comparisons})
    for key, allowed, right in (
        ("replicates", min(seeds) >= 0 and len({*seeds}) == len(seeds), "different seeds, at least 0"),
        ("seed", values["seed"] >= 0, "at least 0"),
        ("order", values["order"] in ("random", "replicates"), "random or replicates"),
        ("alpha", 0 < values["alpha"] < 1, "between 0 and 1"),
        ("margin", 0 < values["margin"] < 1, "between 0 and 1"),
    ):
        if not allowed:
            raise top.error(key, repr(values[key]), right)
    top.end()
    study = Study(name=path.stem, text=text, arms=arms, comparisons=comparisons, claims=claims, **values)
    for arm in study.tried:
        check_options(path, study, arm)
    return study


def read_arms(top: TomlTable, replicates: Sequence[int], every: int) -> dict[str, Arm]:
    """Return the arms by name; runs keep a snapshot every so many steps."""
    recipe, common, tables = top.take("recipe", str), top.words("train"), top.table("arms", needed=True)
    arms: dict[str, Arm] = {}
    for name in list(tables.body):
        table = tables.table(name)
        of, peak, window = table.take("of", str), table.take("stop_at_peak", str), table.take("average", int)
        title, mine = table.take("title", str, name), table.take("recipe", str)
        train, some = table.words("train"), table.some("replicates", replicates, None)
        table.end()
        if window is not None and window < every:
            raise tables.error(f"{name}.average", str(window), f"at least {every}: runs keep a snapshot every {every}")
        if not name.replace("_", "").replace("-", "").isalnum() or name.startswith("-") or name == "data":
            raise tables.error(name, "no name for a folder", "letters, digits, - and _, no - first, and not data")
        if (of, peak, window) == (None, None, None):
            if (chosen := mine or recipe) is None:
                raise tables.error(name, "without a recipe", "recipe = NAME here, or at the top")
            arms[name] = Arm(name=name, title=title, recipe=chosen, train=(*common, *train), replicates=some)
            continue
        source = arms.get(of or "")
        if source is None or source.of or train or mine or (peak is None) == (window is None) or (some and peak):
            right = (
                "of = an arm above that is trained, one of the two others, no recipe or train, replicates with average"
            )
            raise tables.error(name, f"of = {of!r}, stop_at_peak = {peak!r}, average = {window!r}", right)
        about = {"name": name, "title": title, "of": of, "stop_at_peak": peak, "average": window}
        arms[name] = replace(source, **about, replicates=some or source.replicates)
    if not arms:
        raise top.error("arms", "empty", "one arm at least")
    return arms


def read_evaluation(top: TomlTable) -> dict[str, Any]:
    """Return how snapshots are tried."""
    table = top.table("evaluate", needed=True)
    steps = table.take("steps", [int], needed=True)
    found = {
        "steps": steps,
        "late": table.some("late", steps, steps[-1:]),
        "episodes": table.take("episodes", int, 50),
        "starts": table.take("starts", str, "test"),
        "evaluate": table.words("options"),
    }
    table.end()
    if list(steps) != sorted(set(steps)) or steps[0] < 1:
        raise table.error("steps", repr(list(steps)), "steps of training, ascending")
    snapshots = steps[-1] // math.gcd(*steps)
    if snapshots > WASTE * len(steps):
        came = f"{list(steps)}, for which a run would keep {snapshots} snapshots, one every {math.gcd(*steps)} steps"
        raise table.error("steps", came, "steps with a larger common divisor, such as multiples of 100")
    if found["episodes"] < 0:
        raise table.error("episodes", str(found["episodes"]), "at least 0, which is: the probe alone")
    check_evaluation(f"{top.path}: evaluate.options", found["evaluate"])
    return found


def read_probe(top: TomlTable) -> dict[str, Any]:
    """Return what the probe measures on."""
    table = top.table("probe")
    found = {"rows": table.take("rows", int, 2048), "held_out": table.take("held_out", bool, False)}
    table.end()
    if found["rows"] < 2:
        raise table.error("rows", str(found["rows"]), "at least 2")
    return found


def read_data(top: TomlTable) -> dict[str, Any]:
    """Return where the data come from: collected for each replicate, or files."""
    if ("collect" in top.body) == ("data" in top.body):
        raise PixelrlError(f"{top.path}: give either [collect] (data made from seeds) or [data] (files), one of them")
    collect, data = top.table("collect"), top.table("data")
    if collect.body:
        name = collect.take("environment", str, needed=True)
        sizes = {part: collect.take(part, int, needed=part == "task") for part in ("prior", "task")}
        collect.end()
        if name not in TASK_NAMES:
            raise collect.error("environment", repr(name), f"one of {', '.join(TASK_NAMES)}")
        counts = {part: count for part, count in sizes.items() if count is not None}
        if min(counts.values()) < 1:
            raise collect.error("task", str(counts), "numbers of episodes, at least 1")
        return {"environment": name, "collect": counts, "files": {}}
    files = {part: data.take(part, [str], (), needed=part == "task") for part in ("task", "prior")}
    data.end()
    return {"environment": None, "collect": {}, "files": {part: names for part, names in files.items() if names}}


def read_comparisons(
    top: TomlTable, arms: Mapping[str, Arm], steps: Sequence[int], replicates: Sequence[int]
) -> tuple[Comparison, ...]:
    """Return the comparisons at steps that are tried; by default the first arm against each other, all confirmatory."""
    names = list(arms)
    usual = [{"first": names[0], "second": other} for other in names[1:] if steps]
    if not steps and "comparisons" in top.body:
        raise top.error("comparisons", "of success", "evaluate.episodes of at least 1")
    found: dict[tuple[frozenset[str], frozenset[int]], Comparison] = {}
    for table in top.tables("comparisons", usual):
        asked = Comparison(
            first=table.take("first", str, needed=True),
            second=table.take("second", str, needed=True),
            confirmatory=table.take("confirmatory", bool, True),
            steps=table.some("steps", steps),
            replicates=table.some("replicates", replicates),
        )
        table.end()
        for key, arm in (("first", asked.first), ("second", asked.second)):
            if arm not in arms:
                raise table.error(key, repr(arm), f"one of the arms {', '.join(arms)}")
        if asked.first == asked.second:
            raise table.error("second", repr(asked.second), "another arm than first")
        same = found.setdefault((frozenset((asked.first, asked.second)), frozenset(asked.steps)), asked)
        if same is not asked:
            raise table.error(
                "first", f"{asked.first!r}, and {same.name!r} is there", "each pair once at the same steps"
            )
    return tuple(found.values())


def read_claims(top: TomlTable, names: set[str]) -> tuple[Claim, ...]:
    """Return the claims."""
    claims = []
    for table in top.tables("claims"):
        sentence, conditions = table.take("sentence", str, needed=True), table.table("when", needed=True)
        when = {}
        for name in list(conditions.body):
            when[name] = conditions.take(name, [str])
            if name not in names:
                raise table.error("when", repr(name), f"comparisons, of {', '.join(sorted(names))}")
            if not {*when[name]} <= {*VERDICTS}:
                raise conditions.error(name, repr(list(when[name])), f"some of {', '.join(VERDICTS)}")
        table.end()
        if not when:
            raise table.error("when", "empty", f"one comparison at least, of {', '.join(sorted(names))}")
        claims.append(Claim(sentence=sentence, when=when))
    return tuple(claims)


def check_evaluation(where: str, words: Sequence[str]) -> None:
    """Raise a `PixelrlError` unless options of `pixelrl evaluate` can be, and leave to the study what it sets."""
    with told_in_a_line(where):
        asked, usual = (tyro.cli(Evaluate, args=["x", *each], prog="pixelrl evaluate") for each in (words, ()))
        asked.check_options()
    for key in OURS_OF_EVALUATE:
        if getattr(asked, key) != getattr(usual, key):
            raise PixelrlError(f"{where}: {key.replace('_', '-')} is not for the options of a study; leave it away")


def check_options(path: Path, study: Study, arm: Arm) -> None:
    """Raise a `PixelrlError` unless an arm's recipe and options can be, and train long enough."""
    from pixelrl.launch.recipes import require_recipe
    from pixelrl.launch.train_options import parse

    where = f"{path}: arms.{arm.name}"
    require_recipe(arm.recipe, f"{where}: ")
    words = arm.options(study.replicates[0])
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name.replace("_", "-") in OURS:
            raise PixelrlError(f"{where}.train: {name} is set by the study itself; leave it away")
    prior = ["--prior", "x"] if "prior" in (*study.collect, *study.files) else []
    with told_in_a_line(f"{where}.train"):
        options = parse(arm.recipe, ["--task", "x", "--out", "x", *prior, *words])
        options.sources()
    if study.held_out and not options.held_out:
        raise PixelrlError(f"{path}: probe.held_out is true, and arms.{arm.name} has no train.held-out")
    if options.recipe.steps < study.steps[-1]:
        raise PixelrlError(
            f"{where}.train: steps is {options.recipe.steps}; expected at least evaluate.steps' {study.steps[-1]}"
        )

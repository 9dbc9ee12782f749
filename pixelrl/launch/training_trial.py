"""Data read exactly as a training reads them, short of training: what `inspect` promises, `train` keeps."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.value_checks import check_range, target_range_of
from pixelrl.datasets.inspect.issues import Issue, ordered
from pixelrl.datasets.inspect.report import InspectionReport
from pixelrl.launch.recipes import RECIPES
from pixelrl.launch.train_options import TrainOptions, parse
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.distributed import SINGLE_PROCESS
from pixelrl.runtime.errors import DataError, PixelrlError

Reading = tuple[Sequence[Path], Callable[[Console], object]]
"""Files, and what reads them and prints their ledger."""


def try_training(
    task: Sequence[Path], prior: Sequence[Path], files: Sequence[Path], *, recipe: str, actions: ActionRange
) -> tuple[list[Issue], list[str]]:
    """Read task and prior data for a recipe, and other files each by itself; return what is wrong, and the ledger.

    Args:
        task: as `train --task` takes them.
        prior: as `train --prior` takes them; without a task they are read by themselves.
        files: others.
        recipe: a recipe's name, and further options of `train`.
        actions: whether they are to be normalised.

    Raises:
        PixelrlError: there is no such recipe.
    """
    issues: list[Issue] = []
    ledger: list[str] = []
    for paths, read in _readings(task, prior, files, recipe, actions):
        text = StringIO()
        issue = partial(Issue, check="training", where="data", file=str(paths[0]))
        try:
            read(Console(file=text, width=10_000, force_jupyter=False))
        except PixelrlError as error:
            issues.append(issue(level="error", message=str(error)))
        for line in text.getvalue().splitlines():
            warning = line.removeprefix("warning: ")
            if warning == line:
                ledger.append(line)
            else:
                issues.append(issue(level="warning", message=warning))
    return issues, ledger


def with_training(report: InspectionReport, issues: Sequence[Issue], ledger: Sequence[str]) -> InspectionReport:
    """Return a report with what training said, but for errors of data whose errors are told already."""
    new = [issue for issue in issues if report.fit or issue.level != "error"]
    return replace(report, between=ordered([*report.between, *new]), ledger=tuple(ledger))


def _readings(
    task: Sequence[Path], prior: Sequence[Path], files: Sequence[Path], recipe: str, actions: ActionRange
) -> Iterator[Reading]:
    """Yield what to read."""
    name, *words = shlex.split(recipe) or [""]
    if name not in RECIPES:
        raise PixelrlError(f"--recipe {recipe}: begins with no recipe; there are {', '.join(RECIPES)}")
    options = parse(name, ["--task", "none", "--out", "none", "--actions", actions, *words])
    options = replace(options, memory="file")
    if task:
        both = replace(options, task=tuple(task), prior=tuple(prior))
        yield (*task, *prior), partial(both.load, torch.device("cpu"), SINGLE_PROCESS)
    for path in files if task else (*prior, *files):
        yield (path,), partial(_read_alone, replace(options, task=(path,)))


def _read_alone(options: TrainOptions, console: Console) -> None:
    """Read a file as a training on nothing else would; whether the recipe could learn from it is only a warning."""
    recipe, (source, *_) = options.recipe, options.sources()
    mixture = load_dataset(
        [replace(source, name=options.task[0].name)],
        seed=0,
        batch_size=1,
        gamma=recipe.gamma,
        ends=recipe.ends,
        actions=options.actions,
        memory=options.memory,
    )
    for line in mixture.ledger.lines():
        console.print(Text(line))
    target_range = target_range_of(recipe)
    if target_range is not None and mixture.largest_reward:
        try:
            check_range(mixture, target_range)
        except DataError as error:
            console.print(Text(f"warning: for the given recipe, {error}"))

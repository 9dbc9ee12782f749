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
from pixelrl.datasets.hdf5.reader import Selection
from pixelrl.datasets.inspect.issues import Issue, Role, ordered
from pixelrl.datasets.inspect.report import InspectionReport
from pixelrl.launch.options import told_in_a_line
from pixelrl.launch.recipes import require_recipe
from pixelrl.launch.train_options import TrainOptions, parse
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.distributed import SINGLE_PROCESS
from pixelrl.runtime.errors import DataError, PixelrlError

Reading = tuple[Sequence[Path], Callable[[Console], object]]
"""Files, and what reads them and prints their ledger."""


def training_options(recipe: str, actions: ActionRange, **rename: Sequence[str]) -> TrainOptions:
    """Return the options of a training on data that are not named yet.

    `recipe` is a recipe's name, and maybe further options of `train`, which count before those of `rename`.

    Raises:
        PixelrlError: there is no such recipe, an option that cannot be, or one that names the files.
    """
    name, *words = shlex.split(recipe) or [""]
    require_recipe(name, f"--recipe {recipe}: ")
    for option, texts in rename.items():
        words = [f"--{option.replace('_', '-')}", *texts, *words] if texts else words
    words = ["--task", "none", "--out", "none", "--actions", actions, *words]
    with told_in_a_line(f"--recipe {recipe}"):
        options = replace(parse(name, words), memory="file")
    for option, paths in (("--task", options.task), ("--prior", options.prior)):
        if paths not in ((), (Path("none"),)):
            said = " ".join((option, *map(str, paths)))
            raise PixelrlError(f"--recipe {recipe}: {said} is not a part of it; expected `pixelrl inspect {said} ...`")
    return options


def selections(options: TrainOptions) -> dict[Role, Selection]:
    """Return how a training reads the files of its task and its prior data, and files by themselves: as of the task."""
    recipe = options.recipe
    task, *_, prior = replace(options, prior=(Path("none"),), source=()).sources()
    of_task, of_prior = (each.selection(recipe.ends, recipe.images, recipe.proprio) for each in (task, prior))
    return {"task": of_task, "prior": of_prior, "data": of_task}


def try_training(
    task: Sequence[Path], prior: Sequence[Path], files: Sequence[Path], options: TrainOptions
) -> tuple[list[Issue], list[str]]:
    """Read task and prior data as a training does, and others each by itself; return what is wrong, and the ledger.

    Without a task, the prior data are read by themselves, too.
    """
    issues: list[Issue] = []
    ledger: list[str] = []
    for paths, read in _readings(task, prior, files, options):
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
    task: Sequence[Path], prior: Sequence[Path], files: Sequence[Path], options: TrainOptions
) -> Iterator[Reading]:
    """Yield what to read."""
    if task:
        both = replace(options, task=tuple(task), prior=tuple(prior))
        yield (*task, *prior), partial(_read_for_training, both)
    else:
        as_prior = replace(options, task_rename=options.prior_rename)
        yield from (((path,), partial(_read_alone, replace(as_prior, task=(path,)))) for path in prior)
    for path in files:
        yield (path,), partial(_read_alone, replace(options, task=(path,)))


def _read_for_training(options: TrainOptions, console: Console) -> None:
    """Read the data of a training, and see that the recipe's encoder takes their pictures."""
    mixture = options.load(torch.device("cpu"), SINGLE_PROCESS, console)
    with torch.device("meta"):
        options.recipe.encoder.build(mixture.spec)


def _read_alone(options: TrainOptions, console: Console) -> None:
    """Read a file as a training on nothing else would; whether the recipe could learn from it is only a warning."""
    recipe, (source, *_) = options.recipe, replace(options, prior_rename=()).sources()
    mixture = load_dataset(
        [replace(source, name=options.task[0].name)],
        seed=0,
        batch_size=1,
        gamma=recipe.gamma,
        ends=recipe.ends,
        images=recipe.images,
        proprio=recipe.proprio,
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
            console.print(Text(f"warning: for the recipe that is asked about, {error}"))

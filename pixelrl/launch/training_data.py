"""The data of a training: its sources, as options name them, read as its recipe wants them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.value_checks import check_calibration, check_values, target_range_of
from pixelrl.datasets.hdf5.keys import parse_renames
from pixelrl.datasets.rewards import found_anywhere
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import cores
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.training.run_directory import Run


def load_training_data(
    device: torch.device,
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    actions: ActionRange = "unit",
    memory: Memory = "auto",
    cache_dir: Path | None = None,
    distributed: Distributed = SINGLE_PROCESS,
    learn: bool = True,
    console: Console,
) -> Mixture:
    """Read the data as a recipe wants them, for our share of each batch; say where they live and what is learned from.

    `learn` is false where data are only measured on: whether there is a value to learn was a question of the training.

    Raises:
        PixelrlError: data that do not fit, or that a critic cannot learn a value from.
    """
    if recipe.batch_size % distributed.world_size:
        raise PixelrlError(
            f"--batch-size {recipe.batch_size} cannot be shared equally by {distributed.world_size} ranks; "
            "give a multiple of them"
        )
    if memory == "gpu" and device.type != "cuda":
        raise PixelrlError(f"--memory gpu: the learner's device is {device}; use ram, or --device cuda")
    with progress_bar(console) as bar:
        job = bar.add_task("read", total=None, note="")
        mixture = load_dataset(
            sources,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            gamma=recipe.gamma,
            n_step=recipe.n_step,
            ends=recipe.ends,
            sarsa=recipe.backup.needs_next_action,
            history=recipe.history,
            chunk=recipe.chunk,
            images=recipe.images,
            proprio=recipe.proprio,
            actions=actions,
            memory=memory,
            cache_dir=cache_dir,
            device=device,
            workers=cores(),
            rank=distributed.rank,
            ranks=distributed.world_size,
            copies=distributed.local_world_size,
            progress=lambda more, total: bar.update(job, advance=more, total=total, note="frames"),
        )
    console.print(mixture.plan.reason, highlight=False, soft_wrap=True)
    for line in mixture.ledger.lines():
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if learn and recipe.critic:
        check_values(mixture, target_range_of(recipe))
        check_calibration(mixture, recipe)
    return mixture


def sources_of(run: Run) -> list[Source]:
    """Return what a run was trained on."""
    rules: Mapping[str, Any] = run.sources
    return [Source(name=name, files=tuple(map(Path, files)), **rules.get(name, {})) for name, files in run.data.items()]


def with_labels_found(run: Run) -> Run:
    """Return a run that names its files of labels from the root on, as all do but older ones."""
    rewards = {name: str(rule.get("reward", "recorded")) for name, rule in run.sources.items()}
    rules = {name: {**run.sources[name], "reward": found_anywhere(reward)} for name, reward in rewards.items()}
    return replace(run, sources=rules)


AS_TASK = ("reward", "reward_scale", "reward_shift", "dones", "held_out", "corrupt")
"""What a source has of the task's where it does not say it itself."""


def with_prior(
    task: Source, prior: Sequence[Path], others: Sequence[Source], rename: Sequence[str] = ()
) -> list[Source]:
    """Return all sources: prior rewards are zero by rule, whatever the files say; `rename` is of the prior's keys.

    With shares, the prior data get what the task data and the others leave.

    Raises:
        PixelrlError: nothing is left for the prior data, nothing of theirs to rename, or a share of nothing else.
    """
    names = parse_renames(rename, "--prior-rename")
    if names and not prior:
        raise PixelrlError(f"--prior-rename {rename[0]}: there are no prior data; expected --prior FILES")
    if task.share is not None and not (prior or others):
        raise PixelrlError(f"--task-share {task.share:g}: there are no other data; expected --prior FILES or --source")
    if not prior:
        return [task, *others]
    source = Source(
        name="prior",
        files=tuple(prior),
        reward_scale=0.0,
        held_out=task.held_out,
        corrupt=task.corrupt,
        rename=names,
    )
    if task.share is not None:
        left = 1 - task.share - sum(other.share or 0 for other in others)
        if left < 0.001:
            raise PixelrlError(f"--prior: the shares of the other sources sum to {1 - left:g}; nothing is left")
        source = replace(source, share=left)
    return [task, source, *others]


def parse_source(text: str, defaults: Mapping[str, Any]) -> Source:
    """Return the source of a text such as `name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,ends=dones`.

    Keys are those of `Source`; `rename=OLD=NEW` may come several times; `defaults` stand for what is not said. Where
    rewards do not count, the task's rules of rewards and dones, and its shift, are not taken, as for the prior data.

    Raises:
        DataError: an unknown key, a value that is no number, or no name or files.
    """
    kinds = {field.name: field.type for field in fields(Source)}
    words: dict[str, list[str]] = {}
    key = ""
    for item in text.split(","):
        before, equals, after = item.partition("=")
        key, value = (before.strip(), after) if equals else (key, item)
        if key not in kinds or (not equals and key != "files"):
            raise DataError(f"--source {text}: {item!r} is not KEY=VALUE with KEY one of {', '.join(kinds)}")
        words.setdefault(key, []).append(value.strip())
    values: dict[str, Any] = dict(defaults)
    for key, found in words.items():
        if len(found) > 1 and key not in ("files", "rename"):
            raise DataError(f"--source {text}: {key} is given {len(found)} times; expected one")
        values[key] = tuple(map(Path, found)) if key == "files" else found[0]
        if key == "rename":
            values[key] = parse_renames(found, "--source: rename =")
        if kinds[key] in (float, float | None):
            try:
                values[key] = float(found[0])
            except ValueError as error:
                raise DataError(f"--source {text}: {key} is {found[0]!r}; expected a number") from error
    if values.get("reward_scale") == 0:
        not_its = {"reward", "reward_shift", "dones"} - set(words)
        values = {key: value for key, value in values.items() if key not in not_its}
    if missing := {"name", "files"} - set(values):
        raise DataError(f"--source {text}: has no {max(missing)}; expected name=...,files=...")
    return Source(**values)

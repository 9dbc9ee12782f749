"""From the words of a command line to a mixture of sources."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from tyro.conf import UseAppendAction

from pixelrl.config import Recipe
from pixelrl.datasets.mixture import Mixture
from pixelrl.datasets.plan import Memory
from pixelrl.datasets.sources import Source, parse_source
from pixelrl.errors import PixelrlError
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import cores


@dataclass(frozen=True, kw_only=True)
class Data:
    """How files are used."""

    source: UseAppendAction[tuple[str, ...]] = ()
    """one more source of data, say name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,fraction=0.25,pick=first,
    reward_scale=0,reward_shift=0,ends=dones; what is left out is as for the task data; may be given several times"""
    task_mask: str | None = None
    """one of robomimic's filters in the task files, say train: the subset of their demos to use"""
    task_fraction: float = 1.0
    """part of the task's demos to use, drawn by the seed; a smaller part lies within a larger one"""
    actions: Literal["unit", "min-max"] = "unit"
    """recorded actions are in [-1, 1]; min-max: bring them there by their range in the data"""
    memory: Memory = "auto"
    """where frames live: on the GPU, in RAM, in a memory-mapped cache beside each file, or in the files themselves;
    auto: the first of these where they fit"""
    cache_dir: Path | None = None
    """folder for caches, say where the data's own folder cannot be written to"""
    loader_threads: int | None = None
    """threads that prepare batches ahead of the learner; default: 1 with CUDA, else none, since cores are busy"""


def sources_of(recipe: Recipe, task: Sequence[Path], prior: Sequence[Path], data: Data) -> list[Source]:
    """Return the sources: prior rewards are zero by rule, whatever the files say.

    With shares, the task data get the recipe's and the prior data what the others leave.

    Raises:
        PixelrlError: a source that cannot be, or shares that leave nothing to the prior data.
    """
    more = [parse_source(text, {"reward_scale": recipe.reward_scale}) for text in data.source]
    share = recipe.task_share if prior or more else None
    sources = [
        Source(
            name="task",
            files=tuple(task),
            share=share,
            mask=data.task_mask,
            fraction=data.task_fraction,
            reward_scale=recipe.reward_scale,
        )
    ]
    if prior:
        unrewarded = Source(name="prior", files=tuple(prior), reward_scale=0.0)
        if share is not None:
            left = 1 - share - sum(source.share or 0 for source in more)
            if left < 0.001:
                raise PixelrlError(f"--prior: the shares of the other sources sum to {1 - left:g}; nothing is left")
            unrewarded = replace(unrewarded, share=left)
        sources.append(unrewarded)
    return [*sources, *more]


def load(recipe: Recipe, sources: Sequence[Source], data: Data, *, device: torch.device, console: Console) -> Mixture:
    """Read the data as a recipe wants them, and say where their frames live.

    Raises:
        PixelrlError: data that do not fit, or that a critic cannot learn a value from.
    """
    if data.memory == "gpu" and device.type != "cuda":
        raise PixelrlError(f"--memory gpu: the learner's device is {device}; use ram, or --device cuda")
    with progress_bar(console) as bar:
        job = bar.add_task("read", total=None, note="")
        mixture = Mixture(
            sources,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            gamma=recipe.gamma,
            n_step=recipe.n_step,
            ends=recipe.ends,
            history=recipe.history,
            images=recipe.images,
            proprio=recipe.proprio,
            actions=data.actions,
            memory=data.memory,
            cache_dir=data.cache_dir,
            device=device,
            workers=cores(),
            progress=lambda done, total: bar.update(job, completed=done, total=total, note="frames"),
        )
    console.print(f"{mixture.plan.reason}", highlight=False)
    store = mixture.store
    if recipe.critic and not store.reward[store.source == 0].any():
        raise PixelrlError(
            f"{sources[0].files[0]}: no transition of the task data has a reward, so there is nothing to learn a value "
            "from; give data with successes, or use a recipe without a critic, such as bc"
        )
    return mixture

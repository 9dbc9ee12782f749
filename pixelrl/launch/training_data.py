"""The data of a training, as its recipe wants them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.value_checks import check_calibration, check_values, target_range_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import cores
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import PixelrlError


def load_training_data(
    device: torch.device,
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    actions: ActionRange = "unit",
    memory: Memory = "auto",
    cache_dir: Path | None = None,
    distributed: Distributed = SINGLE_PROCESS,
    console: Console,
) -> Mixture:
    """Read the data as a recipe wants them, for our share of each batch; say where they live and what is learned from.

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
    if recipe.critic:
        check_values(mixture, target_range_of(recipe))
        check_calibration(mixture, recipe)
    return mixture

"""`pixelrl train --seeds 0 1 2 3`: the same training with several seeds, side by side.

Each is a process of its own, so it is what it would be alone, and what befalls it does not touch the others.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch.provenance import cores
from pixelrl.launch.parallel_runs import Training, run_trainings
from pixelrl.training.run_directory import checkpoint_path, pick_device


def train_seeds(
    recipe: str,
    words: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    steps: int,
    device: str,
    threads: str | int,
    resume: bool,
    console: Console,
) -> None:
    """Train each seed into a folder of its own, `out/seed0` and so on; one that fails leaves the others alone.

    On the CPU as many at a time as the cores allow, in the order given; on GPUs all at once, the GPUs taking turns.

    Args:
        recipe: its name.
        words: the options that all have in common.
        seeds: all different.
        out: holds one folder a seed afterwards.
        steps: of each, for the progress bar.
        device: as the user wants it.
        threads: of the CPU for each; auto: an equal part of the cores.
        resume: go on with those that had begun.
        console: to tell.

    Raises:
        PixelrlError: a seed given twice, a run that is there already, or seeds that failed.
    """
    if len({*seeds}) < len(seeds):
        raise PixelrlError(f"--seeds {' '.join(map(str, seeds))}: one of them is there twice; expected different ones")
    runs = {seed: out / f"seed{seed}" for seed in seeds}
    for run in runs.values():
        if checkpoint_path(run).exists() and not resume:
            raise PixelrlError(f"{run}: holds a run already; add --resume to go on with it, or choose another --out")
    places = devices(device)
    trainings = [
        Training(
            recipe=recipe,
            name=f"seed {seed}",
            options=(*words, "--seeds", "--seed", str(seed), "--device", places[index % len(places)]),
            out=run,
            steps=steps,
        )
        for index, (seed, run) in enumerate(runs.items())
    ]
    workers = cores() if threads == "auto" else max(1, cores() // int(threads))
    if places != ["cpu"]:
        workers = max(workers, len(seeds))
    run_trainings(trainings, workers=workers, console=console, spare_others=True)
    console.print(f"{out}: {len(seeds)} seeds trained, each in a folder of its own: {out}/seed*")


def devices(name: str) -> list[str]:
    """Return the devices that trainings are to take in turn: the one that is named, or all GPUs."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return [str(device)]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]

"""From the words behind `pixelrl train` to what they ask for: a training, several side by side, or a profile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import tyro

from pixelrl.launch.commands.train import Train, Training
from pixelrl.launch.console import plain_console
from pixelrl.launch.provenance import cores
from pixelrl.launch.recipe_options import PARTS, choose_parts, recipe_registry
from pixelrl.launch.recipes import RECIPES, require_recipe
from pixelrl.launch.torchrun import SCRIPTS, joined, require_one_rank, speaking
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.resume import find_previous_run
from pixelrl.training.run_directory import pick_device

Options = TypeVar("Options", bound=Training)

DESCRIPTION = f"""Train a policy on recorded data by a recipe.

These replace a part of the recipe, whose own options follow it, as in --encoder drq --encoder.features 64:
{"; ".join(f"--{part} " + "|".join(kinds) for part, kinds in PARTS.items())}.
torchrun -m pixelrl.launch.cli train ... uses several GPUs; scripts for that: {SCRIPTS}/"""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Train):
    """Train a policy on recorded data by a recipe."""

    seeds: tuple[int, ...] = ()
    """train with each of these seeds, side by side, into OUT/seed0 and so on; they share a cache of the frames, unless
    --memory says otherwise"""
    profile: bool = False
    """train nothing, but tell where the time of a step goes: a table, OUT/profile.json and OUT/trace.json.gz"""


def train_command(arguments: list[str]) -> None:
    """Run `pixelrl train` with these arguments: the name of a recipe, and options.

    Raises:
        PixelrlError: an unknown recipe or encoder, or options that exclude each other.
    """
    name, *words = arguments or [""]
    if name in RECIPES:
        options = parse(name, words)
        if not (options.seeds or options.profile):
            options()
            return
        if options.seeds and options.profile:
            raise PixelrlError("--profile is of one training, and --seeds of several; give one of the two")
        with joined(options.device) as (distributed, _):
            require_one_rank(distributed, "--seeds" if options.seeds else "--profile")
        if options.seeds:
            train_seeds(name, words, options)
        else:
            from pixelrl.launch.profile import profile_training

            profile_training(options)
    elif name and not name.startswith("-"):
        require_recipe(name)
    else:
        tyro.extras.subcommand_cli_from_dict(RECIPES, prog="pixelrl train", args=arguments, description=DESCRIPTION)


def parse(name: str, words: list[str]) -> TrainOptions:
    """Return a recipe's training as options say; those of the encoder are the ones of `--encoder NAME`, if given."""
    recipe, words = choose_parts(RECIPES[name](), words)
    default = TrainOptions(recipe=recipe, task=tyro.MISSING, out=tyro.MISSING)
    return parse_options(default, words, f"pixelrl train {name}", RECIPES[name].__doc__)


def parse_options(default: Options, words: Sequence[str], prog: str, description: str | None) -> Options:
    """Return a training as options say, those of its recipe among them."""
    return tyro.cli(
        type(default),
        default=default,
        args=words,
        prog=prog,
        description=description,
        registry=recipe_registry(),
        console_outputs=speaking(),
    )


def train_seeds(name: str, words: Sequence[str], options: TrainOptions) -> None:
    """Train a recipe with each of `--seeds`, as `words` say, into a folder of its own; one that fails stops no other.

    On the CPU as many at a time as the cores allow, in the order given; on GPUs all at once, the GPUs taking turns.

    Raises:
        PixelrlError: a seed given twice, a run that is there already, or seeds that failed.
    """
    from pixelrl.launch.parallel_runs import TrainingJob, run_trainings

    seeds, out = options.seeds, options.out
    if len({*seeds}) < len(seeds):
        raise PixelrlError(f"--seeds {' '.join(map(str, seeds))}: one of them is there twice; expected different ones")
    for seed in seeds if not options.resume else ():
        find_previous_run(out / f"seed{seed}", options.recipe, resume=False)
    devices = devices_for(options.device)
    common = [*words, *(("--memory", "cache") if options.memory == "auto" else ()), "--seeds"]
    trainings = [
        TrainingJob(
            recipe=name,
            options=(*common, "--seed", str(seed), "--device", devices[index % len(devices)]),
            out=out / f"seed{seed}",
            steps=options.recipe.steps,
            title=f"seed {seed}",
        )
        for index, seed in enumerate(seeds)
    ]
    workers = cores() if options.threads == "auto" else max(1, cores() // options.threads)
    if devices != ["cpu"]:
        workers = max(workers, len(seeds))
    console = plain_console()
    run_trainings(trainings, workers=workers, console=console, stop_at_failure=False)
    console.print(f"{out}: {len(seeds)} seeds trained, each in a folder of its own: {out}/seed*")


def devices_for(name: str) -> list[str]:
    """Return the devices that trainings are to take in turn: the one that is named, or all GPUs."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return [str(device)]
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]

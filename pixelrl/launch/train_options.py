"""From the words behind `pixelrl train` to what they ask for: a training, several side by side, or a profile."""

from dataclasses import dataclass

import tyro

from pixelrl.launch.commands.train import Train
from pixelrl.launch.console import plain_console
from pixelrl.launch.recipe_options import choose_encoder, recipe_registry
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.launch.torchrun import SCRIPTS, joined, require_one_rank, set_threads, speaking
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.run_directory import pick_device

DESCRIPTION = f"""Train a policy on recorded data by a recipe.

--encoder {{{",".join(ENCODERS)}}} replaces the recipe's encoder; --encoder.OPTION sets its options.
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
        PixelrlError: an unknown recipe or encoder.
    """
    name, *words = arguments or [""]
    if name in RECIPES:
        options = parse(name, words)
        if options.seeds:
            train_side_by_side(name, words, options)
        elif options.profile:
            profile(options)
        else:
            options()
    elif name and not name.startswith("-"):
        raise PixelrlError(f"there is no recipe {name!r}, but: {', '.join(RECIPES)}")
    else:
        tyro.extras.subcommand_cli_from_dict(RECIPES, prog="pixelrl train", args=arguments, description=DESCRIPTION)


def parse(name: str, words: list[str]) -> TrainOptions:
    """Return a recipe's training as options say; those of the encoder are the ones of `--encoder NAME`, if it is there.

    Raises:
        PixelrlError: an unknown encoder.
    """
    recipe, words = choose_encoder(RECIPES[name](), words)
    return tyro.cli(
        TrainOptions,
        default=TrainOptions(recipe=recipe, task=tyro.MISSING, out=tyro.MISSING),
        args=words,
        prog=f"pixelrl train {name}",
        description=RECIPES[name].__doc__,
        registry=recipe_registry(),
        console_outputs=speaking(),
    )


def train_side_by_side(name: str, words: list[str], options: TrainOptions) -> None:
    """Train a recipe with each of `--seeds`, as `words` say."""
    from pixelrl.launch.parallel_runs import train_seeds

    with joined(options.device) as (distributed, _):
        require_one_rank(distributed)
        train_seeds(
            name,
            [*words, *(("--memory", "cache") if options.memory == "auto" else ())],
            options.seeds,
            options.out,
            steps=options.recipe.steps,
            device=options.device,
            threads=None if options.threads == "auto" else options.threads,
            resume=options.resume,
        )


def profile(options: TrainOptions) -> None:
    """Tell where the time of a step goes."""
    from pixelrl.launch.profile import profile_training

    with joined(options.device) as (distributed, name):
        require_one_rank(distributed)
        device, console = pick_device(name), plain_console()
        set_threads(options.threads, device, None)
        mixture = options.load(device, distributed, console)
        profile_training(
            options.recipe, mixture, options.out, device=device, execution=options.execution, console=console
        )

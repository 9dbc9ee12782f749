"""The command line of `pixelrl train`: every field of a recipe, and of each of its terms, is an option."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from dataclasses import field as defaulted
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from rich.console import Console
from tyro.conf import arg

from pixelrl.config import Recipe
from pixelrl.errors import PixelrlError
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.launch.train import train
from pixelrl.learner import term_name
from pixelrl.weights import Weight

DESCRIPTION = f"""Train a policy on recorded data by a recipe.

--encoder {{{",".join(ENCODERS)}}} replaces the recipe's encoder; --encoder.OPTION sets its options."""
TERMS = ("critic", "actor", "warmup")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a recipe is applied to."""

    task: tuple[Path, ...]
    """HDF5 files of the task: their rewards count"""
    prior: tuple[Path, ...] = ()
    """HDF5 files of prior data: their rewards are taken for zero"""
    out: Path
    """directory of the run"""
    task_mask: str | None = None
    """one of robomimic's filters in the task files, say train: the subset of their demos to use"""
    resume: bool = False
    """go on from the run's latest checkpoint"""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    threads: Literal["auto"] | int = "auto"
    """threads of the CPU that the learner computes on; auto: OMP_NUM_THREADS, or what is fastest in a short trial"""
    actions: Literal["unit", "min-max"] = "unit"
    """recorded actions are in [-1, 1]; min-max: bring them there by their range in the data"""
    log_every: int = 100
    """steps between reports"""
    checkpoint_every: int = 1_000
    """steps between checkpoints"""
    snapshot_every: int = 0
    """steps between snapshots of the networks, for `evaluate --step`; 0: none"""
    profile: bool = False
    """train nothing, but tell where the time of a step goes: a table, OUT/profile.json and OUT/trace.json.gz"""


def train_command(arguments: list[str]) -> None:
    """Run `pixelrl train` with these arguments.

    Raises:
        PixelrlError: an unknown recipe or encoder.
    """
    if arguments and not arguments[0].startswith("-") and arguments[0] not in RECIPES:
        raise PixelrlError(f"there is no recipe {arguments[0]!r}, but: {', '.join(RECIPES)}")
    encoder, arguments = chosen_encoder(arguments)
    commands = {name: command(recipe, encoder) for name, recipe in RECIPES.items()}
    tyro.extras.subcommand_cli_from_dict(commands, prog="pixelrl train", args=arguments, description=DESCRIPTION)


def chosen_encoder(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--encoder NAME` out of the arguments: it decides which options the rest may have."""
    if "--encoder" not in arguments:
        return None, arguments
    at = arguments.index("--encoder")
    name = "".join(arguments[at + 1 : at + 2])
    if name not in ENCODERS:
        raise PixelrlError(f"--encoder: there is no encoder {name!r}, but: {', '.join(ENCODERS)}")
    return name, arguments[:at] + arguments[at + 2 :]


def command(make: Callable[[], Recipe], encoder: str | None) -> Callable[..., None]:
    """Return a function for tyro whose options are a job's and a recipe's."""
    recipe = make()
    options = mirror(recipe if encoder is None else replace(recipe, encoder=ENCODERS[encoder]()))

    def run(job: Any, recipe: Any = None) -> None:
        chosen = {field.name: getattr(job, field.name) for field in fields(Job)}
        train(restore(recipe), **chosen, console=Console())

    run.__annotations__ = {"job": Annotated[Job, arg(name="")], "recipe": Annotated[options, arg(name="")]}
    run.__defaults__ = (options(),)
    run.__doc__ = make.__doc__
    return run


def mirror(value: Any) -> type:
    """Return a subclass of `value`'s dataclass for tyro: its values are the defaults, and structure is fixed.

    Terms stand under their names, so `critic.1.weight` is spelt `--critic.cql.weight`; whatever may be one of several
    classes is of the class that it is: the command line sets values, never structure.
    """
    hints = get_type_hints(type(value))
    chosen: list[Any] = []
    for field in fields(value):
        item = getattr(value, field.name)
        kind, default = hints[field.name], item
        if field.name in TERMS:
            named = [(term_name(term), mirror(term)) for term in item]
            kind = make_dataclass(
                field.name, [(name, each, defaulted(default=each())) for name, each in named], frozen=True
            )
            default = kind()
        elif is_dataclass(item):
            kind = mirror(item)
            default = kind()
        elif kind == Weight:
            kind = float
        chosen.append((field.name, kind, defaulted(default=default)))
    namespace = {"__post_init__": lambda self: None, "__doc__": type(value).__doc__}
    bases = (type(value),)
    return make_dataclass(type(value).__name__, chosen, bases=bases, namespace=namespace, frozen=True, kw_only=True)


def restore(mirrored: Any) -> Any:
    """Return the plain dataclass that an instance of a mirror stands for."""
    values = {}
    for field in fields(mirrored):
        item = getattr(mirrored, field.name)
        if field.name in TERMS:
            item = tuple(restore(getattr(item, term.name)) for term in fields(item))
        elif is_dataclass(item):
            item = restore(item)
        values[field.name] = item
    return type(mirrored).__bases__[0](**values)

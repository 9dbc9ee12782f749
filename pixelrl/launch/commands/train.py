"""The command line of `pixelrl train`: every field of a recipe, and of each of its terms, is an option."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from dataclasses import field as defaulted
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import tyro
from rich.console import Console
from tyro.conf import UseAppendAction, arg

from pixelrl.learning.execution import Capture
from pixelrl.learning.recipe import Recipe
from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.sources import Source
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.launch.training_data import load_training_data
from pixelrl.launch.torchrun import SCRIPTS, joined, speaking
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.launch.commands.training import train
from pixelrl.learning.objective import term_name
from pixelrl.learning.weights import Weight

DESCRIPTION = f"""Train a policy on recorded data by a recipe.

--encoder {{{",".join(ENCODERS)}}} replaces the recipe's encoder; --encoder.OPTION sets its options.
torchrun -m pixelrl.launch.cli train ... uses several GPUs; scripts for that: {SCRIPTS}/"""
TERMS = ("critic", "actor", "warmup")
DATA = (
    "task",
    "prior",
    "source",
    "task_mask",
    "task_fraction",
    "actions",
    "memory",
    "cache_dir",
    "profile",
    "device",
    "seeds",
)
"""The options of a job that are not passed on to `train` as they are."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a recipe is applied to."""

    task: tuple[Path, ...]
    """HDF5 files of the task, or globs of them: their rewards count"""
    prior: tuple[Path, ...] = ()
    """HDF5 files of prior data, or globs of them: their rewards are taken for zero"""
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
    out: Path
    """directory of the run"""
    seeds: tuple[int, ...] = ()
    """train with each of these seeds, side by side, into OUT/seed0 and so on; they share a cache of the frames, unless
    --memory says otherwise"""
    resume: bool = False
    """go on from the run's latest checkpoint"""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    threads: Literal["auto"] | int = "auto"
    """threads of the CPU that the learner computes on; auto: OMP_NUM_THREADS, or what is fastest in a short trial"""
    capture: Capture = "auto"
    """how steps run: none: operation by operation; tape: their kernels, recorded once and replayed; graph: a whole step
    as a CUDA graph, for one rank; compile: kernels fused by torch's Inductor, which takes a minute to begin; auto: tape
    on the CPU, none on CUDA, where the others have not been tried yet"""
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
    words = arguments[1:]
    encoder, arguments = chosen_encoder(arguments)
    commands = {name: command(recipe, encoder, words) for name, recipe in RECIPES.items()}
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="pixelrl train", args=arguments, description=DESCRIPTION, console_outputs=speaking()
    )


def sources_of(recipe: Recipe, job: Job) -> list[Source]:
    """Return the sources: prior rewards are zero by rule, whatever the files say.

    With shares, the task data get the recipe's and the prior data what the others leave.

    Raises:
        PixelrlError: a source that cannot be, or shares that leave nothing to the prior data.
    """
    more = [parse_source(text, {"reward_scale": recipe.reward_scale}) for text in job.source]
    share = recipe.task_share if job.prior or more else None
    sources = [
        Source(
            name="task",
            files=job.task,
            share=share,
            mask=job.task_mask,
            fraction=job.task_fraction,
            reward_scale=recipe.reward_scale,
        )
    ]
    if job.prior:
        unrewarded = Source(name="prior", files=job.prior, reward_scale=0.0)
        if share is not None:
            left = 1 - share - sum(source.share or 0 for source in more)
            if left < 0.001:
                raise PixelrlError(f"--prior: the shares of the other sources sum to {1 - left:g}; nothing is left")
            unrewarded = replace(unrewarded, share=left)
        sources.append(unrewarded)
    return [*sources, *more]


def parse_source(text: str, defaults: Mapping[str, Any]) -> Source:
    """Return the source of a text such as `name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,ends=dones`.

    Keys are those of `Source`; `defaults` stand for what is not said.

    Raises:
        DataError: an unknown key, a value that is no number, or no name or files.
    """
    kinds = {field.name: field.type for field in fields(Source)}
    said: dict[str, list[str]] = {}
    key = ""
    for item in text.split(","):
        before, equals, after = item.partition("=")
        key, value = (before.strip(), after) if equals else (key, item)
        if key not in kinds or (not equals and key != "files"):
            raise DataError(f"--source {text}: {item!r} is not KEY=VALUE with KEY one of {', '.join(kinds)}")
        said.setdefault(key, []).append(value.strip())
    values: dict[str, Any] = dict(defaults)
    for key, words in said.items():
        if len(words) > 1 and key != "files":
            raise DataError(f"--source {text}: {key} is given {len(words)} times; expected one")
        values[key] = tuple(map(Path, words)) if key == "files" else words[0]
        if kinds[key] in (float, float | None):
            try:
                values[key] = float(words[0])
            except ValueError as error:
                raise DataError(f"--source {text}: {key} is {words[0]!r}; expected a number") from error
    if missing := {"name", "files"} - set(values):
        raise DataError(f"--source {text}: has no {max(missing)}; expected name=...,files=...")
    return Source(**values)


def chosen_encoder(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take `--encoder NAME` out of the arguments: it decides which options the rest may have."""
    if "--encoder" not in arguments:
        return None, arguments
    at = arguments.index("--encoder")
    name = "".join(arguments[at + 1 : at + 2])
    if name not in ENCODERS:
        raise PixelrlError(f"--encoder: there is no encoder {name!r}, but: {', '.join(ENCODERS)}")
    return name, arguments[:at] + arguments[at + 2 :]


def command(make: Callable[[], Recipe], encoder: str | None, words: Sequence[str] = ()) -> Callable[..., None]:
    """Return a function for tyro whose options are a job's and a recipe's; `words` are the options that came."""
    recipe = make()
    options = mirror(recipe if encoder is None else replace(recipe, encoder=ENCODERS[encoder]()))

    def run(job: Any, recipe: Any = None) -> None:
        whole = restore(recipe)
        with joined(job.device) as (distributed, device):
            console = Console(quiet=not distributed.is_main)
            if distributed.world_size > 1 and (job.seeds or job.profile):
                raise PixelrlError("--seeds and --profile are for one rank; start them without torchrun")
            if job.seeds:
                from pixelrl.launch.seed_runs import train_seeds  # few runs need it

                shared = ("--memory", "cache") if job.memory == "auto" else ()
                kept = {"device": job.device, "threads": job.threads, "resume": job.resume, "console": console}
                train_seeds(make.__name__, [*words, *shared], job.seeds, job.out, steps=whole.steps, **kept)
                return
            kept = {"actions": job.actions, "memory": job.memory, "cache_dir": job.cache_dir}
            data = partial(load_training_data, recipe=whole, sources=sources_of(whole, job), distributed=distributed, **kept, console=console)
            if job.profile:
                from pixelrl.launch.commands.profile import profile_training  # few runs need it

                how = {"threads": job.threads, "capture": job.capture}
                profile_training(whole, data, job.out, device=device, **how, console=console)
                return
            chosen = {field.name: getattr(job, field.name) for field in fields(Job) if field.name not in DATA}
            train(whole, data, **chosen, device=device, distributed=distributed, console=console)

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

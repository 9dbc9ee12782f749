"""A training: its options, and the training itself. Read this first, then the recipe, then its terms.

files -> Mixture.batch(step) -> Prefetcher -> Learner.update(batch) -> reports, checkpoints, a run's directory
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from tyro.conf import UseAppendAction, arg

from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.prefetch import Prefetcher
from pixelrl.datasets.buffer.sources import Dones, Source
from pixelrl.datasets.hdf5.keys import parse_renames
from pixelrl.launch.console import deferred_interrupt, plain_console, progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.torchrun import joined, outliving, set_threads
from pixelrl.launch.training_data import AS_TASK, load_training_data, parse_source, with_labels_found, with_prior
from pixelrl.learning.batch import Batch
from pixelrl.learning.divergence import largest_q
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.distributed import Distributed
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import exclusive_directory, not_finite, write_json
from pixelrl.training import checkpoint, loop
from pixelrl.training.configuration import to_json
from pixelrl.training.execution import Execution, check_execution
from pixelrl.training.metrics_log import Log
from pixelrl.training.resume import InitialPart, find_previous_run, initial_of, resume_run, start_from
from pixelrl.training.run_directory import Run, checkpoint_path, pick_device
from pixelrl.training.trackers import TrackerName, check_trackers


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all trainings have in common, wherever their data and their teachers come from."""

    recipe: Annotated[Recipe, arg(name="")]
    """what is learned, and how: each of its values is an option, and each of its terms a group of options"""
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
    resume: bool = False
    """go on from the run's latest checkpoint"""
    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""
    threads: Literal["auto"] | int = "auto"
    """threads of the CPU that the learner computes on; auto: OMP_NUM_THREADS, else one a core, but at most 8"""
    execution: Execution = "eager"
    """how steps run: eager: operation by operation; compile: by torch.compile, which takes a minute to begin; graph: a
    whole step as a CUDA graph, for one rank"""
    log_every: int = 100
    """steps between reports"""
    track: tuple[TrackerName, ...] = ()
    """trackers beside metrics.csv and TensorBoard; each takes pip install 'pixelrl[NAME]'"""
    checkpoint_every: int = 1_000
    """steps between checkpoints"""
    snapshot_every: int = 0
    """steps between snapshots of the networks, for `evaluate --step`; 0: none"""

    def sources(self) -> list[Source]:
        """Return the sources of the data."""
        raise NotImplementedError

    def load(self, device: torch.device, distributed: Distributed, console: Console) -> Mixture:
        """Read the data as the recipe wants them."""
        return self.read(self.recipe, device, distributed, console)

    def read(self, recipe: Recipe, device: torch.device, distributed: Distributed, console: Console) -> Mixture:
        """Read the data as a recipe wants them."""
        return load_training_data(
            device,
            recipe,
            self.sources(),
            actions=self.actions,
            memory=self.memory,
            cache_dir=self.cache_dir,
            distributed=distributed,
            console=console,
        )

    def learner(self, mixture: Mixture, device: torch.device, distributed: Distributed) -> Learner:
        """Return a fresh learner on the data."""
        return Learner(self.recipe, mixture.spec, device, distributed)

    @property
    def taught_by(self) -> Mapping[str, Any]:
        """What to write of a teacher; nothing if there is none."""
        return {}

    @property
    def starts_from(self) -> Mapping[str, Any]:
        """What to write of a run whose networks this one starts from; nothing if there is none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Train(Training):
    """Train a policy on recorded data by a recipe."""

    task: tuple[Path, ...]
    """HDF5 files of the task, or globs of them: their rewards count"""
    prior: tuple[Path, ...] = ()
    """HDF5 files of prior data, or globs of them: their rewards are taken for zero"""
    source: UseAppendAction[tuple[str, ...]] = ()
    """one more source of data, say name=human,files=a/*.hdf5,b.hdf5,share=0.3,mask=train,fraction=0.25,pick=first,
    reward=last:1,reward_scale=0,reward_shift=0,dones=last,ends=dones,held_out=0,corrupt=,rename=OLD=NEW (again for each
    key); rewards and dones that it does not tell are as for the task data, beside reward_scale=0 as for the prior data,
    and held_out and corrupt as for all; may be given several times"""
    task_mask: str | None = None
    """one of robomimic's filters in the task files, say train: the subset of their demos to use"""
    task_fraction: float = 1.0
    """part of the task's demos to use, drawn by the seed; a smaller part lies within a larger one"""
    task_reward: str = "recorded"
    """the task's rewards: recorded; last:K, 1 in the last K steps of each episode; success:ATTRIBUTE, 1 in the last
    step of the demos whose attribute is true; labels:FILE.json, a member for each demo"""
    task_dones: Dones = "recorded"
    """which steps of the task have done set: as recorded, or the last one of each episode"""
    task_rename: tuple[str, ...] = ()
    """OLD=NEW ...: other names for observations of the task, say agentview_rgb=agentview_image, by which all sources
    and options, the run and what is exported of it call them; all at once, so two may be exchanged"""
    prior_rename: tuple[str, ...] = ()
    """the same for the prior data"""
    held_out: float = 0.0
    """part of every source's episodes that is never sampled, for `pixelrl probe --on-held-out`; drawn by the seed"""
    initial: Path | None = None
    """run whose networks this one starts from; its optimisers, schedules and warm-up are its own; a run that goes on
    (--resume) knows it, and no longer needs it"""
    initial_step: int | None = None
    """that run's snapshot of a step; default: its last checkpoint"""
    initial_part: InitialPart = "all"
    """critic: the critics and their slow copy alone, with --critic-lr 0 for a new policy on critics that stay"""
    corrupt: str = ""
    """harm all sources on purpose: KIND:RATE joined by +, KIND one of observation, action, reward, dynamics (RIQL), or
    of swap, freeze, occlude (pictures of s alone, as cameras fail)"""

    def __call__(self) -> None:
        """Train; as one of several ranks, if torchrun has started us."""
        with joined(self.device) as (distributed, device):
            train(self, pick_device(device), distributed, plain_console(quiet=not distributed.is_main))

    def sources(self) -> list[Source]:
        """Return the sources of the data.

        Raises:
            PixelrlError: a source that cannot be, or shares that leave nothing to the prior data.
        """
        scale, shift, share = self.recipe.reward_scale, self.recipe.reward_shift, self.recipe.task_share
        task = Source(
            name="task",
            files=self.task,
            share=share,
            mask=self.task_mask,
            fraction=self.task_fraction,
            reward=self.task_reward,
            reward_scale=scale,
            reward_shift=shift,
            dones=self.task_dones,
            held_out=self.held_out,
            corrupt=self.corrupt,
            rename=parse_renames(self.task_rename, "--task-rename"),
        )
        as_task = {key: getattr(task, key) for key in AS_TASK}
        others = [parse_source(text, as_task) for text in self.source]
        return with_prior(task, self.prior, others, self.prior_rename)

    @property
    def starts_from(self) -> Mapping[str, Any]:
        """What to write of the run whose networks this one starts from."""
        if self.initial is None and (self.initial_step is not None or self.initial_part != "all"):
            raise PixelrlError("--initial-step and --initial-part say what to take of a run; give --initial RUN")
        going_on = self.out if self.resume else None
        return initial_of(going_on, self.initial, self.initial_step, self.initial_part)


def train(options: Training, device: torch.device, distributed: Distributed, console: Console) -> None:
    """Train a policy and keep everything about it in the run's directory; of several ranks, the first one writes.

    Raises:
        PixelrlError: data that do not fit, a directory that is taken, or a run that cannot be resumed.
    """
    provenance, out = Provenance(seed=options.recipe.seed), options.out
    loaders = int(device.type == "cuda") if options.loader_threads is None else options.loader_threads
    if min(options.log_every, options.checkpoint_every) < 1 or min(loaders, options.snapshot_every) < 0:
        least = "--log-every and --checkpoint-every must be at least 1"
        raise PixelrlError(f"{least}, --loader-threads and --snapshot-every at least 0")
    if (odd := not_finite(to_json(options.recipe))) is not None:
        raise PixelrlError(f"recipe: {odd}; expected a finite number")
    check_trackers(options.track)
    with ExitStack() as stack:
        distributed.run_on_all_ranks(
            lambda: stack.enter_context(exclusive_directory(out)) if distributed.is_main else None
        )
        begin = partial(prepare, options, device, distributed, console)
        mixture, learner, run, seconds = distributed.run_on_all_ranks(begin)
        if options.resume:
            how = f"going on from step {learner.step}" if learner.step else "nothing to go on with; beginning"
            console.print(f"{out}: {how}")
        check_execution(learner, options.execution)
        distributed.check_same_state(f"step {learner.step} of data {run.fingerprint} in {out}")
        if distributed.is_main:
            run.write(out)
        batch_at = stack.enter_context(Prefetcher(mixture.batch, options.recipe.steps, threads=loaders))
        seconds = take_steps(options, learner, batch_at, seconds, console)
        if distributed.is_main:
            result = {"steps": learner.step, "transitions": len(mixture), "training_seconds": round(seconds, 2)}
            told = {"ranks": distributed.world_size, "data": [*mixture.ledger.lines()]}
            write_json(out / "training.json", result | told | provenance.record())
            console.print(f"{out}: {learner.step} steps; pixelrl evaluate, report and export take it from here")


def prepare(
    options: Training, device: torch.device, distributed: Distributed, console: Console
) -> tuple[Mixture, Learner, Run, float]:
    """Return the data, a learner that is fresh or stands where the run stood, the run, and the seconds it has taken."""
    recipe, out = options.recipe, options.out
    told = {"teacher": options.taught_by, "initial": options.starts_from}
    previous = find_previous_run(out, recipe, resume=options.resume, **told)
    mixture = options.load(device, distributed, console)
    threads = set_threads(options.threads, device, previous.threads if previous else None)
    learner = options.learner(mixture, device, distributed)
    if told["initial"] and previous is None:
        start_from(learner, mixture.table.actions, told["initial"])
    learner.monitor.limit = largest_q(recipe.gamma, mixture.largest_reward)
    run = Run(
        recipe=recipe,
        spec=learner.spec,
        data={source.name: tuple(str(path.resolve()) for path in source.paths()) for source in mixture.sources},
        sources={source.name: source.rule() for source in mixture.sources},
        fingerprint=mixture.table.fingerprint(),
        actions=mixture.table.actions,
        env_args=mixture.env_args,
        threads=threads,
        **told,
    )
    seconds = 0.0 if previous is None else resume_run(out, with_labels_found(previous), run, learner)
    return mixture, learner, run, seconds


def take_steps(
    options: Training, learner: Learner, batch_at: Callable[[int], Batch], seconds: float, console: Console
) -> float:
    """Take all steps that are left, with reports and checkpoints, and return the seconds that the run has taken.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the last step is kept.
    """
    recipe, out, path, distributed = options.recipe, options.out, checkpoint_path(options.out), learner.distributed
    saved = learner.step
    with (
        checkpoint.naming_last_good(path),
        Log(out, saved, options.track) if distributed.is_main else nullcontext() as log,
        progress_bar(console) as bar,
        deferred_interrupt() as interrupted,
        outliving(learner, path, seconds),
    ):
        job = bar.add_task("train", total=recipe.steps, completed=learner.step, note="")
        steps = partial(loop.train, learner, batch_at, recipe.steps, execution=options.execution)
        for report in steps(measure_every=options.log_every, seconds=seconds):
            bar.update(job, completed=report.step)
            if report.metrics and log is not None:
                log.write(report)
                bar.update(job, note=report.summary)
            stop = distributed.any(bool(interrupted))
            # before the checkpoint: a run that cannot write it, or is killed here, writes it when it goes on
            if options.snapshot_every and report.step % options.snapshot_every == 0:
                snapshot = checkpoint_path(out, report.step)
                keep = partial(checkpoint.save_networks, snapshot, learner.networks, report.step)
                distributed.run_on_all_ranks(keep if distributed.is_main else lambda: None)
            if stop or should_checkpoint(report, saved, options):
                checkpoint.save(path, learner, report.seconds)
                saved, seconds = report.step, report.seconds
            if stop:
                console.print(f"{out}: stopped and kept at step {learner.step}; --resume goes on from there")
                raise KeyboardInterrupt
    return seconds


def should_checkpoint(report: loop.Report, saved: int, options: Training) -> bool:
    """Tell whether to keep a checkpoint: at the end, and every so many steps, once losses were seen to be finite."""
    last = report.step == options.recipe.steps
    return last or (bool(report.metrics) and report.step - saved >= options.checkpoint_every)

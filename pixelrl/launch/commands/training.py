"""Train a recipe on data: read this file first, then the recipe, then its terms.

files -> Mixture.batch(step) -> Prefetcher -> Learner.update(batch) -> reports, checkpoints, a run's directory
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from pixelrl.training import checkpoint
from pixelrl.learning.execution import Capture, check_capture
from pixelrl.learning.recipe import Recipe, to_json
from pixelrl.datasets.buffer.prefetch import Prefetcher
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.learning.divergence import largest_q
from pixelrl.launch.console import deferred_interrupt, progress_bar
from pixelrl.launch.processor import Threads, make_learner, settle_kernels, settle_threads
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.torchrun import outliving
from pixelrl.learning.learner import Learner
from pixelrl.training.loop import Report
from pixelrl.training.loop import train as training
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.training.metrics_log import Log
from pixelrl.training.run_directory import Run, checkpoint_path, pick_device, read_run


def train(
    recipe: Recipe,
    data: Callable[[torch.device], Mixture],
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    log_every: int = 100,
    checkpoint_every: int = 1_000,
    snapshot_every: int = 0,
    threads: Threads = "auto",
    loader_threads: int | None = None,
    capture: Capture = "auto",
    distributed: Distributed = SINGLE_PROCESS,
    console: Console,
) -> None:
    """Train a policy and keep everything about it in the directory `out`.

    `data` opens the data for a learner's device, as `launch.data.load` does; `pixelrl train --help` tells the rest.
    Of several ranks, all call this, and the first one writes.

    Raises:
        PixelrlError: data that do not fit, a directory that is taken, or a run that cannot be resumed.
    """
    provenance = Provenance(seed=recipe.seed)
    where = pick_device(device)
    loaders = int(where.type == "cuda") if loader_threads is None else loader_threads
    if log_every < 1 or checkpoint_every < 1 or loaders < 0:
        raise PixelrlError("--log-every and --checkpoint-every must be at least 1, --loader-threads at least 0")
    mixture, learner, run, seconds = distributed.run_on_all_ranks(
        lambda: prepare(recipe, data, out, where, resume=resume, threads=threads, distributed=distributed)
    )
    if resume:
        console.print(f"{out}: " + (f"going on from step {learner.step}" if learner.step else "nothing to resume"))
    check_capture(learner, capture)
    distributed.check_same_state(f"step {learner.step} of data {run.fingerprint} in {out}")
    if distributed.is_main:
        run.write(out)
    saved, path = learner.step, checkpoint_path(out)
    with (
        checkpoint.naming_last_good(path),
        Log(out, saved) if distributed.is_main else nullcontext() as log,
        Prefetcher(mixture.batch, recipe.steps, threads=loaders) as batch_at,
        progress_bar(console) as bar,
        deferred_interrupt() as interrupted,
        outliving(learner, path, seconds),
    ):
        job = bar.add_task("train", total=recipe.steps, completed=learner.step, note="")
        reports = training(learner, batch_at, recipe.steps, measure_every=log_every, seconds=seconds, capture=capture)
        for report in reports:
            bar.update(job, completed=report.step)
            if report.metrics and log is not None:
                log.write(report)
                bar.update(job, note=summary(report))
            stop = distributed.any(bool(interrupted))
            if due(report, saved, checkpoint_every) or stop or report.step == recipe.steps:
                checkpoint.save(path, learner, report.seconds)
                saved, seconds = report.step, report.seconds
            if snapshot_every and report.step % snapshot_every == 0 and distributed.is_main:
                checkpoint.save_networks(checkpoint_path(out, report.step), learner.networks, report.step)
            if stop:
                console.print(f"{out}: stopped and kept at step {learner.step}; --resume goes on from there")
                raise KeyboardInterrupt
    if distributed.is_main:
        result = {"steps": learner.step, "transitions": len(mixture), "training_seconds": round(seconds, 2)}
        write_json(out / "training.json", result | {"ranks": distributed.world_size} | provenance.record())


def prepare(
    recipe: Recipe,
    data: Callable[[torch.device], Mixture],
    out: Path,
    device: torch.device,
    *,
    resume: bool,
    threads: Threads,
    distributed: Distributed,
) -> tuple[Mixture, Learner, Run, float]:
    """Return the data, a learner that is fresh or stands where the run stood, the run, and the seconds it has taken.

    Raises:
        PixelrlError: as `train` says.
    """
    before = earlier(out, recipe, resume)
    mixture = data(device)
    onednn = settle_kernels(recipe, device, before.onednn if before else None)
    make = partial(make_learner, recipe, mixture.spec, device, onednn)
    count = settle_threads(threads, device, before.threads if before else None, make, mixture.batch)
    learner = make(distributed)
    learner.guard.limit = largest_q(recipe.gamma, mixture.largest_reward)
    run = describe(recipe, mixture, count, onednn)
    return mixture, learner, run, 0.0 if before is None else go_on(out, before, run, learner)


def describe(recipe: Recipe, mixture: Mixture, threads: int | None, onednn: bool | None) -> Run:
    """Return the whole configuration of a run."""
    sources = mixture.sources
    return Run(
        recipe=recipe,
        spec=mixture.spec,
        data={source.name: tuple(str(path.resolve()) for path in source.paths()) for source in sources},
        sources={source.name: source.rule() for source in sources},
        fingerprint=mixture.table.fingerprint(),
        actions=mixture.table.actions,
        env_args=mixture.env_args,
        threads=threads,
        onednn=onednn,
    )


def earlier(out: Path, recipe: Recipe, resume: bool) -> Run | None:
    """Return the run to go on with, if there is one; what was trained is never overwritten unasked.

    Raises:
        PixelrlError: the directory holds a run and `resume` was not given, or its recipe is another one.
    """
    if not checkpoint_path(out).exists():
        return None  # with --resume too: a job that is started again and again begins like this
    if not resume:
        raise PixelrlError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
    run = read_run(out)
    for field in fields(recipe):
        if field.name != "steps" and getattr(run.recipe, field.name) != getattr(recipe, field.name):
            old, new = to_json(getattr(run.recipe, field.name)), to_json(getattr(recipe, field.name))
            raise PixelrlError(
                f"{out}: was trained with {field.name} = {old}, not {new}; --resume changes only --steps"
            )
    return run


def go_on(out: Path, before: Run, run: Run, learner: Learner) -> float:
    """Read the checkpoint of an earlier run into the learner, and return the seconds that it had taken.

    Raises:
        PixelrlError: the earlier run was on other data, or has done more steps than are asked for.
    """
    if (before.fingerprint, before.actions) != (run.fingerprint, run.actions):
        raise PixelrlError(f"{out}: was trained on other data ({before.fingerprint}), not these ({run.fingerprint})")
    for name in dict.fromkeys([*run.sources, *before.sources]) if before.sources else ():  # older versions do not tell
        old, new = before.sources.get(name, {}), run.sources.get(name, {})
        for key in dict.fromkeys([*new, *old]):
            if old.get(key) != new.get(key):
                raise PixelrlError(
                    f"{out}: was trained with source {name}: {key} = {old.get(key)}, not {new.get(key)}; "
                    "--resume changes only --steps"
                )
    seconds = checkpoint.load(checkpoint_path(out), learner)
    if run.recipe.steps < learner.step:
        raise PixelrlError(f"{out}: has done {learner.step} steps already; --steps {run.recipe.steps} would undo some")
    return seconds


def due(report: Report, saved: int, every: int) -> bool:
    """Return whether to keep a checkpoint: every so many steps, once the losses were seen to be finite."""
    return bool(report.metrics) and report.step - saved >= every


def summary(report: Report) -> str:
    """Return the two figures that a person watches, so short that a line of 80 columns holds them."""
    names = {"Q": "q/data", "phi.phi'": "features/dot", "loss": "actor/loss"}
    found = [f"{label} {report.metrics[name]:.3g}" for label, name in names.items() if name in report.metrics]
    return "  ".join(found[:2])

"""The runs of a study: data, training, trials of snapshots, probe, and one record each; many side by side.

OUT/REPLICATE/data/   what `pixelrl collect` made; removed when every arm of the replicate has its record
OUT/REPLICATE/ARM/    a run of `pixelrl train`, with study/STEP/evaluation.json
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from pixelrl.launch.commands.collect import Collect, forget_unrecorded, record_of
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.commands.probe import Probe
from pixelrl.launch.parallel_runs import Process, TrainingJob, last_words
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.study_design import Arm, Study, Workplace, write_record
from pixelrl.launch.train_options import parse
from pixelrl.runtime.errors import DivergenceError, PixelrlError
from pixelrl.runtime.files import file_lock, sha256_of, write_json
from pixelrl.runtime.seeding import derive
from pixelrl.training.averaging import average_snapshots
from pixelrl.training.run_directory import checkpoint_path

CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGILL)
"""Signals that a run brings on itself; any other one stops it, which says nothing about its arm."""

SHORT_OF = re.compile("out of memory|to allocate|allocate memory|ALLOC_FAILED|new thread|Resource temporarily")
"""What torch and Python say where memory or threads run out."""


def make_run(place: Workplace, replicate: int, arm: Arm, console: Console) -> None:
    """Make one run and write its record; what is done already, to the last checkpoint, is not done again.

    A run that diverges, or in which something unforeseen happens, has a record that says so.

    Raises:
        PixelrlError, OSError, MemoryError, ImportError, RuntimeError: what is not the arm's doing: files, disk,
            environments, memory, packages.
    """
    provenance, run, study = Provenance(seed=replicate), place.run(replicate, arm), place.study
    evaluations: list[dict[str, Any]] = []
    probe: dict[int, dict[str, float | None]] = {}
    failed, seconds = None, {"probe": 0.0}
    task, prior = (data_files(place, replicate, part) for part in ("task", "prior"))
    files = {Path(path).name if study.environment else path: sha256_of(Path(path)) for path in (*task, *prior)}
    place.check_files(place.read_records() | {(replicate, arm.name): {"files": files}})
    try:
        trained = place.run(replicate, arm if arm.of is None else study.arms[arm.of])
        words = ["--task", *task, "--out", str(trained), "--seed", str(replicate)]
        words += ["--resume", "--threads", "1", "--snapshot-every", str(math.gcd(*study.steps))]
        words += ["--prior", *prior] if prior else []
        with file_lock(
            place.out / f".{replicate}.{trained.name}.lock"
        ):  # an arm that averages it trains it, if need be
            parse(arm.recipe, [*arm.options(replicate), *words])()
        if arm.average is not None:
            average_snapshots(trained, run, study.steps, arm.average)
        evaluations = [evaluate(study, run, replicate, step) for step in study.steps if study.episodes]
        began = time.perf_counter()
        asked = Probe(run=run, step=study.steps, rows=study.rows, on_held_out=study.held_out)
        probe = asked.measure(Console(quiet=True))
        seconds["probe"] = round(time.perf_counter() - began, 2)
    except DivergenceError as error:
        failed = f"diverged: {error}"
    except (PixelrlError, OSError, MemoryError, ImportError):
        raise
    except Exception as error:  # whatever else it is, it counts as what the arm does
        if isinstance(error, RuntimeError) and SHORT_OF.search(str(error)):
            raise
        failed = f"{type(error).__name__}: {' '.join(str(error).split())}"
    seconds["evaluate"] = round(sum(each.pop("seconds") for each in evaluations), 2)
    figures = {
        str(step): {key: None if value is None else float(f"{value:.6g}") for key, value in each.items()}
        for step, each in probe.items()
    }
    result = {"failed": failed, "evaluations": evaluations, "probe": figures, "spent": seconds, "files": files}
    write_record(place, replicate, arm, provenance, result)
    tried = ", ".join(f"{each['successes']} at {each['step']}" for each in evaluations)
    console.print(f"{run}: {failed or tried or 'measured'}")


def data_files(place: Workplace, replicate: int, part: str) -> list[str]:
    """Return the files of a part of a replicate's data, which are collected if they are not there.

    Raises:
        PixelrlError: what was collected there is something else.
    """
    study, folder = place.study, place.data(replicate)
    if study.environment is None:
        return [str(path) for path in study.paths(part)]
    if part not in study.collect:
        return []
    path, size = folder / f"{part}.hdf5", study.collect[part]
    with file_lock(place.out / f".{replicate}.lock"):  # another run of this replicate may be collecting
        if not record_of(path).exists():
            forget_unrecorded(path)
            Collect(task=study.environment, part=part, out=path, episodes=size, seed=replicate, workers=1)()
    record = json.loads(record_of(path).read_text())
    if (came := (record["episodes"], record["task"])) != (size, study.environment):
        raise PixelrlError(
            f"{path}: holds {came[0]} episodes of {came[1]}, and {place.file} asks for {size} of {study.environment}; "
            f"choose another --out, or move {folder} away"
        )
    return [str(path)]


def evaluate(study: Study, run: Path, replicate: int, step: int) -> dict[str, Any]:
    """Return how a snapshot does on the replicate's own starts, which no other replicate has.

    A trial that is there is taken if it was asked for in the same words, of the same snapshot; a damaged one is none.
    """
    out = run / "study" / str(step)
    file = out / "evaluation.json"
    seed = derive(replicate, "study", study.starts)
    asked = ["--episodes", str(study.episodes), "--seed", str(seed), *study.evaluate]
    result: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        result = dict(json.loads(file.read_text())) if file.exists() else {}
    if result.get("asked") != asked or result["policy"]["sha256"] != sha256_of(checkpoint_path(run, step)):
        words = [str(run), "--step", str(step), "--out", str(out), "--workers", "1", *asked]
        tyro.cli(Evaluate, args=words)()
        result = json.loads(file.read_text()) | {"asked": asked}
        write_json(file, result)
    return {
        "step": step,
        "successes": result["successes"],
        "episodes": result["episodes"],
        "outcomes": "".join("01"[each["success"]] for each in result["outcomes"]),
        "mean_length": result["mean_length"],
        "seed": result["seeds"]["seed"],
        "seconds": result["seconds"],
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyRun(TrainingJob):
    """One run of a study, as a process of its own: `pixelrl study FILE --single REPLICATE ARM`."""

    place: Workplace
    replicate: int
    arm: Arm
    keep_data: bool
    console: Console

    @property
    def log(self) -> Path:
        """Return what the process prints into."""
        return self.out.parent / f"{self.arm.name}.log"

    @property
    def command(self) -> list[str]:
        """Return the command that makes it."""
        place = self.place
        words = ["study", str(place.file), "--single", str(self.replicate), self.arm.name]
        words += ["--out", str(place.out), "--records", str(place.records)]
        return [sys.executable, "-m", "pixelrl.launch.cli", *words]

    def start(self, threads: int) -> Process:
        """Start it on one thread, whatever is offered: its numbers must not depend on how many run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            return subprocess.Popen(
                [*self.command, "--parent", str(os.getpid())],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def failure(self, process: Process) -> str | None:
        """Return what kept a run from its record; a process that crashed has one that says so."""
        code, study = process.returncode, self.place.study
        if code == 130 or (code < 0 and -code not in CRASHES):
            return "was stopped; the same command goes on with it"
        if code > 0:
            return last_words(self.log.read_text(errors="replace")) or f"exit code {code}"
        if code < 0:
            failed = f"crashed: {signal.Signals(-code).name}"
            result = {"failed": failed, "evaluations": [], "probe": {}, "spent": {}}
            write_record(self.place, self.replicate, self.arm, Provenance(), result)
        records = self.place.read_records()
        self.console.print(f"{len(records)} of {len(study.runs())} runs done: {self.title}")
        mine = {(replicate, arm.name) for replicate, arm in study.runs() if replicate == self.replicate}
        if study.environment and not self.keep_data and mine <= records.keys():
            shutil.rmtree(self.place.data(self.replicate), ignore_errors=True)
        return None


def waiting_runs(
    place: Workplace, chosen: Sequence[tuple[int, Arm]], *, keep_data: bool, console: Console
) -> list[StudyRun]:
    """Return those of some runs that have no record yet."""
    done = place.read_records()
    return [
        StudyRun(
            recipe=arm.recipe,
            options=(),
            out=place.run(replicate, arm),
            steps=place.study.steps[-1],
            title=f"replicate {replicate}, {arm.name}",
            place=place,
            replicate=replicate,
            arm=arm,
            keep_data=keep_data,
            console=console,
        )
        for replicate, arm in chosen
        if (replicate, arm.name) not in done
    ]


def submit_array(waiting: Sequence[StudyRun], place: Workplace, parameters: Mapping[str, Any]) -> str:
    """Submit runs to SLURM as one array of jobs, whose logs go to OUT/slurm, and return the first one's id.

    `parameters` are submitit's, say `timeout_min`, `slurm_partition`; `cluster=local` runs them on this machine.

    Raises:
        PixelrlError: submitit knows no such parameter.
    """
    import submitit

    options = dict(parameters)
    try:
        executor = submitit.AutoExecutor(place.out / "slurm", cluster=options.pop("cluster", "slurm"))
        executor.update_parameters(name=place.study.name, cpus_per_task=1, **options)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise PixelrlError(f"--slurm: {' '.join(str(error).split())}") from error
    with executor.batch():
        jobs = [executor.submit(subprocess.run, run.command, check=True) for run in waiting]
    return str(jobs[0].job_id)

"""The runs of a study: data, training, trials of snapshots, probe, and one record each; many side by side.

OUT/REPLICATE/data/          what `pixelrl collect` made; removed when every arm of the replicate has its record
OUT/REPLICATE/ARM/           a run of `pixelrl train`, with study/STEP/evaluation.json
RECORDS/REPLICATE_ARM.json   all that is kept of it, small enough for git
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from pixelrl.launch.commands.collect import Collect, forget_unrecorded, record_of
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.commands.probe import probe_run
from pixelrl.launch.parallel_runs import Process, TrainingJob
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.study_design import Arm, Study
from pixelrl.launch.train_options import parse
from pixelrl.runtime.errors import DivergenceError, PixelrlError
from pixelrl.runtime.files import file_lock, write_json
from pixelrl.runtime.seeding import derive

Record = Mapping[str, Any]

STOPPED = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130)
"""How a run ends that somebody stopped: that says nothing about its arm, and it goes on next time."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a study is at work: its file, its folder, and its records' folder."""

    study: Study
    file: Path
    out: Path
    records: Path

    def run(self, replicate: int, arm: Arm) -> Path:
        """Return the directory of a run."""
        return self.out / str(replicate) / arm.name

    def record(self, replicate: int, arm: Arm) -> Path:
        """Return where a run's record is."""
        return self.records / f"{replicate}_{arm.name}.json"

    def data(self, replicate: int) -> Path:
        """Return the folder of a replicate's data."""
        return self.out / str(replicate) / "data"

    def read_records(self) -> dict[tuple[int, str], Record]:
        """Return the records that are there, by replicate and arm.

        Raises:
            PixelrlError: one is damaged, or of a run that the study's file no longer describes.
        """
        found: dict[tuple[int, str], Record] = {}
        for replicate, arm in self.study.runs():
            path = self.record(replicate, arm)
            if not path.exists():
                continue
            try:
                record = json.loads(path.read_text())
                came = record["design"]
                _ = record["evaluations"], record["failed"], record["probe"]
            except (ValueError, LookupError, TypeError) as error:
                raise PixelrlError(f"{path}: not a record of `pixelrl study` ({error!r})") from error
            design = self.study.design(arm)
            for key, right in design.items():
                if came.get(key) != right:
                    raise PixelrlError(
                        f"{path}: was made with {key} = {came.get(key)}, and {self.file} says {right}; "
                        "choose another --records and --out, or move it away"
                    )
            found[replicate, arm.name] = record
        return found


def make_run(place: Workplace, replicate: int, arm: Arm, console: Console) -> None:
    """Make one run and write its record; what is done already, to the last checkpoint, is not done again.

    A run that diverges, or in which something unforeseen happens, has a record that says so.

    Raises:
        PixelrlError: what is not the arm's doing: files, disk, environments.
    """
    provenance, run, study = Provenance(seed=replicate), place.run(replicate, arm), place.study
    evaluations: list[dict[str, Any]] = []
    probe: dict[int, dict[str, float | None]] = {}
    failed, seconds = None, {"probe": 0.0}
    try:
        words = ["--task", *data_files(place, replicate, "task"), "--out", str(run), "--seed", str(replicate)]
        words += ["--resume", "--threads", "1", "--snapshot-every", str(math.gcd(*study.steps))]
        if prior := data_files(place, replicate, "prior"):
            words += ["--prior", *prior]
        parse(arm.recipe, [*arm.options(replicate), *words])()
        evaluations = [evaluate(study, run, replicate, step) for step in study.steps if study.episodes]
        began = time.perf_counter()
        probe = probe_run(run, study.steps, study.rows, 0, Console(quiet=True), held_out=study.held_out)
        seconds["probe"] = round(time.perf_counter() - began, 2)
    except DivergenceError as error:
        failed = f"diverged: {error}"
    except (PixelrlError, OSError):
        raise
    except Exception as error:  # whatever it is, it counts as what the arm does
        failed = f"{type(error).__name__}: {' '.join(str(error).split())}"
    seconds["evaluate"] = round(sum(each.pop("seconds") for each in evaluations), 2)
    write_record(place, replicate, arm, provenance, failed, evaluations, probe, seconds)
    tried = ", ".join(f"{each['successes']} at {each['step']}" for each in evaluations)
    console.print(f"{run}: {failed or tried or 'measured'}")


def write_record(
    place: Workplace,
    replicate: int,
    arm: Arm,
    provenance: Provenance,
    failed: str | None,
    evaluations: list[dict[str, Any]],
    probe: Mapping[int, Mapping[str, float | None]],
    seconds: dict[str, float],
) -> None:
    """Write a run's record, with what its directory tells of the training."""
    run = place.run(replicate, arm)
    about: dict[str, Any] = {"data": None}
    if (run / "config.json").exists():
        about["data"] = json.loads((run / "config.json").read_text())["fingerprint"]
    if (run / "training.json").exists():
        training = json.loads((run / "training.json").read_text())
        seconds["train"] = training["training_seconds"]
    body = {
        "study": place.study.name,
        "replicate": replicate,
        "arm": arm.name,
        "failed": failed,
        "evaluations": evaluations,
        "probe": {str(step): {key: rounded(value) for key, value in each.items()} for step, each in probe.items()},
        "spent": seconds,
        "design": place.study.design(arm),
    }
    write_json(place.record(replicate, arm), body | about | provenance.record())


def rounded(value: float | None) -> float | None:
    """Return a number with six digits, as records hold it."""
    return None if value is None else float(f"{value:.6g}")


def data_files(place: Workplace, replicate: int, part: str) -> list[str]:
    """Return the files of a part of a replicate's data, which are collected if they are not there."""
    study, folder = place.study, place.data(replicate)
    if study.environment is None:
        return list(study.files.get(part, ()))
    if part not in study.collect:
        return []
    path = folder / f"{part}.hdf5"
    with file_lock(place.out / f".{replicate}.lock"):  # another run of this replicate may be collecting
        if not record_of(path).exists():
            forget_unrecorded(path)
            size = study.collect[part]
            Collect(task=study.environment, part=part, out=path, episodes=size, seed=replicate, workers=1)()
    return [str(path)]


def evaluate(study: Study, run: Path, replicate: int, step: int) -> dict[str, Any]:
    """Return how a snapshot does on the replicate's own starts, which no other replicate has."""
    out = run / "study" / str(step)
    if not (out / "evaluation.json").exists():
        words = [str(run), "--step", str(step), "--out", str(out), "--workers", "1", "--episodes", str(study.episodes)]
        seed = derive(replicate, "study", study.starts)
        tyro.cli(Evaluate, args=[*words, "--seed", str(seed), *study.evaluate])()
    result = json.loads((out / "evaluation.json").read_text())
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
        if code in STOPPED:
            return "was stopped; the same command goes on with it"
        if code > 0:
            return " ".join(self.log.read_text(errors="replace").split("pixelrl: ")[-1].split()) or f"exit code {code}"
        if code < 0:
            failed = f"crashed: {signal.Signals(-code).name}"
            write_record(self.place, self.replicate, self.arm, Provenance(), failed, [], {}, {})
        records = self.place.read_records()
        self.console.print(f"{len(records)} of {len(study.runs())} runs done: {self.title}")
        mine = {(replicate, arm.name) for replicate, arm in study.runs() if replicate == self.replicate}
        if not self.keep_data and mine <= records.keys():
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
    """Submit runs to SLURM as one array of jobs, and return the first one's id.

    Args:
        waiting: the runs.
        place: a folder that the nodes share; their logs go to OUT/slurm.
        parameters: submitit's, say `timeout_min`, `slurm_partition`, `slurm_array_parallelism`; `cluster=local` runs
            them on this machine.

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

"""Several trainings side by side, each a process of its own: small networks gain nothing from a second core.

Each is what it would be alone, and what befalls it does not touch the others.
"""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from rich.console import Console

from pixelrl.launch.console import deferred_interrupt, progress_bar
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.metrics_log import rows_of

POLL = 0.5
"""Between two looks at how far the trainings are. [s]"""

GRACE = 20.0
"""What a training that is interrupted may take to keep its checkpoint. [s]"""

Process = subprocess.Popen[str]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One `pixelrl train`.

    `options` are those of the command but for `--out` and `--resume`; `steps` is for the progress bar.
    """

    recipe: str
    options: tuple[str, ...]
    out: Path
    steps: int
    title: str

    def start(self, threads: int) -> Process:
        """Start it in a process of its own; the last `--out` counts.

        What it says on standard error goes to a file: nobody reads it before the end, when a pipe would long be full.
        """
        words = ["train", self.recipe, *self.options, "--out", str(self.out), "--resume"]
        said = TemporaryFile("w+", errors="replace")  # noqa: SIM115 (`failure` reads it)
        process = subprocess.Popen(
            [sys.executable, "-m", "pixelrl.launch.cli", *words],
            stdout=subprocess.DEVNULL,
            stderr=said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        process.stderr = said
        return process

    def failure(self, process: Process) -> str | None:
        """Return what went wrong in a process that has ended; None if nothing did."""
        if not process.returncode:
            return None
        assert process.stderr is not None
        process.stderr.seek(0)
        return last_words(process.stderr.read()) or f"training ended with exit code {process.returncode}"


def run_trainings(
    trainings: Sequence[TrainingJob], *, workers: int, console: Console, stop_at_failure: bool = True
) -> None:
    """Run trainings, at most `workers` at a time in the order given, and go on with those that had begun.

    Args:
        trainings: what to run.
        workers: how many at a time; they share the cores.
        console: where progress is shown.
        stop_at_failure: stop the others when one fails; they keep their checkpoints. Else they end first.

    Raises:
        PixelrlError: some of them failed.
        KeyboardInterrupt: Ctrl-C or SIGTERM; all have kept their checkpoints.
    """
    threads = max(1, workers // max(1, min(workers, len(trainings))))
    failures: list[str] = []
    waiting, running = list(trainings), dict[TrainingJob, Process]()
    with progress_bar(console) as bar, deferred_interrupt() as interrupted:
        jobs = {each: bar.add_task(each.title, total=each.steps, start=False, note="") for each in trainings}
        try:
            while (waiting or running) and not (failures and stop_at_failure):
                while waiting and len(running) < workers:
                    training = waiting.pop(0)
                    bar.start_task(jobs[training])
                    running[training] = training.start(threads)
                time.sleep(POLL)
                if interrupted:
                    raise KeyboardInterrupt
                for training, process in list(running.items()):
                    ended = process.poll() is not None
                    bar.update(jobs[training], completed=steps_done(training.out))
                    if ended:
                        del running[training]
                    if ended and (failure := training.failure(process)):
                        failures.append(f"{training.title}: {failure}")
                        bar.update(jobs[training], note="failed")
        finally:
            terminate(running.values())
    if failures:
        raise PixelrlError("; ".join(failures))


def steps_done(run: Path) -> int:
    """Return the last step that a run has reported."""
    with suppress(OSError, LookupError, PixelrlError):  # nothing yet, or a row is being written
        return int(rows_of(run / "metrics.csv")[-1]["step"])
    return 0


def last_words(said: str) -> str:
    """Return the error that a process ended with, in one line."""
    return " ".join(said.split("pixelrl: ")[-1].split())


def terminate(processes: Collection[Process]) -> None:
    """Let trainings keep their checkpoints and end; that Ctrl-C may have reached them too does no harm."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()

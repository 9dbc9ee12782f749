"""Several trainings at a time: small networks keep one core busy each, and gain nothing from a second one."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch.console import deferred_interrupt, progress_bar
from pixelrl.launch.reports.demo_summary import history

GLANCE = 0.5
"""Between two looks at how far the trainings are. [s]"""

PATIENCE = 20.0
"""What a training that is interrupted may take to keep its checkpoint. [s]"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One `pixelrl train`.

    Attributes:
        recipe: its name.
        options: of the command, but for `--out` and `--resume`.
        out: directory of the run.
        steps: gradient steps, for the progress bar.
        name: what to call it; the recipe's, if empty.
    """

    recipe: str
    options: tuple[str, ...]
    out: Path
    steps: int
    name: str = ""

    @property
    def title(self) -> str:
        """Return what to call it."""
        return self.name or self.recipe

    @property
    def command(self) -> list[str]:
        """Return the words behind `pixelrl`."""
        return ["train", self.recipe, *self.options, "--out", str(self.out), "--resume"]  # the last --out counts

    def start(self, threads: int) -> "subprocess.Popen[str]":
        """Start it in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pixelrl.launch.cli", *self.command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def run_trainings(
    trainings: Sequence[Training], *, workers: int, console: Console, spare_others: bool = False
) -> None:
    """Run trainings, at most `workers` at a time in the order given, and go on with those that had begun.

    Args:
        trainings: what to run.
        workers: how many at a time; they share the cores.
        console: where progress is shown.
        spare_others: let the others end when one fails, and tell then.

    Raises:
        PixelrlError: one of them failed; the others are stopped, and keep their checkpoints.
        KeyboardInterrupt: Ctrl-C or SIGTERM; all have kept their checkpoints.
    """
    threads = max(1, workers // max(1, min(workers, len(trainings))))
    failed: list[str] = []
    waiting, running = list(trainings), dict[Training, "subprocess.Popen[str]"]()
    with progress_bar(console) as bar, deferred_interrupt() as interrupted:
        jobs = {each: bar.add_task(each.title, total=each.steps, start=False, note="") for each in trainings}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    bar.start_task(jobs[waiting[0]])
                    running[waiting[0]] = waiting[0].start(threads)
                    waiting.pop(0)
                time.sleep(GLANCE)
                if interrupted:
                    raise KeyboardInterrupt
                for each, process in list(running.items()):
                    ended = process.poll() is not None
                    bar.update(jobs[each], completed=steps_done(each.out))
                    if ended and running.pop(each).returncode:
                        failed.append(f"{each.title}: {complaint(process)}")
                        bar.update(jobs[each], note="failed")
                if failed and not spare_others:
                    break
        finally:
            stop(running)
    if failed:
        raise PixelrlError("; ".join(failed))


def steps_done(run: Path) -> int:
    """Return the last step that a run has reported."""
    try:
        return int(history(run)[-1]["step"])
    except (OSError, LookupError, ValueError):  # nothing yet, or a row is being written
        return 0


def complaint(process: "subprocess.Popen[str]") -> str:
    """Return the last line that a training which failed has said."""
    said = process.communicate()[1].split("pixelrl: ")[-1].split()
    return " ".join(said) or f"training ended with exit code {process.returncode}"


def stop(running: Mapping[Training, "subprocess.Popen[str]"]) -> None:
    """Let trainings keep their checkpoints and end; that Ctrl-C may have reached them too does no harm."""
    for process in running.values():
        process.terminate()
    for process in running.values():
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()

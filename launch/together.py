"""Several trainings at a time: small networks keep one core busy each, and gain nothing from a second one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pixelrl.errors import PixelrlError
from pixelrl.launch.console import progress_bar
from pixelrl.launch.summary import history

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
    """

    recipe: str
    options: tuple[str, ...]
    out: Path
    steps: int

    @property
    def command(self) -> list[str]:
        """Return the words behind `pixelrl`."""
        return ["train", self.recipe, "--out", str(self.out), "--resume", *self.options]

    def start(self, threads: int) -> "subprocess.Popen[str]":
        """Start it in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pixelrl.launch.cli", *self.command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def train_together(trainings: Sequence[Training], *, workers: int, console: Console) -> None:
    """Run trainings, at most `workers` at a time in the order given, and go on with those that had begun.

    Raises:
        PixelrlError: one of them failed; the others are stopped, and keep their checkpoints.
    """
    threads = max(1, workers // max(1, min(workers, len(trainings))))
    waiting, running = list(trainings), dict[Training, "subprocess.Popen[str]"]()
    with progress_bar(console) as bar:
        jobs = {each: bar.add_task(each.recipe, total=each.steps, start=False, note="") for each in trainings}
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    bar.start_task(jobs[waiting[0]])
                    running[waiting[0]] = waiting[0].start(threads)
                    waiting.pop(0)
                time.sleep(GLANCE)
                for each, process in list(running.items()):
                    ended = process.poll() is not None
                    bar.update(jobs[each], completed=steps_done(each.out))
                    if ended and running.pop(each).returncode:
                        raise PixelrlError(f"{each.recipe}: {complaint(process)}")
        finally:
            stop(running)


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
    """Let trainings keep their checkpoints and end: Ctrl-C has reached them too, unless we alone were told."""
    for process in running.values():
        try:
            process.wait(PATIENCE / 10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
    for process in running.values():
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()

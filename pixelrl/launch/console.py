"""What a person watches and presses: progress bars with a rate and the time left, and Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text


class RateColumn(ProgressColumn):
    """Things a second, lately."""

    def render(self, task: Task) -> Text:
        """Return the rate, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")


def plain_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: a path may hold `[bold]` or `:smile:`.

    A terminal is what is one: notebooks ask for colours and are none.
    """
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(quiet=quiet, stderr=stderr, markup=False, emoji=False, force_terminal=terminal, force_jupyter=False)


def table_of(*heads: str) -> Table:
    """Return an empty table in which nothing is cut: what is too long for its column goes on in the next line."""
    return Table(*(Column(head, overflow="fold") for head in heads))


class LoggedProgress(Progress):
    """A progress bar on a terminal; elsewhere, say in a file of SLURM's, a line now and then."""

    EVERY = 30.0
    """seconds between two lines"""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._said: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Note how far a task is."""
        super().update(task_id, **changes)
        if self.console.is_terminal:
            return
        now = self.get_time()
        if now - self._said.setdefault(task_id, now) >= self.EVERY:
            self._said[task_id] = now
            self.console.print(self.line(next(task for task in self.tasks if task.id == task_id)), soft_wrap=True)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Note that a task is further."""
        self.update(task_id, advance=advance)

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the bars; where nobody watches, none of what has not begun."""
        begun = [task for task in tasks if task.total is not None or task.completed or self.console.is_terminal]
        return super().make_tasks_table(begun)

    def line(self, task: Task) -> str:
        """Return how far a task is, how fast it is, and how long it will take."""
        of = "" if task.total is None else f" of {task.total:,.0f}"
        parts = [f"{task.description} {task.completed:,.0f}{of}", RateColumn().render(task).plain]
        if task.time_remaining is not None:
            parts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
        return ", ".join(filter(None, [*parts, str(task.fields.get("note", ""))]))


def progress_bar(console: Console) -> Progress:
    """Return a progress bar; each of its tasks has a field `note` for whatever is worth watching."""
    return LoggedProgress(
        TextColumn("{task.description:>8}", markup=False),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


@contextmanager
def named_progress(console: Console, note: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows the work that goes on: what is done, how much of it, and of how much."""
    with progress_bar(console) as bar:
        job = bar.add_task("read", total=None, note=note)
        yield lambda what, done, total: bar.update(job, description=what, completed=done, total=total)


@contextmanager
def deferred_interrupt() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C and SIGTERM append to, so that no step is torn; a second Ctrl-C interrupts at once.

    SIGTERM is what machines send (SLURM, torchrun, `run_trainings`), and maybe twice.
    """
    pressed: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed and number == signal.SIGINT:
            raise KeyboardInterrupt
        pressed.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield pressed
        return
    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

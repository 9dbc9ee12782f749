"""What a person, or a log, sees of long work."""

import io

import pytest
from rich.console import Console

from pixelrl.launch.console import LoggedProgress, progress_bar


def watched(*, terminal: bool) -> list[str]:
    """Return the lines that a work of 100 steps, one each ten seconds, leaves behind before it ends."""
    written, now = io.StringIO(), iter(range(0, 100_000, 10))
    console = Console(file=written, force_terminal=terminal, width=200)
    bar = progress_bar(console)
    assert isinstance(bar, LoggedProgress)
    clock = [0.0]
    bar.get_time = lambda: clock[0]
    task = bar.add_task("train", total=100, note="")
    for step in range(1, 101):
        clock[0] = float(next(now))
        bar.update(task, completed=step, note=f"Q {step}")
    return written.getvalue().splitlines()


def test_log_gets_a_line_now_and_then_with_rate_and_time_left() -> None:
    lines = watched(terminal=False)
    assert len(lines) == 33 and lines[0].startswith("train 4 of 100, 0.1/s, 0:16:")
    assert lines[0].endswith("left, Q 4") and lines[-1].startswith("train 100 of 100")


def test_log_tells_of_each_of_several_works() -> None:
    written, clock = io.StringIO(), [0.0]
    bar = progress_bar(Console(file=written, width=200))
    bar.get_time = lambda: clock[0]
    tasks = [bar.add_task(name, total=100, note="") for name in ("seed 0", "seed 1")]
    for step in range(1, 41):
        clock[0] += 1.0
        for task in tasks:
            bar.update(task, completed=step)
    assert [line.split(",")[0] for line in written.getvalue().splitlines()] == ["seed 0 31 of 100", "seed 1 31 of 100"]


def test_terminal_gets_the_bar_and_no_lines() -> None:
    assert watched(terminal=True) == []


def test_log_has_no_bar_of_what_never_began() -> None:
    written = io.StringIO()
    with progress_bar(Console(file=written, width=200)) as bar:
        bar.add_task("read", total=None, note="frames")
    assert not written.getvalue().strip()


@pytest.mark.parametrize("total", [None, 10])
def test_line_of_work_whose_size_is_unknown_says_what_is_done(total: int | None) -> None:
    bar = progress_bar(Console(file=io.StringIO()))
    assert isinstance(bar, LoggedProgress)
    bar.add_task("read", total=total, note="frames", completed=3)
    assert bar.line(bar.tasks[0]) == ("read 3, frames" if total is None else "read 3 of 10, frames")

"""Worker pools: results depend on jobs alone, lost workers are replaced, and nothing is left running."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.simulation.workers.process_pool import WorkerPool
from tests import ROOT

Work = Callable[[int, Heartbeat], float]


def first(marker: Path | None) -> bool:
    """Set a marker file; tell whether nobody had, even if two workers come at once. Without one, always."""
    with suppress(FileExistsError):
        if marker:
            marker.touch(exist_ok=False)
        return True
    return False


@contextmanager
def divider(number: int, how: str = "", marker: Path | None = None) -> Iterator[Work]:
    """Divide a number; at divisor 3 die, hang or stop, always or only while there is no marker file."""

    def work(divisor: int, heartbeat: Heartbeat) -> float:
        heartbeat()
        if divisor == 3 and how and first(marker):
            if how == "hang":
                threading.Event().wait()
            os.kill(os.getpid(), {"die": signal.SIGKILL, "stop": signal.SIGSTOP}[how])
        return number / divisor

    yield work


@contextmanager
def unopenable(how: str) -> Iterator[Work]:
    """Cannot be opened."""
    if how == "die":
        os._exit(1)
    if how == "hang":
        threading.Event().wait()
    raise RuntimeError("no GL context")
    yield


@contextmanager
def slow_to_close(folder: Path, beats: bool) -> Iterator[Work]:
    """Leaves a file when it is closed, which takes a while; its jobs end when so many workers have begun."""

    def work(job: int, heartbeat: Heartbeat) -> float:
        (folder / f"{os.getpid()}.begun").touch()
        while len(list(folder.glob("*.begun"))) < job:
            time.sleep(0.01)
            if beats:
                heartbeat()
        return 0

    try:
        yield work
    finally:
        time.sleep(0.3)
        (folder / f"{os.getpid()}.closed").touch()


def jobs(*numbers: int) -> Iterator[tuple[str, int]]:
    return ((f"number {index}", number) for index, number in enumerate(numbers))


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    results = WorkerPool(workers).run(partial(divider, 60), jobs(1, 2, 3, 4), ordered=True)
    assert next(results).result == 60
    assert len(multiprocessing.active_children()) == min(workers, 4), "no more workers than jobs are started"
    assert [(done.index, done.result, done.restarts) for done in results] == [(1, 30, 0), (2, 20, 0), (3, 15, 0)]
    assert not multiprocessing.active_children()


def test_pool_without_jobs_returns_at_once() -> None:
    assert list(WorkerPool(2).run(partial(divider, 60), jobs())) == []


def test_endless_list_of_jobs_is_read_as_workers_become_free() -> None:
    taken = []

    def endless() -> Iterator[tuple[str, int]]:
        while True:
            taken.append(len(taken))
            yield "a job", 1

    results = WorkerPool(2).run(partial(divider, 60), endless(), ordered=True)
    for _ in range(3):
        next(results)
    results.close()
    assert len(taken) <= 3 + 2 * 2 + 1


@pytest.mark.parametrize("how", ["die", "hang", "stop"])
@pytest.mark.parametrize("ordered", [True, False])
def test_lost_worker_is_replaced_and_its_job_done_again(how: str, ordered: bool, tmp_path: Path) -> None:
    divided = partial(divider, 60, how, tmp_path / "marker")
    results = list(WorkerPool(2).run(divided, jobs(1, 2, 3, 4, 5), ordered=ordered, time_limit=3))
    assert sorted((done.index, done.result, done.restarts) for done in results) == [
        (0, 60, 0),
        (1, 30, 0),
        (2, 20, 1),
        (3, 15, 0),
        (4, 12, 0),
    ]
    assert not multiprocessing.active_children()


def test_job_that_loses_every_worker_is_named() -> None:
    with pytest.raises(SimulationError, match=r"number 1: its worker died.*: exit code -9; it was begun 3 times"):
        list(WorkerPool(2).run(partial(divider, 60, "die"), jobs(1, 3, 1)))
    with pytest.raises(SimulationError, match=r"number 0: its worker gave no sign of life for 0.5 s; it was begun 3"):
        list(WorkerPool(1).run(partial(divider, 60, "hang"), jobs(3), time_limit=0.5))
    assert not multiprocessing.active_children()


def test_worker_that_is_killed_while_it_is_idle_does_no_harm() -> None:
    results = WorkerPool(2).run(partial(divider, 60), jobs(*[1] * 9), ordered=True)
    next(results)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    assert [done.result for done in results] == [60] * 8


def test_exception_names_its_job_and_brings_the_traceback() -> None:
    with pytest.raises(SimulationError, match=r"number 0: ZeroDivisionError: ") as error:
        list(WorkerPool(1).run(partial(divider, 60), jobs(0)))
    assert "return number / divisor" in error.value.__notes__[0]
    assert not multiprocessing.active_children()


def test_worker_that_cannot_be_opened_ends_the_run() -> None:
    with pytest.raises(SimulationError, match=r"a worker cannot be started: RuntimeError: no GL context") as error:
        list(WorkerPool(2).run(partial(unopenable, ""), jobs(1, 2)))
    assert 'raise RuntimeError("no GL context")' in error.value.__notes__[0]
    with pytest.raises(SimulationError, match=r"3 workers in a row were lost while they started; .* exit code 1"):
        list(WorkerPool(2).run(partial(unopenable, "die"), jobs(1, 2)))
    with pytest.raises(SimulationError, match=r"3 workers in a row .* no sign of life for 2 s"):
        list(WorkerPool(1).run(partial(unopenable, "hang"), jobs(1), time_limit=0.2))
    assert not multiprocessing.active_children()


def test_work_that_cannot_be_pickled_is_refused() -> None:
    with pytest.raises(SimulationError, match=r"cannot be sent to worker processes .*not lambdas or local ones"):
        list(WorkerPool(1).run(lambda: divider(60), jobs(1)))
    with pytest.raises(SimulationError, match="workers is 0"):
        list(WorkerPool(0).run(partial(divider, 60), jobs(1)))


def test_workers_close_what_they_opened(tmp_path: Path) -> None:
    assert len(list(WorkerPool(4).run(partial(slow_to_close, tmp_path, False), jobs(4, 4, 4, 4)))) == 4
    assert len(list(tmp_path.glob("*.closed"))) == 4


def test_worker_amid_a_job_closes_what_it_opened_if_the_run_is_left(tmp_path: Path) -> None:
    """It does so at its next heartbeat."""
    results = WorkerPool(2).run(partial(slow_to_close, tmp_path, True), jobs(2, 9, 9))
    next(results)
    results.close()
    assert len(list(tmp_path.glob("*.closed"))) == 2
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("beats", [True, False])
def test_workers_die_with_their_parent(end: signal.Signals, beats: bool, tmp_path: Path) -> None:
    code = f"""
        from functools import partial
        from pathlib import Path
        from pixelrl.simulation.workers.process_pool import WorkerPool
        from tests.simulation.workers.test_process_pool import jobs, slow_to_close
        list(WorkerPool(2).run(partial(slow_to_close, Path({str(tmp_path)!r}), {beats}), jobs(9, 9)))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    # a suite in the background has SIGINT ignored, and its children inherit that
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"stderr": subprocess.DEVNULL, "start_new_session": True, "preexec_fn": heard}
    parent = subprocess.Popen(command, env=environment, **options)
    wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
    workers = [int(path.stem) for path in tmp_path.glob("*.begun")]
    parent.send_signal(end)
    parent.wait(60)
    wait_until(lambda: not any(map(lives, workers)))


def wait_until(condition: Callable[[], bool], patience: float = 60.0) -> None:
    """Wait for something that happens soon on an idle machine."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(process: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

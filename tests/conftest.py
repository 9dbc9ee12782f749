"""What every test stands on: no display, one thread each, and CUDA tests that say why they skip."""

import multiprocessing
import os
import sys

import pytest
import torch

from pixelrl.launch.cli import main
from pixelrl.simulation.workers import process_pool
from tests import Pixelrl, Streams

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)  # two workers share two cores; threads that wait for each other take ten times as long


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--slow`."""
    parser.addoption(
        "--slow", action="store_true", help="also run what takes minutes: whole grids, compilers, the package registry"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and what takes minutes unless it is asked for."""
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(
                pytest.mark.skip(reason="one of a large grid, or compiles, or asks the registry: --slow runs it")
            )
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))


@pytest.fixture(autouse=True)
def workers_share_their_imports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork workers from a process that has imported what takes four seconds, and has neither renderer nor threads.

    Tests of the pool itself start workers as users' commands do.
    """
    if "workers" not in request.path.parts:
        multiprocessing.set_forkserver_preload(["torch", "scipy.stats", "numba", "gymnasium"])
        monkeypatch.setattr(process_pool, "START_METHOD", "forkserver")


@pytest.fixture
def pixelrl_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Streams:
    """Run a command line in this process, and return its exit code and what it printed on either stream."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pixelrl", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def pixelrl(pixelrl_streams: Streams) -> Pixelrl:
    """Run a command line in this process, and return its exit code and what it printed, on one line."""

    def run(*words: object) -> tuple[int, str]:
        code, out, err = pixelrl_streams(*words)
        return code, " ".join((out + err).split())

    return run

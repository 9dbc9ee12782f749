"""Trainings side by side, each a real `pixelrl train` on a tiny world."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.dots import write_dots
from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch.parallel_runs import Training, steps_done, run_trainings

QUIET = Console(quiet=True)


def training(folder: Path, recipe: str, steps: int, task: Path | None = None) -> Training:
    task = task or write_dots(folder / f"{recipe}.hdf5", "task", 4, size=32)
    small = ("--batch-size=8", "--critic-hidden", "8", "--actor-hidden", "8", "--log-every=5", "--checkpoint-every=5")
    return Training(
        recipe=recipe, options=(f"--task={task}", *small, f"--steps={steps}"), out=folder / recipe, steps=steps
    )


def test_all_are_trained(tmp_path: Path) -> None:
    trainings = [training(tmp_path, recipe, 10) for recipe in ("quick_cog", "quick_bc")]
    run_trainings(trainings, workers=2, console=QUIET)
    for each in trainings:
        assert json.loads((each.out / "training.json").read_text())["steps"] == steps_done(each.out) == 10


def test_a_failure_stops_the_others_and_is_told_in_their_words(tmp_path: Path) -> None:
    endless = training(tmp_path, "quick_bc", 50_000)
    failing = training(tmp_path, "quick_cog", 10, task=tmp_path / "missing.hdf5")
    with pytest.raises(PixelrlError, match=r"quick_cog: .*missing\.hdf5: no such file"):
        run_trainings([endless, failing], workers=2, console=QUIET)
    assert not (endless.out / "training.json").exists()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also where a shell in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_what_was_trained(tmp_path: Path, interruptible: None) -> None:
    endless = training(tmp_path, "quick_bc", 50_000)

    def press() -> None:
        while not (endless.out / "last.safetensors").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_trainings([endless], workers=1, console=QUIET)
    reached = steps_done(endless.out)
    assert reached >= 5

"""Trainings side by side, each a real `pixelrl train` on a tiny world."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

from pixelrl.launch import parallel_runs
from pixelrl.launch.parallel_runs import TrainingJob, run_trainings, steps_done
from pixelrl.launch.train_options import devices_for, train_command
from pixelrl.runtime.errors import PixelrlError
from tests import Pixelrl
from tests.dots import write_dots

QUIET = Console(quiet=True)
SMALL = ("--batch-size=8", "--critic-hidden", "8", "--actor-hidden", "8", "--steps=6", "--log-every=3")


def training(folder: Path, recipe: str, steps: int, task: Path | None = None) -> TrainingJob:
    task = task or write_dots(folder / f"{recipe}.hdf5", "task", 4, size=32)
    small = ("--batch-size=8", "--critic-hidden", "8", "--actor-hidden", "8", "--log-every=5", "--checkpoint-every=5")
    return TrainingJob(
        recipe=recipe,
        title=recipe,
        options=(f"--task={task}", *small, f"--steps={steps}"),
        out=folder / recipe,
        steps=steps,
    )


def test_trainings_side_by_side_all_end(tmp_path: Path) -> None:
    trainings = [training(tmp_path, recipe, 10) for recipe in ("quick_cog", "quick_bc")]
    run_trainings(trainings, workers=2, console=QUIET)
    for each in trainings:
        assert json.loads((each.out / "training.json").read_text())["steps"] == steps_done(each.out) == 10


def test_failing_training_stops_the_others_and_is_told_in_its_words(tmp_path: Path) -> None:
    endless = training(tmp_path, "quick_bc", 50_000)
    failing = training(tmp_path, "quick_cog", 10, task=tmp_path / "missing.hdf5")
    with pytest.raises(PixelrlError, match=r"quick_cog: .*missing\.hdf5: no such file"):
        run_trainings([endless, failing], workers=2, console=QUIET)
    assert not (endless.out / "training.json").exists()


def test_training_that_says_much_ends_and_its_error_is_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nhead -c 200000 /dev/zero >&2\nprintf 'pixelrl: no \\377 luck\\n' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PixelrlError, match=r"^quick_bc: no \ufffd luck$"):
        run_trainings([training(tmp_path, "quick_bc", 10)], workers=1, console=QUIET)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also where a shell in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupted_trainings_keep_their_checkpoints(tmp_path: Path, interruptible: None) -> None:
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


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return a training's options, without --out."""
    return ["quick_cog", f"--task={write_dots(tmp_path / 'task.hdf5', 'task', 4, size=32)}", *SMALL]


def test_seed_trains_as_it_would_alone_and_survives_the_failure_of_another(
    words: list[str], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/seed5").write_text("in the way")
    together = ["--seeds", "5", "3", f"--out={tmp_path / 'runs'}", "--threads=1"]
    with pytest.raises(PixelrlError, match=r"^seed 5: .*runs/seed5: is a file; expected a directory"):
        train_command([*words, *together])
    assert pixelrl("train", *words, "--seed=3", "--threads=1", f"--out={tmp_path / '3'}")[0] == 0
    ours, alone = (load_file(folder / "last.safetensors") for folder in (tmp_path / "runs/seed3", tmp_path / "3"))
    assert ours.keys() == alone.keys()
    for key, value in alone.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)
    assert (tmp_path / "task.hdf5.frames").is_dir(), "one copy of the frames for all"
    with pytest.raises(PixelrlError, match=r"runs/seed3: holds a run already; add --resume"):
        train_command([*words, *together])


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[TrainingJob]:
    """Return the trainings that would be run."""
    trainings: list[TrainingJob] = []
    monkeypatch.setattr(parallel_runs, "run_trainings", lambda each, **_: trainings.extend(each))
    return trainings


def test_seeds_take_turns_on_all_gpus(
    begun: list[TrainingJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_for("cuda:1") == ["cuda:1"] and devices_for("cpu") == ["cpu"]
    words = ["--gamma=0.9", "--task=a.hdf5", f"--out={tmp_path}", "--seeds", "4", "5", "6", "--memory=ram"]
    train_command(["cog", *words])
    assert [each.out for each in begun] == [tmp_path / f"seed{seed}" for seed in (4, 5, 6)]
    assert [each.options for each in begun] == [
        (*words, "--seeds", "--seed", str(seed), "--device", f"cuda:{gpu}") for seed, gpu in ((4, 0), (5, 1), (6, 0))
    ]


def test_several_seeds_are_not_profiled(begun: list[TrainingJob], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match=r"^--profile is of one training, and --seeds of several; give one"):
        train_command([*words, "--seeds", "1", "2", "--profile", f"--out={tmp_path}"])
    assert not begun


def test_seed_given_twice_is_refused(begun: list[TrainingJob], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match="--seeds 1 2 1: one of them is there twice"):
        train_command([*words, "--seeds", "1", "2", "1", f"--out={tmp_path}"])
    assert not begun

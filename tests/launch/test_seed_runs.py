"""The same training with several seeds, side by side."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

from tests.dots import write_dots
from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch import seed_runs as module
from pixelrl.launch.cli import main
from pixelrl.launch.commands.train import train_command
from pixelrl.launch.seed_runs import devices, train_seeds
from pixelrl.launch.parallel_runs import Training

SMALL = ("--batch-size=8", "--critic-hidden", "8", "--actor-hidden", "8", "--steps=6", "--log-every=3")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return a training's options, without --out."""
    return ["quick_cog", f"--task={write_dots(tmp_path / 'task.hdf5', 'task', 4, size=32)}", *SMALL]


def test_each_seed_is_what_it_is_alone_and_a_failure_takes_no_other_along(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/seed5").write_text("in the way")
    together = ["--seeds", "5", "3", f"--out={tmp_path / 'runs'}", "--threads=1"]
    with pytest.raises(PixelrlError, match=r"^seed 5: .*runs/seed5: File exists$"):
        train_command([*words, *together])
    monkeypatch.setattr(sys, "argv", ["pixelrl", "train", *words, "--seed=3", "--threads=1", f"--out={tmp_path / '3'}"])
    main()
    ours, alone = (load_file(folder / "last.safetensors") for folder in (tmp_path / "runs/seed3", tmp_path / "3"))
    assert ours.keys() == alone.keys()
    for key, value in alone.items():
        np.testing.assert_array_equal(ours[key], value, err_msg=key)
    assert (tmp_path / "task.hdf5.frames").is_dir(), "one copy of the frames for all"
    with pytest.raises(PixelrlError, match=r"runs/seed3: holds a run already; add --resume"):
        train_command([*words, *together])


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Return the trainings that would be run."""
    trainings: list[Training] = []
    monkeypatch.setattr(module, "run_trainings", lambda each, **_: trainings.extend(each))
    return trainings


def test_all_gpus_take_turns(begun: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices("cuda:1") == ["cuda:1"] and devices("cpu") == ["cpu"]
    options = {"steps": 6, "threads": "auto", "resume": False, "console": Console(quiet=True)}
    train_seeds("cog", ["--gamma=0.9"], (4, 5, 6), tmp_path, device="auto", **options)  # type: ignore[arg-type]
    assert [each.out for each in begun] == [tmp_path / f"seed{seed}" for seed in (4, 5, 6)]
    shared = ("--gamma=0.9", "--seeds", "--seed")
    assert [each.options for each in begun] == [
        (*shared, str(seed), "--device", f"cuda:{gpu}") for seed, gpu in ((4, 0), (5, 1), (6, 0))
    ]


def test_a_seed_is_given_once(begun: list[Training], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match="--seeds 1 2 1: one of them is there twice"):
        train_command([*words, "--seeds", "1", "2", "1", f"--out={tmp_path}"])
    assert not begun

"""`pixelrl export` as a user types it; what it writes is tested in tests/export."""

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.dots import SMALL

Pixelrl = Callable[..., tuple[int, str]]


def test_demos_that_the_training_left_out_need_not_be_sound(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    pytest.importorskip("onnx")
    task, run = dots[0], tmp_path / "run"
    with h5py.File(task, "r+") as file:
        del file["data/demo_3/actions"]
        file["mask/good"] = [f"demo_{number}".encode() for number in range(6) if number != 3]
    words = ("--task", task, "--task-mask", "good", "--out", run, *SMALL, "--steps", 1)
    assert pixelrl("train", "quick_bc", *words)[0] == 0
    code, said = pixelrl("export", run, "--out", tmp_path / "artefact")
    assert code == 0, said


def test_directory_of_other_files_is_left_alone(tmp_path: Path, pixelrl: Pixelrl) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "evaluation.json").write_text("{}")
    code, said = pixelrl("export", tmp_path / "run", "--out", tmp_path)
    assert code == 1 and said.endswith("holds files, none of them of an export; name a new or an empty directory")
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "evaluation.json").exists()

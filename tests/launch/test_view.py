"""The page about recorded episodes."""

import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pixelrl.launch.reports.view_page import CELL, CURVE, HEIGHT, SHOWN, Axis, along, axis_of, strip
from pixelrl.learning.networks import Critic
from tests import Pixelrl
from tests.dots import SMALL, write_dots


def test_page_shows_pictures_actions_rewards_and_what_critics_think(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    task, prior = dots
    options = ("--task", task, "--prior", prior, "--out", tmp_path / "run", *SMALL, "--steps", 3)
    assert pixelrl("train", "quick_cog", *options)[0] == 0
    code, printed = pixelrl("view", task, "--run", tmp_path / "run", "--count", 2, "--out", tmp_path / "v.html")
    assert (code, "2 of 6 demos" in printed) == (0, True)
    page = (tmp_path / "v.html").read_text()
    assert page.count("Q of the recorded action") == 2 and page.count("data:image/jpeg") == 2
    assert "agentview_image" in page and "demo_1" in page and "demo_2" not in page and "<script" not in page
    code, _ = pixelrl("view", task, "--demos", "demo_4", "--out", tmp_path / "w.html")
    page = (tmp_path / "w.html").read_text()
    assert code == 0 and "demo_4" in page and "Q of the" not in page


def test_critics_judge_actions_that_were_normalised_by_their_range(
    tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dots(tmp_path / "task.hdf5", "task", 4, size=32)
    options = ("--actions", "min-max", "--out", tmp_path / "run", *SMALL, "--steps", 2)
    assert pixelrl("train", "quick_cog", "--task", path, *options)[0] == 0
    asked: list[torch.Tensor] = []
    ask = Critic.q_values
    monkeypatch.setattr(
        Critic, "q_values", lambda critic, state, action: asked.append(action) or ask(critic, state, action)
    )
    code, said = pixelrl("view", path, "--run", tmp_path / "run", "--count", 1, "--out", tmp_path / "v.html")
    assert code == 0, said
    with h5py.File(path) as file:
        every = np.concatenate([demo["actions"][()] for demo in file["data"].values()])
        first = file["data/demo_0/actions"][()]
    low, high = every.min(0), every.max(0)
    np.testing.assert_allclose(asked[-1], 2 * (first - low) / (high - low) - 1, atol=1e-5)


def test_demos_that_are_shown_need_no_sound_ones_beside_them(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = write_dots(tmp_path / "task.hdf5", "task", 3)
    with h5py.File(path, "r+") as file:
        del file["data/demo_2/actions"]
    code, printed = pixelrl("view", path, "--count", 2, "--out", tmp_path / "v.html")
    assert (code, "2 of 3 demos" in printed) == (0, True), printed
    code, printed = pixelrl("view", path, "--demos", "demo_2", "--out", tmp_path / "w.html")
    assert code == 1 and "demo_2" in printed and "actions" in printed and "--demos NAME ... shows others" in printed


def test_recording_for_the_viewer_holds_every_picture(tmp_path: Path, pixelrl: Pixelrl) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'pixelrl[rerun]'")
    path = write_dots(tmp_path / "task.hdf5", "task", 3)
    code, printed = pixelrl("view", path, "--count", 2, "--out", tmp_path / "v.rrd")
    assert (code, "2 of 3 demos" in printed) == (0, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["task.hdf5", "v.rrd"]
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(tmp_path / "v.rrd")]
    held = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with h5py.File(path) as file:
        steps = {name: len(file[f"data/{name}/actions"]) for name in ("demo_0", "demo_1")}
    for name, count in steps.items():
        assert re.search(rf"with {count + 1} rows .* - /{name}/agentview_image - .*Image", held)
        assert re.search(rf"with {count} rows .* - /{name}/action - .*Scalars", held)
    assert "demo_2" not in held


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--demos", "demo_9"), "has no demo 'demo_9'; it has 2: demo_0, demo_1"),
        (("--count", 0), "--count must be at least 1"),
        (("--step", 3), "--step goes with --run"),
        (("--run", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    tmp_path: Path, pixelrl: Pixelrl, options: tuple[object, ...], message: str
) -> None:
    path = write_dots(tmp_path / "task.hdf5", "task", 2)
    code, printed = pixelrl("view", path, *options, "--out", tmp_path / "v.html")
    assert code == 1 and message in printed and not (tmp_path / "v.html").exists()
    code, printed = pixelrl("view", path, "--out", tmp_path)
    assert code == 1 and f"{tmp_path}: is a directory; expected a file" in printed


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_strip_shows_the_whole_episode(channels: int) -> None:
    pictures = np.repeat(np.arange(50, dtype=np.uint8), 8 * 8 * channels).reshape(50, 8, 8, channels)
    axis = Axis(frames=np.array([0, 24, 49]), cell=HEIGHT + 10)
    with Image.open(io.BytesIO(strip(pictures, axis))) as shown:
        assert shown.size == (axis.width, HEIGHT) == (3 * (HEIGHT + 10), HEIGHT)
        for place, frame in enumerate((0, 24, 49)):
            assert shown.getpixel((int(axis.place(np.array([frame]))[0]), 50))[0] == pytest.approx(frame, abs=2), place


def test_numbers_stand_under_the_pictures_of_their_steps() -> None:
    axis = Axis(frames=np.arange(0, 301, 3), cell=40)
    assert axis.place(np.array([0, 3, 300])).tolist() == [20, 60, 4020]
    drawn = along([np.array([1.0, np.nan, 3.0], np.float32)], Axis(frames=np.arange(4), cell=40), (1.0, 3.0))
    assert f"points='20.0,{CURVE - 4:.1f} 100.0,4.0'" in drawn
    drawn = along([np.array([2.0], np.float32)], Axis(frames=np.arange(2), cell=40), (2.0, 2.0))
    assert f"points='20.0,{CURVE - 4:.1f} 20.0,{CURVE - 4:.1f}'" in drawn  # a dot


@pytest.mark.parametrize(("height", "width"), [(300, 2), (4, 3000), (8, 3000), (1, 1), (48, 48)])
@pytest.mark.parametrize("steps", [1, 400])
def test_pictures_of_any_shape_have_a_strip_that_jpeg_can_hold(height: int, width: int, steps: int) -> None:
    pictures = np.zeros((steps + 1, height, width, 3), np.uint8)
    numbers = np.zeros(steps, np.float32)
    demo: Any = SimpleNamespace(actions=np.zeros((steps, 2), np.float32), sensors={"a": pictures, "b": numbers})
    axis = axis_of(demo)
    assert len(axis.frames) == min(SHOWN, steps + 1) and (axis.frames[0], axis.frames[-1]) == (0, steps)
    with Image.open(io.BytesIO(strip(pictures, axis))) as shown:
        assert shown.size == (axis.width, HEIGHT) and axis.width <= SHOWN * CELL < 65_500


def test_data_are_not_written_over(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = write_dots(tmp_path / "a.hdf5", "task", 2)
    held = path.read_bytes()
    code, said = pixelrl("view", path, "--out", path)
    assert code == 1 and "a.hdf5: holds data; expected a page, FILE.html" in said and path.read_bytes() == held

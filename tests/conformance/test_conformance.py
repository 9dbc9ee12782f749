"""The real lerobot and minari, in environments of their own: they read what pixelrl writes, and the other way round.

Their environments come from the package registry: some minutes and 3 GB the first time.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.convert.dataset_stream import FormatOptions
from pixelrl.datasets.hdf5.reader import Demo, read_contents, read_demos
from tests.dots import CAMERA, POSITION, write_dots

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve().parent
PACKAGES = {"lerobot": ["lerobot[dataset]>=0.6"], "minari": ["minari[create,hdf5]>=0.5.4", "pillow"]}
"""What each environment holds; minari's HDF5 storage imports Pillow and does not ask for it."""
Foreign = Callable[..., Any]


def newer_python() -> str:
    """Return a Python of 3.12 or later, which lerobot wants; where there is none, the test is skipped."""
    named = [shutil.which(name) for name in ("python3", "python3.12", "python3.13", "python3.14")]
    for python in [*filter(None, named), *map(str, Path.home().glob(".pyenv/versions/3.1[2-9].*/bin/python"))]:
        asked = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 12))"], capture_output=True)
        if asked.stdout.strip() == b"True":
            return python
    return str(pytest.skip("no Python of 3.12 or later is installed"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    """Return what runs a script of this folder, `foreign("minari", "read", NAME)`; environments are made on demand."""
    uv = shutil.which("uv") or pytest.fail("uv is not on PATH; it is in the .venv that .ci/setup makes")
    home = tmp_path_factory.mktemp("environments")

    def made(package: str) -> Path:
        python = home / package / "bin/python"
        if not python.exists():
            for command in (
                [uv, "venv", "--quiet", "--python", newer_python(), str(home / package)],
                [uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES[package]],
            ):
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
                except subprocess.TimeoutExpired:
                    pytest.skip(f"no environment for {package}: the package registry is slow")
                if done.returncode:
                    pytest.skip(f"no environment for {package}: {done.stderr[-300:]}")
        return python

    def run(package: str, *words: str, **environment: str) -> Any:
        command = [str(made(package)), str(HERE / f"with_{package}.py"), *words]
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        kept |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hub"), **environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=kept)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def demos(path: Path) -> list[Demo]:
    """Return the demos of a file of ours."""
    return [*read_demos(read_contents(path))]


@pytest.mark.parametrize("images", ["png", "video"])
def test_lerobot_reads_what_we_write(images: str, tmp_path: Path, foreign: Foreign) -> None:
    source = write_dots(tmp_path / "dots.hdf5", "task", 3, size=48)
    options = FormatOptions(fps=5, pictures=images, task="move the dot")  # type: ignore[arg-type]
    convert_dataset(source, tmp_path / "le", "hdf5", "lerobot", options=options)
    ours, theirs = demos(source), foreign("lerobot", "read", str(tmp_path / "le"))
    lengths = [len(demo.actions) for demo in ours]
    assert theirs["episodes"] == 3 and theirs["fps"] == 5 and theirs["task"] == "move the dot"
    assert theirs["episode"] == [index for index, steps in enumerate(lengths) for _ in range(steps)]
    np.testing.assert_allclose(theirs["action"], np.concatenate([demo.actions for demo in ours]), rtol=0, atol=1e-7)
    states = np.concatenate([demo.sensors[POSITION][:-1] for demo in ours])
    np.testing.assert_allclose(theirs["state"], states, rtol=0, atol=1e-7)
    (means,) = theirs["pictures"].values()
    pictures = np.concatenate([demo.sensors[CAMERA][:-1].mean((1, 2, 3)) for demo in ours])
    np.testing.assert_allclose(means, pictures, atol=0.01 if images == "png" else 2)
    assert [*theirs["shapes"].values()] == [[3, 48, 48]] and {"action", "observation.state"} <= {*theirs["stats"]}


@pytest.mark.parametrize("images", ["image", "video"])
def test_what_lerobot_writes_is_read(images: str, tmp_path: Path, foreign: Foreign) -> None:
    told = foreign("lerobot", "write", str(tmp_path / "le"), images)
    convert_dataset(tmp_path / "le", tmp_path / "back.hdf5", "lerobot", "hdf5")
    ours = demos(tmp_path / "back.hdf5")
    assert [len(demo.actions) for demo in ours] == [3, 4]
    np.testing.assert_array_equal(np.concatenate([demo.actions for demo in ours]), np.float32(told["action"]))
    np.testing.assert_array_equal(np.concatenate([demo.rewards for demo in ours]), np.float32(told["reward"]))
    assert [demo.dones.tolist() for demo in ours] == [[0, 0, 1], [0, 0, 0, 1]]
    frames = {len(values.shape): np.concatenate([values[:-1]]) for values in ours[0].sensors.values()}
    np.testing.assert_array_equal(frames[2], np.float32(told["state"][:3]))
    np.testing.assert_allclose(frames[4].mean((1, 2, 3)), told["pictures"][:3], atol=0 if images == "image" else 2)


def test_minari_reads_what_we_write(tmp_path: Path, foreign: Foreign) -> None:
    source = write_dots(tmp_path / "dots.hdf5", "task", 3, size=48)
    convert_dataset(source, tmp_path / "dots-v0", "hdf5", "minari")
    ours, theirs = demos(source), foreign("minari", "read", "dots-v0", MINARI_DATASETS_PATH=str(tmp_path))
    assert theirs["episodes"] == 3 and theirs["steps"] == sum(len(demo.actions) for demo in ours)
    for index, demo in enumerate(ours):
        np.testing.assert_array_equal(np.float32(theirs["action"][index]), demo.actions)
        np.testing.assert_array_equal(np.float32(theirs["reward"][index]), demo.rewards)
        assert theirs["ends"][index] == demo.dones.astype(bool).tolist()
        assert theirs["means"][CAMERA][index] == pytest.approx(demo.sensors[CAMERA].mean())
        assert theirs["rows"][POSITION][index] == len(demo.actions) + 1


def test_what_minari_writes_is_read(tmp_path: Path, foreign: Foreign) -> None:
    told = foreign("minari", "write", "toy-v0", "hdf5", MINARI_DATASETS_PATH=str(tmp_path))
    convert_dataset(tmp_path / "toy-v0", tmp_path / "back.hdf5", "minari", "hdf5")
    ours = demos(tmp_path / "back.hdf5")
    assert [len(demo.actions) for demo in ours] == [4, 4, 4] and told["steps"] == 12
    for index, demo in enumerate(ours):
        np.testing.assert_array_equal(demo.actions, np.float32(told["action"][index]))
        np.testing.assert_array_equal(demo.rewards, np.float32(told["reward"][index]))
        assert demo.dones.astype(bool).tolist() == told["ends"][index]
        assert demo.sensors["front"].mean() == pytest.approx(told["means"]["front"][index])
        assert demo.sensors["pos"].mean() == pytest.approx(told["means"]["pos"][index], abs=1e-6)

"""What a robot's own computer installs: the client on Python 3.8, the runtime on Python 3.10, neither with torch."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from pixelrl.export.runtime import ExportedPolicy

ROOT = Path(__file__).parents[2]
CLIENT, RUNTIME = ROOT / "client", ROOT / "client/runtime"
FILES = {
    "py38": sorted((ROOT / "pixelrl/serving/client").glob("*.py")),
    "py310": [
        ROOT / (name.replace(".", "/") + ".py")
        for name in tomllib.loads((RUNTIME / "pyproject.toml").read_text())["tool"]["setuptools"]["py-modules"]
    ],
}
"""Oldest Python -> the files that it must understand."""

ACT = """
import sys, numpy
from pixelrl.export.runtime import ExportedPolicy
policy = ExportedPolicy(sys.argv[1])
action = policy.act({key: numpy.full(spec.shape, 7, spec.dtype) for key, spec in policy.instant.items()})
print(*action.tolist(), 'torch' in sys.modules)
"""


def test_runtime_holds_just_the_modules_that_it_imports() -> None:
    script = "import sys, pixelrl.export.runtime; print(*(name for name in sys.modules if name.startswith('pixelrl')))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = {ROOT / name.replace(".", "/") for name in found.stdout.split()}
    assert {path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths} == {*FILES["py310"]}


@pytest.mark.parametrize("version", FILES)
def test_files_use_nothing_that_an_older_python_lacks(version: str, tmp_path: Path) -> None:
    ruff = shutil.which("ruff") or str(Path(sys.executable).with_name("ruff"))
    newer = tmp_path / "newer.py"
    newer.write_text("type Number = int\n")  # Python 3.12's: ruff must tell
    for files, right in ((FILES[version], True), ([newer], False)):
        command = [ruff, "check", "--isolated", "--no-cache", "--select", "E9", "--target-version", version, *files]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert (done.returncode == 0) is right, done.stdout


def interpreter(version: str, folder: Path, source: Path) -> Path:
    """Return a Python of a version in an environment of its own, with a distribution of ours; skip where it lacks."""
    uv = shutil.which("uv") or pytest.skip("uv is not on PATH")
    known = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))  # which uv does not look for
    copy = folder / "source"
    shutil.copytree(source, copy)  # a build leaves files behind
    for command in (
        ["venv", "--quiet", "--python", known[-1] if known else version, folder / "env"],
        ["pip", "install", "--quiet", "--python", folder / "env/bin/python", copy],
    ):
        done = subprocess.run([uv, *map(str, command)], capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"no Python {version}, or no registry: {done.stderr[-200:]}")
    return folder / "env/bin/python"


@pytest.mark.slow
def test_runtime_acts_alike_on_python_3_10(artefact: Path, tmp_path: Path) -> None:
    python = interpreter("3.10", tmp_path, RUNTIME)
    done = subprocess.run([python, "-c", ACT, artefact], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *action, torch = done.stdout.split()
    policy = ExportedPolicy(artefact)
    expected = policy.act({key: np.full(spec.shape, 7, spec.dtype) for key, spec in policy.instant.items()})
    np.testing.assert_allclose([float(each) for each in action], expected, atol=1e-5)
    assert torch == "False"


@pytest.mark.slow
def test_client_is_imported_on_python_3_8(tmp_path: Path) -> None:
    python = interpreter("3.8", tmp_path, CLIENT)
    script = "import pixelrl_client, pixelrl_client.rosetta, sys; print(sys.version_info[:2], 'torch' in sys.modules)"
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 8) False", done.stderr

"""What setup.py asks for can be had: for each Python, each extra, and beside what people have. Asks the registry."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.test_extras import declared

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("registry")]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = (
    *("", "sim", "export", "resnet", "lerobot", "minari", "zarr", "ray", "slurm", "mcap", "serve", "rerun"),
    *("wandb", "mlflow", "trackio", "robomimic", "docs", "all", "test"),
)
OVERRIDES = Path(__file__).resolve().parent.parent / ".ci/overrides.txt"
NEIGHBOURS = ("lerobot>=0.6", "minari>=0.5.4", "rerun-sdk>=0.30", "d3rlpy==2.8.0", "torchrl", "ogbench>=1.2.2")
"""What people have installed; d3rlpy 2.8.1 wants one release of gymnasium alone."""


@pytest.fixture(scope="module")
def registry() -> None:
    """Skip where the registry cannot be reached."""
    uv = shutil.which("uv") or pytest.fail("uv is not on PATH; it is in the .venv that .ci/setup makes")
    tried = subprocess.run([uv, "pip", "compile", "-q", "-"], input="six", capture_output=True, text=True, timeout=300)
    if tried.returncode:
        pytest.skip(f"the package registry cannot be reached: {tried.stderr[-200:]}")


def resolve(python: str, requirements: list[str], *options: str) -> dict[str, str]:
    """Return the versions that go together."""
    command = [
        "uv",
        "pip",
        "compile",
        "--no-header",
        "--no-annotate",
        "--quiet",
        "--python-version",
        python,
        *options,
        "-",
    ]
    try:
        done = subprocess.run(command, input="\n".join(requirements), capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip("the package registry is slow")
    if done.returncode and "No solution found" not in done.stderr:
        pytest.skip(f"the package registry cannot be reached: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    pins = [line.partition(" ")[0].partition("==") for line in done.stdout.splitlines() if "==" in line]
    return {name: version for name, _, version in pins}


def requirements(monkeypatch: pytest.MonkeyPatch, extra: str) -> list[str]:
    """Return what pip would install for an extra."""
    said = declared(monkeypatch)
    return [*said["install_requires"], *(said["extras_require"][extra] if extra else ())]


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("python", PYTHONS)
def test_wheels_of_each_extra_go_together(python: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--only-binary", ":all:", "--python-platform", "x86_64-manylinux_2_28", "--override", str(OVERRIDES)]
    options += (
        ["--no-binary", "robomimic"] if extra in ("robomimic", "test") else []
    )  # Python alone, and on PyPI as source
    found = resolve(python, requirements(monkeypatch, extra), *options)
    print(python, extra or "base", len(found), found["numpy"], found["torch"], file=sys.stderr)
    assert found["numpy"] >= "2." and "mink" not in found


def test_each_extra_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*EXTRAS} == {"", *declared(monkeypatch)["extras_require"]}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_simulator_goes_with_an_old_numpy_without_overrides(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(python, requirements(monkeypatch, "sim"))["numpy"].startswith("1.26")


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_base_goes_beside_what_people_have(python: str, neighbour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(python, [*requirements(monkeypatch, ""), neighbour])
    print(python, neighbour, found["numpy"], found["torch"], file=sys.stderr)

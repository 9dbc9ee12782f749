"""The house: links and packages as setup.py has them, and imports that run one way only."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WINGS = ("encoders", "datasets", "launch")


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_a_folder_of_the_package_without_init_and_a_link_leads_there(wing: str) -> None:
    assert (ROOT / wing).is_symlink() and str((ROOT / wing).readlink()) == f"pixelrl/{wing}"
    folder = ROOT / "pixelrl" / wing
    assert folder.is_dir() and not folder.is_symlink() and not (folder / "__init__.py").exists()


def test_nothing_lies_beside_the_house() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git: what lies here may be anybody's")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    folders = {name.partition("/")[0] for name in tracked if "/" in name}
    assert folders == {".ci", ".devcontainer", "benchmarks", "client", "docs", "examples", "pixelrl", "tests"}


def test_a_fresh_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    """It holds pixelrl alone; what pixelrl stands on is lent by this environment."""

    def run(*words: object) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [*map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    source = tmp_path / "source"
    shutil.copytree(ROOT / "pixelrl", source / "pixelrl")
    for wing in WINGS:
        (source / wing).symlink_to(f"pixelrl/{wing}")
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh/bin/python"
    (wheel,) = tmp_path.glob("pixelrl-*.whl")
    run(*pip, "--python", python, "install", "--no-deps", wheel)
    (site,) = (tmp_path / "fresh").glob("lib/*/site-packages")
    (site / "lent.pth").write_text(str(Path(pytest.__file__).parents[1]))
    modules = "pixelrl.encoders.conv, pixelrl.datasets.buffer.mixture, pixelrl.launch.recipes, pixelrl.export.runtime"
    where = run(python, "-c", f"import {modules}; print(pixelrl.launch.recipes.__file__)")
    assert where.startswith(str(site))
    assert (site / "pixelrl/launch/scripts/one_node.sh").exists()
    assert "evaluate" in run(tmp_path / "fresh/bin/pixelrl", "--help")

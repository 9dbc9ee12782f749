"""The house: links and packages as setup.py has them, and imports that run one way only."""

import ast
import runpy
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]
WINGS = ("encoders", "datasets", "launch")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import; name the package"
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_a_linked_folder_without_init(wing: str) -> None:
    link = ROOT / "pixelrl" / wing
    assert link.is_symlink() and str(link.readlink()) == f"../{wing}"
    assert not (ROOT / wing / "__init__.py").exists()
    assert (ROOT / "pixelrl/__init__.py").exists()


def test_setup_names_every_folder_that_holds_python(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", said.update)
    runpy.run_path(str(ROOT / "setup.py"))
    files = [*(ROOT / "pixelrl").rglob("*.py"), *(f for w in WINGS for f in (ROOT / "pixelrl" / w).rglob("*.py"))]
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file in files}
    assert set(said["packages"]) == folders
    assert said["package_dir"] == {f"pixelrl.{wing}": wing for wing in WINGS}


@pytest.mark.parametrize(
    ("folder", "others"),
    [("pixelrl", WINGS), ("encoders", ("datasets", "launch")), ("datasets", ("encoders", "launch"))],
)
def test_imports_run_from_launch_to_wings_to_core(folder: str, others: tuple[str, ...]) -> None:
    inside = [f for f in (ROOT / folder).rglob("*.py") if f.relative_to(ROOT / folder).parts[0] not in WINGS]
    assert inside
    for file in inside:
        wrong = [name for name in imports(file) if name.startswith(tuple(f"pixelrl.{other}" for other in others))]
        assert not wrong, f"{file.relative_to(ROOT)} may not import {wrong}"


def test_a_fresh_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    """It holds pixelrl alone; what pixelrl stands on is lent by this environment."""

    def run(*words: object) -> str:
        return subprocess.run([*map(str, words)], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    source = tmp_path / "source"
    for folder in ("pixelrl", *WINGS):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True)
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
    modules = "pixelrl.encoders.conv, pixelrl.datasets.mixture, pixelrl.launch.recipes, pixelrl.export.runtime"
    where = run(python, "-c", f"import {modules}; print(pixelrl.launch.recipes.__file__)")
    assert where.startswith(str(site))
    assert (site / "pixelrl/launch/scripts/one_node.sh").exists()
    assert "evaluate" in run(tmp_path / "fresh/bin/pixelrl", "--help")

"""What works with the base installation alone, and what the rest says there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixelrl.launch.cli import COMMANDS
from pixelrl.runtime.extras import MODULES
from tests.dots import SMALL
from tests.launch.test_compare import evaluation

PLAYED = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

hidden, commands = json.loads(sys.argv[1])

class Base(PathFinder):
    \"""Finds no module of an extra's packages.\"""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Base

import pixelrl
from pixelrl.launch.cli import main

for name in pixelrl.__all__:
    try:
        getattr(pixelrl, name)
    except pixelrl.PixelrlError as error:
        print(f"{name}: {error}")
results = []
for words in commands:
    sys.argv, printed, code = ["pixelrl", *words], io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    results.append((code, " ".join(printed.getvalue().split())))
print(json.dumps(results))
"""
HIDDEN = ["robomimic", "minari", "cv2", *(module for modules in MODULES.values() for module in modules)]


def play(commands: list[str]) -> tuple[list[str], dict[str, tuple[int, str]]]:
    """Run commands without the packages of all extras; return what names fail, and each one's exit code and words."""
    given = json.dumps([HIDDEN, [command.split() for command in commands]])
    done = subprocess.run([sys.executable, "-c", PLAYED, given], capture_output=True, text=True, check=True)
    *names, results = done.stdout.splitlines()
    return names, dict(zip(commands, map(tuple, json.loads(results)), strict=True))


def test_base_commands_work_and_others_name_their_extra(
    dots: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    task, prior = dots
    data, small = f"--task {task} --prior {prior}", " ".join(SMALL)
    one = evaluation(tmp_path / "one", [True, False])
    base = [
        *(f"{verb} --help" for verb in COMMANDS),
        "train cog_dr3 --help",
        f"inspect {data} --recipe quick_cog_dr3 --sheet --html",
        f"compare {one} {one}",
        f"convert {task} back.hdf5",
        f"convert {task} dots-v0 --to minari",
        f"train quick_cog_dr3 {data} --out run --steps 2 --threads 1 {small}",
        f"view {task} --run run --out view.html",
        "report run --out report.html",
        "probe run --rows 8",
    ]
    extras = {
        "demo --out made": "sim",
        "collect pick-place-tray prior --episodes 1 --out x.hdf5": "sim",
        f"render {task} --out y.hdf5": "sim",
        "starts pick-place-tray --out s.hdf5": "sim",
        "evaluate run": "sim",
        f"study {Path(__file__).parents[2] / 'benchmarks/studies/dr3_primary.toml'}": "sim",
        f"study {Path(__file__).parents[2] / 'benchmarks/studies/dr3_primary.toml'} --single 0 A0": "sim",
        "sweep run": "sim",
        "export run --out artefact": "export",
        "serve run": "serve",
        f"convert {task} le --to lerobot --fps 5": "lerobot",
        f"train bc --task {task} --out run2 --steps 2 --encoder resnet18": "resnet",
    }
    names, results = play([*base, *extras])
    assert sorted({line.partition(":")[0] for line in names}) == sorted(
        ["ExportedPolicy", "Outcome", "evaluate", "export_policy", "make_env", "named_env_args"]
    )
    assert all("pip install 'pixelrl[" in line for line in names)
    for command in base:
        assert results[command][0] == 0, (command, results[command][1])
    for command, extra in extras.items():
        code, said = results[command]
        assert code == 1 and said.endswith(f", which is not installed: pip install 'pixelrl[{extra}]'"), (command, said)

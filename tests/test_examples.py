"""The examples, run as people run them, but smaller."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest
import torch

from pixelrl import DR3, UpdateContext
from tests.tiny import make_networks, seeded, transitions

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "train_from_python.py": ("--steps 2 --recorded 3 --episodes 1", "of 1 episodes succeed"),
    "own_term.py": ("--steps 2 --recorded 3", "with: phi.phi' is"),
    "own_encoder.py": ("--steps 2 --recorded 3", "the policy takes {'top_image': (32, 32)}"),
    "own_actor.py": ("--steps 2 --recorded 3", "the policy takes {'top_image': (32, 32)}"),
    "gymnasium_environment.py": ("--episodes 1 --workers 1", "speed 1.0: 1 of 1 succeed"),
    "arrays_to_file.py": ("--episodes 2", "'obs/wrist_image'"),
    "lerobot_in_and_out.py": ("--recorded 2", "back.hdf5: 2 episodes; arrived as sent: env_args"),
    "run_artefact.py": ("--steps 2 --recorded 3 --episodes 1", "episode 0: "),
}
"""Example -> options that make it small, and a part of what it prints then."""


def test_every_example_is_run() -> None:
    helpers = {"dots.py", "serve_and_drive_mujoco.py", "ros2_node.py"}  # a world, and two that tests/serving runs
    assert {path.name for path in EXAMPLES.glob("*.py")} - helpers == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options, expected = SMALL[name]
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [name, *options.split()])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert expected in capsys.readouterr().out


def test_term_of_the_example_is_dr3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    context = UpdateContext(make_networks(), transitions(), seeded())
    written_anew, _ = importlib.import_module("own_term").Alignment()(context)
    expected, _ = DR3()(context)
    torch.testing.assert_close(written_anew, expected)
    assert expected != 0

"""Choosing a checkpoint by rules that need no simulator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pixelrl.launch.commands.probe import Probe
from pixelrl.launch.policy_options import CheckpointOptions
from pixelrl.runtime.errors import PixelrlError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run with snapshots at 20, 40 and 60, whose Q of the data rises, peaks between 20 and 40, and falls."""
    (tmp_path / "snapshots").mkdir()
    for step in (20, 40, 60):
        (tmp_path / f"snapshots/{step}.safetensors").touch()
    values = {10: 1.0, 20: 2.0, 30: 9.0, 40: 3.0, 50: "nan", 60: 5.0}
    rows = [f"{step},1,{value}" for step, value in values.items()]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,seconds,q/data", *rows]) + "\n")
    return tmp_path


def test_last_checkpoint_is_used_unless_told(tmp_path: Path) -> None:
    assert CheckpointOptions().chosen_step(tmp_path) is None and CheckpointOptions(step=7).chosen_step(tmp_path) == 7


def test_q_peak_is_where_the_reports_since_the_snapshot_before_are_highest(run: Path) -> None:
    assert CheckpointOptions(select="q_peak").chosen_step(run) == 40  # means: 1.5, 6, 5


def test_foreign_files_among_the_snapshots_are_passed_over(run: Path) -> None:
    for name in ("backup", "-7", "007", "1e9"):
        (run / f"snapshots/{name}.safetensors").touch()
    assert CheckpointOptions(select="q_peak").chosen_step(run) == 40


def test_least_error_is_measured_on_held_out_episodes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Probe] = []

    def measure(probe: Probe, console: Console) -> dict[int, dict[str, float | None]]:
        asked.append(probe)
        return {20: {"q/td_error": 0.3}, 40: {"q/td_error": None}, 60: {"q/td_error": 0.1}}

    monkeypatch.setattr(Probe, "measure", measure)
    assert CheckpointOptions(select="td_error").chosen_step(run) == 60
    assert asked == [Probe(run=run, step=(20, 40, 60), on_held_out=True)]


@pytest.mark.parametrize(
    ("spoil", "rule", "step", "message"),
    [
        (lambda run: None, "q_peak", 20, "--select q_peak chooses the step, and --step 20 names one"),
        (lambda run: [path.unlink() for path in run.glob("snapshots/*")], "q_peak", None, "has no snapshots to choose"),
        (
            lambda run: (run / "metrics.csv").write_text("step,q/data\n12,1.0\n20,abc\n"),
            "q_peak",
            None,
            r"metrics.csv: line 3 is damaged; expected a number for each name in the first line",
        ),
        (
            lambda run: (run / "metrics.csv").write_text("q/data\n1.0\n"),
            "q_peak",
            None,
            "line 1 is damaged; expected",
        ),
        (lambda run: (run / "metrics.csv").write_text("step,loss\n1,2\n"), "q_peak", None, "no q/data to choose"),
    ],
)
def test_rule_that_cannot_choose_says_why(
    run: Path, spoil: Callable[[Path], object], rule: Any, step: int | None, message: str
) -> None:
    spoil(run)
    with pytest.raises(PixelrlError, match=message):
        CheckpointOptions(select=rule, step=step).chosen_step(run)

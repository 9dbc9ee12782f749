"""Choosing a checkpoint by rules that need no simulator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixelrl.launch.checkpoint_selection import select_step
from pixelrl.launch.commands import probe
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
    assert select_step(tmp_path, "last", None) is None and select_step(tmp_path, "last", 7) == 7


def test_q_peak_is_where_the_reports_since_the_snapshot_before_are_highest(run: Path) -> None:
    assert select_step(run, "q_peak", None) == 40  # means: 1.5, 6, 5


def test_foreign_files_among_the_snapshots_are_passed_over(run: Path) -> None:
    for name in ("backup", "-7", "007", "1e9"):
        (run / f"snapshots/{name}.safetensors").touch()
    assert select_step(run, "q_peak", None) == 40


def test_least_error_is_measured_on_held_out_episodes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def probe_run(directory: Path, steps: Any, *rest: Any, **options: Any) -> dict[int, dict[str, float | None]]:
        asked.update(options, steps=steps)
        return {20: {"q/td_error": 0.3}, 40: {"q/td_error": None}, 60: {"q/td_error": 0.1}}

    monkeypatch.setattr(probe, "probe_run", probe_run)
    assert select_step(run, "td_error", None) == 60
    assert asked == {"held_out": True, "steps": [20, 40, 60]}


@pytest.mark.parametrize(
    ("spoil", "rule", "step", "message"),
    [
        (lambda run: None, "q_peak", 20, "--select q_peak chooses the step, and --step 20 names one"),
        (lambda run: [path.unlink() for path in run.glob("snapshots/*")], "q_peak", None, "has no snapshots to choose"),
        (
            lambda run: (run / "metrics.csv").write_text("step,q/data\n12,1.0\n20,abc\n"),
            "q_peak",
            None,
            r"metrics.csv: line 3: step '20' and q/data 'abc'; expected numbers",
        ),
        (lambda run: (run / "metrics.csv").write_text("q/data\n1.0\n"), "q_peak", None, "line 2: step None"),
        (lambda run: (run / "metrics.csv").write_text("step,loss\n1,2\n"), "q_peak", None, "no q/data to choose"),
    ],
)
def test_rule_that_cannot_choose_says_why(
    run: Path, spoil: Callable[[Path], object], rule: Any, step: int | None, message: str
) -> None:
    spoil(run)
    with pytest.raises(PixelrlError, match=message):
        select_step(run, rule, step)

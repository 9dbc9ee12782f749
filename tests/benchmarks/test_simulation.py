"""The simulation benchmark steps our environment and robosuite's, and plays episodes by one and two workers."""

from pathlib import Path

import pytest

from benchmarks.compare import read_ledger
from benchmarks.ledger import command_line
from benchmarks.simulation import main


@pytest.mark.slow
def test_simulation_benchmark_beside_robosuite(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    command_line(main, ["pick-place-tray", "--quick", "--size", "32", "--out", str(path)])
    ((name, case),) = read_ledger(path)["cases"].items()
    assert name == "pick-place-tray" and case["case"] == {"task": name, "size": 32, "steps": 4}
    assert set(case["contenders"]) == {"robosuite", "stock", "fast", "rollouts by 1", "rollouts by 2"}
    assert set(case["ratios"]) == {"fast / robosuite", "fast / stock", "2 workers / 1 (wall)"}
    assert all(row["wall_seconds"] > 0 for row in case["contenders"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--workers", "1"], "--workers is 1; it must be at least 2"), (["Lifft"], "no task 'Lifft'.*Lift")],
)
def test_wrong_option_is_named(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        command_line(main, words)

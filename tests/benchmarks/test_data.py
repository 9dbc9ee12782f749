"""The data benchmark loads the same file from every place, beside robomimic's loader and a bare copy."""

from pathlib import Path

import pytest

from benchmarks.compare import read_ledger
from benchmarks.data import main
from benchmarks.ledger import command_line


def test_data_benchmark_beside_robomimic(tmp_path: Path) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    path = tmp_path / "ledger.json"
    command_line(main, ["--quick", "--out", str(path)])
    ledger = read_ledger(path)
    ((name, case),) = ledger["cases"].items()
    assert name == "2 x 16 px, batch 4" and "ram / bare copy" in case["ratios"] and ledger["clock"] == "wall"
    assert {"ram", "cache", "file", "bare copy", "robomimic all", "robomimic low_dim"} <= case["contenders"].keys()
    assert case["case"]["batch_bytes"] == 2 * 4 * 2 * 3 * 16 * 16
    assert case["case"]["unique_bytes"] == 2 * 6 * 2 * 3 * 16 * 16
    assert list(tmp_path.iterdir()) == [path]


def test_file_of_fewer_transitions_than_a_batch_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"--demos 1 x --steps 2.*256"):
        command_line(main, ["--demos", "1", "--steps", "2"])

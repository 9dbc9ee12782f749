"""Sizes and times of artefacts beside each other."""

import json
from pathlib import Path

from benchmarks.artefacts import Artefacts
from tests.serving.conftest import DIMS, export_of


def test_artefacts_are_measured_beside_the_first(tmp_path: Path) -> None:
    options = {"history": 1, "control_freq": 20.0, "env_args": {}}
    one = export_of(tmp_path / "one", {"front_image": (3, 40, 48)}, {"position": 3}, DIMS, **options)
    Artefacts(artefacts=(one, one), calls=10, out=tmp_path / "out.json")()
    result = json.loads((tmp_path / "out.json").read_text())
    row = result["artefacts"][str(one)]
    assert row["bytes"] == (one / "policy.onnx").stat().st_size and 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["p50_of_first"] > 0 and result["load_per_core"] >= 0

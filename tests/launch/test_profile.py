"""`pixelrl train --profile`: where the time of a step goes."""

import gzip
import json
from pathlib import Path

import pytest

from pixelrl.launch import profile
from tests import Pixelrl
from tests.dots import write_dots


def test_profile_names_the_parts_of_a_step_and_trains_nothing(
    tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "STEPS", 8)
    data = write_dots(tmp_path / "dots.hdf5", "task", 4)
    small = ("--encoder", "cog", "--encoder.channels", 4, "--batch-size", 8, "--threads", 1)
    words = ("train", "quick_cog_dr3", "--task", data, "--out", tmp_path / "run", "--profile", *small)
    code, printed = pixelrl(*words)
    assert code == 0 and "backward critic" in printed and "profile.json" in printed
    assert "CPU total" in printed and "trace.json.gz opens in chrome://tracing" in printed
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["profile.json", "trace.json.gz"]
    rows = {row["name"]: row for row in json.loads((tmp_path / "run/profile.json").read_text())}
    for part in (
        "step",
        "encoding",
        "critic/cql",
        "critic/dr3",
        "backward critic",
        "optimise actor",
        "target",
        "draw the batch",
    ):
        assert rows[part]["calls_per_step"] >= 1 and rows[part]["cpu_ms_per_step"] > 0
    with gzip.open(tmp_path / "run/trace.json.gz") as file:
        assert json.load(file)["traceEvents"]

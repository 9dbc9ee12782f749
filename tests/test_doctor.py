"""The doctor: healthy files get a clean bill, sick ones a diagnosis, and nothing raises."""

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from pixelrl.datasets.doctor import Report, contact_rows, inspect_file, print_report
from pixelrl.datasets.synthetic import CAMERA, dot_episodes, write_dots


def found(report: Report) -> str:
    """Return all findings as text, a line each."""
    return "\n".join(f"{finding.level} {finding.where}: {finding.message}" for finding in report.findings)


def test_a_healthy_file(tmp_path: Path) -> None:
    report = inspect_file(write_dots(tmp_path / "a.h5", "task", 30))
    lengths = [len(episode) for episode in dot_episodes("task", 30)]
    assert found(report) == ""
    assert (report.demos, report.transitions, report.environment) == (30, sum(lengths), "Dot")
    assert report.lengths == (min(lengths), float(np.median(lengths)), max(lengths))
    assert 0 < report.success < 1
    assert report.notes["success"] == {"false": 30 - round(30 * report.success), "true": round(30 * report.success)}
    camera = report.keys[0]
    assert (camera.name, camera.shape, camera.bytes) == (CAMERA, (24, 24, 3), (sum(lengths) + 30) * 24 * 24 * 3)
    assert [dim.unit for dim in report.actions] == ["m", "m"]
    assert json.loads(json.dumps(asdict(report)))["demos"] == 30


@pytest.mark.parametrize(
    ("what", "diagnosis"),
    [
        ("black", f"warning obs/{CAMERA}: all black in 1 of 4 demos"),
        ("frozen", f"warning obs/{CAMERA}: the same picture from start to end in 1 of 4 demos"),
        ("off by one", f"warning next_obs/{CAMERA}: is not obs one step later (off by one?) in 1 of 4 demos"),
        ("renamed", f"warning obs/{CAMERA}: is not what frames holds"),
        ("time-out", "warning dones: set without a reward in 1 of 4 demos"),
        ("open end", "note dones: not set at a rewarded step in"),
        ("constant", "warning actions, y: always 0.5"),
        ("far out", "error actions: "),
        ("not a number", "error file: "),
    ],
)
def test_sick_files(tmp_path: Path, what: str, diagnosis: str) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 4)
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        if what == "black":
            demo[f"frames/{CAMERA}"][:] = 0
        elif what == "frozen":
            demo[f"frames/{CAMERA}"][:] = demo[f"frames/{CAMERA}"][0]
        elif what == "off by one":
            del demo[f"next_obs/{CAMERA}"]
            demo[f"next_obs/{CAMERA}"] = demo[f"obs/{CAMERA}"][()]
        elif what == "renamed":
            for old, new in ((0, 9), (1, 0), (9, 1)):
                file.move(f"data/demo_{old}", f"data/demo_{new}")
        elif what == "time-out":
            demo["dones"][:], demo["rewards"][:] = 1, 0
        elif what == "open end":
            demo["dones"][:], demo["rewards"][:] = 0, 1
        elif what == "constant":
            for name in file["data"]:
                file[f"data/{name}/actions"][:, 1] = 0.5
        elif what == "far out":
            demo["actions"][0] = 7
        elif what == "not a number":
            demo["rewards"][0] = np.nan
    assert diagnosis in found(inspect_file(path))


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    report = inspect_file(tmp_path / "gone.h5")
    assert found(report) == f"error file: {tmp_path}/gone.h5: no such file"
    print_report(report, Console(file=StringIO()))


def test_what_a_person_reads(tmp_path: Path) -> None:
    text = StringIO()
    print_report(inspect_file(write_dots(tmp_path / "a.h5", "prior", 5)), Console(file=text, width=150))
    for words in (CAMERA, "(24, 24, 3)", "uint8", 'part: "prior" (5)', "warning rewards: never positive"):
        assert words in text.getvalue()


def test_rows_for_a_contact_sheet(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 30)
    rows = contact_rows(path, demos=3)
    episodes = list(dot_episodes("task", 30))
    assert [row.caption.split()[0] for row in rows] == ["demo_0", "demo_14", "demo_29"]
    for row, number in zip(rows, (0, 14, 29), strict=True):
        np.testing.assert_array_equal(row.frames, episodes[number].sensors[CAMERA])
        assert row.ok == episodes[number].notes["success"]

"""Which steps reach the goal, and labels in a file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pixelrl.datasets import rewards
from pixelrl.datasets.rewards import reaches_goal, read_labels
from pixelrl.runtime.errors import DataError


@pytest.mark.parametrize(
    ("recorded", "free", "expected"),
    [
        ([0, 0.5, 1], 1, [0, 1, 1]),  # paid
        ([0, 0, 0], 0, [0, 0, 0]),  # nothing is said
        ([-1, -1, 0], 0, [0, 0, 1]),  # costs, and none in the goal
        ([-2, -1, -2], -1, [0, 1, 0]),  # costs of a source: the highest is the goal's
        ([-2, -1, -2], 0, [0, 0, 0]),  # costs of one episode, none of which is free
        ([-1, 0, 1], 1, [0, 0, 1]),  # some are paid, so 0 is no goal
        ([], 0, []),
    ],
)
def test_goal_is_paid_or_free_among_costs(recorded: list[float], free: float, expected: list[int]) -> None:
    assert reaches_goal(np.array(recorded, np.float32), free).tolist() == [bool(each) for each in expected]


def test_labels_are_parsed_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, parsed = tmp_path / "labels.json", []
    loads = json.loads
    monkeypatch.setattr(rewards.json, "loads", lambda text: parsed.append(text) or loads(text))
    labels.write_text('{"demo_0": 1, "demo_1": 2}')
    for demo, last in (("demo_0", 1), ("demo_1", 2)):
        (came,) = read_labels(labels, tmp_path / "a.hdf5", {demo: 2})
        assert came.tolist() == [0, last]
    assert len(parsed) == 1
    labels.write_text('{"demo_0": 3}')
    os.utime(labels, ns=(1, 1))
    assert read_labels(labels, tmp_path / "a.hdf5", {"demo_0": 1})[0].tolist() == [3] and len(parsed) == 2


def test_label_that_no_float_can_hold_is_named(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"demo_0": 10**400}))
    with pytest.raises(DataError, match=r"labels\.json: demo_0 is '1000.*; expected a number, or a list of 2 numbers"):
        read_labels(labels, tmp_path / "a.hdf5", {"demo_0": 2})


def test_labels_of_two_files_must_tell_them_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "lift/image.hdf5", tmp_path / "can/image.hdf5"
    beside = {one: {"demo_0": 1}, other: {"demo_0": 1}}
    labels = tmp_path / "labels.json"
    for key in ("demo_0", "image.hdf5/demo_0"):
        labels.write_text(json.dumps({key: 1}))
        with pytest.raises(DataError, match=rf"'{key}' is of .*; expected 'lift/image\.hdf5/demo_0' and the like"):
            read_labels(labels, one, {"demo_0": 1}, beside)
    labels.write_text(json.dumps({"lift/image.hdf5/demo_0": 1, "can/image.hdf5/demo_0": 2}))
    assert [read_labels(labels, path, {"demo_0": 1}, beside)[0].tolist() for path in beside] == [[1], [2]]

"""The doctor: healthy files get a clean bill, each illness is found where it is, and nothing raises."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest

import pixelrl.datasets.inspect.demo_summary as demo_summary
import pixelrl.datasets.inspect.file_inspection as file_inspection
from pixelrl.datasets.inspect.inspector import contact_rows, inspect_files
from pixelrl.datasets.inspect.issues import Issue
from pixelrl.datasets.inspect.report import FileReport, InspectionReport
from pixelrl.runtime.errors import DataError
from tests.arm import DEMOS, FRONT, GRIPPER, POSITION, REST, STEPS, WRIST, write_arm
from tests.dots import CAMERA, dot_episodes, write_dots
from tests.spoil import put as put_instead


def inspect_file(path: Path) -> FileReport:
    """Return the report of one file by itself."""
    return inspect_files([(path, "data")]).reports[0]


def found(report: FileReport | InspectionReport) -> list[tuple[str, str, str]]:
    """Return (level, check, first place) of every issue."""
    return [(issue.level, issue.check, issue.place) for issue in report.issues]


def only(report: FileReport | InspectionReport) -> Issue:
    """Return the one issue there is."""
    assert len(report.issues) == 1, found(report)
    return report.issues[0]


def test_a_healthy_file(tmp_path: Path) -> None:
    report = inspect_file(write_dots(tmp_path / "a.h5", "task", 30))
    lengths = [len(episode) for episode in dot_episodes("task", 30)]
    assert found(report) == []
    assert (report.demos, report.transitions, report.environment) == (30, sum(lengths), "Dot")
    assert (report.looked_demos, report.looked_frames) == (30, sum(lengths) + 30)
    assert report.lengths == (min(lengths), float(np.median(lengths)), max(lengths))
    assert report.all_lengths == tuple(lengths)
    assert 0 < report.success < 1
    assert report.notes["success"] == {"false": 30 - round(30 * report.success), "true": round(30 * report.success)}
    camera = report.keys[0]
    assert (camera.name, camera.shape, camera.bytes) == (CAMERA, (24, 24, 3), (sum(lengths) + 30) * 24 * 24 * 3)
    assert [dim.unit for dim in report.actions] == ["m", "m"]
    assert all(sum(dim.histogram) == sum(lengths) for dim in report.actions)
    assert report.quality is not None and report.quality.tq == pytest.approx(report.success)
    assert sum(map(sum, report.map)) == sum(lengths) + 30
    assert json.loads(json.dumps(asdict(report)))["demos"] == 30


@pytest.mark.parametrize("compress", [False, True])
def test_no_false_alarms_on_dots(tmp_path: Path, compress: bool) -> None:
    task = write_dots(tmp_path / "task.h5", "task", 20, compress=compress)
    prior = write_dots(tmp_path / "prior.h5", "prior", 20, compress=compress)
    assert found(inspect_files([(task, "task"), (prior, "prior")])) == []


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_no_false_alarms_on_robomimics_files(tmp_path: Path, compression: str | None) -> None:
    one = write_arm(tmp_path / "a.h5", compression=compression)
    two = write_arm(tmp_path / "b.h5", seed=1, compression=compression)
    assert found(inspect_files([(one, "task"), (two, "prior")])) == []


def test_without_next_obs_the_last_step_may_be_left_out(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
    report = inspect_file(path)
    assert found(report) == [("warning", "last-frame", "/data/demo_0/next_obs")]
    assert report.transitions == DEMOS * STEPS


Spoil = Callable[[h5py.File], None]


def edit(place: str, change: Callable[[np.ndarray], None]) -> Spoil:
    """Return a corruption that changes an array in place."""

    def spoil(file: h5py.File) -> None:
        rows = file[f"data/{place}"][()]
        change(rows)
        file[f"data/{place}"][...] = rows

    return spoil


def replace(place: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """Return a corruption that puts another array in the place of one."""

    def spoil(file: h5py.File) -> None:
        put_instead(file, f"data/{place}", change(file[f"data/{place}"][()]))

    return spoil


def put(place: object, value: object) -> Callable[[np.ndarray], None]:
    """Return a change of some elements."""

    def change(rows: np.ndarray) -> None:
        rows[place] = value

    return change


def both(*spoils: Spoil) -> Spoil:
    return lambda file: [spoil(file) for spoil in spoils] and None


def delete(place: str) -> Spoil:
    return lambda file: file.__delitem__(f"data/{place}")


def swap(demo: h5py.Group) -> None:
    """Exchange the cameras."""
    for group in ("obs", "next_obs"):
        one, two = demo[group][FRONT][()], demo[group][WRIST][()]
        demo[group][FRONT][...], demo[group][WRIST][...] = two, one


def frozen(demo: str, start: int, stop: int) -> Spoil:
    """Freeze the front camera over the frames [start, stop)."""

    def spoil(file: h5py.File) -> None:
        obs, later = (file[f"data/{demo}/{group}/{FRONT}"] for group in ("obs", "next_obs"))
        rows = np.concatenate([obs[()], later[-1:]])
        rows[start:stop] = rows[start]
        obs[...], later[...] = rows[:-1], rows[1:]

    return spoil


def everywhere(spoil: Callable[[str], Spoil]) -> Spoil:
    return both(*(spoil(f"demo_{index}") for index in range(DEMOS)))


def copy(file: h5py.File) -> None:
    del file["data/demo_5"]
    file.copy("data/demo_2", "data/demo_5")


def gzip(file: h5py.File) -> None:
    rows = file[f"data/demo_4/obs/{FRONT}"][()]
    del file[f"data/demo_4/obs/{FRONT}"]
    file["data/demo_4/obs"].create_dataset(FRONT, data=rows, compression="gzip", chunks=(7, 16, 16, 3))


NEXT = f"next_obs/{FRONT}"
CORRUPTIONS: dict[str, tuple[Spoil, tuple[str, str, str]]] = {
    "no rewards": (delete("demo_3/rewards"), ("error", "structure", "/data/demo_3/rewards")),
    "no camera": (delete(f"demo_3/obs/{WRIST}"), ("error", "structure", f"/data/demo_3/obs/{WRIST}")),
    "a link": (
        both(delete("demo_3/actions"), lambda file: file.__setitem__("data/demo_3/actions", h5py.SoftLink("/data"))),
        ("error", "structure", "/data/demo_3/actions"),
    ),
    "an extra camera": (
        lambda file: file["data/demo_3/obs"].create_dataset("side", data=np.zeros((STEPS, 8, 8, 3), np.uint8)),
        ("warning", "structure", "/data/demo_3/obs/side"),
    ),
    "float pictures": (
        replace(f"demo_2/obs/{FRONT}", lambda rows: rows / np.float32(255)),
        ("error", "dtypes", f"/data/demo_2/obs/{FRONT}"),
    ),
    "channels first": (
        replace(f"demo_2/obs/{FRONT}", lambda rows: rows.transpose(0, 3, 1, 2)),
        ("error", "dtypes", f"/data/demo_2/obs/{FRONT}"),
    ),
    "smaller pictures": (
        replace(f"demo_2/obs/{WRIST}", lambda rows: rows[:, ::2, ::2]),
        ("error", "dtypes", f"/data/demo_2/obs/{WRIST}"),
    ),
    "whole actions": (
        replace("demo_1/actions", lambda rows: rows.astype(int)),
        ("error", "dtypes", "/data/demo_1/actions"),
    ),
    "a row too few": (replace("demo_1/rewards", lambda rows: rows[:-1]), ("error", "lengths", "/data/demo_1/rewards")),
    "num_samples": (
        lambda file: file["data/demo_5"].attrs.modify("num_samples", 3),
        ("error", "lengths", "/data/demo_5/."),
    ),
    "never written": (
        both(
            delete(f"demo_5/obs/{FRONT}"),
            lambda file: file["data/demo_5/obs"].create_dataset(FRONT, (STEPS, 32, 32, 3), np.uint8),
        ),
        ("error", "lengths", f"/data/demo_5/obs/{FRONT}"),
    ),
    "total": (lambda file: file["data"].attrs.modify("total", 3), ("warning", "lengths", "data")),
    "a stranger": (lambda file: file.create_group("data/trial_1"), ("warning", "structure", "data")),
    "a wrong mask": (
        lambda file: file.create_dataset("mask/train", data=np.array([b"demo_1", b"demo_99"])),
        ("warning", "masks", "mask/train"),
    ),
    "a wrong mask behind one that is a link": (
        both(
            lambda file: file.__setitem__("mask/a", h5py.SoftLink("/data")),
            lambda file: file.create_dataset("mask/train", data=np.array([b"demo_99"])),
        ),
        ("warning", "masks", "mask/train"),
    ),
    "masks that overlap": (
        lambda file: (
            [file.create_dataset(f"mask/{m}", data=np.array([b"demo_1"])) for m in ("train", "valid")] and None
        ),
        ("warning", "masks", "mask/valid"),
    ),
    "slow": (gzip, ("warning", "compression", f"/data/demo_4/obs/{FRONT}")),
    "NaN": (edit("demo_2/actions", put((5, 1), np.nan)), ("error", "finite", "/data/demo_2/actions[5]")),
    "infinite": (
        both(
            edit(f"demo_2/obs/{POSITION}", put((7, 1), np.inf)),
            edit(f"demo_2/next_obs/{POSITION}", put((6, 1), np.inf)),
        ),
        ("error", "finite", f"/data/demo_2/obs/{POSITION}[7]"),
    ),
    "far out": (edit("demo_3/actions", put((4, 2), -1.5)), ("error", "action-range", "/data/demo_3/actions[4]")),
    "constant action": (
        everywhere(lambda demo: edit(f"{demo}/actions", put((slice(None), 1), 0.5))),
        ("warning", "action-constant", "actions, action_1"),
    ),
    "clipped": (
        everywhere(lambda demo: edit(f"{demo}/actions", put((slice(0, 8), 0), 1.0))),
        ("note", "action-clipped", "actions, action_0"),
    ),
    "constant sensor": (
        everywhere(
            lambda demo: both(*(edit(f"{demo}/{g}/{GRIPPER}", put(slice(None), 0.02)) for g in ("obs", "next_obs")))
        ),
        ("note", "sensor-constant", f"obs/{GRIPPER}"),
    ),
    "a black frame": (
        both(edit(f"demo_4/obs/{WRIST}", put(6, 0)), edit(f"demo_4/next_obs/{WRIST}", put(5, 0))),
        ("warning", "blank", f"/data/demo_4/obs/{WRIST}[6]"),
    ),
    "a green frame": (
        both(edit(f"demo_4/obs/{WRIST}", put(6, (0, 255, 0))), edit(f"demo_4/next_obs/{WRIST}", put(5, (0, 255, 0)))),
        ("warning", "blank", f"/data/demo_4/obs/{WRIST}[6]"),
    ),
    "frozen for a while": (frozen("demo_6", 2, 7), ("warning", "frozen", f"/data/demo_6/obs/{FRONT}[2]")),
    "frozen from start to end": (
        frozen("demo_6", 0, STEPS + 1),
        ("warning", "frozen", f"/data/demo_6/obs/{FRONT}[0]"),
    ),
    "swapped cameras": (
        lambda file: swap(file["data/demo_6"]),
        ("warning", "camera-swapped", f"/data/demo_6/obs/{FRONT}"),
    ),
    "BGR": (
        both(*(replace(f"demo_7/{g}/{FRONT}", lambda rows: rows[..., ::-1]) for g in ("obs", "next_obs"))),
        ("warning", "colour-order", f"/data/demo_7/obs/{FRONT}"),
    ),
    "upside down": (
        both(*(replace(f"demo_7/{g}/{FRONT}", lambda rows: rows[:, ::-1]) for g in ("obs", "next_obs"))),
        ("warning", "upside-down", f"/data/demo_7/obs/{FRONT}"),
    ),
    "next_obs is obs": (
        lambda file: file[f"data/demo_1/{NEXT}"].__setitem__(slice(0, -1), file[f"data/demo_1/obs/{FRONT}"][:-1]),
        ("warning", "next_obs", f"/data/demo_1/{NEXT}[0]"),
    ),
    "next_obs two later": (
        lambda file: file[f"data/demo_1/{NEXT}"].__setitem__(slice(0, -2), file[f"data/demo_1/obs/{FRONT}"][2:]),
        ("warning", "next_obs", f"/data/demo_1/{NEXT}[0]"),
    ),
    "next_obs torn": (edit(f"demo_1/{NEXT}", put((4, 3), 77)), ("warning", "next_obs", f"/data/demo_1/{NEXT}[4]")),
    "next_obs of a sensor": (
        edit(f"demo_1/next_obs/{POSITION}", put((4, 1), 9.0)),
        ("warning", "next_obs", f"/data/demo_1/next_obs/{POSITION}[4]"),
    ),
    "a time-out as an end": (edit("demo_4/dones", put(-1, 1)), ("warning", "time-outs", "/data/demo_4/dones[13]")),
    "an end in the middle": (edit("demo_4/dones", put(6, 1)), ("warning", "dones", "/data/demo_4/dones[6]")),
    "dones a step early": (
        edit("demo_3/dones", put(slice(None), np.arange(STEPS) == STEPS - 2)),
        ("warning", "dones", "/data/demo_3/dones[12]"),
    ),
    "a goal without end": (edit("demo_3/dones", put(-1, 0)), ("note", "dones", "/data/demo_3/dones[13]")),
    "nobody is rewarded": (
        everywhere(lambda demo: both(*(edit(f"{demo}/{key}", put(slice(None), 0)) for key in ("rewards", "dones")))),
        ("warning", "rewards", "rewards"),
    ),
    "a demo twice": (copy, ("warning", "duplicates", "/data/demo_5/data")),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_illness_is_found_where_it_is_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = write_arm(tmp_path / "a.h5")
    spoil, expected = CORRUPTIONS[name]
    with h5py.File(path, "a") as file:
        spoil(file)
    whole = inspect_files([(path, "data")])
    assert found(whole) == [expected]
    assert only(whole).file == str(path)
    assert whole.fit is (expected[0] != "error")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("next_obs is obs", "is obs itself, not obs one step later (off by one?) in 1 of 8 demos"),
        ("next_obs two later", "is obs two steps later, not one"),
        ("next_obs torn", "is not obs one step later (off by one?) in 1 of 8 demos; first: demo_1[4]"),
        ("channels first", "channels come first: transpose"),
        ("float pictures", "multiply by 255"),
        ("frozen for a while", "the same picture while the robot moves in 1 of 8 demos, 5 rows; first: demo_6[2]"),
        ("frozen from start to end", "the same picture from start to end in 1 of 8 demos"),
        ("a green frame", "all of one colour"),
        ("dones a step early", "one step beside the reward"),
        ("far out", "dimension 2 is -1.5"),
        ("a demo twice", "demo_5 is demo_2 again"),
        ("slow", "gzip in chunks of 7x16x16x3: to read one picture, 7 times its bytes are unpacked, in 1 of 8 demos"),
    ],
)
def test_the_words_say_what_came_and_how_often(tmp_path: Path, name: str, words: str) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        CORRUPTIONS[name][0](file)
    assert words in only(inspect_files([(path, "data")])).message


def test_the_fix_of_slow_files_is_a_command(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        gzip(file)
    fix = only(inspect_file(path)).fix
    assert fix == f"h5repack -f GZIP=4 -l CHUNK=1x32x32x3 {path} {tmp_path}/a.repacked.h5"


def test_all_illnesses_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    names = ("no rewards", "far out", "NaN", "a black frame", "next_obs torn")
    with h5py.File(path, "a") as file:
        for name in ("far out", "NaN", "a black frame", "next_obs torn"):
            CORRUPTIONS[name][0](file)
        del file["data/demo_7/rewards"]
    told = {issue.check for issue in inspect_file(path).issues}
    assert told == {CORRUPTIONS[name][1][1] for name in names}


def test_pictures_that_cannot_be_read_do_not_hide_the_numbers(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        CORRUPTIONS["NaN"][0](file)
        CORRUPTIONS["far out"][0](file)
    assert inspect_file(path).looked_demos == inspect_file(path).demos
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            put_instead(demo, "obs/agentview_image", demo["obs/agentview_image"][()] / np.float32(255))
    report = inspect_file(path)
    told = {issue.check for issue in report.issues}
    assert {"dtypes", CORRUPTIONS["NaN"][1][1], CORRUPTIONS["far out"][1][1]} <= told
    assert report.transitions > 0 and report.success > 0 and report.looked_demos == 0


def test_files_of_ours_are_checked_by_their_frames(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 4)
    with h5py.File(path, "a") as file:
        for old, new in ((0, 9), (1, 0), (9, 1)):
            file.move(f"data/demo_{old}", f"data/demo_{new}")
    where = {issue.where for issue in inspect_file(path).issues if issue.check == "obs"}
    assert f"obs/{CAMERA}" in where
    with h5py.File(write_dots(tmp_path / "b.h5", "task", 4), "a") as file:
        window = h5py.VirtualLayout(file[f"data/demo_2/next_obs/{CAMERA}"].shape, np.uint8)
        frames = file[f"data/demo_2/frames/{CAMERA}"]
        window[:] = h5py.VirtualSource(".", frames.name, frames.shape, frames.dtype)[:-1]
        del file[f"data/demo_2/next_obs/{CAMERA}"]
        file["data/demo_2/next_obs"].create_virtual_dataset(CAMERA, window)
    issue = only(inspect_file(tmp_path / "b.h5"))
    assert issue.place == f"/data/demo_2/next_obs/{CAMERA}[0]" and "is obs itself" in issue.message


def test_a_file_that_cannot_be_read_is_an_issue(tmp_path: Path) -> None:
    assert only(inspect_file(tmp_path / "gone.h5")).message == f"{tmp_path}/gone.h5: no such file"
    (tmp_path / "text.h5").write_text("hello")
    assert "not an HDF5 file" in only(inspect_file(tmp_path / "text.h5")).message
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_group("data")
    assert "no demos" in only(inspect_file(tmp_path / "empty.h5")).message


def test_demos_of_one_step_are_inspected(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for name in list(file["data"])[1:]:
            demo = file["data"][name]
            del file["data"].attrs["total"], demo.attrs["num_samples"]
            file["data"].attrs["total"] = 0
            for place in ("actions", "rewards", "dones", *(f"{g}/{k}" for g in ("obs", "next_obs") for k in demo[g])):
                put_instead(demo, place, demo[place][:1])
        del file["data"].attrs["total"]
    report = inspect_file(path)
    assert report.all_lengths == (STEPS, *[1] * (DEMOS - 1))
    assert not any(issue.level == "error" for issue in report.issues)


@pytest.mark.parametrize(
    "value",
    [np.uint8(3), h5py.Empty("f"), np.zeros(3, dtype=[("a", "f4"), ("b", "i4")]), np.zeros((0, 2), np.float32), "text"],
    ids=["scalar", "empty", "compound", "no rows", "text"],
)
@pytest.mark.parametrize("group", ["obs", "next_obs", "frames"])
def test_members_of_any_kind_are_no_surprise(tmp_path: Path, group: str, value: object) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 3)
    with h5py.File(path, "a") as file:
        for key in (CAMERA, POSITION):
            put_instead(file, f"data/demo_1/{group}/{key}", value)
    report = inspect_file(path)
    assert "demo_1" in {issue.demo for issue in report.issues}
    assert len(contact_rows(path)) >= 2


def test_what_only_the_reader_minds_is_told_too(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = "{not JSON"
    assert only(inspect_file(path)).level == "error" and "env_args" in only(inspect_file(path)).message


def test_damage_in_one_demo_does_not_hide_the_others(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5", compression="gzip")
    with h5py.File(path) as file:
        start = file[f"data/demo_3/obs/{FRONT}"].id.get_chunk_info(4)
    raw = bytearray(path.read_bytes())
    raw[start.byte_offset : start.byte_offset + start.size] = b"\xff" * start.size
    path.write_bytes(raw)
    report = inspect_file(path)
    issue = only(report)
    assert (issue.level, issue.place) == ("error", "/data/demo_3/.") and "cannot be read" in issue.message
    assert report.looked_demos == DEMOS - 1


def test_a_sample_of_the_demos_is_looked_at_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for spoiled in ("a black frame", "an end in the middle"):  # in demo_4, which a sample of two does not see
            CORRUPTIONS[spoiled][0](file)
    assert [issue.check for issue in inspect_file(path).issues] == ["dones", "blank"]
    report = inspect_files([(path, "data")], sample=2).reports[0]
    assert (report.looked_demos, report.looked_frames) == (2, 2 * 2 * (STEPS + 1))
    assert only(report).check == "dones"  # numbers are read from all
    assert report.coverage is not None and report.coverage.counted == 2 * STEPS
    monkeypatch.setattr(file_inspection, "AFFORDABLE", DEMOS * STEPS * 2 * 32 * 32 * 3 // 2)
    assert inspect_file(path).looked_demos == DEMOS // 2


def test_memory_does_not_grow_with_the_length_of_a_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.h5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo.attrs["num_samples"] = 2000
        demo["actions"], demo["rewards"], demo["dones"] = np.ones((2000, 1)), np.ones(2000), np.ones(2000, int)
        for group, start in (("obs", 0), ("next_obs", 1)):
            rows = demo.create_dataset(f"{group}/{FRONT}", (2000, 64, 64, 3), np.uint8)
            for step in range(2000):
                rows[step, 0, :2, 0] = divmod(step + start + 999, 256)
    frames = 2000 * 64 * 64 * 3
    monkeypatch.setattr(demo_summary, "BLOCK", frames // 32)
    tracemalloc.start()
    report = inspect_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.looked_frames == 2001
    assert peak < frames / 4
    assert {issue.check for issue in report.issues} == {"action-constant"}


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    inspect_files([(write_arm(tmp_path / "a.h5"), "data")], progress=lambda *words: told.append(words))
    assert told[DEMOS - 1] == ("numbers", DEMOS, DEMOS)
    assert told[-1] == ("pictures", DEMOS * 2 * (STEPS + 1), DEMOS * 2 * (STEPS + 1))


def test_copies_between_files(tmp_path: Path) -> None:
    one = write_arm(tmp_path / "a.h5")
    two = write_arm(tmp_path / "b.h5", seed=1)
    with h5py.File(one) as source, h5py.File(two, "a") as file:
        del file["data/demo_6"]
        source.copy("data/demo_1", file["data"], "demo_6")
    for sample in (None, 2):  # without the pictures the numbers tell
        issue = only(inspect_files([(one, "data"), (two, "data")], sample=sample))
        assert (issue.check, issue.file, issue.demo) == ("duplicates", str(two), "demo_6")
        assert f"{one}: 1; first: demo_6 is demo_1 again" in issue.message


def across(tmp_path: Path, spoil: Spoil, **options: float) -> InspectionReport:
    """Spoil the prior file of two that fit together, and compare them."""
    one = write_arm(tmp_path / "a.h5")
    two = write_arm(tmp_path / "b.h5", seed=1, **options)  # type: ignore[arg-type]
    for path, change in ((one, kwargs), (two, both(kwargs, spoil))):
        with h5py.File(path, "a") as file:
            change(file)
    return inspect_files([(one, "task"), (two, "prior")])


def kwargs(file: h5py.File) -> None:
    """Say how the robot is driven."""
    controller = {"type": "OSC_POSITION", "output_max": [0.05] * 3, "output_min": [-0.05] * 3}
    options = {"robots": ["Panda"], "control_freq": 20, "controller_configs": controller}
    file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": options})


def slower(file: h5py.File) -> None:
    text = file["data"].attrs["env_args"].replace('"control_freq": 20', '"control_freq": 10')
    file["data"].attrs["env_args"] = text


def drawn(file: h5py.File) -> None:
    env_args = json.loads(file["data"].attrs["env_args"])
    file["data"].attrs["env_args"] = json.dumps(env_args | {"drawing": "fast"})


def longer(file: h5py.File) -> None:
    file["data"].attrs["env_args"] = file["data"].attrs["env_args"].replace("0.05", "0.1")


def every(change: Callable[[h5py.Group], None]) -> Spoil:
    return lambda file: [change(demo) for demo in file["data"].values()] and None


def pictures(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(demo: h5py.Group) -> None:
        for group in ("obs", "next_obs"):
            demo[group][FRONT][...] = change(demo[group][FRONT][()])

    return every(spoil)


def only_obs(key: str) -> Callable[[h5py.Group], None]:
    return lambda demo: [demo[group].__delitem__(key) for group in ("obs", "next_obs")] and None


def scale(factor: float, shift: float = 0.0) -> Callable[[h5py.Group], None]:
    return lambda demo: demo["actions"].__setitem__((..., 0), demo["actions"][:, 0] * factor + shift)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (every(only_obs(WRIST)), ("error", "mismatch", f"obs/{WRIST}")),
        (every(only_obs(GRIPPER)), ("error", "mismatch", f"obs/{GRIPPER}")),
        (longer, ("error", "mismatch", "actions")),
        (slower, ("warning", "environment", "env_args, control_freq")),
        (drawn, ("warning", "environment", "env_args, drawing")),
        (every(scale(0.1)), ("warning", "action-statistics", "actions, dx")),
        (every(scale(0.2, 0.8)), ("warning", "action-statistics", "actions, dx")),
        (every(swap), ("warning", "camera-swapped", f"obs/{FRONT}")),
        (pictures(lambda rows: rows[..., ::-1]), ("warning", "colour-order", f"obs/{FRONT}")),
        (pictures(lambda rows: rows[:, ::-1]), ("warning", "upside-down", f"obs/{FRONT}")),
        (pictures(lambda rows: rows // 2), ("warning", "brightness", f"obs/{FRONT}")),
    ],
)
def test_task_and_prior_that_do_not_fit(tmp_path: Path, spoil: Spoil, expected: tuple[str, str, str]) -> None:
    whole = across(tmp_path, spoil)
    first = [words for words in found(whole) if words[1] == expected[1]]
    assert first == [expected]
    rest = {words[1] for words in found(whole)} - {expected[1]}
    assert rest <= {"environment", "brightness"}  # a longer stroke is another controller; what is swapped is brighter
    assert whole.fit is (expected[0] != "error")
    assert all(issue.file == str(tmp_path / "b.h5") for issue in whole.issues)


def test_a_gripper_with_the_other_sign(tmp_path: Path) -> None:
    issue = only(across(tmp_path, lambda file: None, opens=-1.0))
    assert (issue.check, issue.where) == ("gripper-sign", "actions, gripper")
    assert "a positive action closes the gripper" in issue.message


def test_a_gripper_in_other_numbers(tmp_path: Path) -> None:
    def rescale(demo: h5py.Group) -> None:
        demo["actions"][:, 3] = (demo["actions"][:, 3] > 0).astype(float)

    whole = across(tmp_path, every(rescale))
    assert ("warning", "gripper-range", "actions, gripper") in found(whole)


def test_actions_beyond_one_are_no_error_if_they_are_to_be_normalised(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        CORRUPTIONS["far out"][0](file)
    assert only(inspect_files([(path, "data")], actions="min-max")).level == "note"


def test_a_reference_sets_the_scale(tmp_path: Path) -> None:
    path, expert = write_arm(tmp_path / "a.h5"), write_dots(tmp_path / "b.h5", "task", 8)
    report = inspect_files([(path, "data")], reference=path).reports[0]
    assert report.quality is not None and report.coverage is not None
    assert (report.quality.expert, report.quality.tq) == (0.75, 1.0)  # 6 of 8 demos are rewarded, by 1
    assert (report.coverage.saco, report.coverage.reference) == (1.0, "a.h5")
    report = inspect_files([(path, "data")], return_range=(0.25, 1.25)).reports[0]
    assert report.quality is not None and report.quality.tq == 0.5
    assert inspect_files([(path, "data")], reference=expert).fit  # another robot: nothing is compared but the measures
    with pytest.raises(DataError, match=r"gone.h5: no reference"):
        inspect_files([(path, "data")], reference=tmp_path / "gone.h5")


def test_rows_for_a_contact_sheet(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 30)
    rows = contact_rows(path, demos=3)
    episodes = list(dot_episodes("task", 30))
    assert [row.caption.split()[0] for row in rows] == ["demo_0", "demo_14", "demo_29"]
    for row, number in zip(rows, (0, 14, 29), strict=True):
        frames = episodes[number].sensors[CAMERA]
        assert len(row.frames) == len(frames)
        for step in np.unique(np.linspace(0, len(frames) - 1, 8).round().astype(int)):
            np.testing.assert_array_equal(row.frames[step], frames[step])
        assert row.ok == episodes[number].notes["success"]


def test_a_contact_sheet_shows_what_robomimic_reads(tmp_path: Path) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        last = [demo[f"next_obs/{key}"][-1] for key in (FRONT, WRIST)]
    np.testing.assert_array_equal(contact_rows(path)[0].frames[-1], np.concatenate(last, axis=1))


def test_resting_is_no_freeze(tmp_path: Path) -> None:
    with h5py.File(write_arm(tmp_path / "a.h5")) as file:
        rows = file[f"data/demo_0/obs/{FRONT}"][-REST:]
    assert (rows == rows[0]).all()  # so the files above did hold pictures that repeat

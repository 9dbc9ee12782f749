"""LeRobotDataset v3.0 by its files: written as lerobot writes them, read as lerobot means them."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert import lerobot_writer
from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions, fingerprint
from pixelrl.datasets.convert.lerobot_info import EXTRAS_PATH
from pixelrl.datasets.convert.lerobot_reader import read_lerobot
from pixelrl.datasets.convert.lerobot_writer import fit_lerobot, write_lerobot
from pixelrl.datasets.convert.rules import RewardSums, apply_rules
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError, PixelrlError
from tests.dots import write_dots

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
FRONT = "observation.images.front"


def episode(index: int, steps: int) -> Episode:
    """Return an episode whose pictures tell their time."""
    times = np.arange(steps + 1)
    y, x = np.mgrid[:32, :48]
    front = np.stack([np.stack([x * 4 + t, y * 6 + t, x + y + 40 * index], -1) for t in times]).astype(np.uint8)
    return Episode(
        sensors={
            "front": front,
            "pos": np.stack([times, times**2], -1).astype(np.float32),
            "grip": times[:, None].astype(np.float32) / 8,
            "object": np.full((steps + 1, 2), index, np.float32),
        },
        actions=np.stack([times[:-1] / 16, -times[:-1] / 16], -1).astype(np.float32),
        rewards=(times[:-1] == steps - 1).astype(np.float32),
        dones=times[:-1] == steps - 1,
        states=np.full((steps + 1, 3), 0.1 + index),
        notes={"task": f"task {index % 2}"},
    )


STREAM = DatasetStream(
    episodes=lambda: (episode(index, steps) for index, steps in enumerate((3, 5, 4))),
    count=3,
    env_args={"env_name": "Lift", "env_kwargs": {"control_freq": 10}},
    action_dims=(ActionDim(name="dx"), ActionDim(name="dy")),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set that pixelrl wrote."""
    write_lerobot(tmp_path / "le", STREAM, FormatOptions(fps=10))
    return tmp_path / "le"


@pytest.fixture
def foreign(root: Path) -> Path:
    """Return the same as anyone else would have written it."""
    (root / EXTRAS_PATH).unlink()
    return root


def read(root: Path, **options: Any) -> tuple[list[Episode], DroppedFields]:
    dropped = DroppedFields()
    given = FormatOptions(**options)
    stream = apply_rules(read_lerobot(root, dropped, given), given, root, dropped, RewardSums())
    return list(stream.episodes()), dropped


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_table(path: Path, change: Callable[[Any], Any]) -> None:
    parquet.write_table(change(parquet.read_table(path)), path)


def without(table: Any, name: str) -> Any:
    return table.drop_columns([name])


def put(table: Any, name: str, values: list[Any]) -> Any:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def test_the_files_are_those_of_lerobot(root: Path) -> None:
    """Names and types as LeRobot 0.4.4 wrote them for a data set of this sort."""
    info = json.loads((root / "meta/info.json").read_text())
    assert {name: info[name] for name in ("codebase_version", "total_episodes", "total_frames", "total_tasks")} == {
        "codebase_version": "v3.0",
        "total_episodes": 3,
        "total_frames": 12,
        "total_tasks": 2,
    }
    assert (info["fps"], info["splits"], info["video_path"]) == (10, {"train": "0:3"}, None)
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    front = {"dtype": "image", "shape": [32, 48, 3], "names": ["height", "width", "channels"]}
    assert info["features"][FRONT] == front
    assert info["features"]["observation.state"]["names"] == ["pos_0", "pos_1", "grip"]
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["dx", "dy"]}
    schema = parquet.read_schema(root / DATA)
    assert list(info["features"]) == schema.names
    assert {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)} == {
        FRONT: "struct<bytes: binary, path: string>",
        "observation.state": "fixed_size_list<element: float>[3]",
        "privileged.state": "fixed_size_list<element: float>[2]",
        "action": "fixed_size_list<element: float>[2]",
        "next.reward": "float",
        "next.done": "bool",
        "timestamp": "float",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    noted = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert noted[FRONT] == {"_type": "Image"}
    assert noted["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "List"}
    tasks = parquet.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pylist() == [
        {"task_index": 0, "__index_level_0__": "task 0"},
        {"task_index": 1, "__index_level_0__": "task 1"},
    ]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_rows_and_episodes_are_those_of_the_data(root: Path) -> None:
    rows = parquet.read_table(root / DATA).to_pylist()
    assert [(row["episode_index"], row["frame_index"], row["index"], row["task_index"]) for row in rows] == [
        *((0, step, step, 0) for step in range(3)),
        *((1, step, 3 + step, 1) for step in range(5)),
        *((2, step, 8 + step, 0) for step in range(4)),
    ]
    row = rows[5]
    assert (row["action"], row["next.reward"], row["next.done"]) == ([2 / 16, -2 / 16], 0.0, False)
    assert row["observation.state"] == [2.0, 4.0, 0.25] and row["timestamp"] == pytest.approx(0.2)
    assert (rows[7]["next.reward"], rows[7]["next.done"]) == (1.0, True)
    assert row[FRONT]["path"] == "frame-000002.png" and row[FRONT]["bytes"].startswith(b"\x89PNG")
    held = parquet.read_table(root / EPISODES).to_pylist()
    said = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "data/file_index")
    assert [[row[name] for name in said] for row in held] == [
        [0, ["task 0"], 3, 0, 3, 0],
        [1, ["task 1"], 5, 3, 8, 0],
        [2, ["task 0"], 4, 8, 12, 0],
    ]
    assert parquet.ParquetFile(root / DATA).num_row_groups == 3


def test_statistics_by_hand(tmp_path: Path) -> None:
    """Two steps in all, with pictures of 0 and 255, and of 51 alone; the frame after the last step does not count."""
    front = np.array([[0, 255], [9, 9]], np.uint8).reshape(2, 1, 2, 1), np.array([[51, 51]] * 2, np.uint8)
    episodes = [
        Episode(
            sensors={"front": pictures.reshape(2, 1, 2, 1), "v": np.array([vector, vector], np.float32)},
            actions=np.zeros((1, 2), np.float32),
            rewards=np.array([reward], np.float32),
            dones=np.array([False]),
        )
        for pictures, vector, reward in zip(front, ([0.0, 1.0], [4.0, 7.0]), (0.0, 1.0), strict=True)
    ]
    write_lerobot(tmp_path / "le", replace(STREAM, episodes=lambda: iter(episodes)), FormatOptions(fps=10))
    stats = json.loads((tmp_path / "le/meta/stats.json").read_text())
    assert stats["observation.state"] == {
        "min": [0, 1], "max": [4, 7], "mean": [2, 4], "std": [2, 3], "count": [2],
    }  # fmt: skip
    assert (stats["next.reward"]["mean"], stats["index"]["max"]) == ([0.5], [1])
    pictures = stats[FRONT]
    assert (pictures["min"], pictures["max"], pictures["count"]) == ([[[0]]], [[[1]]], [2])
    mean, square = (0 + 1 + 0.2 + 0.2) / 4, (0 + 1 + 0.04 + 0.04) / 4
    assert np.ravel(pictures["mean"]) == pytest.approx([mean])
    assert np.ravel(pictures["std"]) == pytest.approx([(square - mean**2) ** 0.5])


def test_what_pixelrl_wrote_comes_back(root: Path) -> None:
    dropped = DroppedFields()
    stream = read_lerobot(root, dropped)
    assert fingerprint(stream).digests() == fingerprint(STREAM).digests()
    assert not dropped
    assert not list((root / "images").glob("*")) and not (root / "videos").exists()


def test_files_follow_one_another_as_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "EPISODES_PER_FILE", 1)
    write_lerobot(tmp_path / "le", STREAM, FormatOptions(fps=10))
    found = sorted(str(path.relative_to(tmp_path / "le")) for path in (tmp_path / "le").rglob("*.parquet"))
    files = [f"data/chunk-000/file-00{number}.parquet" for number in range(3)]
    assert found == [
        *files,
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/pixelrl.parquet",
        "meta/tasks.parquet",
    ]
    assert fingerprint(read_lerobot(tmp_path / "le", DroppedFields())).digests() == fingerprint(STREAM).digests()


def test_rows_are_found_in_a_file_without_row_groups_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_table(root / DATA, lambda table: table)  # one row group for all
    monkeypatch.setattr("pixelrl.datasets.convert.lerobot_reader.ROWS", 2)
    assert fingerprint(read_lerobot(root, DroppedFields())).digests() == fingerprint(STREAM).digests()


def test_videos_are_small_and_nearly_the_same(tmp_path: Path) -> None:
    lossy = write_lerobot(tmp_path / "le", STREAM, FormatOptions(fps=10, pictures="video"))
    assert lossy == {"sensors/front"}
    info = json.loads((tmp_path / "le/meta/info.json").read_text())
    assert info["features"][FRONT]["dtype"] == "video"
    assert FRONT not in parquet.read_schema(tmp_path / "le" / DATA).names
    rows = parquet.read_table(tmp_path / "le" / EPISODES).to_pylist()
    prefix = f"videos/{FRONT}/"
    assert [row[prefix + "file_index"] for row in rows] == [0, 1, 2]
    assert [row[prefix + "from_timestamp"] for row in rows] == [0, 0, 0]
    assert [row[prefix + "to_timestamp"] for row in rows] == pytest.approx([0.3, 0.5, 0.4])
    came, dropped = read(tmp_path / "le")
    assert not dropped
    for one, other in zip(came, STREAM.episodes(), strict=True):
        difference = np.abs(one.sensors["front"].astype(int) - other.sensors["front"])
        assert 0 < difference.mean() < 6  # and a frame too early or too late would differ by far more in the third
        np.testing.assert_array_equal(one.sensors["front"][-1], other.sensors["front"][-1])
        np.testing.assert_array_equal(one.sensors["pos"], other.sensors["pos"], strict=True)


def test_the_report_says_how_much_videos_lose(tmp_path: Path, root: Path) -> None:
    options = FormatOptions(pictures="video")
    result = convert_dataset(root, tmp_path / "video", "lerobot", "lerobot", options=options)
    lost = {array["name"]: array["mean_difference"] for array in result["arrays"] if "mean_difference" in array}
    assert list(lost) == ["sensors/front"] and 0 < lost["sensors/front"] < 6


def test_frames_of_videos_keep_their_places(tmp_path: Path) -> None:
    """Each frame has a brightness of its own, which a codec keeps."""
    steps = 12
    shades = np.arange(steps + 1) * 20
    one = replace(
        episode(0, steps), sensors={"front": np.tile(shades[:, None, None, None], (1, 32, 48, 3)).astype(np.uint8)}
    )
    many = replace(STREAM, episodes=lambda: iter([one, one]), count=2)
    write_lerobot(tmp_path / "le", many, FormatOptions(fps=7.5, pictures="video"))
    for came in read(tmp_path / "le")[0]:
        assert np.abs(came.sensors["front"].mean(axis=(1, 2, 3)) - shades).max() < 3


def test_odd_pictures_are_no_video(tmp_path: Path) -> None:
    one = replace(episode(0, 2), sensors={"front": np.zeros((3, 31, 48, 3), np.uint8)})
    with pytest.raises(DataError, match=r"front: pictures 31 x 48 x 3; videos need even sides .*: choose png"):
        write_lerobot(
            tmp_path / "le", replace(STREAM, episodes=lambda: iter([one])), FormatOptions(fps=10, pictures="video")
        )


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    one = replace(episode(0, 2), rewards=np.array([0.0, 1e39]))
    stream = fit_lerobot(replace(STREAM, episodes=lambda: iter([one])), DroppedFields())
    with pytest.raises(DataError, match=r"le: episode 0, next\.reward: NaN or infinity, in float32"):
        write_lerobot(tmp_path / "le", stream, FormatOptions(fps=10))


def test_data_sets_of_others_lack_the_last_picture(foreign: Path) -> None:
    stream = read_lerobot(foreign, DroppedFields())
    assert stream.env_args == {
        "env_name": "Lift",
        "env_kwargs": {"control_freq": 10.0},
        "lerobot": {"names": {"state": ["pos_0", "pos_1", "grip"], "object": ["object_0", "object_1"]}},
    }
    assert [dim.name for dim in stream.action_dims] == ["dx", "dy"]
    came, dropped = read(foreign, last_step="drop")
    assert [len(held) for held in came] == [2, 4, 3]
    assert list(dropped) == [
        "the last step and its reward (--last-step keep keeps them): the picture after it was not recorded"
    ]
    for one, other in zip(came, STREAM.episodes(), strict=True):
        np.testing.assert_array_equal(one.sensors["front"], other.sensors["front"][:-1])
        state = np.concatenate([other.sensors["pos"], other.sensors["grip"]], axis=1)
        np.testing.assert_array_equal(one.sensors["state"], state[:-1])
        np.testing.assert_array_equal(one.actions, other.actions[:-1])
        assert not one.rewards.any() and one.notes == other.notes
    came, dropped = read(foreign)
    assert [len(held) for held in came] == [3, 5, 4]
    for one, other in zip(came, STREAM.episodes(), strict=True):
        np.testing.assert_array_equal(one.sensors["front"][-1], other.sensors["front"][-2])
        np.testing.assert_array_equal(one.rewards, other.rewards)
        np.testing.assert_array_equal(one.dones, other.dones)
    assert dropped == {"the picture after the last step: it was not recorded, and the last one is repeated": 3}


def test_what_others_record_beyond_episodes_is_named(foreign: Path) -> None:
    info = json.loads((foreign / "meta/info.json").read_text())["features"]
    info |= {"next.success": {"dtype": "bool", "shape": [1], "names": None}}
    info |= {
        "observation.images.depth": {
            "dtype": "image",
            "shape": [4, 4, 1],
            "names": None,
            "info": {"is_depth_map": True},
        }
    }
    info["action"]["names"] = {"motors": ["left", "right"]}
    del info["next.reward"]
    edit_info(foreign, features=info, robot_type=None)
    edit_table(
        foreign / DATA, lambda table: put(table, "timestamp", [0.0, 0.3, 0.4, *table["timestamp"].to_pylist()[3:]])
    )
    edit_table(foreign / EPISODES, lambda table: put(table, "tasks", [["a", "b"], ["c"], []]))
    stream = read_lerobot(foreign, DroppedFields())
    came, dropped = read(foreign)
    assert [held.notes for held in came] == [{"task": "a"}, {"task": "c"}, {}]
    assert [dim.name for dim in stream.action_dims] == ["left", "right"]
    assert stream.env_args["env_name"] == "le"
    assert dropped == {
        "next.success": 0,
        "observation.images.depth": 0,
        "next.reward, which is not there: 0 is written (--reward and --dones say more)": 0,
        "timestamps, which are not those of even steps": 1,
        "all tasks of an episode but its first": 1,
        "the picture after the last step: it was not recorded, and the last one is repeated": 3,
    }


def break_info(text: str) -> Callable[[Path], Any]:
    return lambda root: (root / "meta/info.json").write_text(text)


def features(root: Path, name: str, **changes: Any) -> None:
    held = json.loads((root / "meta/info.json").read_text())["features"]
    edit_info(root, features=held | {name: held.get(name, {}) | changes})


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no info": (
        lambda root: (root / "meta/info.json").unlink(),
        r"info\.json: no such file; expected a LeRobotDataset",
    ),
    "half an info": (break_info('{"codebase_version": "v3.0", '), r"info\.json: not the description of a LeRobot"),
    "an empty info": (break_info("{}"), r"info\.json: not the description of a LeRobotDataset \('codebase_version'\)"),
    "version 2.1": (
        lambda root: edit_info(root, codebase_version="v2.1"),
        r"meta/episodes\.jsonl: no such file; expected a line an episode",
    ),
    "version 4": (
        lambda root: edit_info(root, codebase_version="v4.0"),
        r"a LeRobotDataset v4\.0; expected v3\.0, v2\.1 or v2\.0$",
    ),
    "no fps": (lambda root: edit_info(root, fps=0), r"fps is 0\.0, chunks_size 1000; expected positive"),
    "no features": (lambda root: edit_info(root, features=[]), r"fps or features are missing"),
    "no action": (lambda root: edit_info(root, features={}), r"action is nothing; expected floats \(A,\)"),
    "no pictures": (
        lambda root: features(root, FRONT, dtype="string"),
        r"no pictures among .*pixelrl learns from pixels",
    ),
    "pictures without channels": (
        lambda root: features(root, FRONT, shape=[32, 48]),
        r"has shape \(32, 48\); expected h",
    ),
    "another shape": (
        lambda root: features(root, FRONT, shape=[16, 48, 3]),
        r"episode 0, observation\.images\.front, frame 0: a picture RGB 32 x 48; expected RGB 16 x 48",
    ),
    "a huge shape": (lambda root: features(root, FRONT, shape=[10**6, 10**6, 3]), r"expected RGB 1000000 x 1000000"),
    "an endless action": (lambda root: features(root, "action", shape=[10**12]), r"action is float32 \(10"),
    "a longer action": (lambda root: features(root, "action", shape=[3]), r"action holds 6 numbers; expected 3 x 3"),
    "a hostile name": (
        lambda root: features(root, "observation.images.a/b", dtype="image", shape=[4, 4, 3]),
        r"a feature 'observation\.images\.a/b'; expected",
    ),
    "a hostile path": (
        lambda root: edit_info(root, data_path="../{chunk_index}.parquet"),
        r"a path '\.\./{chunk_index}",
    ),
    "an absolute path": (lambda root: edit_info(root, data_path="/etc/passwd"), r"a path '/etc/passwd'; expected one"),
    "a path that asks": (
        lambda root: edit_info(root, data_path="{chunk_index.__class__}"),
        r"a path '{chunk_index\.__class__}'; expected one like",
    ),
    "an endless path": (lambda root: edit_info(root, data_path="{chunk_index:99999999d}"), r"expected one like"),
    "a path that ends early": (lambda root: edit_info(root, data_path="{chunk_index"), r"does not take"),
    "no data": (lambda root: (root / DATA).unlink(), r"file-000\.parquet: no such file; meta/episodes promises it"),
    "truncated data": (
        lambda root: (root / DATA).write_bytes((root / DATA).read_bytes()[:-200]),
        r"file-000\.parquet: not a parquet file, or a damaged one",
    ),
    "no episodes": (lambda root: (root / EPISODES).unlink(), r"meta/episodes: no parquet files"),
    "episodes without places": (
        lambda root: edit_table(root / EPISODES, lambda table: without(table, "dataset_from_index")),
        r"lacks 'dataset_from_index'; expected what v3\.0 says",
    ),
    "an episode too long": (
        lambda root: edit_table(root / EPISODES, lambda table: put(table, "length", [3, 5, 9])),
        r"episode 2: 4 of its rows in their place; expected 9",
    ),
    "rows out of order": (
        lambda root: edit_table(root / DATA, lambda table: table.take([0, 1, 2, 3, 5, 4, *range(6, 12)])),
        r"file-000\.parquet: episode 1: frame_index of row 1 is 2; expected 1, rows in order",
    ),
    "rows of no episode": (
        lambda root: edit_table(root / EPISODES, lambda table: put(table, "length", [3, 5, 3])),
        r"file-000\.parquet: 1 of 12 rows belong to no episode; expected 11",
    ),
    "fewer episodes than promised": (
        lambda root: edit_table(root / EPISODES, lambda table: table.slice(0, 2)),
        r"info\.json: total_episodes is 3; expected 2, as many as are described in meta",
    ),
    "a file of no episode": (
        lambda root: (root / DATA).with_name("file-001.parquet").write_bytes((root / DATA).read_bytes()),
        r"file-001\.parquet: holds no episode of meta; expected 1 files, there are 1 more",
    ),
    "an endless episode": (
        lambda root: edit_table(root / EPISODES, lambda table: put(table, "length", [3, 5, 10**15])),
        r"episode 2: 4 of its rows in their place; expected 1000000000000000",
    ),
    "episodes with a gap": (
        lambda root: edit_table(root / EPISODES, lambda table: put(table, "episode_index", [0, 1, 3])),
        r"episodes do not count from 0 without a gap",
    ),
    "no such chunk": (
        lambda root: edit_table(root / EPISODES, lambda table: put(table, "data/chunk_index", [None] * 3)),
        r"does not take {'chunk_index': None",
    ),
    "no column": (
        lambda root: edit_table(root / DATA, lambda table: without(table, "action")),
        r"no column 'action', which info\.json promises",
    ),
    "missing numbers": (
        lambda root: edit_table(root / DATA, lambda table: put(table, "next.reward", [None] * 12)),
        r"next\.reward holds 3 numbers; expected 3 x 1, none missing",
    ),
    "pictures elsewhere": (
        lambda root: edit_table(root / DATA, lambda t: put(t, FRONT, [{"bytes": None, "path": "/etc/passwd"}] * 12)),
        r"names files; expected the pictures themselves in the parquet file",
    ),
    "damaged pictures": (
        lambda root: edit_table(root / DATA, lambda t: put(t, FRONT, [{"bytes": b"\x89PNG\r\n", "path": "a"}] * 12)),
        r"frame 0: a damaged picture",
    ),
}


@pytest.mark.parametrize("value", [np.nan, 2, 0.25])
def test_ends_are_neither_numbers_nor_missing(foreign: Path, value: float) -> None:
    def change(table: Any) -> Any:
        place = table.column_names.index("next.done")
        return table.set_column(place, "next.done", pa.array([0.0] * 4 + [value] + [0.0] * 7, pa.float32()))

    edit_table(foreign / DATA, change)
    with pytest.raises(DataError) as caught:
        read(foreign)
    assert str(caught.value) == f"{foreign / DATA}: episode 1: next.done[1] is {float(value)}; expected 0 or 1"


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_named(foreign: Path, damage: str) -> None:
    harm, why = DAMAGE[damage]
    harm(foreign)
    with pytest.raises(DataError, match=why) as caught:
        read(foreign)
    assert str(caught.value).startswith(str(foreign)) and "\n" not in str(caught.value)


def test_videos_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "le", STREAM, FormatOptions(fps=10, pictures="video"))
    video = tmp_path / f"le/videos/{FRONT}/chunk-000/file-000.mp4"
    whole = video.read_bytes()
    features(tmp_path / "le", FRONT, shape=[64, 48, 3])
    with pytest.raises(DataError, match=r"a video of 32 x 48; expected 64 x 48"):
        read(tmp_path / "le")
    features(tmp_path / "le", FRONT, shape=[32, 48, 3])
    rows = f"videos/{FRONT}/from_timestamp"
    edit_table(tmp_path / "le" / EPISODES, lambda table: put(table, rows, [0.0, 0.0, 7.0]))
    with pytest.raises(DataError, match=r"file-002\.mp4: no frame at 7\.000 s; expected 4 from 7\.000 s on"):
        read(tmp_path / "le")
    video.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"file-000\.mp4: not a video, or a damaged one"):
        read(tmp_path / "le")
    video.unlink()
    with pytest.raises(DataError, match=r"file-000\.mp4: no such video; info\.json promises it"):
        read(tmp_path / "le")


def test_extras_are_not_mixed_with_data_that_were_changed_since(root: Path) -> None:
    episodes = (root / EPISODES).read_bytes()
    edit_table(root / EPISODES, lambda table: table.slice(0, 2))
    why = r"pixelrl\.parquet: describes 3 episodes of 12 steps where there are 2 of 8; .* remove this file"
    with pytest.raises(DataError, match=why):
        read(root)
    (root / EPISODES).write_bytes(episodes)
    edit_table(root / EPISODES, lambda table: put(table, "length", [2, 6, 4]))
    with pytest.raises(DataError, match=r"of 12 steps where there are 3 of 12; the data were changed since"):
        read(root)


@pytest.mark.parametrize("changed", ["actions", "pos"])
def test_extras_of_another_recording_with_the_same_lengths_are_refused(tmp_path: Path, changed: str) -> None:
    def other(held: Episode) -> Episode:
        moved = held.sensors["pos"] + np.float32(1)
        return (
            replace(held, actions=-held.actions)
            if changed == "actions"
            else replace(held, sensors={**held.sensors, "pos": moved})
        )

    anew = replace(STREAM, episodes=lambda: map(other, STREAM.episodes()))
    for name, stream in (("old", STREAM), ("new", anew)):
        write_lerobot(tmp_path / name, stream, FormatOptions(fps=10))
    shutil.copy(tmp_path / "old" / EXTRAS_PATH, tmp_path / "new" / EXTRAS_PATH)
    why = r"pixelrl\.parquet: .*episode 0: has other actions or vectors than it was written for; .* remove this file"
    with pytest.raises(DataError, match=why):
        read(tmp_path / "new")


def test_extras_that_were_written_without_a_digest_are_read(root: Path) -> None:
    before, _ = read(root)
    edit_table(root / EXTRAS_PATH, lambda table: without(table, "digest"))
    after, _ = read(root)
    assert [each.notes for each in after] == [each.notes for each in before]
    np.testing.assert_array_equal(after[0].sensors["front"], before[0].sensors["front"])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.replace_schema_metadata({"pixelrl": "{"}),
        lambda table: table.replace_schema_metadata({}),
        lambda table: without(table, "length"),
        lambda table: without(table, "last/front"),
        lambda table: put(table, "notes", ["["] * 3),
        lambda table: put(table, "last/pos", [[1.0]] * 3),
    ],
)
def test_damaged_extras_are_named(root: Path, change: Callable[[Any], Any]) -> None:
    edit_table(root / EXTRAS_PATH, change)
    with pytest.raises(DataError, match=r"pixelrl\.parquet: .*not as pixelrl writes it"):
        read(root)


def test_what_lerobot_cannot_hold_is_counted(tmp_path: Path) -> None:
    third = replace(episode(0, 3), actions=np.full((3, 2), 1 / 3))  # no float32
    third = replace(third, sensors={**third.sensors, "buttons": np.zeros((4, 2), int)})
    dropped = DroppedFields()
    fitted = fit_lerobot(replace(STREAM, episodes=lambda: iter([third]), count=1), dropped)
    write_lerobot(tmp_path / "le", fitted, FormatOptions(fps=10))
    (came,) = read(tmp_path / "le")[0]
    np.testing.assert_array_equal(came.actions, np.full((3, 2), 1 / 3, np.float32), strict=True)
    assert dropped == {
        "actions, beyond the precision of float32": 1,
        "sensors/buttons, int64 (2,): no picture, and no float vector": 1,
    }


def test_without_pyarrow_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        PixelrlError, match=r"LeRobot's format: this needs pyarrow, .*: pip install 'pixelrl\[lerobot\]'"
    ):
        read(root)


def test_lerobot_needs_to_know_how_often_the_robot_acted(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "dots.hdf5", "task", 1)
    with pytest.raises(PixelrlError, match=r"how often the robot acted is not known, .* say it with --fps"):
        convert_dataset(source, tmp_path / "out", "hdf5", "lerobot")


def test_splits_become_filters(foreign: Path) -> None:
    edit_info(foreign, splits={"train": "0:2", "test": "2:3", "all": "0:3", "odd": "first"})
    dropped = DroppedFields()
    assert read_lerobot(foreign, dropped).masks == {"train": (0, 1), "test": (2,)}
    assert "the split 'odd', which is 'first' (known: FIRST:END)" in dropped


def test_cameras_that_nobody_wants_are_not_decoded(foreign: Path) -> None:
    edit_table(
        foreign / DATA,
        lambda table: put(table, "observation.images.front", [{"bytes": b"none", "path": ""}] * len(table)),
    )
    with pytest.raises(DataError):
        read(foreign)
    info = read_lerobot(foreign, DroppedFields(), FormatOptions(keys=("state",)))
    assert [*next(info.episodes()).sensors] == ["state"]


def test_openpis_names_are_known(foreign: Path) -> None:
    path = foreign / "meta/info.json"
    text = path.read_text().replace('"action"', '"actions"').replace('"observation.images.', '"')
    path.write_text(text.replace('"observation.state"', '"joint_position"').replace('"privileged.state"', '"x.y"'))
    names = {"action": "actions", "observation.state": "joint_position", "privileged.state": "x.y"}
    names |= {f"observation.images.{key}": key for key in ("front", "wrist")}
    edit_table(foreign / DATA, lambda table: table.rename_columns([names.get(n, n) for n in table.column_names]))
    came, _ = read(foreign)
    assert set(came[0].sensors) == {"front", "joint_position"} and came[0].actions.shape[1] == 2

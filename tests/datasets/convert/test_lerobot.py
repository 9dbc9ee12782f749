"""LeRobotDataset v3.0 by its files: written as lerobot writes them, read as lerobot means them."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.convert import lerobot_writer
from pixelrl.datasets.convert.interchange import Interchange, Losses, fingerprint
from pixelrl.datasets.convert.lerobot_reader import read_recording
from pixelrl.datasets.convert.lerobot_sidecar import NAME
from pixelrl.datasets.convert.lerobot_stats import Statistics
from pixelrl.datasets.convert.lerobot_writer import write_recording
from tests.dots import write_dots
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.launch.commands.convert import Options, convert

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


RECORDING = Interchange(
    episodes=lambda: (episode(index, steps) for index, steps in enumerate((3, 5, 4))),
    count=3,
    env_args={"env_name": "Lift", "env_kwargs": {"control_freq": 10}},
    action_dims=(ActionDim(name="dx"), ActionDim(name="dy")),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set that pixelrl wrote."""
    write_recording(tmp_path / "le", RECORDING, fps=10)
    return tmp_path / "le"


@pytest.fixture
def foreign(root: Path) -> Path:
    """Return the same as anyone else would have written it."""
    (root / NAME).unlink()
    return root


def read(root: Path, **options: Any) -> tuple[list[Episode], Losses]:
    losses = Losses()
    return list(read_recording(root, losses, **options).episodes()), losses


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
    assert held[1]["stats/next.reward/mean"] == [pytest.approx(0.2)]
    assert held[2][f"stats/{FRONT}/count"] == [4]
    assert parquet.ParquetFile(root / DATA).num_row_groups == 3


def test_statistics_are_exact() -> None:
    """Worked out by hand: one picture of 0 and 255, one of 51 alone; three vectors."""
    statistics = Statistics()
    first = np.array([[0, 255]], np.uint8).reshape(1, 1, 2, 1)
    statistics.add({"v": np.array([[0.0, 1.0], [2.0, 1.0]])}, {"p": first})
    own = statistics.add({"v": np.array([[4.0, 7.0]])}, {"p": np.full((1, 1, 2, 1), 51, np.uint8)})
    assert (own["v"]["mean"], own["v"]["std"], own["v"]["q99"]) == ([4.0, 7.0], [0.0, 0.0], [4.0, 7.0])
    assert (own["p"]["min"], own["p"]["max"]) == ([[[0.2]]], [[[0.2]]])
    total = statistics.total()
    assert (total["v"]["min"], total["v"]["max"], total["v"]["mean"]) == ([0.0, 1.0], [4.0, 7.0], [2.0, 3.0])
    assert total["v"]["std"] == pytest.approx([(8 / 3) ** 0.5, 8**0.5]) and total["v"]["count"] == [3]
    assert (total["v"]["q50"], total["v"]["q10"]) == ([2.0, 1.0], [0.4, 1.0])
    mean, square = (0 + 1 + 0.2 + 0.2) / 4, (0 + 1 + 0.04 + 0.04) / 4
    assert np.ravel(total["p"]["mean"]) == pytest.approx([mean])
    assert np.ravel(total["p"]["std"]) == pytest.approx([(square - mean**2) ** 0.5])
    quantiles = [total["p"][name] for name in ("q01", "q10", "q50", "q90", "q99")]
    assert np.ravel(quantiles).tolist() == [0, 0, 0.2, 1, 1] and total["p"]["count"] == [2]


def test_what_pixelrl_wrote_comes_back(root: Path) -> None:
    losses = Losses()
    recording = read_recording(root, losses)
    assert fingerprint(recording).digests() == fingerprint(RECORDING).digests()
    assert not losses
    assert not list((root / "images").glob("*")) and not (root / "videos").exists()


def test_files_follow_one_another_as_they_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "DATA_MB", 0)
    monkeypatch.setattr(lerobot_writer, "EPISODES_AT_ONCE", 2)
    write_recording(tmp_path / "le", RECORDING, fps=10)
    found = sorted(str(path.relative_to(tmp_path / "le")) for path in (tmp_path / "le").rglob("*.parquet"))
    files = [f"data/chunk-000/file-00{number}.parquet" for number in range(3)]
    assert found == [
        *files,
        *(f"meta/episodes/chunk-000/file-00{number}.parquet" for number in range(2)),
        "meta/tasks.parquet",
    ]
    assert fingerprint(read_recording(tmp_path / "le", Losses())).digests() == fingerprint(RECORDING).digests()


def test_rows_are_found_in_a_file_without_row_groups_of_their_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_table(root / DATA, lambda table: table)  # one row group for all
    monkeypatch.setattr("pixelrl.datasets.convert.lerobot_reader.ROWS", 2)
    assert fingerprint(read_recording(root, Losses())).digests() == fingerprint(RECORDING).digests()


def test_films_are_small_and_nearly_the_same(tmp_path: Path) -> None:
    lossy = write_recording(tmp_path / "le", RECORDING, fps=10, video=True)
    assert lossy == {"sensors/front"}
    info = json.loads((tmp_path / "le/meta/info.json").read_text())
    assert info["features"][FRONT]["dtype"] == "video"
    assert FRONT not in parquet.read_schema(tmp_path / "le" / DATA).names
    rows = parquet.read_table(tmp_path / "le" / EPISODES).to_pylist()
    prefix = f"videos/{FRONT}/"
    assert [row[prefix + "from_timestamp"] for row in rows] == pytest.approx([0, 0.3, 0.8])
    assert [row[prefix + "to_timestamp"] for row in rows] == pytest.approx([0.3, 0.8, 1.2])
    came, losses = read(tmp_path / "le")
    assert not losses
    for one, other in zip(came, RECORDING.episodes(), strict=True):
        difference = np.abs(one.sensors["front"].astype(int) - other.sensors["front"])
        assert 0 < difference.mean() < 6  # and a frame too early or too late would differ by far more in the third
        np.testing.assert_array_equal(one.sensors["front"][-1], other.sensors["front"][-1])
        np.testing.assert_array_equal(one.sensors["pos"], other.sensors["pos"], strict=True)


def test_the_report_says_how_much_films_lose(tmp_path: Path, root: Path) -> None:
    options = Options(images="video")
    result = convert(root, tmp_path / "film", options=options, console=Console(quiet=True))
    lost = {array["name"]: array["mean_difference"] for array in result["arrays"] if "mean_difference" in array}
    assert list(lost) == ["sensors/front"] and 0 < lost["sensors/front"] < 6


def test_frames_of_films_keep_their_places(tmp_path: Path) -> None:
    """Each frame has a brightness of its own, which a codec keeps."""
    steps = 12
    shades = np.arange(steps + 1) * 20
    one = replace(
        episode(0, steps), sensors={"front": np.tile(shades[:, None, None, None], (1, 32, 48, 3)).astype(np.uint8)}
    )
    many = replace(RECORDING, episodes=lambda: iter([one, one]), count=2)
    write_recording(tmp_path / "le", many, fps=7.5, video=True)
    for came in read(tmp_path / "le")[0]:
        assert np.abs(came.sensors["front"].mean(axis=(1, 2, 3)) - shades).max() < 3


def test_odd_pictures_are_not_filmed(tmp_path: Path) -> None:
    one = replace(episode(0, 2), sensors={"front": np.zeros((3, 31, 48, 3), np.uint8)})
    with pytest.raises(DataError, match=r"front: pictures 31 x 48 x 3; films want even sides .*: choose png"):
        write_recording(tmp_path / "le", replace(RECORDING, episodes=lambda: iter([one])), fps=10, video=True)


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    one = replace(episode(0, 2), rewards=np.array([0.0, 1e39]))
    with (
        pytest.raises(DataError, match=r"le: episode 0, next\.reward: NaN or infinity, in float32"),
        np.errstate(over="ignore"),
    ):
        write_recording(tmp_path / "le", replace(RECORDING, episodes=lambda: iter([one])), fps=10)


def test_data_sets_of_others_lack_the_last_picture(foreign: Path) -> None:
    losses = Losses()
    recording = read_recording(foreign, losses)
    assert recording.env_args == {
        "env_name": "Lift",
        "env_kwargs": {"control_freq": 10.0},
        "lerobot": {"names": {"state": ["pos_0", "pos_1", "grip"], "object": ["object_0", "object_1"]}},
    }
    assert [dim.name for dim in recording.action_dims] == ["dx", "dy"]
    came = list(recording.episodes())
    assert [len(held) for held in came] == [2, 4, 3]
    assert list(losses) == [
        "the last step and its reward (--last-step repeat keeps them): the picture after it was not recorded"
    ]
    for one, other in zip(came, RECORDING.episodes(), strict=True):
        np.testing.assert_array_equal(one.sensors["front"], other.sensors["front"][:-1])
        state = np.concatenate([other.sensors["pos"], other.sensors["grip"]], axis=1)
        np.testing.assert_array_equal(one.sensors["state"], state[:-1])
        np.testing.assert_array_equal(one.actions, other.actions[:-1])
        assert not one.rewards.any() and one.notes == other.notes
    came, losses = read(foreign, last_step="repeat")
    assert [len(held) for held in came] == [3, 5, 4]
    for one, other in zip(came, RECORDING.episodes(), strict=True):
        np.testing.assert_array_equal(one.sensors["front"][-1], other.sensors["front"][-2])
        np.testing.assert_array_equal(one.rewards, other.rewards)
        np.testing.assert_array_equal(one.dones, other.dones)
    assert losses == {"the picture after the last step: it was not recorded, and the last one is repeated": 3}


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
    losses = Losses()
    recording = read_recording(foreign, losses)
    came = list(recording.episodes())
    assert [held.notes for held in came] == [{"task": "a"}, {"task": "c"}, {}]
    assert [dim.name for dim in recording.action_dims] == ["left", "right"]
    assert recording.env_args["env_name"] == "le"
    assert losses == {
        "next.success": 0,
        "observation.images.depth": 0,
        "next.reward, which is not there: 0 is written": 0,
        "timestamps, which are not those of even steps": 1,
        "all tasks of an episode but its first": 1,
        "the last step: the picture after it was not recorded": 3,
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
        r"a LeRobotDataset v2\.1; expected v3\.0; lerobot's convert_dataset_v21_to_v30 brings it there",
    ),
    "version 4": (lambda root: edit_info(root, codebase_version="v4.0"), r"a LeRobotDataset v4\.0; expected v3\.0$"),
    "no fps": (lambda root: edit_info(root, fps=0), r"fps is 0\.0; expected a positive number"),
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


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_fit_is_named(foreign: Path, damage: str) -> None:
    harm, why = DAMAGE[damage]
    harm(foreign)
    with pytest.raises(DataError, match=why) as caught:
        read(foreign)
    assert str(caught.value).startswith(str(foreign)) and "\n" not in str(caught.value)


def test_films_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_recording(tmp_path / "le", RECORDING, fps=10, video=True)
    film = tmp_path / f"le/videos/{FRONT}/chunk-000/file-000.mp4"
    whole = film.read_bytes()
    features(tmp_path / "le", FRONT, shape=[64, 48, 3])
    with pytest.raises(DataError, match=r"a film of 32 x 48; expected 64 x 48"):
        read(tmp_path / "le")
    features(tmp_path / "le", FRONT, shape=[32, 48, 3])
    rows = f"videos/{FRONT}/from_timestamp"
    edit_table(tmp_path / "le" / EPISODES, lambda table: put(table, rows, [0.0, 0.3, 7.0]))
    with pytest.raises(DataError, match=r"file-000\.mp4: no frame at 7\.000 s; expected 4 from 7\.000 s on"):
        read(tmp_path / "le")
    film.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"file-000\.mp4: not a film, or a damaged one"):
        read(tmp_path / "le")
    film.unlink()
    with pytest.raises(DataError, match=r"file-000\.mp4: no such film; info\.json promises it"):
        read(tmp_path / "le")


def test_what_was_changed_since_is_not_mixed_with_what_was_kept(root: Path) -> None:
    episodes = (root / EPISODES).read_bytes()
    edit_table(root / EPISODES, lambda table: table.slice(0, 2))
    with pytest.raises(DataError, match=r"pixelrl\.hdf5: describes 3 episodes where there are 2; .* remove this file"):
        read(root)
    (root / EPISODES).write_bytes(episodes)
    edit_table(root / EPISODES, lambda table: put(table, "length", [2, 6, 4]))
    edit_table(root / DATA, lambda table: put(table, "episode_index", [0] * 2 + [1] * 6 + [2] * 4))
    with pytest.raises(DataError, match=r"episode 0 has 3 steps where there are 2; the data were changed since"):
        read(root)


def test_exact_numbers_are_kept_only_for_the_rows_that_they_belong_to(tmp_path: Path) -> None:
    third = replace(episode(0, 3), actions=np.full((3, 2), 1 / 3))  # no float32
    write_recording(tmp_path / "le", replace(RECORDING, episodes=lambda: iter([third]), count=1), fps=10)
    assert read(tmp_path / "le")[0][0].actions.tolist() == [[1 / 3, 1 / 3]] * 3
    edit_table(tmp_path / "le" / DATA, lambda table: put(table, "action", [[0.5, 0.5]] * 3))
    with pytest.raises(DataError, match=r"episode 0, actions: other numbers than the parquet files hold"):
        read(tmp_path / "le")


def test_without_pyarrow_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PixelrlError, match=r"LeRobot's format needs pyarrow .*: pip install 'pixelrl\[lerobot\]'"):
        read(root)


def test_lerobot_wants_to_know_how_often_the_robot_acted(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "dots.hdf5", "task", 1)
    with pytest.raises(PixelrlError, match=r"nobody knows how often the robot acted, .* say it with --fps"):
        convert(source, tmp_path / "out", console=Console(quiet=True))

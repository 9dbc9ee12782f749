"""Conversions: any format to any other and back, whole or not at all, and honest about what stays behind."""

import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import pixelrl.datasets.convert.conversion as conversion
from pixelrl.datasets.convert.conversion import KEPT, convert_dataset
from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions, fingerprint
from pixelrl.datasets.convert.formats import FORMATS, guess_source, guess_target
from pixelrl.datasets.convert.lerobot_writer import fit_lerobot
from pixelrl.datasets.convert.robomimic import check_views, read_robomimic, write_robomimic
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.rewards import read_success
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError, PixelrlError
from tests.buffers import trajectory, write_buffer
from tests.dots import write_dots
from tests.spoil import put

SIZES = {"front_image": (40, 36, 3), "wrist_image": (12, 10, 3), "depth_image": (33, 32, 1)}


def rich_episode(index: int, steps: int) -> Episode:
    """Return an episode with everything in it that an HDF5 file may hold, in types that LeRobot does not keep."""
    random = np.random.default_rng(index)
    pictures = {key: random.integers(0, 256, (steps + 1, *shape), dtype=np.uint8) for key, shape in SIZES.items()}
    sensors = {
        **pictures,
        "robot0_eef_pos": random.normal(size=(steps + 1, 3)),
        "robot0_gripper_qpos": random.normal(size=(steps + 1, 1)).astype(np.float32),
        "object": random.normal(size=(steps + 1, 5)),
        "buttons": random.integers(0, 9, (steps + 1, 2)),
        "front_depth": random.random((steps + 1, 4, 4, 1)).astype(np.float32),
    }
    return Episode(
        sensors=sensors,
        actions=random.uniform(-1, 1, (steps, 4)),
        rewards=random.normal(size=steps),
        dones=np.arange(steps) == steps - 1 - index % 2,
        states=random.normal(size=(steps + 1, 7)),
        attributes={"model_file": "<mujoco/>" * 9000, "ep_meta": json.dumps({"lang": f"task {index % 2}"})},
        notes={"seed": index, "success": True, "nested": {"a": [1, None]}},
    )


@pytest.fixture
def stream() -> DatasetStream:
    """Return a data set that is hard to convert."""
    return DatasetStream(
        episodes=lambda: (rich_episode(index, 2 + index) for index in range(4)),
        count=4,
        env_args={"env_name": "Lift", "type": 1, "env_version": "1.5.2", "env_kwargs": {"control_freq": 20}},
        action_dims=(*(ActionDim(name=n, low=-0.05, high=0.05, unit="m") for n in "xyz"), ActionDim(name="gripper")),
        masks={"train": (2, 0), "valid": (1, 3), "none": ()},
    )


@pytest.fixture
def file(tmp_path: Path, stream: DatasetStream) -> Path:
    write_robomimic(tmp_path / "in.hdf5", stream)
    return tmp_path / "in.hdf5"


def digests(path: Path) -> dict[str, str]:
    dropped = DroppedFields()
    found = fingerprint(FORMATS[guess_source(path)].read(path, dropped, FormatOptions())).digests()
    assert not dropped
    return found


def test_the_hdf5_file_holds_the_data(file: Path, stream: DatasetStream) -> None:
    assert digests(file) == fingerprint(stream).digests()
    with h5py.File(file) as held:
        assert held["mask/train"][()].tolist() == [b"demo_2", b"demo_0"]


def convert(source: Path, target: Path, **options: Any) -> dict[str, Any]:
    """Convert between the formats that the names tell."""
    kinds = guess_source(source), guess_target(target)
    return convert_dataset(source, target, *kinds, options=FormatOptions(**options))


@pytest.mark.parametrize("path", permutations(["hdf5", "lerobot", "minari"]))
def test_round_trips_lose_nothing_that_lerobot_holds(
    tmp_path: Path, stream: DatasetStream, path: tuple[str, ...]
) -> None:
    pytest.importorskip("pyarrow")
    write_robomimic(tmp_path / "in.hdf5", fit_lerobot(stream, DroppedFields()))
    names = {"hdf5": "a.hdf5", "lerobot": "le", "minari": "mi-v0"}
    before, here = digests(tmp_path / "in.hdf5"), tmp_path / "in.hdf5"
    for number, kind in enumerate((*path, "hdf5")):
        there = tmp_path / str(number) / names[kind]
        result = convert(here, there)
        assert result["dropped"] == []
        assert all(array["sha256"] == array["arrived"] == before[array["name"]] for array in result["arrays"])
        here = there
    assert digests(here) == before


def test_round_trips_through_minari_keep_every_type(tmp_path: Path, file: Path) -> None:
    before = digests(file)
    convert(file, tmp_path / "mi-v0")
    assert convert(tmp_path / "mi-v0", tmp_path / "a.hdf5")["dropped"] == []
    assert digests(tmp_path / "a.hdf5") == before


def test_what_lerobot_cannot_hold_is_dropped_and_counted(tmp_path: Path, file: Path) -> None:
    pytest.importorskip("pyarrow")
    result = convert(file, tmp_path / "le")
    assert {item["what"]: item["episodes"] for item in result["dropped"]} == {
        **{
            f"{name}, beyond the precision of float32": 4
            for name in ("actions", "rewards", "sensors/robot0_eef_pos", "sensors/object")
        },
        "sensors/buttons, int64 (2,): no picture, and no float vector": 4,
        "sensors/front_depth, float32 (4, 4, 1): no picture, and no float vector": 4,
    }
    convert(tmp_path / "le", tmp_path / "a.hdf5")
    with h5py.File(file) as one, h5py.File(tmp_path / "a.hdf5") as other:
        for name in one["data"]:
            a, b = one[f"data/{name}"], other[f"data/{name}"]
            np.testing.assert_array_equal(a["frames/front_image"], b["frames/front_image"])  # with the last one
            np.testing.assert_array_equal(a["rewards"][()].astype(np.float32), b["rewards"])
            np.testing.assert_array_equal(a["states"], b["states"])
            assert dict(a.attrs) == dict(b.attrs)


def test_what_stays_behind_is_counted(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 3)
    with h5py.File(source, "a") as held:
        held["data"].attrs["date"] = "today"
        held["extra"] = 1
        for name in ("demo_0", "demo_1"):
            demo = held["data"][name]
            demo.attrs["numbers"] = [3, 4]
            demo["datagen_info/x"] = np.zeros(3)
            demo["frames/words"] = np.array([b"a"] * 3)
        put(held, "data/demo_2/states", np.zeros((1, 3)))
        held.move("data/demo_1", "data/demo_7")
        held["mask/train"] = np.array([b"demo_7", b"demo_1"])
    said = {item["what"]: item["episodes"] for item in convert(source, tmp_path / "o.hdf5")["dropped"]}
    assert said == {
        "/data's date": "all",
        "/extra": "all",
        "/mask/train's 'demo_1', which /data does not hold": "all",
        "the names of the demos, which are numbered anew": "all",
        "attribute numbers": 2,
        "datagen_info": 2,
        "frames/words": 2,
        "states, of another length than actions ((1, 3))": 1,
    }


@pytest.mark.parametrize("place", ["", "data", "data/demo_0", "data/demo_0/frames", "mask"])
def test_names_that_cannot_be_written_are_refused(tmp_path: Path, place: str) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 1)
    with h5py.File(source, "a") as held:
        held.require_group(place or "/").create_dataset(b"wrong\xff", data=1)
    with pytest.raises(DataError, match=r"in\.hdf5.* holds something named b'wrong\\xff'; expected printable names"):
        convert(source, tmp_path / "out.hdf5")


def test_attributes_of_the_data_that_are_left_behind_are_named(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 2)
    with h5py.File(source, "a") as held:
        held["data"].attrs["unfinished"] = 2
        held["data/demo_0"].attrs[b"wrong\xff"] = "text"
    result = convert(source, tmp_path / "out.hdf5")
    assert {item["what"] for item in result["dropped"]} == {
        "/data's unfinished",
        "attribute b'wrong\\xff'",
    }


def plain_file(path: Path, *, next_obs: bool, shift: bool = False) -> Path:
    """Write two demos of four steps as robomimic does, the last step rewarded."""
    with h5py.File(path, "w") as held:
        for index in range(2):
            demo = held.create_group(f"data/demo_{index}")
            demo["actions"], demo["rewards"], demo["dones"] = np.zeros((4, 2)), np.array([0, 0, 0, 1]), np.zeros(4, int)
            demo["states"] = np.arange(8.0).reshape(4, 2)
            frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
            demo["obs/image"] = frames[:-1]
            if next_obs:
                demo["next_obs/image"] = frames[1:] + (np.arange(4) == 1)[:, None, None, None] * np.uint8(shift)
    return path


def test_files_of_others_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    path, dropped = plain_file(tmp_path / "a.hdf5", next_obs=True), DroppedFields()
    episode = next(iter(read_robomimic(path, dropped).episodes()))
    assert (len(episode), episode.sensors["image"][:, 0, 0, 0].tolist(), dropped) == (4, [0, 1, 2, 3, 4], {})
    assert episode.states is not None and episode.states[:, 0].tolist() == [0, 2, 4, 6, 6]
    list(read_robomimic(plain_file(tmp_path / "b.hdf5", next_obs=True, shift=True), dropped).episodes())
    assert dropped == {"next_obs/image, which is not obs one step later": 2}
    dropped.clear()
    episode = next(iter(read_robomimic(plain_file(tmp_path / "c.hdf5", next_obs=False), dropped).episodes()))
    assert (len(episode), episode.sensors["image"][:, 0, 0, 0].tolist()) == (4, [0, 1, 2, 3])  # rules complete it
    assert not dropped


def test_several_episodes_in_one_demo_are_refused_with_their_rows(tmp_path: Path) -> None:
    path = plain_file(tmp_path / "a.hdf5", next_obs=False)
    with h5py.File(path, "a") as held:
        held["data/demo_1/timeouts"] = np.array([0, 1, 0, 0])
    message = "/data/demo_1: 2 episodes in one demo, which end at rows 1; `train` tells them apart, and here each wants"
    with pytest.raises(DataError, match=message):
        list(read_robomimic(path, DroppedFields()).episodes())


@pytest.mark.parametrize("group", ["obs", "next_obs"])
def test_views_that_do_not_show_the_frames_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    """Other programs read the views, so that our own way of reading proves nothing of them."""
    source = write_dots(tmp_path / "in.hdf5", "task", 2)
    check_views(source)

    def careless(path: Path, held: DatasetStream, options: FormatOptions) -> frozenset[str]:
        lossy = write_robomimic(path, held, options)
        with h5py.File(path, "a") as file:
            del file[f"data/demo_1/{group}/agentview_image"]
            frames = file["data/demo_1/frames/agentview_image"]
            layout = h5py.VirtualLayout((len(frames) - 1, *frames.shape[1:]), frames.dtype)
            layout[:] = h5py.VirtualSource(".", "/data/nothing", frames.shape, frames.dtype)[1:]
            file[f"data/demo_1/{group}"].create_virtual_dataset("agentview_image", layout)
        return lossy

    monkeypatch.setitem(FORMATS, "hdf5", replace(FORMATS["hdf5"], write=careless))
    with pytest.raises(DataError, match=rf"demo_1/{group}/agentview_image does not hold the demo's frames"):
        convert(source, tmp_path / "folder/out.hdf5")
    assert list((tmp_path / "folder").iterdir()) == []


def test_views_of_demos_with_text_attributes_show_the_frames(tmp_path: Path, file: Path) -> None:
    convert(file, tmp_path / "out.hdf5")
    with h5py.File(tmp_path / "out.hdf5") as held:
        for index in range(4):
            frames, demo = rich_episode(index, 2 + index).sensors["front_image"], held[f"data/demo_{index}"]
            assert demo.attrs["model_file"].startswith("<mujoco/>")
            np.testing.assert_array_equal(demo["obs/front_image"], frames[:-1])
            np.testing.assert_array_equal(demo["next_obs/front_image"], frames[1:])


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 1)
    (tmp_path / "out.hdf5").write_text("mine")
    with pytest.raises(PixelrlError, match=r"out\.hdf5: exists already"):
        convert(source, tmp_path / "out.hdf5")
    assert (tmp_path / "out.hdf5").read_text() == "mine"


@pytest.mark.parametrize("target", ["out.hdf5", "out", "out-v0"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, stop: type[BaseException]
) -> None:
    pytest.importorskip("pyarrow")
    source = write_dots(tmp_path / "in.hdf5", "task", 4)
    real = conversion._recorded

    def interrupted(*arguments: Any) -> Iterator[Episode]:
        for index, episode in enumerate(real(*arguments)):
            if index == 2:
                raise stop
            yield episode

    monkeypatch.setattr(conversion, "_recorded", interrupted)
    with pytest.raises(stop):
        convert(source, tmp_path / "folder" / target, fps=5)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("target", ["out.hdf5", "out", "out-v0"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, target: str) -> None:
    pytest.importorskip("pyarrow")
    source = robosuite_file(tmp_path / "in.hdf5")
    before, limits = source.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        with pytest.raises(DataError) as caught:
            convert(source, tmp_path / "folder" / target, fps=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"{tmp_path / 'folder' / target}: could not be written (File too large); {KEPT}"
    assert list((tmp_path / "folder").iterdir()) == [] and source.read_bytes() == before
    assert convert(source, tmp_path / "folder" / target, fps=20)["episodes"] == 2


@pytest.mark.parametrize("target", ["out.hdf5", "out", "out-v0"])
def test_what_arrives_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    pytest.importorskip("pyarrow")
    source = write_dots(tmp_path / "in.hdf5", "task", 2)
    kind = guess_target(Path(target))
    real = FORMATS[kind].write
    assert real is not None

    def careless(path: Path, held: DatasetStream, options: FormatOptions) -> frozenset[str]:
        rewarded = lambda: (replace(e, rewards=e.rewards + np.float32(0.25)) for e in held.episodes())  # noqa: E731
        return real(path, replace(held, episodes=rewarded), options)

    monkeypatch.setitem(FORMATS, kind, replace(FORMATS[kind], write=careless))
    with pytest.raises(DataError, match=r"read back, it does not hold what was sent \(rewards\)"):
        convert(source, tmp_path / "folder" / target, fps=5)
    assert list((tmp_path / "folder").iterdir()) == []


def test_episodes_must_be_alike(tmp_path: Path) -> None:
    other = trajectory(3, size=16)
    path = write_buffer(tmp_path / "a.npy", [trajectory(3), other])
    with pytest.raises(DataError, match=r"episode 1: sensors/image is uint8 \(16, 16, 3\); expected uint8 \(12, 12"):
        convert(path, tmp_path / "out.hdf5")
    assert sorted(held.name for held in tmp_path.iterdir()) == ["a.npy"]


def test_formats_are_guessed(tmp_path: Path) -> None:
    assert [guess_target(Path(name)) for name in ("a.hdf5", "a.h5", "a", "lift-v0", "a/b-c-v12")] == [
        "hdf5",
        "hdf5",
        "lerobot",
        "minari",
        "minari",
    ]
    (tmp_path / "a.npy").touch()
    assert guess_source(tmp_path / "a.npy") == "cog"
    with pytest.raises(PixelrlError, match=r"a\.zarr: an unknown format; expected NAME\.hdf5, NAME-v0 \(Minari\)"):
        guess_target(Path("a.zarr"))
    with pytest.raises(DataError, match="no such file or folder"):
        guess_source(tmp_path / "none")
    with pytest.raises(PixelrlError, match=r"an unknown format; expected \.npy \(COG\), .* say it with --from cog"):
        guess_source(tmp_path)


def test_cog_is_not_written(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 1)
    with pytest.raises(PixelrlError, match=r"COG's \.npy is read only; choose hdf5, lerobot or minari"):
        convert_dataset(source, tmp_path / "out.npy", "hdf5", "cog")


def test_no_pictures_no_conversion(tmp_path: Path) -> None:
    with h5py.File(plain_file(tmp_path / "a.hdf5", next_obs=True), "a") as held:
        for demo in held["data"].values():
            del demo["obs/image"], demo["next_obs/image"]
            demo["obs/position"] = np.zeros((4, 3))
    with pytest.raises(DataError, match=r"no pictures, it holds position only"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.hdf5")


def robosuite_file(path: Path) -> Path:
    """Write a demo with every attribute that robosuite and its tools write, as robomimic keeps pictures."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as held:
        held.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for index in range(2):
            demo = held.create_group(f"data/demo_{index}")
            frames = random.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
            demo["actions"], demo["rewards"], demo["dones"] = random.uniform(-1, 1, (5, 7)), np.eye(5)[4], np.eye(5)[4]
            demo["states"] = random.normal(size=(5, 9))
            for group, rows in (("obs", slice(0, 5)), ("next_obs", slice(1, 6))):
                demo[f"{group}/agentview_image"] = frames[rows]
                demo[f"{group}/robot0_eef_pos"] = np.arange(18.0).reshape(6, 3)[rows]
            demo.attrs["num_samples"] = 5
            demo.attrs["model_file"] = "<mujoco model='x'/>" * 5000
            demo.attrs["ep_meta"] = json.dumps({"lang": "lift the cube"})
            demo.attrs["camera_info"] = json.dumps({"agentview": {"intrinsics": [[1.0, 0.0], [0.0, 1.0]]}})
            demo.attrs["name"], demo.attrs["key"], demo.attrs["success"] = "not a group", "frames", True
    return path


@pytest.mark.parametrize("attribute", [True, 1.0, np.array([1])])
def test_what_an_attribute_says_of_success_wins_over_a_note_as_in_training(tmp_path: Path, attribute: Any) -> None:
    path = robosuite_file(tmp_path / "in.hdf5")
    with h5py.File(path, "a") as file:
        for index, demo in enumerate(file["data"].values()):
            demo.attrs["success"] = np.asarray(attribute) * (index == 1)
            demo.attrs["notes"] = json.dumps({"success": index == 0, "seed": index})
    assert read_success(path, ["demo_0", "demo_1"], "success").tolist() == [False, True]
    convert(path, tmp_path / "out.hdf5", reward="success")
    with h5py.File(tmp_path / "out.hdf5") as file:
        paid = [demo["rewards"][()].tolist() for demo in file["data"].values()]
    assert paid == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert read_success(tmp_path / "out.hdf5", ["demo_0", "demo_1"], "success").tolist() == [False, True]


def test_robomimic_reads_what_we_write(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    source = robosuite_file(tmp_path / "in.hdf5")
    convert(source, tmp_path / "a.hdf5")
    convert(source, tmp_path / "le", fps=20)
    convert(tmp_path / "le", tmp_path / "b.hdf5")
    convert(source, tmp_path / "mi-v0")
    convert(tmp_path / "mi-v0", tmp_path / "c.hdf5")
    specification = {"obs": {"low_dim": ["robot0_eef_pos"], "rgb": ["agentview_image"]}}
    obs_utils.initialize_obs_utils_with_obs_specs([specification])
    keys = ("agentview_image", "robot0_eef_pos")

    def rows(path: Path) -> list[Any]:
        columns = ("actions", "rewards", "dones")
        held = SequenceDataset(str(path), keys, columns, hdf5_cache_mode=None, load_next_obs=True)
        return [held[index] for index in range(len(held))]

    before = rows(source)
    assert len(before) == 10
    for name in ("a", "b", "c"):
        ours = tmp_path / f"{name}.hdf5"
        with h5py.File(source) as one, h5py.File(ours) as other:
            for demo in ("demo_0", "demo_1"):
                for place in ("obs", "next_obs"):
                    np.testing.assert_array_equal(
                        one[f"data/{demo}/{place}/agentview_image"], other[f"data/{demo}/{place}/agentview_image"]
                    )
                for text in ("model_file", "ep_meta", "camera_info", "name", "key"):
                    assert other[f"data/{demo}"].attrs[text] == one[f"data/{demo}"].attrs[text]
                assert json.loads(other[f"data/{demo}"].attrs["notes"])["success"] is True
        for one_row, other_row in zip(before, rows(ours), strict=True):
            for group in ("obs", "next_obs"):
                for key in keys:
                    np.testing.assert_array_equal(one_row[group][key], other_row[group][key])
            np.testing.assert_array_equal(one_row["rewards"], other_row["rewards"])


def numbered_file(path: Path) -> Path:
    """Write demos 5 to 8 of four steps."""
    with h5py.File(plain_file(path, next_obs=True), "a") as file:
        for number in (5, 6, 7, 8):
            file.copy(f"data/demo_{number % 2}", f"data/demo_{number}")
        del file["data/demo_0"], file["data/demo_1"]
    return path


def test_labels_are_of_the_names_that_demos_have_in_the_source(tmp_path: Path) -> None:
    source, labels = numbered_file(tmp_path / "a.hdf5"), tmp_path / "labels.json"
    labels.write_text(json.dumps({"demo_5": 0, "demo_6": 2, "demo_7": 0, "demo_8": 4}))
    convert(source, tmp_path / "b.hdf5", reward=f"labels:{labels}", leave_out=("demo_5",))
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert [file[f"data/demo_{index}/rewards"][-1] for index in range(3)] == [2, 0, 4]


@pytest.mark.parametrize("target", ["b.hdf5", "b"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("actions", np.nan, r"a\.hdf5: demo_7[:,] actions?.*(nan|NaN).*; --leave-out demo_7 leaves it out"),
        ("rewards", np.nan, r"a\.hdf5: demo_7: rewards hold nan; .*; --leave-out demo_7 leaves it out"),
        ("obs/image", None, r"a\.hdf5: demo_7: sensors/image is .*\(9, 8, 3\); .*; --leave-out demo_7 leaves it out"),
    ],
)
def test_what_is_wrong_with_a_demo_is_told_under_its_own_name(
    tmp_path: Path, target: str, key: str, value: float | None, message: str
) -> None:
    source = numbered_file(tmp_path / "a.hdf5")
    with h5py.File(source, "a") as file:
        demo = file["data/demo_7"]
        if value is None:
            for group in ("obs", "next_obs"):
                put(demo, f"{group}/image", np.zeros((4, 9, 8, 3), np.uint8))
        else:
            rows = demo[key][()].astype(float)
            rows[2] = value
            put(demo, key, rows)
    with pytest.raises(DataError, match=message) as caught:
        convert(source, tmp_path / target, fps=10)
    assert ".tmp" not in str(caught.value)


def test_dones_in_a_column_are_dones(tmp_path: Path) -> None:
    source = plain_file(tmp_path / "a.hdf5", next_obs=False)
    with h5py.File(source, "a") as file:
        for demo in file["data"].values():
            put(demo, "dones", np.array([[0], [0], [0], [1]]))
            demo.attrs["num_samples"] = np.array([4.0])
    convert(source, tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["data/demo_1/dones"][()].tolist() == [0, 0, 0, 1]


def test_types_of_other_machines_come_through_minari(tmp_path: Path) -> None:
    source = plain_file(tmp_path / "a.hdf5", next_obs=True)
    with h5py.File(source, "a") as file:
        for demo in file["data"].values():
            put(demo, "actions", np.zeros((4, 2), ">f8"))
            demo.attrs["weight"] = np.longdouble(2.5)
    convert(source, tmp_path / "b-v0")
    convert(tmp_path / "b-v0", tmp_path / "c.hdf5")
    with h5py.File(tmp_path / "c.hdf5") as file:
        assert json.loads(file["data/demo_0"].attrs["notes"]) == {"weight": 2.5}

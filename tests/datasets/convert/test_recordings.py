"""Data sets of others, laid out as theirs are: seen for what they are, and converted with nothing lost unsaid."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest

from pixelrl.datasets.convert.conversion import convert_dataset
from pixelrl.datasets.convert.dataset_stream import Budget, DroppedFields, FormatOptions
from pixelrl.datasets.convert.formats import FORMATS, guess_source
from pixelrl.datasets.convert.rules import REPEATED
from pixelrl.datasets.convert.zarr_store import ZarrArray, open_store
from pixelrl.datasets.hdf5.reader import FileContents, read_contents, read_demos
from pixelrl.launch.commands.convert import FormatName
from pixelrl.runtime.errors import DataError, PixelrlError
from tests import ROOT
from tests.datasets.convert.recordings import (
    STEPS,
    pictures,
    write_aloha,
    write_array,
    write_isaaclab,
    write_lerobot_old,
    write_libero,
    write_ogbench,
    write_replay_buffer,
)
from tests.spoil import put

ZERO = "0 is written (--reward and --dones say more)"


def convert(source: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any], FileContents]:
    """Convert to HDF5; return the report, what was not as it was, and what training would read."""
    target = source.parent / "out.hdf5"
    target.unlink(missing_ok=True)
    result = convert_dataset(source, target, guess_source(source), "hdf5", options=FormatOptions(**options))
    return result, {item["what"]: item["episodes"] for item in result["dropped"]}, read_contents(target)


def obs(contents: FileContents, demo: int, key: str) -> Any:
    with h5py.File(contents.path) as file:
        return np.concatenate([file[f"data/demo_{demo}/obs/{key}"], file[f"data/demo_{demo}/next_obs/{key}"][-1:]])


def test_the_command_offers_every_format() -> None:
    assert set(get_args(FormatName)) == set(FORMATS)


@pytest.mark.parametrize("convention", ["opengl", "opencv"])
def test_libero_comes_upright_and_keeps_its_reward(tmp_path: Path, convention: str) -> None:
    source = write_libero(tmp_path / "a.hdf5", convention)
    assert guess_source(source) == "libero"
    result, dropped, contents = convert(source, rename={"agentview_rgb": "agentview_image"})
    assert list(contents.pictures) == ["agentview_image", "eye_in_hand_rgb"] and contents.demos["demo_0"] == STEPS
    for index in range(2):
        frames = obs(contents, index, "agentview_image")
        np.testing.assert_array_equal(frames[:-1], pictures(index))
        np.testing.assert_array_equal(frames[-1], frames[-2])
    assert result["rewards"] == {"recorded": 2, "ruled": 2, "dropped": 0, "written": 2}
    assert dropped == {
        REPEATED: 2,
        "robot_states": 2,
        "attribute init_state": 2,
        "/data's bddl_file_name": "all",
        "/data's env_name": "all",
        "/data's num_demos": "all",
    }
    with h5py.File(contents.path) as file:
        assert '"turn on the stove"' in file["data/demo_1"].attrs["notes"]
        assert file["data/demo_1"].attrs["model_file"] == "<mujoco/>"


def test_libero_in_an_unknown_convention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="macros_image_convention is 'vulkan'; expected 'opengl' or 'opencv'"):
        convert(write_libero(tmp_path / "a.hdf5", "vulkan"))


def test_isaaclab_is_paid_by_success(tmp_path: Path) -> None:
    source = write_isaaclab(tmp_path / "a.hdf5")
    assert guess_source(source) == "isaaclab"
    result, dropped, contents = convert(source)
    assert contents.demos == {"demo_0": STEPS, "demo_1": STEPS - 1}  # the second is a time-out
    assert contents.pictures == {"table_cam": (24, 16, 3)} and contents.vectors == {"eef_pos": 3}
    np.testing.assert_array_equal(obs(contents, 1, "table_cam"), pictures(1))
    assert result["rewards"] == {"recorded": 1, "ruled": 1, "dropped": 0, "written": 1}
    assert dropped == {
        REPEATED: 1,
        "the last step, a time-out: the picture after it was not recorded": 1,
        "rewards and dones, which are not there: success pays the last step of a demo, and ends it": 2,
        "states, which are no array [N, D]": 2,
        "initial_state": 2,
        "processed_actions": 2,
        "obs/datagen_info/object_pose/cube_1": 2,
        "obs/datagen_info/subtask_term_signals/grasp_1": 2,
    }
    result, dropped, contents = convert(source, reward="last:2", last_step="repeat")
    assert result["rewards"]["written"] == 4 and contents.demos["demo_1"] == STEPS


@pytest.mark.parametrize("compress", [False, True])
def test_aloha_is_one_episode_a_file(tmp_path: Path, compress: bool) -> None:
    source = write_aloha(tmp_path / "a", compress=compress)
    assert guess_source(source) == guess_source(source / "episode_1.hdf5") == "aloha"
    result, dropped, contents = convert(source, reward="last:1")
    assert contents.demos == {"demo_0": STEPS, "demo_1": STEPS}
    assert contents.vectors == {"effort": 14, "qpos": 14, "qvel": 14}
    assert contents.env_args["env_kwargs"] == {"control_freq": 50}
    for index in range(2):
        came = obs(contents, index, "cam_high")[:-1].astype(int)
        assert np.abs(came - pictures(index)).max() <= (16 if compress else 0)
    assert result["rewards"] == {"recorded": 0, "ruled": 2, "dropped": 0, "written": 2}
    turned = {"colours: red and blue are swapped back, as act-plus-plus packs JPEG; --bgr if they come out wrong": 2}
    missing = {f"rewards and dones, which are not there: {ZERO}": "all"}
    assert dropped == {REPEATED: 2} | missing | (turned if compress else {})
    result, _, contents = convert(source / "episode_1.hdf5", keys=("cam_high", "qpos"))
    assert contents.demos == {"demo_0": STEPS - 1} and list(contents.vectors) == ["qpos"]


def test_aloha_with_a_gap_in_its_numbers_is_told(tmp_path: Path) -> None:
    """A file that was lost on the way used to be missed by nobody."""
    folder = write_aloha(tmp_path / "a", compress=True)
    _, whole, _ = convert(folder)
    assert not [what for what in whole if "the numbers of the episodes" in what]
    (folder / "episode_1.hdf5").rename(folder / "episode_2.hdf5")
    _, dropped, _ = convert(folder)
    assert [what for what in dropped if "do not count from 0 without a gap" in what]
    assert next(count for what, count in dropped.items() if "red and blue" in what) == 2  # episodes, not cameras


def test_groups_beside_the_pictures_of_aloha_are_told(tmp_path: Path) -> None:
    folder = write_aloha(tmp_path / "a")
    with h5py.File(folder / "episode_0.hdf5", "a") as file:
        file["observations/images_depth/cam_high"] = np.zeros((STEPS, 24, 16), np.uint16)
    _, dropped, contents = convert(folder)
    assert dropped["observations/images_depth, a group"] == 1 and "cam_high" in contents.pictures


def test_aloha_without_its_parts_is_refused(tmp_path: Path) -> None:
    folder = write_aloha(tmp_path / "a")
    with h5py.File(folder / "episode_1.hdf5", "a") as file:
        put(file, "observations/images/cam_high", np.zeros((STEPS + 2, 24, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"episode_1\.hdf5: /observations/images/cam_high: shape \(6, 24, 16, 3\)"):
        convert(folder)
    with h5py.File(folder / "episode_1.hdf5", "a") as file:
        del file["observations"]
    with pytest.raises(DataError, match=r"episode_1\.hdf5: no 'observations' in it"):
        convert(folder)


@pytest.mark.parametrize("video", [False, True])
def test_lerobot_of_version_2_is_read(tmp_path: Path, video: bool) -> None:
    pytest.importorskip("pyarrow")
    source = write_lerobot_old(tmp_path / "old", video=video)
    assert guess_source(source) == "lerobot"
    result, dropped, contents = convert(source, reward="last:1")
    assert contents.demos == {"demo_0": STEPS, "demo_1": STEPS} and result["rewards"]["written"] == 2
    assert (contents.pictures, contents.vectors) == ({"top": (24, 16, 3)}, {"state": 2})
    assert [dim.name for dim in contents.action] == ["x", "y"]
    assert contents.env_args["env_kwargs"] == {"control_freq": 10.0}
    for index in range(2):
        came = obs(contents, index, "top")[:-1].astype(int)
        assert np.abs(came - pictures(index)).mean() < (12 if video else 1e-9)
        assert obs(contents, index, "state")[0].tolist() == [0.5 * index, 1]
    assert dropped == {REPEATED: 2} | {
        f"{name}, which is not there: {ZERO}": "all" for name in ("next.reward", "next.done")
    }
    with h5py.File(contents.path) as file:
        assert '"fold the towel"' in file["data/demo_0"].attrs["notes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are empty"),
        ('{"episode_index": 1, "length": 4}', "do not count from 0"),
        ('{"episode_index": 0, "length": "4"}', "or are empty"),
        ("[" * 100_000, "not as LeRobot writes it"),
        ('{"length": 4}', "not as LeRobot writes it"),
        ('{"episode_index": 0, "length": 4}', "total_episodes is 2; expected 1, as many as are described"),
        (
            '{"episode_index": 0, "length": 9}\n{"episode_index": 1, "length": 4}',
            "4 of its rows in their place; expected 9",
        ),
    ],
)
def test_lerobot_of_version_2_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    pytest.importorskip("pyarrow")
    source = write_lerobot_old(tmp_path / "old")
    (source / "meta/episodes.jsonl").write_text(text)
    with pytest.raises(DataError) as caught:
        convert(source)
    assert message in str(caught.value) and str(source) in str(caught.value)


def test_ogbench_has_a_frame_after_each_step(tmp_path: Path) -> None:
    source = write_ogbench(tmp_path / "visual-cube-single-play-v0.npz")
    assert guess_source(source) == "ogbench"
    result, dropped, contents = convert(source)
    assert contents.demos == {"demo_0": STEPS, "demo_1": STEPS} and contents.pictures == {"pixels": (24, 16, 3)}
    assert contents.env_args["env_name"] == "visual-cube-single-v0"
    for index in range(2):
        np.testing.assert_array_equal(obs(contents, index, "pixels"), pictures(index, STEPS + 1))
    with h5py.File(contents.path) as file:
        assert file["data/demo_1/actions"][:, 0].tolist() == [5 / 16, 6 / 16, 7 / 16, 8 / 16]
    missing = "rewards, which are not there: 0 is written (--reward says more)"
    assert dropped == {"qpos": "all", "qvel": "all", missing: "all"}
    paid = np.array([0, 0, 0, 1, 0, -1, -1, -1, 0, 0], np.float32)
    result, _, _ = convert(write_ogbench(source, rewards=paid))
    assert result["rewards"] == {"recorded": -2, "ruled": -2, "dropped": 0, "written": -2}


@pytest.mark.parametrize("told", [True, False])
def test_ogbench_tells_where_values_end(tmp_path: Path, told: bool) -> None:
    rewards = np.array([-1, -1, 0, -1, -1, -1, 0, 0, -1, -1], np.float32)
    more = {"rewards": rewards} | ({"masks": (rewards < 0).astype(np.float32)} if told else {})
    _, dropped, contents = convert(write_ogbench(tmp_path / "visual-cube-single-singletask-v0.npz", **more))
    assert [demo.dones.tolist() for demo in read_demos(contents)] == [[0, 0, 1, 0], [0, 1, 1, 0]]
    assert any(name.startswith("masks, which are not there") for name in dropped) is not told


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"observations": np.zeros((10, 28), np.float32)}, "expected pictures, uint8 (T, H, W, C): a visual task"),
        ({"terminals": np.zeros(10, bool)}, "terminals mark 0 ends"),
        ({"terminals": np.ones(10, bool)}, "two rows or more each"),
        ({"actions": np.zeros((9, 5), np.float32)}, "actions has shape (9, 5) beside 10 terminals"),
        ({"actions": np.zeros((10, 5), np.int64)}, "expected floats (T, A)"),
        ({"next_observations": np.zeros(3)}, "each row is a step; expected OGBench's layout"),
        ({"actions": np.array([None] * 10)}, "actions: object (10,); expected numbers"),
        ({"terminals": np.where(np.eye(10)[9], np.nan, 0)}, "a.npz: terminals[9] is nan; expected 0 or 1"),
        ({"terminals": np.eye(10)[9] * 0.1}, "a.npz: terminals[9] is 0.1; expected 0 or 1"),
        ({"terminals": -np.eye(10)[9]}, "a.npz: terminals[9] is -1.0; expected 0 or 1"),
    ],
)
def test_ogbench_that_does_not_fit_is_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        convert(write_ogbench(tmp_path / "a.npz", **more))
    assert message in str(caught.value)


def test_ogbench_that_promises_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    """An array of 2 ** 40 rows is a header of 128 bytes."""
    source = write_ogbench(tmp_path / "a.npz")
    for rows, message in ((2**40, "unpacks to more than 1100 times its size"), (11, "cut off; its header promises 11")):
        held = {
            name.removesuffix(".npy"): zipfile.ZipFile(source).read(name) for name in zipfile.ZipFile(source).namelist()
        }
        held["terminals"] = held["terminals"].replace(b"(10,)", b"(%d,)" % rows)[: None if rows == 11 else 140]
        for name in ("observations", "actions"):
            held[name] = held[name].replace(b"(10, ", b"(%d, " % rows)
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
            for name, data in held.items():
                file.writestr(f"{name}.npy", data)
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "b.npz")


def test_a_replay_buffer_of_diffusion_policy_is_read(tmp_path: Path) -> None:
    source = write_replay_buffer(tmp_path / "pusht.zarr")
    assert guess_source(source) == "zarr"
    result, dropped, contents = convert(source, reward="last:1")
    assert contents.demos == {"demo_0": STEPS, "demo_1": STEPS} and result["rewards"]["written"] == 2
    assert (contents.pictures, contents.vectors) == ({"img": (24, 16, 3)}, {"state": 3})
    for index in range(2):
        np.testing.assert_array_equal(obs(contents, index, "img")[:-1], pictures(index))
        assert obs(contents, index, "state")[0].tolist() == [12 * index, 12 * index + 1, 12 * index + 2]
    assert dropped == {REPEATED: 2, f"rewards and dones, which are not there: {ZERO}": "all"}


def test_a_replay_buffer_of_umi_has_the_next_poses_as_actions(tmp_path: Path) -> None:
    source = write_replay_buffer(tmp_path / "umi", umi=True)
    assert source.name == "umi.zarr.zip" and guess_source(source) == "zarr"
    _, dropped, contents = convert(source)
    assert contents.demos == {"demo_0": STEPS - 1, "demo_1": STEPS - 1} and len(contents.action) == 7
    np.testing.assert_array_equal(obs(contents, 1, "camera0_rgb"), pictures(1))
    with h5py.File(contents.path) as file:
        actions, places = (file[f"data/demo_1/{key}"][()] for key in ("actions", "next_obs/robot0_eef_pos"))
    np.testing.assert_array_equal(actions[:, :3], places)
    future = "data/robot0_demo_end_pose, which tells the end of an episode from its beginning"
    assert dropped == {future: 2, f"rewards and dones, which are not there: {ZERO}": "all"}


JPEGXL = "packed with the codec 'imagecodecs_jpegxl', which needs imagecodecs and numcodecs"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ({"id": "pickle"}, "packed with the codec 'pickle'; expected one of blosc, zlib"),
        ({"id": "imagecodecs_jpegxl"}, JPEGXL),
        (
            {"id": "zlib", "level": 1},
            "packed with the codec 'zlib', which needs numcodecs: pip install 'pixelrl[zarr]'",
        ),
    ],
)
def test_a_codec_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(PixelrlError) as caught:
        convert(write_replay_buffer(tmp_path / "a.zarr", codec=codec))
    assert message in str(caught.value)


def test_packed_chunks_are_unpacked(tmp_path: Path) -> None:
    pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    _, _, contents = convert(write_replay_buffer(tmp_path / "a.zarr", codec={"id": "zlib", "level": 1}))
    np.testing.assert_array_equal(obs(contents, 1, "img")[:-1], pictures(1)[:-1])


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("meta/episode_ends", {"shape": [1]}, ""),
        ("meta/episode_ends", {"dtype": "<f8"}, "expected numbers that grow"),
        ("data/action", {"shape": [7, 2]}, "data/action has 7 rows; meta/episode_ends promises 8"),
        ("data/action", {"zarr_format": 3}, "not format 2"),
        ("data/action", {"filters": [{"id": "pickle"}]}, "without filters"),
        ("data/action", {"dtype": "|O"}, "type |O"),
        ("data/action", {"shape": [2**50, 2]}, ""),
        ("data/action", {"chunks": [2**50, 2]}, "unpacks to more than 1100 times"),
        ("data/img", {"chunks": [3, 24, 15, 3]}, "bytes; expected"),
        ("data/img", {"shape": [8, 2**20, 2**20, 3]}, "unpacks to more than 1100 times"),
        ("data/img", {"shape": [-8, 24, 16, 3]}, "not format 2"),
    ],
)
def test_a_replay_buffer_that_does_not_fit_is_refused(
    tmp_path: Path, place: str, change: dict[str, Any], message: str
) -> None:
    source = write_replay_buffer(tmp_path / "a.zarr")
    about = source / place / ".zarray"
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    if message:
        with pytest.raises(DataError) as caught:
            convert(source)
        assert message in str(caught.value) and str(source) in str(caught.value)
    else:
        convert(source)  # what is promised beyond the ends of the episodes is not read


@pytest.mark.parametrize(
    ("chunk", "fill"),
    [("data/action/1.0", 0), ("data/img/2.0.0.0", 0), ("data/state/1.0", None), ("meta/episode_ends/0", 0)],
)
def test_a_chunk_that_was_not_copied_is_named(tmp_path: Path, chunk: str, fill: int | None) -> None:
    source = write_replay_buffer(tmp_path / "a.zarr")
    about = (source / chunk).parent / ".zarray"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"fill_value": fill}))
    (source / chunk).unlink()
    name, number = chunk.rsplit("/", 1)
    with pytest.raises(DataError) as caught:
        convert(source)
    why = f"{name}: chunk {number} is missing; expected all of its chunks (an interrupted copy?)"
    assert str(caught.value) == f"{source}: {why}"


def test_chunks_that_stand_for_zeros_are_told(tmp_path: Path) -> None:
    source, dropped = write_replay_buffer(tmp_path / "a.zarr"), DroppedFields()
    (source / "data/state/1.0").unlink()
    with open_store(source) as store:
        values = ZarrArray(store, "data/state", Budget(source, 1100), dropped).rows(0, 2 * STEPS)
    assert not values[3:6].any() and values[6:].all()
    what = "1 of 3 chunks not in the store, which stand for rows of 0.0"
    assert dropped == {f"data/state: {what}: check that the copy was whole": 0}


def test_rows_beyond_the_last_episode_are_told(tmp_path: Path) -> None:
    source = write_replay_buffer(tmp_path / "a.zarr")
    shutil.rmtree(source / "meta/episode_ends")
    write_array(source / "meta", "episode_ends", np.array([2, 5]), 2)
    result, dropped, _ = convert(source)
    assert result["episodes"] == 2 and "the last 3 rows, which lie beyond meta/episode_ends" in dropped


def test_an_own_format_is_a_reader_as_the_docs_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)
    (tmp_path / "recordings").mkdir()
    rewards = np.eye(STEPS)[-1]
    held = {"frames": pictures(0), "joints": np.zeros((STEPS, 6)), "actions": np.zeros((STEPS, 6)), "rewards": rewards}
    np.savez(tmp_path / "recordings/a.npz", **held)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pixelrl.datasets.convert.formats.FORMATS", formats := dict(FORMATS))
    monkeypatch.setattr("pixelrl.datasets.convert.conversion.FORMATS", formats)
    exec(code, {})
    assert read_contents(tmp_path / "mine.hdf5").demos == {"demo_0": STEPS}


def test_an_array_of_zarr_may_lie_elsewhere(tmp_path: Path) -> None:
    source = write_replay_buffer(tmp_path / "a.zarr")
    (tmp_path / "disk").mkdir()
    (source / "data/img").rename(tmp_path / "disk/img")
    (source / "data/img").symlink_to("../../disk/img")
    (source / "data/back").symlink_to("..")  # leads up, and nowhere
    *_, contents = convert(source, last_step="repeat")
    assert "img" in contents.pictures


def test_isaaclab_is_known_by_any_demo(tmp_path: Path) -> None:
    source = write_isaaclab(tmp_path / "a.hdf5")
    with h5py.File(source, "a") as file:
        file.move("data/demo_0", "data/demo_2")
        file.create_group("data/demo_0").attrs["num_samples"] = 0
    assert guess_source(source) == "isaaclab"
    with pytest.raises(DataError, match=r"/data/demo_0: no pictures, .*; --leave-out demo_0 leaves it out"):
        convert(source)
    assert convert(source, leave_out=("demo_0",))[0]["rewards"]["written"] == 1

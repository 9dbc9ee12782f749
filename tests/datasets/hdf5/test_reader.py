"""robomimic's HDF5: what is written comes back, robomimic reads it too, and broken files are named."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.datasets.inspect.file_structure import read_structure
from pixelrl.datasets.inspect.structure_checks import check_members
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError
from tests.dots import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes, write_dots, write_plainly
from tests.spoil import put

EPISODES = [*dot_episodes("task", 3)]


@pytest.mark.parametrize("compress", [False, True])
def test_what_is_written_comes_back(tmp_path: Path, compress: bool) -> None:
    path = write_dots(tmp_path / "a.hdf5", "task", 12, compress=compress)  # demo_10 sorts before demo_2 as text
    contents = read_contents(path)
    assert (contents.pictures, contents.vectors) == ({CAMERA: (24, 24, 3)}, {POSITION: 2})
    assert (contents.action, contents.env_args) == (ACTION, ENV_ARGS)
    for episode, demo in zip(dot_episodes("task", 12), read_demos(contents), strict=True):
        assert contents.demos[demo.name] == len(episode)
        assert demo.notes == episode.notes
        for name in ("actions", "rewards", "dones"):
            np.testing.assert_array_equal(getattr(demo, name), getattr(episode, name))
        for key, frames in episode.sensors.items():
            np.testing.assert_array_equal(demo.sensors[key], frames)
    with h5py.File(path) as file:
        chunks = file[f"data/demo_0/frames/{CAMERA}"].chunks
        assert chunks == ((1, 24, 24, 3) if compress else None)


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_dots(tmp_path / name, "prior", 20, compress=True).read_bytes() for name in ("a.h5", "b.h5"))
    assert first == second
    assert len(first) < write_dots(tmp_path / "c.h5", "prior", 20).stat().st_size / 2


def test_no_virtual_dataset_carries_the_clock(tmp_path: Path) -> None:
    with h5py.File(write_dots(tmp_path / "a.h5", "task", 1)) as file:
        assert h5py.h5g.get_objinfo(file[f"data/demo_0/next_obs/{CAMERA}"].id).mtime == 0


def test_episodes_must_agree_about_their_length(tmp_path: Path) -> None:
    episode = next(dot_episodes("task", 1))
    broken = replace(episode, rewards=episode.rewards[:-1])
    with pytest.raises(DataError, match=r"demo_0: rewards has 11 rows beside 12 actions; expected 12"):
        write_episodes(tmp_path / "a.h5", [broken], env_args=ENV_ARGS, action_dims=ACTION)


@pytest.mark.parametrize("cache", ["all", "low_dim", None])
def test_robomimic_reads_ours(tmp_path: Path, cache: str | None) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    path, attributes = tmp_path / "a.hdf5", {"model_file": "<mujoco/>", "ep_meta": "{}"}
    episodes = [replace(episode, attributes=attributes) for episode in dot_episodes("task", 4)]
    write_episodes(path, episodes, env_args=ENV_ARGS, action_dims=ACTION)
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": [POSITION], "rgb": [CAMERA]}})
    theirs = SequenceDataset(
        str(path), (CAMERA, POSITION), ("actions", "rewards", "dones"), hdf5_cache_mode=cache, load_next_obs=True
    )
    steps = [(episode, step) for episode in dot_episodes("task", 4) for step in range(len(episode))]
    assert len(theirs) == len(steps)
    for index, (episode, step) in enumerate(steps):
        item = theirs[index]
        np.testing.assert_array_equal(item["actions"][0], episode.actions[step])
        np.testing.assert_array_equal(item["rewards"][0], episode.rewards[step])
        np.testing.assert_array_equal(item["dones"][0], episode.dones[step])
        for key in (CAMERA, POSITION):
            np.testing.assert_array_equal(item["obs"][key][0], episode.sensors[key][step])
            np.testing.assert_array_equal(item["next_obs"][key][0], episode.sensors[key][step + 1])


def test_files_of_robomimic(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "plain.hdf5", EPISODES)
    for episode, demo in zip(EPISODES, read_demos(read_contents(path)), strict=True):
        np.testing.assert_array_equal(demo.sensors[CAMERA], episode.sensors[CAMERA])
        np.testing.assert_array_equal(demo.actions, episode.actions)
    assert read_contents(path).action == (ActionDim(name="action_0"), ActionDim(name="action_1"))


def test_without_next_obs_the_last_frame_is_repeated_and_said_to_be_missing(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "old.hdf5", EPISODES, next_obs=False)
    for episode, demo in zip(EPISODES, read_demos(read_contents(path)), strict=True):
        for key in (CAMERA, POSITION):
            np.testing.assert_array_equal(demo.sensors[key][:-1], episode.sensors[key][:-1])
            np.testing.assert_array_equal(demo.sensors[key][-1], episode.sensors[key][-2])
        np.testing.assert_array_equal(demo.actions, episode.actions)
        assert np.flatnonzero(demo.next_missing).tolist() == [len(episode) - 1]


def test_next_obs_without_pictures_leaves_the_last_frame_missing(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(path, "a") as file:
        del file[f"data/demo_0/next_obs/{CAMERA}"]
    first, second, *_ = read_demos(read_contents(path))
    assert (first.next_missing[-1], second.next_missing[-1]) == (True, False)


def flat(
    path: Path, *, next_obs: bool = True, vectors: bool = True, dones: bool = True, timeouts: bool = False
) -> list[int]:
    """Write four episodes into one demo, as a replay buffer is saved, and return their last rows."""
    episodes = list(dot_episodes("task", 4))
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        for key in ("actions", "rewards"):
            demo[key] = np.concatenate([getattr(episode, key) for episode in episodes])
        ends = np.concatenate([np.arange(len(episode)) == len(episode) - 1 for episode in episodes])
        demo["dones"] = ends & dones
        if timeouts:
            demo["timeouts"] = ends
        for key in (CAMERA, POSITION) if vectors else (CAMERA,):
            demo[f"obs/{key}"] = np.concatenate([episode.sensors[key][:-1] for episode in episodes])
            if next_obs:
                demo[f"next_obs/{key}"] = np.concatenate([episode.sensors[key][1:] for episode in episodes])
    return np.flatnonzero(ends).tolist()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"vectors": False},
        {"vectors": False, "dones": False},
        {"next_obs": False},
        {"next_obs": False, "dones": False, "timeouts": True},
        {"dones": False, "timeouts": True},
    ],
    ids=str,
)
def test_several_episodes_in_one_demo_are_told_apart(tmp_path: Path, how: dict[str, bool]) -> None:
    ends = flat(tmp_path / "a.h5", **how)
    (demo,) = read_demos(read_contents(tmp_path / "a.h5"))
    assert np.flatnonzero(demo.next_missing).tolist() == (ends[:-1] if how.get("next_obs", True) else ends)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("actions", "/data/demo_0/actions: of its 12 chunks 8 were never written"),
        ("rewards", "/data/demo_0/rewards: of its 12 chunks 8 were never written"),
        (f"obs/{CAMERA}", f"/data/demo_0/obs/{CAMERA}: of its 12 chunks 8 were never written"),
    ],
)
def test_arrays_that_were_written_in_part_are_named(tmp_path: Path, place: str, message: str) -> None:
    write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        demo = file["data/demo_0"]
        values = demo[place][()]
        del demo[place]
        held = demo.create_dataset(place, shape=values.shape, dtype=values.dtype, chunks=(1, *values.shape[1:]))
        held[:4] = values[:4]
    with pytest.raises(DataError, match=message):
        read_contents(tmp_path / "a.hdf5")


def test_views_that_cover_an_array_in_part_are_named(tmp_path: Path) -> None:
    write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        demo = file["data/demo_0"]
        demo.move("actions", "held")
        layout = h5py.VirtualLayout(demo["held"].shape, demo["held"].dtype)
        layout[:4] = h5py.VirtualSource(".", "/data/demo_0/held", demo["held"].shape)[:4]
        demo.create_virtual_dataset("actions", layout)
    with pytest.raises(DataError, match="actions: of its 24 numbers 16 were never written"):
        read_contents(tmp_path / "a.hdf5")


@pytest.mark.parametrize("shape", [(1,), (11,), (12, 1)])
def test_timeouts_of_another_length_are_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0"]["timeouts"] = np.ones(shape, bool)
    with pytest.raises(DataError, match=r"/data/demo_0/timeouts: shape .*; expected \(12,\)"):
        list(read_demos(read_contents(tmp_path / "a.hdf5")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"env_name": "a\\ud800"}', "'env_args' is not JSON .*surrogates"),
        ('{"a":' * 200 + "1" + "}" * 200, "'env_args' is not JSON .nested deeper than 100 levels"),
    ],
)
def test_attributes_that_could_not_be_written_again_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data"].attrs["env_args"] = text
    with pytest.raises(DataError, match=message):
        read_contents(tmp_path / "a.hdf5")


def test_mask_without_a_demo_and_a_count_written_as_text(tmp_path: Path) -> None:
    write_plainly(tmp_path / "a.hdf5", EPISODES)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["mask/train"] = np.array([], "S6")
        file["data/demo_0"].attrs["num_samples"] = "12"  # as LIBERO has it
    assert len(read_contents(tmp_path / "a.hdf5").demos) == 3
    with pytest.raises(DataError, match="/mask/train: names no demo; expected one or more"):
        read_contents(tmp_path / "a.hdf5", mask="train")


def test_next_obs_that_is_off_by_one_is_refused(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        demo[f"next_obs/{POSITION}"][...] = demo[f"obs/{POSITION}"][()]
    with pytest.raises(
        DataError, match=r"/data/demo_1/next_obs/robot0_eef_pos: not what obs holds one row later, at \d+ of \d+ rows"
    ):
        list(read_demos(read_contents(path)))


def sensing(more: Mapping[str, np.ndarray]) -> list[Episode]:
    """Return the episodes with more sensors, each of which has one row at all instants."""
    rows = [{key: np.repeat(row[None], len(each) + 1, 0) for key, row in more.items()} for each in EPISODES]
    return [replace(each, sensors={**each.sensors, **new}) for each, new in zip(EPISODES, rows, strict=True)]


def test_what_is_not_learned_from_is_named_with_the_reason(tmp_path: Path) -> None:
    odd = {
        "wrist_gray": np.zeros((8, 8), np.uint8),
        "width": np.zeros((), np.float32),
        "state": np.zeros(1, np.int64),
        "object": np.zeros(3, np.float32),
        "jpeg": np.array(b"\xff\xd8"),
    }
    path = write_plainly(tmp_path / "a.h5", sensing(odd))
    contents = read_contents(path)
    assert set(contents.ignored) == set(odd)
    assert "uint8 [8, 8] a row; a picture is uint8 [H, W, C]" in contents.ignored["wrist_gray"]
    assert "no array of numbers" in contents.ignored["jpeg"] and "simulator knows" in contents.ignored["object"]
    assert read_contents(path, proprio=()).ignored[POSITION] == "not asked for"


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("agentview_depth", np.zeros((8, 8, 1), np.float32)),
        ("table_cam_depth_image", np.zeros((8, 8), np.float32)),
        ("depth_agentview", np.zeros((8, 8, 1), np.uint16)),
        ("table_cam_distance_to_image_plane", np.zeros((8, 8, 1), np.float32)),
        ("agentview_segmentation_instance", np.zeros((8, 8, 1), np.int32)),
        ("agentview_segmentation", np.zeros((8, 8, 1), np.uint8)),
    ],
)
def test_depth_and_labels_of_pixels_are_not_taken_for_pictures(tmp_path: Path, key: str, row: np.ndarray) -> None:
    contents = read_contents(write_plainly(tmp_path / "a.h5", sensing({key: row})))
    assert list(contents.pictures) == [CAMERA] and contents.ignored[key] == "depth or labels of pixels"


def test_a_clock_is_noticed(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(path, "a") as file:
        for index, episode in enumerate(EPISODES):
            file[f"data/demo_{index}/obs/time"] = 1.75e9 + 0.05 * np.arange(len(episode))[:, np.newaxis]
    assert {demo.clocks for demo in read_demos(read_contents(path)) if len(demo.actions) > 4} == {("time",)}


def test_a_mask_selects_demos(tmp_path: Path) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 12)
    with h5py.File(path, "a") as file:
        file["mask/valid"] = np.array([b"demo_11", b"demo_2"])
    assert list(read_contents(path, mask="valid").demos) == ["demo_2", "demo_11"]
    with pytest.raises(DataError, match=r"/mask: no 'train' in it; it holds valid"):
        read_contents(path, mask="train")


def test_privileged_state_is_only_read_on_request(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.h5", sensing({"object": np.zeros(10)}))
    assert list(read_contents(path).vectors) == [POSITION]
    assert read_contents(path, proprio=("object", POSITION)).vectors == {"object": 10, POSITION: 2}
    assert read_contents(path, proprio=()).vectors == {}


@pytest.mark.parametrize("nested", [False, True])
def test_the_controller_says_what_actions_mean(tmp_path: Path, nested: bool) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 1)
    arm = {"type": "OSC_POSITION", "output_max": [0.05, 0.05, 0.1], "output_min": [-0.05, -0.05, -0.1]}
    controller = {"type": "BASIC", "body_parts": {"right": arm}} if nested else arm
    with h5py.File(path, "a") as file:
        del file["data"].attrs["action_dims"], file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros((12, 4))
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"controller_configs": controller}})
    *_, z, gripper = read_contents(path).action
    assert z == ActionDim(name="dz", low=-0.1, high=0.1, unit="m")
    assert gripper == ActionDim(name="gripper")


DEMO = "data/demo_1"


def corrupt(file: h5py.File, what: str) -> None:
    """Break one thing."""
    demo = file[DEMO]
    steps = len(demo["actions"])
    breaks: dict[str, Callable[[], object]] = {
        "no data": lambda: file.move("data", "episodes"),
        "no demos": lambda: [file["data"].pop(name) for name in list(file["data"])],
        "no rewards": lambda: demo.pop("rewards"),
        "wrong count": lambda: demo.attrs.modify("num_samples", 99),
        "short rewards": lambda: put(file, f"{DEMO}/rewards", np.zeros(steps - 1)),
        "short obs": lambda: put(file, f"{DEMO}/obs/{CAMERA}", demo[f"obs/{CAMERA}"][1:]),
        "integer actions": lambda: put(file, f"{DEMO}/actions", np.zeros((steps, 2), int)),
        "other actions": lambda: put(file, f"{DEMO}/actions", np.zeros((steps, 3))),
        "float pictures": lambda: put(file, f"{DEMO}/obs/{CAMERA}", demo[f"obs/{CAMERA}"][()] / 255.0),
        "channels first": lambda: put(file, f"{DEMO}/obs/{CAMERA}", np.zeros((steps, 3, 24, 24), np.uint8)),
        "other size": lambda: put(file, f"{DEMO}/next_obs/{CAMERA}", np.zeros((steps, 32, 32, 3), np.uint8)),
        "missing key": lambda: demo["obs"].pop(CAMERA),
        "states only": lambda: [file[f"data/{name}"].pop("obs") for name in file["data"]],
        "not a number": lambda: put(file, f"{DEMO}/obs/{POSITION}", np.full((steps, 2), np.nan, np.float32)),
        "link outwards": lambda: put(file, f"{DEMO}/obs/{CAMERA}", h5py.ExternalLink("other.h5", "/frames")),
        "bad env_args": lambda: file["data"].attrs.create("env_args", "{Lift}"),
    }
    breaks[what]()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no data", r"a\.h5: no 'data' in it; it holds episodes"),
        ("no demos", r"/data: no demos; expected groups demo_0, demo_1"),
        ("no rewards", r"/data/demo_1: no 'rewards' in it; .* or a rule, say --task-reward last:1"),
        ("wrong count", r"/data/demo_1: num_samples is '99' beside \d actions"),
        ("short rewards", r"/data/demo_1/rewards: shape \(\d,\); expected \(\d,\)"),
        ("short obs", r"/data/demo_1/obs/agentview_image: shape .* expected"),
        ("integer actions", r"/data/demo_1/actions: type int64; expected floats"),
        ("other actions", r"/data/demo_1/actions: shape \(\d, 3\); expected \(\d, 2\)"),
        ("float pictures", r"/data/demo_1/obs/agentview_image: float64 .* expected uint8 \(N, H, W, C\)"),
        ("channels first", r"demo_1/obs/agentview_image: uint8 .* \(channels come first: transpose\); expected"),
        ("other size", r"/data/demo_1/next_obs/agentview_image: shape \(\d, 32, 32, 3\); expected \(\d, 24, 24, 3\)"),
        ("missing key", r"/data/demo_1/obs: no 'agentview_image', which the first demo has; .*--images"),
        ("states only", r"/data/demo_0: no pictures, it holds states only; expected uint8 .*`pixelrl render`"),
        ("not a number", r"/data/demo_1/obs/robot0_eef_pos\[0, 0\] is nan; expected finite numbers"),
        ("link outwards", r"/data/demo_1/obs/agentview_image: a link; expected the data themselves"),
        ("bad env_args", r"/data: attribute 'env_args' is not JSON .*'\{Lift\}'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, what: str, message: str) -> None:
    path = write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(path, "a") as file:
        corrupt(file, what)
    with pytest.raises(DataError, match=message) as error:
        list(read_demos(read_contents(path)))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_are_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.hdf5"
    text.write_text("not HDF5")
    with pytest.raises(DataError, match=r"notes\.hdf5: not an HDF5 file"):
        read_contents(text)
    other = text.rename(tmp_path / "robot.mcap")
    with pytest.raises(DataError, match=r"robot\.mcap: not an HDF5 file.*`pixelrl convert` reads some other formats"):
        read_contents(other)
    with pytest.raises(DataError, match=r"gone\.hdf5: no such file"):
        read_contents(tmp_path / "gone.hdf5")
    with pytest.raises(DataError, match=r"no 'wrist' among its pictures: agentview_image"):
        read_contents(write_dots(tmp_path / "a.h5", "task", 1), images=("wrist",))


@pytest.mark.parametrize(
    "way", ["another file", "external storage", "external link", "another virtual dataset", "nothing"]
)
def test_virtual_datasets_that_lead_out_of_the_file_are_refused(tmp_path: Path, way: str) -> None:
    path = write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(path, "a") as file:
        frames = file[f"{DEMO}/obs/{CAMERA}"]
        shape, dtype = frames.shape, frames.dtype
        if way == "external storage":
            file.create_dataset("door", shape, dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])
        elif way == "external link":
            file["door"] = h5py.ExternalLink("other.h5", "/frames")
        elif way == "another virtual dataset":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource("other.h5", "/frames", shape, dtype)
            file.create_virtual_dataset("door", layout)
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource("other.h5" if way == "another file" else ".", "/door", shape, dtype)
        del file[f"{DEMO}/obs/{CAMERA}"]
        file[f"{DEMO}/obs"].create_virtual_dataset(CAMERA, layout)
    with pytest.raises(DataError, match=r"lie in other files|a link|no 'door' in it"):
        read_contents(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("env_args", "[1]"), ("env_args", "null"), ("action_dims", "3"), ("action_dims", '[{"nom": "x"}, {"nom": "y"}]')],
)
def test_attributes_that_say_something_else_are_named(tmp_path: Path, name: str, value: str) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 1)
    with h5py.File(path, "a") as file:
        file["data"].attrs[name] = value
    with pytest.raises(DataError, match=rf"a\.h5: /data.*{name}"):
        read_contents(path)


def test_a_sentence_among_the_observations_is_passed_over(tmp_path: Path) -> None:
    path = write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(path, "a") as file:
        file[f"{DEMO}/obs/language"] = np.array([b"pick it up"])
    assert CAMERA in read_contents(path).pictures


def test_absolute_commands_are_not_taken_for_differences(tmp_path: Path) -> None:
    controller = {"type": "OSC_POSITION", "output_min": [-0.05] * 3, "output_max": [0.05] * 3}
    for extra, expected in (
        ({}, "dx"),
        ({"control_delta": False}, "action_0"),
        ({"input_type": "absolute"}, "action_0"),
    ):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        write_dots(path, "task", 1)
        with h5py.File(path, "a") as file:
            data, wide = file["data"], np.zeros((len(file["data/demo_0/actions"]), 4), np.float32)
            del data.attrs["action_dims"], file["data/demo_0/actions"]
            file["data/demo_0/actions"] = wide
            data.attrs["env_args"] = json.dumps({"env_kwargs": {"controller_configs": controller | extra}})
        assert read_contents(path).action[0].name == expected


def test_the_vector_that_next_obs_tells_otherwise_is_named(tmp_path: Path) -> None:
    """Random features, computed twice, look as if everything was recorded off by one."""
    write_plainly(tmp_path / "a.h5", EPISODES)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        demo, random = file["data/demo_0"], np.random.default_rng(0)
        for group in ("obs", "next_obs"):
            demo[f"{group}/latent"] = random.normal(size=(len(demo["actions"]), 4))
    contents = read_contents(tmp_path / "a.h5", proprio=())
    with pytest.raises(DataError, match=r"/data/demo_0/next_obs/latent: not what obs holds one row later"):
        list(read_demos(contents, ["demo_0"]))


def test_a_last_picture_that_was_not_recorded_is_missing_also_where_vectors_go_on(tmp_path: Path) -> None:
    (episode,) = dot_episodes("task", 1)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["rewards"] = episode.actions, episode.rewards
        demo["dones"] = np.zeros(len(episode), int)
        for key, frames in episode.sensors.items():
            demo[f"obs/{key}"] = frames[:-1]
        demo[f"next_obs/{POSITION}"] = episode.sensors[POSITION][1:]
    contents = read_contents(tmp_path / "a.hdf5")
    for pictures in (True, False):
        (demo,) = read_demos(contents, pictures=pictures)
        assert np.flatnonzero(demo.next_missing).tolist() == [len(episode) - 1]
    assert [each.where for each in check_members(read_structure(tmp_path / "a.hdf5"))] == [f"next_obs/{CAMERA}", "."]

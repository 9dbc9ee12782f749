"""`pixelrl render`: raw files become pixel data sets, by any writer, and interrupted any number of times."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import parts_folder
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.datasets.hdf5.writer import EpisodeWriter, write_episodes
from pixelrl.launch.commands.render import Render
from pixelrl.runtime.errors import DataError, PixelrlError, SimulationError
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.playback.raw_hdf5 import read_raw_episode, read_raw_file
from pixelrl.simulation.tasks.scripted.collect import record_episode
from tests.spoil import put as put_instead

ARGS = default_env_args("pick-place-tray", size=32)
SEEDS = (3, 4, 5)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ours: with pictures and rewards, and without scenes, which the tray's episodes share."""
    path = tmp_path_factory.mktemp("ours") / "ours.hdf5"
    env = make_robosuite_env(ARGS)
    try:
        episodes = [record_episode(env, "task", seed) for seed in SEEDS]
        write_episodes(path, episodes, env_args=ARGS, action_dims=env.action_dims)
        with h5py.File(path, "a") as file:
            file["mask/train"] = np.array([b"demo_2", b"demo_0"])
            file["data/demo_0"].attrs["scene_for_test"] = env.robosuite.sim.model.get_xml()
    finally:
        env.close()
    return path


@pytest.fixture
def raw(ours: Path, tmp_path: Path) -> Path:
    """The same as robosuite's own script leaves it."""
    path = tmp_path / "demo.hdf5"
    with h5py.File(ours) as source, h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env"] = "PickPlaceTray"
        data.attrs["repository_version"] = "1.5.2"
        data.attrs["env_info"] = json.dumps({"env_name": "PickPlaceTray", "robots": ["Panda"], "control_freq": 5})
        for index in range(2):
            demo = data.create_group(f"demo_{index + 1}")
            demo.attrs["model_file"] = source["data/demo_0"].attrs["scene_for_test"]
            for key in ("states", "actions"):
                demo[key] = source[f"data/demo_{index}/{key}"][()]
    return path


def run(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    Render(raw=source, out=out, **{"cameras": ("agentview",), "size": (32, 32), "workers": 1} | options)()
    return told(out)


def told(rendered: Path) -> dict[str, Any]:
    """Return what stands beside a rendered file."""
    result: dict[str, Any] = json.loads(rendered.with_suffix(".render.json").read_text())
    return result


@pytest.fixture(scope="module")
def again(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That file, rendered anew by two workers."""
    path = tmp_path_factory.mktemp("again") / "again.hdf5"
    run(ours, path, workers=2)
    return path


def test_file_of_ours_is_rendered_as_it_was(ours: Path, again: Path) -> None:
    result = told(again)
    with h5py.File(ours) as before, h5py.File(again) as after:
        assert sorted(after["mask/train"][()]) == [b"demo_0", b"demo_2"]
        assert dict(json.loads(after["data"].attrs["env_args"])["env_kwargs"])["control_freq"] == 5
        for demo in before["data"]:
            for key in ("actions", "rewards", "dones", "states", "frames/agentview_image", "frames/robot0_eef_pos"):
                np.testing.assert_array_equal(before[f"data/{demo}/{key}"], after[f"data/{demo}/{key}"], key)
    assert result["replay"] == {
        "instants": result["transitions"] - len(SEEDS),
        "exact": 3,
        "far": [],
        "qpos_max": 0.0,
        "qpos_mean": 0.0,
        "eef_max": 0.0,
        "eef_mean": 0.0,
    }
    assert {"command", "version", "machine"} <= set(result)


def test_interrupted_rendering_goes_on_to_the_same_file(
    ours: Path, again: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed, expected = tmp_path / "resumed.hdf5", told(again)
    add: Callable[[EpisodeWriter, Episode], str] = EpisodeWriter.add

    def add_one(writer: EpisodeWriter, episode: Episode) -> str:
        if writer.count:
            raise KeyboardInterrupt
        return add(writer, episode)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EpisodeWriter, "add", add_one)
        run(ours, resumed)
    assert parts_folder(resumed).exists() and not resumed.exists()
    with pytest.raises(PixelrlError, match=r"begun with another action_dims, .*: remove it to begin anew"):
        run(ours, resumed, replay=False)
    with pytest.raises(DataError, match=r"begun with another env_args"):
        run(ours, resumed, size=(32, 40))
    result = run(ours, resumed)
    assert resumed.read_bytes() == again.read_bytes()
    assert result["demos"] == expected["demos"] and result["replay"] == expected["replay"]
    assert "3 of 3 replays meet every recorded state exactly" in capsys.readouterr().out
    with pytest.raises(PixelrlError, match=r"resumed.hdf5: exists already"):
        run(ours, resumed)


def test_raw_file_of_robosuite_becomes_a_data_set(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(raw, "a") as file:
        file["data/demo_2/actions"][0, :3] = (1, 1, 1)
    out = tmp_path / "pixels.hdf5"
    result = run(raw, out, cameras=("frontview", "agentview"), size=(24, 40))
    contents = read_contents(out)
    assert contents.pictures == {"frontview_image": (24, 40, 3), "agentview_image": (24, 40, 3)}
    assert [dim.name for dim in contents.action] == ["dx", "dy", "dz", "gripper"]
    assert contents.env_args["env_version"] == "1.5.2"
    first = next(iter(read_demos(contents)))
    np.testing.assert_array_equal(first.rewards, first.dones)
    assert result["demos"][0]["success"] == first.dones.any()
    assert [demo["source"] for demo in result["demos"]] == ["demo_1", "demo_2"]
    assert result["demos"][1]["eef_max"] > 0.01 and "demo_2" in result["replay"]["far"]
    said = capsys.readouterr().out
    assert "warning: in " in said and "strays more than 10 mm" in said
    with h5py.File(out) as file:
        assert file["data/demo_0"].attrs["model_file"].startswith("<mujoco")


def test_raw_file_of_another_packages_task_is_rendered_if_its_import_is_allowed(raw: Path, tmp_path: Path) -> None:
    with h5py.File(raw, "r+") as file:
        file["data"].attrs["env"] = "StrangeTray"
    for index, options in enumerate(({"env": "tests.toy_suite:StrangeTray"}, {"allow_import": ("tests.toy_suite",)})):
        result = run(raw, tmp_path / f"{index}.hdf5", count=1, **options)
        assert result["env_args"]["env_name"] == "StrangeTray" and len(result["demos"]) == 1


def test_raw_file_is_read_in_both_layouts(raw: Path, ours: Path) -> None:
    robosuites, robomimics = read_raw_file(raw), read_raw_file(ours)
    assert robosuites.demos == ("demo_1", "demo_2") and robosuites.action_dim == 4
    assert robosuites.env_args == {
        "env_name": "PickPlaceTray",
        "type": 1,
        "env_version": "1.5.2",
        "env_kwargs": {"robots": ["Panda"], "control_freq": 5},
    }
    assert robomimics.env_args["env_kwargs"]["camera_names"] == ["agentview"]
    assert robomimics.masks == {"train": ("demo_2", "demo_0")}
    with h5py.File(raw, "a") as file:
        file["data/demo_1"].attrs["ep_meta"] = json.dumps({"lang": "pick it up"})
        del file["data"].attrs["repository_version"]
    assert read_raw_episode(read_raw_file(raw), "demo_1").meta == {"lang": "pick it up"}
    assert read_raw_episode(robosuites, "demo_2").rewards is None
    kept = read_raw_episode(robomimics, "demo_1")
    assert kept.rewards is not None and kept.notes["seed"] == SEEDS[1] and kept.scene is None
    assert "env_version" not in read_raw_file(raw).env_args


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.pop(name)


def put(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: put_instead(file, name, value)


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["data"].attrs[name] = value

    return change


def swell(file: h5py.File) -> None:
    del file["data/demo_1/actions"]
    file["data/demo_1"].create_dataset("actions", (2**30, 4), "f8", chunks=(1024, 4))


def forget(file: h5py.File) -> None:
    del file["data"].attrs["env_info"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("data/demo_1/states"), r"demo.hdf5: /data/demo_1: no states, it holds actions"),
        (drop("data"), r"no 'data' in it"),
        (put("data", np.zeros(3)), r"/data: expected a group, came float64"),
        (put("data/demo_1", np.zeros(3)), r"/data/demo_1: expected a group"),
        (put("mask", np.zeros(3)), r"/mask: expected a group"),
        (drop("data/demo_1/actions"), r"no 'actions'"),
        (forget, r"no environment; expected the attribute env_args \(robomimic\), or env and env_info"),
        (attribute("env_info", "{"), r"'env_info' is not JSON"),
        (attribute("env_args", "{}"), r"env_args has no env_name"),
        (put("data/demo_1/states", np.zeros((3, 32))), r"3 states beside \d+ actions; expected"),
        (put("data/demo_1/states", np.zeros(3)), r"states: float64 \(3,\); expected floats"),
        (put("data/demo_1/actions", np.zeros((1, 7))), r"states beside 1 actions"),
        (put("data/demo_1/rewards", np.zeros(1)), r"rewards: shape \(1,\)"),
        (put("mask/valid", np.array([b"demo_9"])), r"mask/valid: names 'demo_9'"),
        (put("data/demo_1/states", h5py.ExternalLink("/etc/passwd", "/")), r"states: a link"),
        (swell, r"actions: float64, .*: more than the file can hold"),
    ],
)
def test_damaged_raw_file_is_named_before_anything_is_simulated(
    raw: Path, tmp_path: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(raw, "a") as file:
        change(file)
    with pytest.raises(DataError, match=message):
        run(raw, tmp_path / "out.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.hdf5"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (attribute("env", "Kitchen"), {}, r"there is no task 'Kitchen' in robosuite"),
        (None, {"cameras": ("wrist",)}, r"PickPlaceTray has no camera 'wrist'; it has: .*agentview"),
        (None, {"count": 0}, r"--count 0"),
        (None, {"size": (0, 32)}, r"--size \(0, 32\)"),
        (None, {"cameras": ()}, r"--cameras \(\)"),
        (put("data/demo_1/states", np.full((1, 32), np.nan)), {}, r"nan"),
    ],
)
def test_rendering_names_what_cannot_be_drawn(
    raw: Path, tmp_path: Path, change: Callable[[h5py.File], None] | None, options: dict[str, Any], message: str
) -> None:
    with h5py.File(raw, "a") as file:
        if change is not None:
            change(file)
        if "nan" in message:
            put_instead(file, "data/demo_1/actions", np.zeros((1, 4)))
    with pytest.raises(PixelrlError, match=message):
        run(raw, tmp_path / "out.hdf5", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.hdf5"]


def test_demo_that_does_not_fit_is_named_and_those_before_it_stay(raw: Path, tmp_path: Path) -> None:
    with h5py.File(raw, "a") as file:
        put_instead(file, "data/demo_2/states", file["data/demo_2/states"][:, :-1])
    out = tmp_path / "out.hdf5"
    with pytest.raises(SimulationError, match=r"demo\.hdf5: demo_2: a state of 31 numbers; the model has 32"):
        run(raw, out)
    assert [part.name for part in parts_folder(out).glob("*.hdf5")] == ["demo_0.hdf5"]
    assert [demo["source"] for demo in run(raw, out, count=1)["demos"]] == ["demo_1"], "that much was done before"

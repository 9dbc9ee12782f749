"""`pixelrl convert`: any format to any other and back, whole or not at all, and honest about what stays behind."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.buffers import trajectory, write_buffer
from rich.console import Console

import pixelrl.launch.commands.convert as module
from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.convert.interchange import Interchange, Losses, fingerprint
from pixelrl.datasets.convert.robomimic import read_recording, write_recording
from pixelrl.datasets.hdf5.reader import read_contents
from tests.dots import write_dots
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.launch.cli import main
from pixelrl.launch.commands.convert import Options, convert, guess_source, guess_target

QUIET = Console(quiet=True)
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
def recording() -> Interchange:
    """Return a data set that is hard to convert."""
    return Interchange(
        episodes=lambda: (rich_episode(index, 2 + index) for index in range(4)),
        count=4,
        env_args={"env_name": "Lift", "type": 1, "env_version": "1.5.2", "env_kwargs": {"control_freq": 20}},
        action_dims=(*(ActionDim(name=n, low=-0.05, high=0.05, unit="m") for n in "xyz"), ActionDim(name="gripper")),
        masks={"train": (2, 0), "valid": (1, 3), "none": ()},
    )


@pytest.fixture
def file(tmp_path: Path, recording: Interchange) -> Path:
    write_recording(tmp_path / "in.hdf5", recording)
    return tmp_path / "in.hdf5"


def digests(path: Path) -> dict[str, str]:
    losses: Losses = Losses()
    found = fingerprint(module.open_recording(path, guess_source(path), Options(), losses)).digests()
    assert not losses
    return found


def test_the_hdf5_file_holds_the_recording(file: Path, recording: Interchange) -> None:
    assert digests(file) == fingerprint(recording).digests()
    with h5py.File(file) as held:
        assert held["mask/train"][()].tolist() == [b"demo_2", b"demo_0"]


@pytest.mark.parametrize("path", permutations(["hdf5", "lerobot", "minari"]))
def test_round_trips_lose_nothing(tmp_path: Path, file: Path, path: tuple[str, ...]) -> None:
    pytest.importorskip("pyarrow")
    names = {"hdf5": "a.hdf5", "lerobot": "le", "minari": "mi-v0"}
    before, here = digests(file), file
    for number, kind in enumerate((*path, "hdf5")):
        there = tmp_path / str(number) / names[kind]
        result = convert(here, there, console=QUIET)
        assert result["dropped"] == []
        assert all(array["sha256"] == array["arrived"] == before[array["name"]] for array in result["arrays"])
        here = there
    assert digests(here) == before


def test_the_report_says_what_arrived(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 3)
    convert(source, tmp_path / "new/out.hdf5", options=Options(compress=True), console=QUIET)
    said = json.loads((tmp_path / "new/out.convert.json").read_text())
    assert {"command", "version", "commit", "seconds", "machine"} <= set(said)
    assert (said["episodes"], said["dropped"]) == (3, [])
    assert said["from"] == {"path": str(source), "format": "robomimic's HDF5"}
    kinds = {array["name"]: array["kind"] for array in said["arrays"]}
    assert kinds["sensors/agentview_image"] == "uint8 [N+1, 24, 24, 3]" and kinds["actions"] == "float32 [N, 2]"
    with h5py.File(tmp_path / "new/out.hdf5") as held:
        assert held["data/demo_0/frames/agentview_image"].compression == "gzip"


def test_the_command_converts_a_buffer_of_cog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_buffer(tmp_path / "prior.npy", [trajectory(5, seed=1), trajectory(3, seed=2)])
    monkeypatch.setattr("sys.argv", ["pixelrl", "convert", str(path), str(tmp_path / "prior.hdf5")])
    monkeypatch.setenv("COLUMNS", "200")
    main()
    printed = " ".join(capsys.readouterr().out.split())
    assert "prior.npy: COG's .npy (guessed from the name)" in printed
    assert "2 episodes" in printed and printed.count("the same") == 11
    contents = read_contents(tmp_path / "prior.hdf5")
    assert contents.demos == {"demo_0": 5, "demo_1": 3}
    assert (contents.pictures, contents.vectors) == ({"image": (12, 12, 3)}, {"state": 10})
    assert [dim.name for dim in contents.action][-2:] == ["gripper", "neutral"]


def test_what_stays_behind_is_counted(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 3)
    with h5py.File(source, "a") as held:
        held["data"].attrs["date"] = "today"
        held["extra"] = 1
        for name in ("demo_0", "demo_1"):
            demo = held["data"][name]
            demo.attrs["number"] = 3
            demo["datagen_info/x"] = np.zeros(3)
            demo["frames/words"] = np.array([b"a"] * 3)
        del held["data/demo_2/states"]
        held["data/demo_2/states"] = np.zeros((1, 3))
        held.move("data/demo_1", "data/demo_7")
    said = {item["what"]: item["episodes"] for item in convert(source, tmp_path / "o.hdf5", console=QUIET)["dropped"]}
    assert said == {
        "/data's date": "all",
        "/extra": "all",
        "the numbers of the demos, which do not count from 0 without a gap": "all",
        "attribute number": 2,
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
        convert(source, tmp_path / "out.hdf5", console=QUIET)


def test_attributes_of_the_data_that_are_left_behind_are_named(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 2)
    with h5py.File(source, "a") as held:
        held["data"].attrs["unfinished"] = 2
        held["data/demo_0"].attrs[b"wrong\xff"] = "text"
    result = convert(source, tmp_path / "out.hdf5", console=QUIET)
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
    path, losses = plain_file(tmp_path / "a.hdf5", next_obs=True), Losses()
    episode = next(iter(read_recording(path, losses).episodes()))
    assert (len(episode), episode.sensors["image"][:, 0, 0, 0].tolist(), losses) == (4, [0, 1, 2, 3, 4], {})
    assert episode.states is not None and episode.states[:, 0].tolist() == [0, 2, 4, 6, 6]
    list(read_recording(plain_file(tmp_path / "b.hdf5", next_obs=True, shift=True), losses).episodes())
    assert losses == {"next_obs/image, which is not obs one step later": 2}
    losses.clear()
    episode = next(iter(read_recording(plain_file(tmp_path / "c.hdf5", next_obs=False), losses).episodes()))
    assert (len(episode), episode.sensors["image"][:, 0, 0, 0].tolist()) == (3, [0, 1, 2, 3])
    assert episode.states is not None and episode.states[:, 0].tolist() == [0, 2, 4, 6]
    assert losses == {"the last step and its reward: there is no next_obs": 1}


def test_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 1)
    (tmp_path / "out.hdf5").write_text("mine")
    with pytest.raises(PixelrlError, match=r"out\.hdf5: exists already"):
        convert(source, tmp_path / "out.hdf5", console=QUIET)
    assert (tmp_path / "out.hdf5").read_text() == "mine"


@pytest.mark.parametrize("target", ["out.hdf5", "out", "out-v0"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, stop: type[BaseException]
) -> None:
    pytest.importorskip("pyarrow")
    source = write_dots(tmp_path / "in.hdf5", "task", 4)
    real = module._tapped

    def interrupted(*arguments: Any) -> Iterator[Episode]:
        for index, episode in enumerate(real(*arguments)):
            if index == 2:
                raise stop
            yield episode

    monkeypatch.setattr(module, "_tapped", interrupted)
    with pytest.raises(stop):
        convert(source, tmp_path / "folder" / target, options=Options(fps=5, images="png"), console=QUIET)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("target", ["out.hdf5", "out", "out-v0"])
def test_what_arrives_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    pytest.importorskip("pyarrow")
    source = write_dots(tmp_path / "in.hdf5", "task", 2)
    real = module._write

    def careless(path: Path, aim: module.Format, held: Interchange, options: Options) -> frozenset[str]:
        rewarded = lambda: (replace(e, rewards=e.rewards + np.float32(0.25)) for e in held.episodes())  # noqa: E731
        return real(path, aim, replace(held, episodes=rewarded), options)

    monkeypatch.setattr(module, "_write", careless)
    with pytest.raises(DataError, match=r"read back, it does not hold what was sent \(rewards\)"):
        convert(source, tmp_path / "folder" / target, options=Options(fps=5), console=QUIET)
    assert list((tmp_path / "folder").iterdir()) == []


def test_episodes_must_be_alike(tmp_path: Path) -> None:
    other = trajectory(3, size=16)
    path = write_buffer(tmp_path / "a.npy", [trajectory(3), other])
    with pytest.raises(DataError, match=r"episode 1: sensors/image holds uint8 \(16, 16, 3\); expected uint8 \(12, 12"):
        convert(path, tmp_path / "out.hdf5", console=QUIET)
    assert sorted(held.name for held in tmp_path.iterdir()) == ["a.npy"]


def test_formats_are_guessed(tmp_path: Path) -> None:
    assert [guess_target(Path(name)) for name in ("a.hdf5", "a.h5", "a", "lift-v0", "a/b-c-v12")] == [
        "hdf5",
        "hdf5",
        "lerobot",
        "minari",
        "minari",
    ]
    assert guess_source(Path("a.npy")) == "cog"
    with pytest.raises(PixelrlError, match=r"a\.zarr: an unknown format; expected NAME\.hdf5, NAME-v0 \(Minari\)"):
        guess_target(Path("a.zarr"))
    with pytest.raises(DataError, match="no such file or folder"):
        guess_source(tmp_path / "none")
    with pytest.raises(PixelrlError, match=r"an unknown format; expected \.npy \(COG\), .* say it with --from-format"):
        guess_source(tmp_path)


def test_cog_is_not_written(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 1)
    with pytest.raises(PixelrlError, match=r"COG's \.npy is read only; choose hdf5, lerobot or minari"):
        convert(source, tmp_path / "out.npy", target_format="cog", console=QUIET)


def test_no_pictures_no_conversion(tmp_path: Path) -> None:
    with h5py.File(plain_file(tmp_path / "a.hdf5", next_obs=True), "a") as held:
        for demo in held["data"].values():
            del demo["obs/image"], demo["next_obs/image"]
            demo["obs/position"] = np.zeros((4, 3))
    with pytest.raises(DataError, match=r"no pictures, it holds position only"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.hdf5", console=QUIET)

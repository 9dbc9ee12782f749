"""The writer: whatever stops it, every episode that was finished is kept, and the same command goes on."""

import errno
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from io import FileIO
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import parts_folder
from pixelrl.datasets.hdf5.file_objects import NamedFile
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.datasets.hdf5.writer import MERGED, EpisodeWriter, OutputFile, create_file, remove_merged, write_episodes
from pixelrl.runtime.errors import DataError
from tests import ROOT
from tests.dots import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes

OPTIONS: dict[str, Any] = {"env_args": ENV_ARGS, "action_dims": ACTION}
EPISODES = list(dot_episodes("task", 8))


def assert_holds(path: Path, episodes: list[Episode]) -> None:
    """Check a file against what should be in it, with plain h5py."""
    with h5py.File(path, "r") as file:
        assert set(file["data"]) == {f"demo_{i}" for i in range(len(episodes))}
        for index, episode in enumerate(episodes):
            demo = file[f"data/demo_{index}"]
            np.testing.assert_array_equal(demo["actions"], episode.actions)
            for key in (CAMERA, POSITION):
                np.testing.assert_array_equal(demo[f"obs/{key}"], episode.sensors[key][:-1])
                np.testing.assert_array_equal(demo[f"next_obs/{key}"], episode.sensors[key][1:])


def assert_keeps(path: Path, episodes: list[Episode]) -> None:
    """Check the parts of a file: each is a data set of one episode, with its views."""
    parts = sorted(parts_folder(path).glob("*.hdf5"), key=lambda part: int(part.stem[5:]))
    assert [part.name for part in parts] == [f"demo_{i}.hdf5" for i in range(len(episodes))]
    for part, episode in zip(parts, episodes, strict=True):
        assert list(read_contents(part).demos.values()) == [len(episode)]
        with h5py.File(part) as file:
            for key in (CAMERA, POSITION):
                np.testing.assert_array_equal(file[f"data/{part.stem}/obs/{key}"], episode.sensors[key][:-1])


def test_episode_is_kept_once_it_is_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.hdf5"
    with EpisodeWriter(path, **OPTIONS) as writer:
        for number, episode in enumerate(EPISODES, 1):
            assert writer.add(episode) == f"demo_{number - 1}"
            assert writer.count == number
            assert_keeps(path, EPISODES[:number])
            assert not path.exists()
    assert_holds(path, EPISODES)
    assert list(path.parent.iterdir()) == [path]
    assert writer.transitions == sum(map(len, EPISODES)) == h5py.File(path)["data"].attrs["total"]


def test_interrupted_file_goes_on_and_becomes_the_same(tmp_path: Path) -> None:
    straight, broken = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    resumable = {**OPTIONS, "compress": True, "resume": "the test"}
    write_episodes(straight, EPISODES, **OPTIONS, compress=True)
    for until in (0, 1, 2, 5, 5, 8):
        with pytest.raises(KeyboardInterrupt), EpisodeWriter(broken, **resumable) as writer:
            for (notes, rewards), episode in zip(writer.kept, EPISODES, strict=False):
                assert notes == episode.notes
                np.testing.assert_array_equal(rewards, episode.rewards)
            for episode in EPISODES[writer.count : until]:
                writer.add(episode)
            raise KeyboardInterrupt
        assert parts_folder(broken).exists() == (until > 0), "without any episode there is no folder"
        if until:
            assert_keeps(broken, EPISODES[:until])
            killed = parts_folder(broken) / f".demo_{until}.hdf5.0123abcd.tmp"  # as a kill leaves it
            killed.mkdir(exist_ok=True)
            (killed / f"demo_{until}.hdf5").write_bytes(b"half an episode")
    with EpisodeWriter(broken, **resumable) as writer:
        assert writer.count == 8
    assert broken.read_bytes() == straight.read_bytes()
    assert sorted(tmp_path.iterdir()) == [straight, broken]


def test_unfinished_file_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, **OPTIONS) as writer:
        writer.add(EPISODES[0])
        with pytest.raises(DataError, match=r"a\.hdf5\.parts: another process is writing to it"):
            EpisodeWriter(path, **OPTIONS, resume="the test")
        raise KeyboardInterrupt
    with pytest.raises(DataError, match=r"a\.hdf5\.parts: holds 1 episodes of an interrupted writing; remove it"):
        EpisodeWriter(path, **OPTIONS)
    with pytest.raises(DataError, match=r"was begun with another env_args, .*Dot.*; now it is .*Lift"):
        EpisodeWriter(path, **{**OPTIONS, "env_args": {"env_name": "Lift"}}, resume="the test")
    with pytest.raises(DataError, match=r"was begun with another compress, 'False'; now it is 'True'"):
        EpisodeWriter(path, **OPTIONS, compress=True, resume="the test")
    assert_keeps(path, EPISODES[:1])


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    foreign = parts_folder(tmp_path / "a.hdf5") / "thesis.tex"
    foreign.parent.mkdir()
    foreign.write_text("years of work")
    with pytest.raises(DataError, match=r"a\.hdf5\.parts: holds thesis\.tex, which is not ours"):
        write_episodes(tmp_path / "a.hdf5", EPISODES, **OPTIONS)
    assert foreign.exists()


def test_kill_between_merging_and_removing_the_parts_leaves_what_the_next_run_removes(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, **OPTIONS) as writer:
        writer.add(EPISODES[0])
        raise KeyboardInterrupt
    path.write_bytes(b"another file of that name")
    remove_merged(path)
    assert_keeps(path, EPISODES[:1])
    (parts_folder(path) / MERGED).touch()
    remove_merged(path)
    assert list(tmp_path.iterdir()) == [path]


def test_unfinished_file_names_the_command_that_finishes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, **OPTIONS, resume="pixelrl collect x") as writer:
        for episode in EPISODES:
            writer.add(episode)
        raise KeyboardInterrupt
    finish = r"a\.hdf5: not finished; .*a\.hdf5\.parts/\*\.hdf5 are .*, and the same `pixelrl collect x` goes on"
    with pytest.raises(DataError, match=finish):
        read_contents(path)
    for part, episode in zip(Source(name="x", files=(parts_folder(path) / "*.hdf5",)).paths(), EPISODES, strict=True):
        (demo,) = read_demos(read_contents(part))
        np.testing.assert_array_equal(demo.sensors[CAMERA], episode.sensors[CAMERA])


def test_views_are_read_by_others_whatever_attributes_a_demo_has(tmp_path: Path) -> None:
    """As robosuite and robomimic write them; plain h5py reads as robomimic does."""
    attributes = {
        "model_file": "<mujoco model='x'/>" * 20_000,
        "ep_meta": '{"lang": "lift"}',
        "frames": "a name of ours",
    }
    episodes = [replace(episode, attributes=attributes) for episode in EPISODES]
    write_episodes(tmp_path / "a.hdf5", episodes, **OPTIONS)
    assert_holds(tmp_path / "a.hdf5", episodes)
    with h5py.File(tmp_path / "a.hdf5") as file:
        for demo in file["data"].values():
            assert {name: demo.attrs[name] for name in attributes} == attributes


def test_episode_that_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    write_episodes(tmp_path / "a.hdf5", EPISODES, **OPTIONS)
    with EpisodeWriter(tmp_path / "b.hdf5", **OPTIONS) as writer:
        for episode in EPISODES:
            with pytest.raises(DataError, match="rewards has"):
                writer.add(replace(episode, rewards=episode.rewards[:-1]))
            with pytest.raises(DataError, match="sensors/odd holds object; expected numbers"):
                writer.add(replace(episode, sensors={**episode.sensors, "odd": np.full(len(episode) + 1, None)}))
            writer.add(episode)
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dones": np.full(12, 0.9)}, r"demo_1: dones\[0\] is 0.9; expected 0 or 1"),
        ({"actions": np.full((12, 2), np.nan, np.float32)}, r"demo_1: actions\[0, 0\] is nan; expected finite"),
        ({"actions": np.zeros(12, np.float32)}, r"actions are float32 \(12,\); expected floats \(N, A\)"),
        ({"actions": np.zeros((12, 3), np.float32)}, "3 actions a step; expected 2, as action_dims has"),
        ({"rewards": np.full(12, None)}, r"rewards are object \(12,\); expected numbers"),
        ({"notes": {"what": object()}}, "notes: no JSON .* not JSON serializable"),
        ({"notes": {"what": np.nan}}, "notes: no JSON .* expected texts, finite numbers of Python"),
        ({"attributes": {"num_samples": "7"}}, "attribute 'num_samples' cannot be written"),
        ({"attributes": {"a": "\ud800"}}, "attribute 'a' cannot be written; expected text"),
        ({"sensors": {CAMERA: EPISODES[0].sensors[CAMERA]}}, f"sensors/{POSITION} is missing; expected float32"),
        ({"sensors": EPISODES[0].sensors | {"more": np.zeros(13)}}, r"more is float64 \(\); expected nothing of that"),
        (
            {"sensors": EPISODES[0].sensors | {"cam\0a": np.zeros(13)}},
            r"a sensor is named 'cam\\x00a'; expected a print",
        ),
        ({"sensors": {**EPISODES[0].sensors, "..": np.zeros(13)}}, "a sensor is named '..'; expected a print"),
    ],
)
def test_episode_that_would_not_come_back_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert len(EPISODES[0]) == 12
    with EpisodeWriter(tmp_path / "a.hdf5", **OPTIONS) as writer:
        writer.add(EPISODES[0])
        with pytest.raises(DataError, match=message):
            writer.add(replace(EPISODES[0], **change))
    assert_holds(tmp_path / "a.hdf5", EPISODES[:1])


def test_file_that_could_not_be_described_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.hdf5: env_args: no JSON .*float32"):
        EpisodeWriter(tmp_path / "a.hdf5", env_args={"rate": np.float32(3)}, action_dims=ACTION)
    with pytest.raises(DataError, match=r"action dx from 1 to 1; expected low < high"):
        EpisodeWriter(tmp_path / "a.hdf5", env_args={}, action_dims=[replace(ACTION[0], name="dx", low=1, high=1)])
    with pytest.raises(DataError, match="mask 'train' is 'demo_0'; expected a list of demos"):
        EpisodeWriter(tmp_path / "a.hdf5", **OPTIONS, masks={"train": "demo_0"})
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episodes came"):
        write_episodes(tmp_path / "a.hdf5", [], **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_masks(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    masks = {"train": ["demo_1", "demo_0"], "none": []}
    missing = r"mask 'valid' names 'demo_9', which is not in the file"
    with pytest.raises(DataError, match=missing), EpisodeWriter(path, **OPTIONS, masks=masks) as writer:
        for episode in EPISODES[:3]:
            writer.add(episode)
        writer.mask("valid", ["demo_9"])
    with EpisodeWriter(path, **OPTIONS, masks=masks, resume="the test") as writer:
        writer.mask("valid", ["demo_2"])
    assert list(read_contents(path, mask="train").demos) == ["demo_0", "demo_1"]
    assert list(read_contents(path, mask="valid").demos) == ["demo_2"]
    with h5py.File(path) as file:
        assert file["mask/train"][:].tolist() == [b"demo_1", b"demo_0"]
        assert len(file["mask/none"]) == 0


@pytest.mark.parametrize("room", [0, 50, 3_000, 40_000, 100_000])
def test_disk_that_is_full_when_the_parts_are_merged_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    def write(self: OutputFile, block: Any) -> int:
        if self.tell() + len(block) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return FileIO.write(self, block)

    path = tmp_path / "a.hdf5"
    with (
        pytest.raises(DataError, match=r"a\.hdf5: could not be written \(No space left .*\.parts keeps all 8 episodes"),
        EpisodeWriter(path, **OPTIONS) as writer,
    ):
        for episode in EPISODES:
            writer.add(episode)
        monkeypatch.setattr(NamedFile, "write", write, raising=False)
    monkeypatch.undo()
    assert not path.exists()
    assert_keeps(path, EPISODES)
    with EpisodeWriter(path, **OPTIONS, resume="the test"):
        pass
    assert_holds(path, EPISODES)


def test_created_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(RuntimeError), create_file(path) as file:
        file["x"] = [1]
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with create_file(path) as file:
        file["x"] = [1]
    assert h5py.File(path)["x"][0] == 1


def test_killed_at_random_moments(tmp_path: Path) -> None:
    assert stop_often(tmp_path, "kill", times=20, seed=0) > 0


def test_disks_that_are_full_at_random_places(tmp_path: Path) -> None:
    assert stop_often(tmp_path, "fill", times=10, seed=0) > 0


def stop_often(folder: Path, how: str, *, times: int, seed: int) -> int:
    """Run this file as a program, and return how many episodes were written before the stops."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, __file__, str(folder), how, str(times), str(seed)]
    run = subprocess.run(words, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[-1])


def main(folder: str, how: str, times: str, seed: str) -> None:
    """Stop writers at random, each of which goes on where the last one stopped, and look at what is kept every time.

    `python tests/datasets/hdf5/test_writer.py FOLDER kill 500 0` is the long version of the test above.
    """
    path = Path(folder) / "a.hdf5"
    chance = random.Random(int(seed))
    written = 0
    for _ in range(int(times)):
        if written > 300:
            shutil.rmtree(parts_folder(path))
            written = 0
        inlet, outlet = os.pipe()
        writer = os.fork()
        if not writer:
            os.close(inlet)
            write_for_ever(path, outlet, (chance.randrange(4), chance.randrange(20_000)) if how == "fill" else None)
        os.close(outlet)
        told = written
        if how == "kill":
            if chance.random() < 0.7:  # let it finish an episode
                told += len(os.read(inlet, 1))
            select.select([], [], [], chance.uniform(0, 0.02))
            os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        while news := os.read(inlet, 100):
            told += len(news)
        os.close(inlet)
        held = len(list(parts_folder(path).glob("*.hdf5")))
        if held:
            assert_keeps(path, list(islice(cycle(EPISODES), held)))
        assert held in (told, told + 1), f"{told} episodes were finished, {held} are kept"
        written = held
    print(written)


def write_for_ever(path: Path, outlet: int, full: tuple[int, int] | None) -> None:
    """Write until something stops it, and tell of every episode.

    `full`: after so many episodes files may get only so many bytes long.
    """
    try:
        with EpisodeWriter(path, **OPTIONS, resume="the test") as writer:
            for index in count(writer.count):
                if full is not None and index == len(writer.kept) + full[0]:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (full[1], resource.RLIM_INFINITY))
                writer.add(EPISODES[index % 8])
                os.write(outlet, b".")
    except (DataError, OSError) as error:
        assert "too large" in str(error), error
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

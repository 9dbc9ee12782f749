"""The writer: whatever stops it, the file opens and holds every episode that was finished."""

import os
import random
import resource
import select
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests import ROOT
from pixelrl.datasets.hdf5.growing import GrowingFile
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from tests.dots import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes
from pixelrl.datasets.hdf5.writer import EpisodeWriter, unfinished_path, write_episodes
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError

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


def test_every_episode_is_in_the_file_once_it_is_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.hdf5"
    copy = tmp_path / "copy.hdf5"
    with EpisodeWriter(path, **OPTIONS) as writer:
        for number, episode in enumerate(EPISODES, 1):
            assert writer.add(episode) == f"demo_{number - 1}"
            assert writer.count == number
            copy.write_bytes(unfinished_path(path).read_bytes())
            assert_holds(copy, EPISODES[:number])
            assert not path.exists()
    assert_holds(path, EPISODES)
    assert list(path.parent.iterdir()) == [path]
    assert writer.transitions == sum(map(len, EPISODES)) == h5py.File(path)["data"].attrs["total"]


@pytest.mark.parametrize("size", [1, 8, 9, 64, 65, 257, 600])
def test_the_index_is_one_that_hdf5_itself_can_read_and_change(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.hdf5"
    file = GrowingFile.create(path, {})
    for index in range(size):
        file.add(f"demo_{index}", lambda group, index=index: group.attrs.update(index=index))  # type: ignore[misc]
    file.finish(lambda root: root.create_group("data"))
    file.close()
    with h5py.File(path, "r+") as plain:
        assert list(plain["data"]) == sorted(f"demo_{i}" for i in range(size))
        assert all(plain[f"data/demo_{i}"].attrs["index"] == i for i in range(size))
        assert "data/demo" not in plain and f"data/demo_{size}" not in plain
        for index in range(0, size, 3):
            del plain[f"data/demo_{index}"]
            plain.create_group(f"data/demo_{size + index}")
    with h5py.File(path) as plain:
        assert len(list(plain["data"])) == size


def test_an_interrupted_file_goes_on_and_becomes_the_same(tmp_path: Path) -> None:
    straight, broken = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    write_episodes(straight, EPISODES, **OPTIONS, compress=True)
    for until in (0, 1, 2, 5, 5, 8):
        with pytest.raises(KeyboardInterrupt), EpisodeWriter(broken, **OPTIONS, compress=True, resume=True) as writer:
            for episode in EPISODES[writer.count : until]:
                writer.add(episode)
            raise KeyboardInterrupt
        assert unfinished_path(broken).exists() == (until > 0), "without any episode there is no file"
        if until:
            assert_holds(unfinished_path(broken), EPISODES[:until])
            with unfinished_path(broken).open("ab") as file:
                file.write(b"half an episode" * 9999)  # as a kill leaves it
    with EpisodeWriter(broken, **OPTIONS, compress=True, resume=True) as writer:
        assert writer.count == 8
    assert broken.read_bytes() == straight.read_bytes()


def test_an_unfinished_file_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, **OPTIONS) as writer:
        writer.add(EPISODES[0])
        with pytest.raises(DataError, match=r"a\.unfinished\.hdf5: another process has it open"):
            EpisodeWriter(path, **OPTIONS, resume=True)
        raise KeyboardInterrupt
    with pytest.raises(DataError, match=r"a\.unfinished\.hdf5: holds 1 episodes of an interrupted writing; resume it"):
        EpisodeWriter(path, **OPTIONS)
    with pytest.raises(DataError, match=r"was begun with another env_args, .*Dot.*; now it is .*Lift"):
        EpisodeWriter(path, **{**OPTIONS, "env_args": {"env_name": "Lift"}}, resume=True)
    with pytest.raises(DataError, match=r"was begun with another compress, 'False'; now it is 'True'"):
        EpisodeWriter(path, **OPTIONS, compress=True, resume=True)
    assert_holds(unfinished_path(path), EPISODES[:1])


def test_an_episode_that_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    write_episodes(tmp_path / "a.hdf5", EPISODES, **OPTIONS)
    with EpisodeWriter(tmp_path / "b.hdf5", **OPTIONS) as writer:
        for episode in EPISODES:
            with pytest.raises(DataError, match="rewards has"):
                writer.add(replace(episode, rewards=episode.rewards[:-1]))
            with pytest.raises(TypeError, match="not JSON serializable"):
                writer.add(replace(episode, notes={"what": object()}))
            with pytest.raises(TypeError, match="no native HDF5 equivalent"):
                writer.add(replace(episode, sensors={**episode.sensors, "odd": np.full(len(episode) + 1, None)}))
            writer.add(episode)
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


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
    with EpisodeWriter(path, **OPTIONS, masks=masks, resume=True) as writer:
        writer.mask("valid", ["demo_2"])
    assert list(read_contents(path, mask="train").demos) == ["demo_0", "demo_1"]
    assert list(read_contents(path, mask="valid").demos) == ["demo_2"]
    with h5py.File(path) as file:
        assert file["mask/train"][:].tolist() == [b"demo_1", b"demo_0"]
        assert len(file["mask/none"]) == 0


def test_unfinished_files_can_be_read_and_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(path, **OPTIONS) as writer:
        for episode in EPISODES:
            writer.add(episode)
        with pytest.raises(DataError, match=r"a\.unfinished\.hdf5: another process is writing it"):
            read_contents(unfinished_path(path))
        raise KeyboardInterrupt
    with pytest.warns(UserWarning, match=r"a\.unfinished\.hdf5: unfinished: it holds the 8 demos that were"):
        contents = read_contents(unfinished_path(path))
    assert contents.unfinished
    for demo, episode in zip(read_demos(contents), EPISODES, strict=True):
        np.testing.assert_array_equal(demo.sensors[CAMERA], episode.sensors[CAMERA])


def test_a_stop_between_any_two_writes_or_within_one_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "a.hdf5", tmp_path / "copy.hdf5"
    finished: list[Episode] = []
    adding: list[Episode] = []
    seen = {"stops": 0, "before": 0, "after": 0}
    change = {"pwrite": os.pwrite, "ftruncate": os.ftruncate}

    def look() -> None:
        copy.write_bytes(unfinished_path(path).read_bytes())
        with h5py.File(copy) as file:
            whole = len(file["data"]) == len(finished) + 1
        assert_holds(copy, finished + adding if whole else finished)
        seen["stops"] += 1
        seen["after" if whole else "before"] += 1

    def write(file: int, block: bytes, place: int) -> int:
        if place:  # the superblock's 96 bytes lie within a page: they are written whole or not at all
            change["pwrite"](file, block[: len(block) // 2], place)
            look()
        length = int(change["pwrite"](file, block, place))
        look()
        return length

    def cut(file: int, length: int) -> None:
        change["ftruncate"](file, length)
        look()

    with EpisodeWriter(path, **OPTIONS) as writer:
        monkeypatch.setattr(os, "pwrite", write)
        monkeypatch.setattr(os, "ftruncate", cut)
        for episode in EPISODES[:5]:
            adding[:] = [episode]
            writer.add(episode)
            finished.append(episode)
        monkeypatch.undo()
    assert seen["stops"] > 150 and seen["after"] == 5, "the last write of an episode, and no other, adds it"


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
    """Stop writers at random, each of which goes on where the last one was stopped, and look at the file every time.

    `python tests/test_writer.py FOLDER kill 500 0` is the long version of the test above.
    """
    path = Path(folder) / "a.hdf5"
    chance = random.Random(int(seed))
    written = 0
    for _ in range(int(times)):
        if written > 300:
            unfinished_path(path).unlink()
            written = 0
        inlet, outlet = os.pipe()
        writer = os.fork()
        if not writer:
            os.close(inlet)
            write_for_ever(path, outlet, written * 4000 + chance.randrange(200_000) if how == "fill" else None)
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
        held = 0
        if unfinished_path(path).exists():
            with h5py.File(unfinished_path(path)) as file:
                held = len(file["data"])
            assert_holds(unfinished_path(path), list(islice(cycle(EPISODES), held)))
        assert held in (told, told + 1), f"{told} episodes were finished, {held} are in the file"
        written = held
    print(written)


def write_for_ever(path: Path, outlet: int, limit: int | None) -> None:
    """Write until something stops it, and tell of every episode; files may get `limit` bytes long."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with EpisodeWriter(path, **OPTIONS, resume=True) as writer:
            for index in count(writer.count):
                writer.add(EPISODES[index % 8])
                os.write(outlet, b".")
    except (DataError, OSError) as error:
        assert "too large" in str(error), error
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

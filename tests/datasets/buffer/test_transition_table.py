"""The transition table: each frame once, at the place that index arithmetic expects."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from einops import rearrange

from pixelrl.datasets.buffer.frames import FrameIndex, Progress, place_frames
from pixelrl.datasets.buffer.load_dataset import check_alike
from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.recorded_file import open_recorded_file
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.transition_table import TransitionTable, read_transitions
from pixelrl.datasets.hdf5.reader import Selection, read_contents
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.errors import DataError
from tests.dots import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes, write_dots, write_plainly

ALL = Selection()


def opened(
    *sources: list[Path], actions: ActionRange = "unit", memory: Memory = "ram", progress: Progress | None = None
) -> TransitionTable:
    """Return the table of some files."""
    files = [[open_recorded_file(path, ALL) for path in source] for source in sources]
    index = FrameIndex(file for each in files for file in each)
    cpu = torch.device("cpu")
    _, images = place_frames(index, memory=memory, device=cpu, workers=1, progress=progress)
    rules = [Source(name=f"source {number}", files=tuple(paths)) for number, paths in enumerate(sources)]
    return read_transitions(rules, files, index, images, actions=actions)


@pytest.mark.parametrize("memory", ["ram", "gpu", "cache", "file"])
def test_every_frame_lies_once_where_the_transitions_look(tmp_path: Path, memory: Memory) -> None:
    prior = [write_dots(tmp_path / f"{seed}.h5", "prior", 2, seed=seed) for seed in (0, 1)]
    task = [write_dots(tmp_path / "task.h5", "task", 3)]
    seen: list[tuple[int, int]] = []
    table = opened(prior, task, memory=memory, progress=lambda more, total: seen.append((more, total)))
    episodes = [*dot_episodes("prior", 2), *dot_episodes("prior", 2, seed=1), *dot_episodes("task", 3)]

    assert len(table) == sum(len(episode) for episode in episodes)
    assert len(table.proprio) == len(table) + len(episodes)
    if memory != "file":
        assert sum(more for more, _ in seen) == len(table.proprio) and {total for _, total in seen} == {
            len(table.proprio)
        }
    held = table.images[CAMERA].take(torch.arange(len(table.proprio)))
    transition = 0
    for number, episode in enumerate(episodes):
        pictures = rearrange(episode.sensors[CAMERA], "n h w c -> n c h w")
        for step in range(len(episode)):
            frame = int(table.frame[transition])
            for offset in (0, 1):
                np.testing.assert_array_equal(held[frame + offset], pictures[step + offset])
                np.testing.assert_array_equal(table.proprio[frame + offset], episode.sensors[POSITION][step + offset])
            assert table.reward[transition] == episode.rewards[step]
            assert table.done[transition] == episode.dones[step]
            assert table.last[transition] == (step == len(episode) - 1)
            assert (int(table.demo[transition]), int(table.source[transition])) == (number, int(number >= 4))
            torch.testing.assert_close(table.action[transition], torch.from_numpy(episode.actions[step]))
            transition += 1


@pytest.mark.parametrize("memory", ["ram", "cache", "file"])
@pytest.mark.parametrize("next_obs", [True, False])
def test_frames_of_robomimics_own_files(tmp_path: Path, memory: Memory, next_obs: bool) -> None:
    path = write_plainly(tmp_path / "a.h5", dot_episodes("task", 3), next_obs=next_obs)
    table = opened([path], memory=memory)
    frames = [episode.sensors[CAMERA] for episode in dot_episodes("task", 3)]
    if not next_obs:  # nobody recorded what follows the last action
        frames = [np.concatenate([pictures[:-1], pictures[-2:-1]]) for pictures in frames]
    held = table.images[CAMERA].take(torch.arange(len(table.proprio)))
    np.testing.assert_array_equal(rearrange(held, "n c h w -> n h w c"), np.concatenate(frames))
    assert bool((table.last & ~table.next_missing).any()) is next_obs


def test_min_max_stretches_actions_and_says_what_they_mean(tmp_path: Path) -> None:
    episode = next(dot_episodes("task", 1))
    actions = np.zeros_like(episode.actions)
    actions[:3, 0] = (0.5, 2.0, 3.5)  # recorded units; 1 is 0.1 m
    actions[:, 0] = np.maximum(actions[:, 0], 0.5)
    write_episodes(tmp_path / "a.h5", [replace(episode, actions=actions)], env_args=ENV_ARGS, action_dims=ACTION)
    with pytest.raises(
        DataError, match=r"demo_0/actions\[2, 0\] is 3\.5, beyond \[-1, 1\] by 2\.5; .*--actions min-max"
    ):
        opened([tmp_path / "a.h5"])

    table = opened([tmp_path / "a.h5"], actions="min-max")
    assert table.action[:3, 0].tolist() == [-1, 0, 1]
    assert not table.action[:, 1].any()  # constant
    assert (table.dims[0].low, table.dims[0].high) == pytest.approx((0.05, 0.35))
    assert table.dims[0].unit == "m"


def test_files_must_be_alike(tmp_path: Path) -> None:
    small = read_contents(write_dots(tmp_path / "small.h5", "task", 1))
    large = read_contents(write_dots(tmp_path / "large.h5", "task", 1, size=32))
    with pytest.raises(DataError, match=r"large\.h5: agentview_image is \(32, 32, 3\); expected \(24, 24, 3\), as in"):
        check_alike([small, large])
    with h5py.File(tmp_path / "small.h5", "a") as file:
        del file["data"].attrs["action_dims"]
    remedy = (
        r"\(\S*small\.h5 does not say what its actions are; if they are the same, give its /data the attribute env_args"
    )
    with pytest.raises(DataError, match=rf"action 0 is action_0 \[-1\.0, 1\.0\] 1; expected x .* m, as in .* {remedy}"):
        check_alike([small, read_contents(tmp_path / "small.h5")])


LOAD = """
import resource, sys
from pathlib import Path
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.sources import Source

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

def load(path, memory="auto"):
    return load_dataset([Source(name="task", files=(Path(path),))], batch_size=32, seed=0, gamma=0.9, memory=memory)

room = int(sys.argv[3])
load(sys.argv[1], "cache" if room else "ram").batch(0)  # what libraries take once, whatever the data
before = status("VmHWM:")
if room:
    resource.setrlimit(resource.RLIMIT_DATA, (status("VmData:") + room, resource.RLIM_INFINITY))
mixture = load(sys.argv[2])
for step in range(200 if room else 0):
    mixture.batch(step)
print(mixture.plan.place, status("VmHWM:") - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """Return a file of one demo, a file of many, and how many bytes the frames of the many are."""
    folder = tmp_path_factory.mktemp("large")
    episode = next(dot_episodes("task", 1))
    steps = 60
    many = replace(
        episode,
        sensors={CAMERA: np.ones((steps + 1, 96, 96, 3), np.uint8), POSITION: np.ones((steps + 1, 2), np.float32)},
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.ones(steps, np.float32),
        dones=np.zeros(steps, np.bool_),
        states=np.zeros((steps + 1, 4)),
    )
    write_episodes(folder / "one.h5", [many], env_args=ENV_ARGS, action_dims=ACTION)
    write_episodes(folder / "many.h5", [many] * 120, env_args=ENV_ARGS, action_dims=ACTION)
    return folder / "one.h5", folder / "many.h5", 120 * sum(value.nbytes for value in many.sensors.values())


def loaded(one: Path, many: Path, room: int = 0) -> tuple[str, int]:
    """Return where a process of its own put the frames, and how far its memory grew, at its peak."""
    words = [sys.executable, "-c", LOAD, str(one), str(many), str(room)]
    place, grown = subprocess.check_output(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True).split()
    return place, int(grown)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_loading_takes_little_more_than_the_bytes_of_the_frames(large: tuple[Path, Path, int]) -> None:
    one, many, unique = large
    place, grown = loaded(one, many)
    assert place == "ram" and 0.9 < grown / unique < 1.05


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_data_eight_times_larger_than_the_memory_given_run_in_flat_memory(large: tuple[Path, Path, int]) -> None:
    one, many, unique = large
    room = unique // 8  # less than a tenth is too little for stacks of threads and a block of a file
    for state in ("building the cache", "with the cache"):
        place, grown = loaded(one, many, room)
        assert place == "cache" and grown < 2 * room, state  # the frames of 200 batches are twice all there are

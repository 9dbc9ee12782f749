"""The store: each frame once, at the place that index arithmetic expects."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from einops import rearrange

from pixelrl.datasets.robomimic_hdf5 import read_contents
from pixelrl.datasets.store import load
from pixelrl.datasets.synthetic import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes, write_dots
from pixelrl.datasets.writer import write_episodes
from pixelrl.errors import DataError


def test_every_frame_lies_once_where_the_transitions_look(tmp_path: Path) -> None:
    prior = [read_contents(write_dots(tmp_path / f"{seed}.h5", "prior", 2, seed=seed)) for seed in (0, 1)]
    task = [read_contents(write_dots(tmp_path / "task.h5", "task", 3))]
    seen: list[tuple[int, int]] = []
    store = load([prior, task], progress=lambda done, total: seen.append((done, total)))
    episodes = [*dot_episodes("prior", 2), *dot_episodes("prior", 2, seed=1), *dot_episodes("task", 3)]

    assert len(store) == sum(len(episode) for episode in episodes)
    assert len(store.images[CAMERA]) == len(store) + len(episodes) == seen[-1][0] == seen[-1][1]
    transition = 0
    for number, episode in enumerate(episodes):
        pictures = rearrange(episode.sensors[CAMERA], "n h w c -> n c h w")
        for step in range(len(episode)):
            frame = int(store.frame[transition])
            for offset in (0, 1):
                np.testing.assert_array_equal(store.images[CAMERA][frame + offset], pictures[step + offset])
                np.testing.assert_array_equal(store.proprio[frame + offset], episode.sensors[POSITION][step + offset])
            assert store.reward[transition] == episode.rewards[step]
            assert store.done[transition] == episode.dones[step]
            assert store.last[transition] == (step == len(episode) - 1)
            assert (int(store.demo[transition]), int(store.source[transition])) == (number, int(number >= 4))
            torch.testing.assert_close(store.action[transition], torch.from_numpy(episode.actions[step]))
            transition += 1


def test_min_max_stretches_actions_and_says_what_they_mean(tmp_path: Path) -> None:
    episode = next(dot_episodes("task", 1))
    actions = np.zeros_like(episode.actions)
    actions[:3, 0] = (0.5, 2.0, 3.5)  # recorded units; 1 is 0.1 m
    actions[:, 0] = np.maximum(actions[:, 0], 0.5)
    write_episodes(tmp_path / "a.h5", [replace(episode, actions=actions)], env_args=ENV_ARGS, action_dims=ACTION)
    contents = read_contents(tmp_path / "a.h5")
    with pytest.raises(DataError, match=r"demo_0/actions\[2, 0\] is 3\.5, 2\.5 outside \[-1, 1\]; .*--actions min-max"):
        load([[contents]])

    store = load([[contents]], actions="min-max")
    assert store.action[:3, 0].tolist() == [-1, 0, 1]
    assert not store.action[:, 1].any()  # constant
    assert (store.dims[0].low, store.dims[0].high) == pytest.approx((0.05, 0.35))
    assert store.dims[0].unit == "m"


def test_files_must_be_alike(tmp_path: Path) -> None:
    small = read_contents(write_dots(tmp_path / "small.h5", "task", 1))
    large = read_contents(write_dots(tmp_path / "large.h5", "task", 1, size=32))
    with pytest.raises(DataError, match=r"large\.h5: agentview_image is \(32, 32, 3\); expected \(24, 24, 3\), as in"):
        load([[small], [large]])
    with h5py.File(tmp_path / "small.h5", "a") as file:
        del file["data"].attrs["action_dims"]
    with pytest.raises(DataError, match=r"action 0 is action_0 \[-1\.0, 1\.0\] 1; expected x \[-0\.1, 0\.1\] m"):
        load([[small, read_contents(tmp_path / "small.h5")]])


MEASURE = """
import sys
from pathlib import Path
from pixelrl.datasets.mixture import Mixture, Source

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def load(path):
    return Mixture([Source(name="task", files=(Path(path),))], batch_size=2, seed=0, gamma=0.9)

load(sys.argv[1])  # what libraries take once, whatever the data
before = peak()
mixture = load(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_loading_takes_little_more_than_the_bytes_of_the_frames(tmp_path: Path) -> None:
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
    write_episodes(tmp_path / "one.h5", [many], env_args=ENV_ARGS, action_dims=ACTION)
    write_episodes(tmp_path / "a.h5", [many] * 120, env_args=ENV_ARGS, action_dims=ACTION)
    unique = 120 * sum(value.nbytes for value in many.sensors.values())
    taken = int(
        subprocess.check_output([sys.executable, "-c", MEASURE, str(tmp_path / "one.h5"), str(tmp_path / "a.h5")])
    )
    assert 0.9 < taken / unique < 1.15

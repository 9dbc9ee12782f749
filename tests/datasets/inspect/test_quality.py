"""TQ and SACo, by hand."""

import numpy as np
import pytest

from pixelrl.datasets.inspect.demo_summary import CameraSummary, DemoNumbers, DemoSummary, shrink
from pixelrl.datasets.inspect.quality import bins, coverage, hashes, levels, pair_hashes, state_keys, trajectory_quality


def test_trajectory_quality_by_hand() -> None:
    # returns 0, 1, 2, 5: mean 2; from 0 (random) to 4 (expert) that is a half
    assert trajectory_quality([0, 1, 2, 5], 0, 4, "known").tq == 0.5
    assert trajectory_quality([0, 1, 2, 5], 1, 5, "known").tq == 0.25
    assert trajectory_quality([6, 6], 0, 4, "known").tq == 1.5  # better than the expert
    assert trajectory_quality([1, 1], 1, 1, "known").tq is None


def test_coverage_by_hand() -> None:
    seen = np.array([7, 7, 8, 7, 9, 8], np.uint64)  # new at 0, 2 and 4
    found = coverage(seen, 12, "all", points=6)
    assert (found.unique, found.counted, found.saco) == (3, 6, 0.25)
    assert found.growth == ((0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3))


def test_bins_by_hand() -> None:
    rows = np.array([[-1.0], [-0.34], [-0.33], [0.33], [0.34], [1.0], [5.0], [np.nan]])
    np.testing.assert_array_equal(bins(rows, -1.0, 1.0, 3)[:, 0], [0, 0, 1, 1, 2, 2, 2, 0])
    low, high = np.array([0.0, 10.0]), np.array([1.0, 10.0])  # the second never changes
    rows = np.array([[0.0, 10.0], [0.2, 10.0], [0.59, 10.0], [0.6, 10.0], [1.0, 10.0]])
    np.testing.assert_array_equal(bins(rows, low, high, 5), [[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]])


def test_levels_are_of_a_grid_of_four() -> None:
    thumbnails = np.zeros((1, 8, 8, 3), np.uint8)
    thumbnails[0, :2, 2:4] = (60, 70, 80)  # mean 70: second level, in the first row's second cell
    thumbnails[0, 6:, 6:] = 255
    thumbnails[0, 4, 0] = 255  # a quarter of a cell, 63.75 -> 63: still the first level
    expected = np.zeros(16, np.uint8)
    expected[[1, 15]] = 1, 3
    np.testing.assert_array_equal(levels(thumbnails)[0], expected)


def test_shrinking_takes_means_and_leaves_small_pictures() -> None:
    frames = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4, 1)
    cells = shrink(frames, 2)  # rows 0-1 and 2-4, columns 0-1 and 2-3
    assert cells.shape == (2, 2, 2, 1)
    assert cells[0, 0, 0, 0] == (0 + 1 + 4 + 5) // 4
    assert cells[1, 1, 1, 0] == (30 + 31 + 34 + 35 + 38 + 39) // 6
    np.testing.assert_array_equal(shrink(frames, 8), frames)


def test_hashes_tell_rows_apart_and_are_always_the_same() -> None:
    rows = np.random.default_rng(0).integers(0, 5, (20_000, 40)).astype(np.uint8)
    assert len(np.unique(hashes(rows))) == len(np.unique(rows, axis=0))
    np.testing.assert_array_equal(hashes(rows[::-1]), hashes(rows)[::-1])
    assert hashes(np.array([[1, 0]], np.uint8)) != hashes(np.array([[0, 1]], np.uint8))


def summary(positions: list[float], actions: list[float], grey: list[int]) -> DemoSummary:
    thumbnails = np.stack([np.full((8, 8, 3), value, np.uint8) for value in grey])
    blind = np.zeros(len(grey), np.uint32)
    return DemoSummary(
        numbers=DemoNumbers(
            name="demo_0",
            actions=np.array(actions)[:, None],
            rewards=np.zeros(len(actions)),
            dones=np.zeros(len(actions), bool),
            vectors={"robot0_eef_pos": np.array(positions)[:, None], "robot0_eef_vel": np.array(positions)[:, None]},
            notes={},
        ),
        pictures={"camera": CameraSummary(checksums=blind, thumbnails=thumbnails, blank=blind.astype(np.uint8))},
        obs={},
        next_obs={},
    )


@pytest.mark.parametrize(
    ("positions", "actions", "grey", "unique"),
    [
        ([0.0, 0.01, 0.02, 0.03, 1.0], [0.0, 0.1, 0.2, 0.3], [10, 10, 10, 10, 10], 1),  # all in one bin
        ([0.0, 0.5, 0.5, 0.5, 1.0], [0.0, 0.1, 0.2, 0.3], [10, 10, 10, 10, 10], 2),  # another position
        ([0.0, 0.01, 0.02, 0.03, 1.0], [0.0, 0.9, -0.9, 0.3], [10, 10, 10, 10, 10], 3),  # other actions
        ([0.0, 0.01, 0.02, 0.03, 1.0], [0.0, 0.1, 0.2, 0.3], [10, 100, 10, 200, 10], 3),  # other pictures
    ],
)
def test_pairs_are_of_states_and_actions(
    positions: list[float], actions: list[float], grey: list[int], unique: int
) -> None:
    seen = pair_hashes(
        summary(positions, actions, grey), ("camera",), {"robot0_eef_pos": (np.array([0.0]), np.array([1.0]))}
    )
    assert (len(seen), len(np.unique(seen))) == (4, unique)


def test_what_counts_as_state() -> None:
    keys = ("robot0_joint_pos", "robot0_eef_pos", "robot0_eef_vel", "robot0_gripper_qpos", "robot0_gripper_qvel")
    assert state_keys(keys) == ("robot0_eef_pos", "robot0_gripper_qpos")
    assert state_keys(("robot0_joint_pos", "robot0_joint_pos_sin", "robot0_joint_vel")) == ("robot0_joint_pos",)
    assert state_keys(("pose", "velocity")) == ("pose",)

"""Where recordings that were joined in one demo end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.boundaries import find_next_missing

STEPS, END = 12, 5


def noise(kind: type[Any], channels: int = 3, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return `obs` and `next_obs` of pictures `[N, 8, 8, C]`, two recordings of which the first ends in row `END`."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 256, (STEPS + 2, 8, 8, channels))
    held = frames.astype(kind) if kind is np.uint8 else (0.4 + frames / 256).astype(kind)
    rows = np.array([row for row in range(STEPS + 2) if row not in (END + 1, STEPS + 1)])
    return held[rows], held[rows + 1]


def ends(path: Path, arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], *, done: bool = False) -> list[int]:
    """Return the rows but the last after which no frame was recorded, of a demo with these `obs` and `next_obs`."""
    dones = np.arange(STEPS) == (END if done else STEPS)
    with h5py.File(path / "a.hdf5", "w") as file:
        for key, (now, then) in arrays.items():
            file[f"demo/obs/{key}"], file[f"demo/next_obs/{key}"] = now, then
        file["demo/actions"] = np.zeros((STEPS, 2), np.float32)
        file.require_group("demo/next_obs")
        file.require_group("demo/obs")
        return np.flatnonzero(find_next_missing(file["demo"], (), dones)[:-1]).tolist()


def gripper(*opened: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return `obs` and `next_obs` of a gripper that is where the next recording has it, so that neither tells."""
    held = np.array([[value, -value] for value in opened], np.float32)
    return held[:STEPS], np.concatenate([held[1:STEPS], held[STEPS - 1 :]])


OPEN_AT_BOTH = gripper(0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1)


@pytest.mark.parametrize("done", [False, True])
def test_a_depth_camera_does_not_stand_for_the_pictures(tmp_path: Path, done: bool) -> None:
    pictures = {"agentview_depth": noise(np.float32, 1), "agentview_image": noise(np.uint8)}
    assert ends(tmp_path, pictures, done=done) == [END]
    labels = np.zeros((STEPS, 8, 8, 1), np.uint8)
    assert ends(tmp_path, {**pictures, "agentview_depth": (labels, labels)}, done=done) == [END]


@pytest.mark.parametrize("done", [False, True])
def test_where_vectors_stand_still_pictures_tell_recordings_apart(tmp_path: Path, done: bool) -> None:
    arrays = {"robot0_gripper_qpos": OPEN_AT_BOTH, "agentview_image": noise(np.uint8)}
    assert ends(tmp_path, arrays, done=done) == [END]


def test_a_camera_that_sees_nothing_is_not_asked(tmp_path: Path) -> None:
    dark = np.zeros((STEPS, 8, 8, 3), np.uint8)
    assert ends(tmp_path, {"a_image": (dark, dark), "b_image": noise(np.uint8)}) == [END]


@pytest.mark.parametrize("arrays", [{}, {"robot0_gripper_qpos": OPEN_AT_BOTH}], ids=["nothing", "gripper"])
def test_a_done_that_is_taken_back_tells_where_there_is_nothing_to_compare(
    tmp_path: Path, arrays: dict[str, tuple[NDArray[Any], NDArray[Any]]]
) -> None:
    assert ends(tmp_path, arrays, done=True) == [END]
    assert ends(tmp_path, arrays) == []


@pytest.mark.parametrize("done", [False, True])
def test_vectors_that_move_on_hold_a_recording_together_whatever_a_lossy_codec_did(tmp_path: Path, done: bool) -> None:
    way = np.arange(STEPS + 1, dtype=np.float32)[:, None]
    lossy = noise(np.uint8)[0], noise(np.uint8, seed=1)[0]
    assert ends(tmp_path, {"robot0_eef_pos": (way[:-1], way[1:]), "agentview_image": lossy}, done=done) == []


def test_pictures_of_a_lossy_codec_end_at_dones_where_vectors_stand_still(tmp_path: Path) -> None:
    lossy = noise(np.uint8)[0], noise(np.uint8, seed=1)[0]
    assert ends(tmp_path, {"robot0_gripper_qpos": OPEN_AT_BOTH, "agentview_image": lossy}, done=True) == [END]

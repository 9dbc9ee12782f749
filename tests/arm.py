"""A small, good file as robomimic writes them: a gripper over a table, seen from the front and from the wrist.

It holds what must raise no alarm: an arm that rests for some steps, demos that end by time-out, two cameras.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.seeding import derive

FRONT, WRIST = "agentview_image", "robot0_eye_in_hand_image"
POSITION, GRIPPER = "robot0_eef_pos", "robot0_gripper_qpos"
DEMOS, STEPS, REST, SIZE = 8, 14, 5, 32
"""The arm rests in the last `REST` steps of every demo; every fourth demo is never rewarded."""


def write_arm(path: Path, *, seed: int = 0, compression: str | None = None, opens: float = 1.0) -> Path:
    """Write the file; a positive last action opens the gripper, or closes it with `opens=-1`."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = DEMOS * STEPS
        for index in range(DEMOS):
            _write_demo(data.create_group(f"demo_{index}"), index, seed, compression, opens)
    return path


def _write_demo(demo: h5py.Group, index: int, seed: int, compression: str | None, opens: float) -> None:
    random = np.random.default_rng(derive(seed, "arm", index))
    actions = random.uniform(-0.8, 0.8, (STEPS, 4))
    actions[-REST:, :3] = 0
    actions[:, 3] = np.where(np.arange(STEPS) % 6 < 3, 0.9, -0.9)
    position = 0.5 + 0.02 * random.normal(size=3) + np.cumsum(np.pad(0.1 * actions[:, :3], ((1, 0), (0, 0))), axis=0)
    opening = 0.04 + 0.01 * opens * np.pad(np.cumsum(actions[:, 3]), (1, 0))
    rewards = np.zeros(STEPS)
    rewards[-1] = index % 4 > 0
    demo.attrs["num_samples"] = STEPS
    demo["actions"], demo["rewards"], demo["dones"] = actions, rewards, rewards.astype(int)
    demo["states"] = position[:-1]
    readings = {POSITION: position, GRIPPER: np.stack([opening, -opening], axis=1)}
    pictures = {FRONT: _front(position), WRIST: _wrist(position)}
    for key, rows in {**readings, **pictures}.items():
        squeeze = compression if rows.ndim == 4 else None
        chunks = (1, *rows.shape[1:]) if squeeze else None
        for group, part in (("obs", rows[:-1]), ("next_obs", rows[1:])):
            demo.create_dataset(f"{group}/{key}", data=part, compression=squeeze, chunks=chunks)


def _front(position: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw a brown table under a pale wall, and the gripper as a dark square."""
    frames = np.full((len(position), SIZE, SIZE, 3), (200, 205, 190), np.uint8)
    frames[:, SIZE // 2 :] = (150, 100, 50)
    for frame, (x, y, _) in zip(frames, position, strict=True):
        left, top = (int(np.clip(value * SIZE, 0, SIZE - 5)) for value in (x, y))
        frame[top : top + 5, left : left + 5] = (30, 30, 40)
        frame[0, :3, 0] = [int(value * 997) % 256 for value in (x, y, x * y)]  # no two places look quite the same
    return frames


def _wrist(position: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw blue waves that pass below the gripper."""
    axis = np.arange(SIZE) / SIZE
    waves = np.sin(9 * (axis[None, :, None] + position[:, :1, None]) + 7 * (axis[None, None] + position[:, 1:2, None]))
    blue = 150 + 60 * waves + 40 * axis[None, :, None]
    return np.stack([blue / 4, blue / 2, blue], axis=-1).astype(np.uint8)

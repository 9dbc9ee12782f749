"""Your own recordings, as NumPy arrays, become a file that `pixelrl inspect` and `pixelrl train` take."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import tyro

from pixelrl import ActionDim, Episode, EpisodeWriter

DIMS = (
    *(ActionDim(name=axis, low=-0.05, high=0.05, unit="m") for axis in "xyz"),
    ActionDim(name="gripper", low=0.0, high=1.0, unit=""),
)
"""What -1 and 1 mean to the robot, for each dimension of the action."""


def recording(length: int, random: np.random.Generator) -> Episode:
    """Return N steps and the N + 1 instants around them; here they are noise."""
    rewards = np.zeros(length, np.float32)
    rewards[-1] = 1  # the goal is reached in the last step
    return Episode(
        sensors={
            "wrist_image": random.integers(0, 256, (length + 1, 48, 64, 3), dtype=np.uint8),  # RGB, upright
            "joint_positions": random.normal(size=(length + 1, 7)).astype(np.float32),  # [rad]
        },
        actions=random.uniform(-1, 1, (length, 4)).astype(np.float32),
        rewards=rewards,
        dones=rewards > 0,  # only where the step truly ends the task, never for a time-out
        notes={"operator": "nobody"},
    )


def main(episodes: int = 20, out: Path | None = None) -> None:
    """Write a file, one episode in memory at a time, and look into it."""
    path = out or Path(tempfile.mkdtemp(prefix="pixelrl-")) / "mine.hdf5"
    random = np.random.default_rng(0)
    with EpisodeWriter(path, env_args={"env_name": "our-robot"}, action_dims=DIMS, compress=True) as writer:
        for _ in range(episodes):
            writer.add(recording(int(random.integers(10, 20)), random))
    with h5py.File(path) as file:
        demo = file["data/demo_0"]
        print({name: demo[name].shape for name in ("actions", "obs/wrist_image", "next_obs/wrist_image")})
    print(f"pixelrl inspect {path}")


if __name__ == "__main__":
    tyro.cli(main)

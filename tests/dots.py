"""A world small enough for tests: a red dot on a grey table moves to a green goal, seen from above.

Like COG's, it comes in two parts that join: prior episodes bring the dot from anywhere to the middle of the table and
pay nothing; task episodes bring it from the middle into the goal. No episode does both.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.seeding import derive

Part = Literal["prior", "task"]

CAMERA, POSITION = "agentview_image", "robot0_eef_pos"
REACH = 0.1
"""How far an action of 1 moves the dot; the table is 1 wide [m]."""
MIDDLE, GOAL, RADIUS = (0.5, 0.5), (0.85, 0.85), 0.1
ACTION = (ActionDim(name="x", low=-REACH, high=REACH, unit="m"), ActionDim(name="y", low=-REACH, high=REACH, unit="m"))
ENV_ARGS: Mapping[str, Any] = {"env_name": "Dot", "type": 2, "env_version": "1", "env_kwargs": {}}

SMALL = ("--batch-size", "16", "--critic-hidden", "16", "8", "--actor-hidden", "16", "--log-every", "5")
"""Options of a training on such a world that takes a second."""


def write_dots(path: Path, part: Part, count: int, *, seed: int = 0, size: int = 24, compress: bool = False) -> Path:
    """Write `count` episodes to a file and return its path."""
    episodes = dot_episodes(part, count, seed=seed, size=size)
    write_episodes(path, episodes, env_args=ENV_ARGS, action_dims=ACTION, compress=compress)
    return path


def write_plainly(path: Path, episodes: Iterable[Episode], *, next_obs: bool = True, **packing: Any) -> Path:
    """Write episodes as robomimic itself does, without `frames`, and return the path; `packing` is of the pictures."""
    with h5py.File(path, "w") as file:
        for index, episode in enumerate(episodes):
            demo = file.create_group(f"data/demo_{index}")
            demo.attrs["num_samples"] = len(episode)
            demo["actions"] = episode.actions.astype(np.float64)
            demo["rewards"], demo["dones"] = episode.rewards, episode.dones.astype(int)
            for key, frames in episode.sensors.items():
                options = packing if frames.ndim == 4 else {}
                demo.create_dataset(f"obs/{key}", data=frames[:-1], **options)
                if next_obs:
                    demo.create_dataset(f"next_obs/{key}", data=frames[1:], **options)
    return path


def dot_episodes(
    part: Part, count: int, *, seed: int = 0, size: int = 24, horizon: int = 12, noise: float = 0.2
) -> Iterator[Episode]:
    """Yield episodes of a noisy proportional controller that aims anywhere at all in a fifth of them.

    Pictures are uint8 `[size, size, 3]`; an episode ends in the goal or after `horizon` steps.
    """
    for index in range(count):
        random = np.random.default_rng(derive(seed, part, index))
        yield _episode(part, random, size, horizon, noise)


def _episode(part: Part, random: np.random.Generator, size: int, horizon: int, noise: float) -> Episode:
    """Run one episode."""
    target = np.array(MIDDLE if part == "prior" else GOAL)
    start = random.uniform(0.1, 0.9, 2) if part == "prior" else random.normal(MIDDLE, 0.03)
    if random.random() < 0.2:
        target = random.uniform(0.1, 0.9, 2)
    positions: list[NDArray[np.float64]] = [start]
    actions: list[NDArray[np.float64]] = []
    rewards: list[float] = []
    while len(actions) < horizon and not any(rewards):
        action = np.clip((target - positions[-1]) / REACH + noise * random.normal(size=2), -0.9, 0.9)
        actions.append(action)
        positions.append(np.clip(positions[-1] + REACH * action, 0, 1))
        rewards.append(float(np.linalg.norm(positions[-1] - np.array(GOAL)) < RADIUS))
    path = np.stack(positions)
    return Episode(
        sensors={CAMERA: draw(path, size), POSITION: path.astype(np.float32)},
        actions=np.stack(actions).astype(np.float32),
        rewards=np.array(rewards, dtype=np.float32),
        dones=np.array(rewards) > 0,
        states=path,
        notes={"part": part, "success": bool(rewards[-1])},
    )


def draw(positions: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Return pictures, uint8 `[N, size, size, 3]`, of dots at these positions `[N, 2]` (x to the right, y down)."""
    axis = (np.arange(size) + 0.5) / size
    table = np.stack(np.meshgrid(axis, axis), axis=-1)
    pictures = np.full((len(positions), size, size, 3), 90, dtype=np.uint8)
    pictures[:, np.linalg.norm(table - np.array(GOAL), axis=-1) < RADIUS] = (40, 160, 60)
    distance = np.linalg.norm(table - positions[:, None, None], axis=-1)
    pictures[distance < RADIUS * 0.7] = (220, 40, 40)
    return pictures

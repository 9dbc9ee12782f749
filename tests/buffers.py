"""COG's buffers in small, in the very layout that roboverse's scripted_collect.py saves."""

from pathlib import Path
from typing import Any

import numpy as np


def trajectory(steps: int, *, seed: int = 0, size: int = 12) -> dict[str, list[Any]]:
    """Return what `collect_one_traj` returns: the world stands still but for a dot that moves a pixel a step."""
    random = np.random.default_rng(seed)
    instants = [reading(step, random, size) for step in range(steps + 1)]
    return {
        "observations": [dict(instant) for instant in instants[:-1]],
        "actions": [random.uniform(-0.9, 0.9, 8) for _ in range(steps)],
        "rewards": [float(step == steps - 1) for step in range(steps)],
        "next_observations": [dict(instant) for instant in instants[1:]],
        "terminals": [False] * steps,
        "agent_infos": [{"place_attempted": step > 1, "done": False} for step in range(steps)],
        "env_infos": [{"grasp_success": np.bool_(step > 0), "distance": 0.5 / (1 + step)} for step in range(steps)],
    }


def reading(step: int, random: np.random.Generator, size: int) -> dict[str, Any]:
    """Return one observation."""
    image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    image[step % size, 0] = (255, 0, 0)
    state, place = random.normal(size=10), random.normal(size=3)
    return {"object_position": place, "object_orientation": (0.0, 0.0, 0.0, 1.0), "state": state, "image": image}


def write_buffer(path: Path, trajectories: list[dict[str, list[Any]]]) -> Path:
    """Save as `np.save(path, data)` does."""
    held = np.empty(len(trajectories), dtype=object)
    held[:] = trajectories
    np.save(path, held, allow_pickle=True)
    return path

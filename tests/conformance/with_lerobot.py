"""Run by the Python of an environment that holds the real lerobot and no pixelrl: `read ROOT` or `write ROOT SEED`."""

import json
import sys
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def read(root: str) -> dict[str, Any]:
    """Return what lerobot finds in a data set: counts, features, and a digest of every step."""
    data = LeRobotDataset("local/conformance", root=root)
    rows = [data[row] for row in range(len(data))]
    pictures = {key: [round(float(row[key].mean()) * 255, 3) for row in rows] for key in data.meta.camera_keys}
    return {
        "episodes": data.num_episodes,
        "fps": data.fps,
        "episode": [int(row["episode_index"]) for row in rows],
        "action": [row["action"].tolist() for row in rows],
        "state": [row["observation.state"].tolist() for row in rows],
        "pictures": pictures,
        "shapes": {key: [*rows[0][key].shape] for key in data.meta.camera_keys},
        "task": rows[0]["task"],
        "stats": sorted(data.meta.stats),
    }


def write(root: str, videos: str) -> dict[str, Any]:
    """Record two episodes as a person with lerobot does, and return what was recorded."""
    features = {
        "observation.images.front": {
            "dtype": "video" if videos == "video" else "image",
            "shape": (48, 64, 3),
            "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    }
    made = LeRobotDataset.create(
        "local/conformance", fps=10, features=features, root=root, robot_type="toy", use_videos=videos == "video"
    )
    random = np.random.default_rng(0)
    told: dict[str, Any] = {"action": [], "state": [], "pictures": [], "reward": []}
    for steps in (3, 4):
        for step in range(steps):
            shade = int(random.integers(40, 200))
            frame = {
                "observation.images.front": np.full((48, 64, 3), shade, np.uint8),
                "observation.state": random.normal(size=2).astype(np.float32),
                "action": random.uniform(-1, 1, 2).astype(np.float32),
                "next.reward": np.array([float(step == steps - 1)], np.float32),
                "next.done": np.array([step == steps - 1]),
                "task": "put the dot into the goal",
            }
            made.add_frame(frame)
            told["action"].append(frame["action"].tolist())
            told["state"].append(frame["observation.state"].tolist())
            told["pictures"].append(shade)
            told["reward"].append(float(step == steps - 1))
        made.save_episode()
    made.finalize()
    return told


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    print(json.dumps({"read": read, "write": write}[verb](*arguments)))

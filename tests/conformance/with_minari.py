"""Run by the Python of an environment that holds the real minari and no pixelrl: `read NAME` or `write NAME FORMAT`."""

import json
import sys
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.spaces import Box, Dict


class Toy(gymnasium.Env[Any, Any]):
    """A picture and a position; four steps an episode."""

    observation_space = Dict({"front": Box(0, 255, (36, 40, 3), np.uint8), "pos": Box(-9, 9, (2,), np.float32)})
    action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        super().reset(seed=seed)
        self.steps, self.pos = 0, np.zeros(2, np.float32)
        return self._see(), {}

    def step(self, action: Any) -> Any:
        """Move."""
        self.steps, self.pos = self.steps + 1, (self.pos + action).astype(np.float32)
        return self._see(), float(self.steps == 4), self.steps == 4, False, {}

    def _see(self) -> Any:
        return {"front": np.full((36, 40, 3), 10 * self.steps, np.uint8), "pos": self.pos}


def tell(data: Any) -> dict[str, Any]:
    """Return all that a data set holds, pictures by their means."""
    episodes = [*data.iterate_episodes()]
    keys = [*episodes[0].observations]
    return {
        "episodes": data.total_episodes,
        "steps": int(data.total_steps),
        "action": [episode.actions.tolist() for episode in episodes],
        "reward": [episode.rewards.tolist() for episode in episodes],
        "ends": [episode.terminations.tolist() for episode in episodes],
        "means": {key: [np.mean(episode.observations[key]).item() for episode in episodes] for key in keys},
        "rows": {key: [len(episode.observations[key]) for episode in episodes] for key in keys},
    }


def read(name: str) -> dict[str, Any]:
    """Return what minari finds in a data set of MINARI_DATASETS_PATH."""
    return tell(minari.load_dataset(name))


def write(name: str, form: str) -> dict[str, Any]:
    """Record three episodes as a person with minari does, and return what was recorded."""
    env = minari.DataCollector(Toy(), data_format=form)
    random = np.random.default_rng(0)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(4):
            env.step(random.uniform(-1, 1, 2).astype(np.float32))
    return tell(env.create_dataset(name, algorithm_name="random", author="conformance"))


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    print(json.dumps({"read": read, "write": write}[verb](*arguments)))

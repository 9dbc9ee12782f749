"""The examples' world: a red dot on a grey table, seen from above, is to be moved into a green goal.

Importing this registers `Dots-v0` with Gymnasium. Its recorded data come in two parts, as COG wants them: prior
episodes bring the dot from anywhere to the middle and pay nothing, task episodes bring it from the middle into the
goal. No episode does both.
"""

from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from numpy.typing import NDArray

from pixelrl import Episode, EpisodeWriter, make_env, named_env_args

NAME = "gym:dots:Dots-v0"
SIZE = 32
"""Height and width of the picture [px]."""
REACH = 0.1
"""How far one action moves the dot at most; the table is 1 wide [m]."""
MIDDLE, GOAL, RADIUS = np.array([0.5, 0.5]), np.array([0.85, 0.85]), 0.12


class Dots(gymnasium.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Observe a picture, `top`, and where the dot is, `position` [m]; an action moves it, `[2]` [m]."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own way)
    observation_space = Dict({"top": Box(0, 255, (SIZE, SIZE, 3), np.uint8), "position": Box(0, 1, (2,))})
    action_space = Box(-REACH, REACH, (2,))

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.position = render_mode, MIDDLE

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the dot anywhere in the lower left, or with the option `start="middle"` near the middle."""
        super().reset(seed=seed)
        near = (options or {}).get("start") == "middle"
        self.position = self.np_random.normal(MIDDLE, 0.03) if near else self.np_random.uniform(0.05, 0.45, 2)
        return self.see(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the dot; the goal pays 1 and ends the episode."""
        self.position = np.clip(self.position + action, 0, 1)
        reached = bool(np.linalg.norm(self.position - GOAL) < RADIUS)
        return self.see(), float(reached), reached, False, {"is_success": reached}

    def see(self) -> dict[str, NDArray[Any]]:
        """Return what is observed."""
        return {"top": self.render(), "position": self.position.astype(np.float32)}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """Draw the table, uint8 `[SIZE, SIZE, 3]`."""
        axis = (np.arange(SIZE) + 0.5) / SIZE
        places = np.stack(np.meshgrid(axis, axis), axis=-1)
        picture = np.full((SIZE, SIZE, 3), 90, np.uint8)
        picture[np.linalg.norm(places - GOAL, axis=-1) < RADIUS] = (40, 160, 60)
        picture[np.linalg.norm(places - self.position, axis=-1) < 0.07] = (220, 40, 40)
        return picture


gymnasium.register("Dots-v0", entry_point=Dots, max_episode_steps=20)


def collect(path: Path, part: Literal["prior", "task"], episodes: int, seed: int = 0) -> Path:
    """Record a noisy controller into a file, and return its path."""
    env = make_env(named_env_args(NAME), allow_import=["dots"])
    target, start = (MIDDLE, "anywhere") if part == "prior" else (GOAL, "middle")
    with EpisodeWriter(path, env_args=env.env_args, action_dims=env.action_dims) as writer:
        for index in range(episodes):
            random = np.random.default_rng([seed, part == "task", index])
            seen = [env.reset(seed=int(random.integers(2**31)), options={"start": start})[0]]
            actions, rewards = [], []
            while len(actions) < 12 and not any(rewards):
                wanted = (target - seen[-1]["position"]) / REACH + 0.3 * random.normal(size=2)
                actions.append(np.clip(wanted, -0.95, 0.95))  # in [-1, 1]; the environment takes metres
                sensors, reward, *_ = env.step(actions[-1])
                seen.append(sensors)
                rewards.append(reward)
            writer.add(
                Episode(
                    sensors={key: np.stack([each[key] for each in seen]) for key in seen[0]},
                    actions=np.array(actions, np.float32),
                    rewards=np.array(rewards, np.float32),
                    dones=np.array(rewards) > 0,
                )
            )
    env.close()
    return path

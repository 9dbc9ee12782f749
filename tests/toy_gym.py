"""A stranger's package: importing it registers environments with gymnasium, none of them robosuite's."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Text
from numpy.typing import NDArray


class Reach(gymnasium.Env[Any, Any]):
    """Move a white dot to x = 1; `kind` says what is observed, `says` what the info says of success."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (gymnasium's own way)
    action_space = Box(np.array([-2.0, 0.0]), np.array([2.0, 4.0]), dtype=np.float64)

    def __init__(self, kind: str = "dict", says: str = "is_success", render_mode: str | None = None) -> None:
        self.kind, self.says, self.render_mode = kind, says, render_mode
        picture, pos = Box(0, 255, (3, 8, 16), np.uint8), Box(-np.inf, np.inf, (2,))
        self.observation_space = {
            "dict": Dict({"pixels": Dict({"front": picture}), "pos": pos, "mission": Text(9)}),
            "bare": Box(0, 255, (8, 16, 3), np.uint8),
            "blind": pos,
        }[kind]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.pos = np.array([self.np_random.uniform(-0.5, 0.5), 0.0])
        return self.see(), {}

    def step(self, action: NDArray[np.float64]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.action = action
        self.pos = self.pos + 0.1 * action
        reached = bool(self.pos[0] >= 1)
        info = {} if self.says == "nothing" else {self.says: np.float64(reached)}
        return self.see(), float(reached), reached and self.says == "nothing", False, info

    def see(self) -> Any:
        frame = self.draw(8, 16)
        if self.kind == "blind":
            return self.pos
        return (
            frame
            if self.kind == "bare"
            else {"pixels": {"front": frame.transpose(2, 0, 1)}, "pos": self.pos, "mission": "go"}
        )

    def render(self) -> NDArray[np.uint8]:
        return self.draw(20, 40)

    def draw(self, height: int, width: int) -> NDArray[np.uint8]:
        frame = np.zeros((height, width, 3), np.uint8)
        column = int(np.clip((self.pos[0] + 1) / 2.5, 0, 0.99) * width)
        frame[:, column] = 255
        frame[0] = (10, 20, 30)  # the upper edge
        return frame


class Slow(Reach):
    """It acts less often."""

    metadata = Reach.metadata | {"render_fps": 2}


class Screen(Reach):
    """It wants a window."""

    def __init__(self, **options: Any) -> None:
        raise RuntimeError("No available video device")


gymnasium.register("Toy/Reach-v0", entry_point=Reach, max_episode_steps=12)
gymnasium.register("Toy/Endless-v0", entry_point=Reach)
gymnasium.register("Toy/Slow-v0", entry_point=Slow)
gymnasium.register("Toy/Screen-v0", entry_point=Screen)

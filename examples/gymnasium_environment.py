"""A Gymnasium environment, as a policy sees it, and a policy of your own, tried in it by parallel workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from dots import GOAL, NAME, REACH
from numpy.typing import NDArray

from pixelrl import evaluate, make_env, named_env_args
from pixelrl.simulation.evaluation.statistics import summarise


@dataclass(frozen=True)
class Controller:
    """A policy: B readings of each sensor, `[B, ...]`, become B actions in [-1, 1], `[B, A]`; it must pickle."""

    speed: float

    def __call__(self, sensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Aim at the goal."""
        wanted = (GOAL - sensors["position"]) / REACH
        return np.clip(self.speed * wanted, -1, 1).astype(np.float32)


def main(episodes: int = 20, workers: int = 2) -> None:
    """Look at the environment, then play."""
    env_args = named_env_args(NAME)  # gym:MODULE:ID; gym:ID where no module must be imported first
    env = make_env(env_args, allow_import=["dots"])
    print({key: (space.dtype, space.shape) for key, space in env.observation_space.items()}, env.action_dims)
    env.close()
    for speed in (1.0, 0.2):
        outcomes = evaluate(
            Controller(speed), env_args, episodes=episodes, workers=workers, seed=1, allow_import=["dots"]
        )
        figures = summarise(outcomes)
        low, high = figures["success_interval_95"]
        print(f"speed {speed}: {figures['successes']} of {episodes} succeed (95 % interval {low:.0%} to {high:.0%})")


if __name__ == "__main__":
    tyro.cli(main)

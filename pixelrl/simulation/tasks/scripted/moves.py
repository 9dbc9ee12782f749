"""What scripted policies are made of: straight moves, picking up, and the noise that makes them imperfect.

A script is a generator. It sees the task's privileged state (`env.cube_pos`, ...) as it is whenever the next action
is asked for, and it yields actions `[4]` in [-0.9, 0.9]: clipped, so that atanh of a recorded action stays finite.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pixelrl.simulation.tasks.tabletop import Tabletop

Actions = Iterator[NDArray[np.float32]]
Point = NDArray[np.float64]

OPEN, CLOSED = -0.9, 0.9


@dataclass(frozen=True, kw_only=True)
class Script:
    """One part of the data: how its episodes begin, go on and end.

    Attributes:
        start: the `start` option of the environment's reset.
        steps: the longest episode.
        act: the policy, given the robosuite environment and a generator for its random choices.
        succeeded: tells of a state; an episode succeeds if one of its steps ends in such a state; by default the goal.
    """

    start: str
    steps: int
    act: Callable[[Any, np.random.Generator], Actions]
    succeeded: Callable[[Any], bool] = lambda env: env._check_success()


def towards(env: "Tabletop", goal: Point, gripper: float) -> NDArray[np.float32]:
    """Return the action that moves straight to a point, as fast as an action may."""
    move = (goal - env.eef_pos) / env.move
    return np.array([*np.clip(move, -0.9, 0.9), gripper], np.float32)


def stay_neutral(env: "Tabletop", gripper: float) -> Actions:
    """Go to the neutral pose and stay there for good."""
    while True:
        yield towards(env, env.neutral_pos, gripper)


def descend(env: "Tabletop", target: Callable[[], Point], above: float, gripper: float) -> Actions:
    """Go so far above a point [m], and down to it; `target` tells where it is now, `[3]` [m]: it may move."""
    hover = np.array([0.0, 0.0, above])
    while np.linalg.norm((target() - env.eef_pos)[:2]) > 0.015:
        yield towards(env, target() + hover, gripper)
    while env.eef_pos[2] > target()[2] + 0.01:
        yield towards(env, target(), gripper)


def grasp(env: "Tabletop", target: Callable[[], Point], above: float) -> Actions:
    """Descend to a point with open fingers, and close them there."""
    yield from descend(env, target, above, OPEN)
    here = env.eef_pos
    for _ in range(2):
        yield towards(env, here, CLOSED)


def noisy(actions: Actions, rng: np.random.Generator, *, sigma: float, flips: float) -> Actions:
    """Add Gaussian noise to the movements, and turn the gripper's command round now and then."""
    for action in actions:
        action[:3] += rng.normal(0.0, sigma, 3)
        if rng.random() < flips:
            action[3] *= -1
        yield np.clip(action, -0.9, 0.9)

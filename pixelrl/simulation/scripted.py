"""Scripted, noisy policies that collect COG's two data sets for pick-place-tray.

COG (Singh et al., 2020, arXiv 2010.14500): the prior data pick, the task data place what is already held; each skill
is proportional control with Gaussian noise, failures included, and the one ends where the other begins. Departures:
the noise is larger, and our robot moves by position targets.

A script is a generator. It sees the task's privileged state (`tray.cube_pos`, ...) as it is whenever the next action
is asked for, and it yields actions `[4]` in [-0.9, 0.9]: clipped, so that atanh of a recorded action stays finite.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pixelrl.simulation.tray import PickPlaceTray

Actions = Iterator[NDArray[np.float32]]

OPEN, CLOSED = -0.9, 0.9
ABOVE = np.array([0.0, 0.0, 0.06])
"""From a cube to where a pick begins its descent. [m]"""


@dataclass(frozen=True, kw_only=True)
class Script:
    """One part of the data: how its episodes begin, go on and end.

    Attributes:
        start: the `start` option of the environment's reset.
        steps: the longest episode.
        act: the policy; its random choices come from the generator that it is given.
        succeeded: judges a state; an episode succeeds if one of its steps ends in such a state.
    """

    start: str
    steps: int
    act: Callable[["PickPlaceTray", np.random.Generator], Actions]
    succeeded: Callable[["PickPlaceTray"], bool]


def scripts() -> dict[str, Script]:
    """Return the scripts by the name of the part of the data: prior, task, oracle."""
    return {
        "prior": Script(
            start="table",
            steps=22,
            act=prior,
            succeeded=lambda tray: tray.holds_object() and tray.eef_pos[2] > tray.drop_pos[2],
        ),
        "task": Script(start="held", steps=16, act=task, succeeded=lambda tray: tray._check_success()),
        "oracle": Script(start="table", steps=40, act=oracle, succeeded=lambda tray: tray._check_success()),
    }


def prior(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Pick a cube up, any cube, carry it to the neutral pose and stay there; about half of the picks miss."""
    offset = np.array([*rng.normal(0.0, 0.016, 2), 0.0])
    chosen = int(rng.integers(len(tray.cubes)))
    return _noisy(_pick(tray, lambda: tray.cube_positions[chosen] + offset), rng, sigma=0.2, flips=0.03)


def task(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Place the held cube in the tray and withdraw; about one in eight misses."""
    offset = np.array([*rng.normal(0.0, 0.032, 2), 0.0])
    return _noisy(_place(tray, offset), rng, sigma=0.2, flips=0.03)


def oracle(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Do the whole task without noise: pick until the cube is held up, then place."""
    exactly = np.zeros(3)
    for action in _pick(tray, lambda: tray.cube_pos):
        yield action
        if tray.holds_object() and tray.eef_pos[2] > tray.drop_pos[2]:
            break
    yield from _place(tray, exactly)


def _pick(tray: "PickPlaceTray", target: Callable[[], NDArray[np.float64]]) -> Actions:
    """Go above a point, which may move, descend, close, and rise to the neutral pose."""
    while np.linalg.norm((target() - tray.eef_pos)[:2]) > 0.015:
        yield _towards(tray, target() + ABOVE, OPEN)
    while tray.eef_pos[2] > target()[2] + 0.01:
        yield _towards(tray, target(), OPEN)
    grasp = tray.eef_pos
    for _ in range(2):
        yield _towards(tray, grasp, CLOSED)
    while True:
        yield _towards(tray, tray.neutral_pos, CLOSED)


def _place(tray: "PickPlaceTray", offset: NDArray[np.float64]) -> Actions:
    """Go above the tray, let go, and return to the neutral pose."""
    drop = tray.drop_pos + offset
    while np.linalg.norm((drop - tray.eef_pos)[:2]) > 0.02 or tray.eef_pos[2] > drop[2] + 0.02:
        yield _towards(tray, drop, CLOSED)
    for _ in range(2):
        yield _towards(tray, drop, OPEN)
    while True:
        yield _towards(tray, tray.neutral_pos, OPEN)


def _towards(tray: "PickPlaceTray", goal: NDArray[np.float64], gripper: float) -> NDArray[np.float32]:
    """Return the action that moves straight to a point, as fast as an action may."""
    move = (goal - tray.eef_pos) / tray.move
    return np.array([*np.clip(move, -0.9, 0.9), gripper], np.float32)


def _noisy(actions: Actions, rng: np.random.Generator, *, sigma: float, flips: float) -> Actions:
    """Add Gaussian noise to the movements, and turn the gripper's command round now and then."""
    for action in actions:
        action[:3] += rng.normal(0.0, sigma, 3)
        if rng.random() < flips:
            action[3] *= -1
        yield np.clip(action, -0.9, 0.9)

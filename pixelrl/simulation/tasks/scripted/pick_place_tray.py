"""Scripted, noisy policies that collect COG's two data sets for pick-place-tray.

COG (Singh et al., 2020, arXiv 2010.14500): the prior data pick, the task data place what is already held; each skill
is proportional control with Gaussian noise, failures included, and the one ends where the other begins. Departures:
the noise is larger, and our robot moves by position targets.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pixelrl.simulation.tasks.scripted.moves import (
    CLOSED,
    OPEN,
    Actions,
    Point,
    Script,
    grasp,
    noisy,
    stay_neutral,
    towards,
)

if TYPE_CHECKING:
    from pixelrl.simulation.tasks.pick_place_tray import PickPlaceTray

ABOVE = 0.06
"""From a cube to where a pick begins its descent. [m]"""


def tray_scripts() -> dict[str, Script]:
    """Return the scripts by the name of the part of the data: prior, task, oracle."""
    return {
        "prior": Script(
            start="table",
            steps=24,
            act=prior,
            succeeded=lambda tray: tray.holds_object() and tray.eef_pos[2] > tray.drop_pos[2],
        ),
        "task": Script(start="held", steps=16, act=task),
        "oracle": Script(start="table", steps=40, act=oracle),
    }


def prior(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Pick a cube up, any cube, carry it to the neutral pose and stay there; what misses, about half, tries again."""
    return noisy(_picks(tray, rng), rng, sigma=0.2, flips=0.03)


def task(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Place the held cube in the tray and withdraw; about one in eight misses."""
    offset = np.array([*rng.normal(0.0, 0.032, 2), 0.0])
    return noisy(_place(tray, offset), rng, sigma=0.2, flips=0.03)


def oracle(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Do the whole task without noise: pick until the cube is held up, then place."""
    yield from grasp(tray, lambda: tray.cube_pos, ABOVE)
    while not (tray.holds_object() and tray.eef_pos[2] > tray.drop_pos[2]):
        yield towards(tray, tray.neutral_pos, CLOSED)
    yield from _place(tray, np.zeros(3))


def _picks(tray: "PickPlaceTray", rng: np.random.Generator) -> Actions:
    """Pick until a cube is held at the neutral pose, and stay there."""
    while True:
        offset = np.array([*rng.normal(0.0, 0.016, 2), 0.0])
        yield from grasp(tray, partial(_aim, tray, int(rng.integers(len(tray.cubes))), offset), ABOVE)
        while tray.holds_a_cube() or np.linalg.norm(tray.neutral_pos - tray.eef_pos) > 0.03:
            yield towards(tray, tray.neutral_pos, CLOSED)


def _aim(tray: "PickPlaceTray", cube: int, offset: Point) -> Point:
    """Return the point, in metres, that a pick goes to if it misses the centre of a cube by an offset."""
    return tray.cube_positions[cube] + offset


def _place(tray: "PickPlaceTray", offset: Point) -> Actions:
    """Go above the tray, let go, and return to the neutral pose."""
    drop = tray.drop_pos + offset
    while np.linalg.norm((drop - tray.eef_pos)[:2]) > 0.02 or tray.eef_pos[2] > drop[2] + 0.02:
        yield towards(tray, drop, CLOSED)
    for _ in range(2):
        yield towards(tray, drop, OPEN)
    yield from stay_neutral(tray, OPEN)

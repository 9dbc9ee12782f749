"""Scripted, noisy policies that collect COG's data sets for the three drawer tasks.

COG (Singh et al., 2020, arXiv 2010.14500), as its authors' scripts do it: the prior data clear the way, open the
drawer and end in the neutral pose; the task data, the same for all three tasks, begin there and grasp. Each skill is
proportional control with Gaussian noise of 0.1, and failures are kept. On purpose:

- in half of the prior episodes each step of the pull goes either way with p = 0.5;
- in half of the episodes of drawer-blocked-object the block is dropped beside the tray;
- half of the grasps aim at a random point in the drawer.

Departures: the authors have a script with mistakes beside each without, while ours errs in one episode of two; their
arm jumps into the neutral pose, ours moves there; and the grip is turned round at 1 % of the steps.

Successes of 200 episodes, seeds 0-199: prior 138 (drawer-grasp), 167 (drawer-blocked-drawer) and 123
(drawer-blocked-object); task 138 (any of the three); oracle 200 (each of the three).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pixelrl.simulation.tasks.scripted.moves import (
    CLOSED,
    OPEN,
    Actions,
    Point,
    Script,
    descend,
    grasp,
    noisy,
    stay_neutral,
    towards,
)

if TYPE_CHECKING:
    from pixelrl.simulation.tasks.drawers import DrawerGrasp

Noise = np.random.Generator
Clear = Callable[["DrawerGrasp", Noise, bool], Actions]
"""Clears the way; with True it does so badly, if it can."""

ABOVE = 0.09
"""From a cube in the drawer, or from the handle, to where a descent begins. [m]"""

HOOK = np.array([0.0, 0.012, -0.008])
"""From the middle of the handle's hole to where the fingertips go: in between the bars. [m]"""

BEFORE = np.array([0.0, 0.045, 0.012])
"""From the middle of the upper drawer's front to where the fingertips begin to push, below the hand's height."""

SPREAD = np.array([0.03, 0.03])
"""How far from the middle of the drawer a grasp at random may aim, along x and y. [m]"""

UP = np.array([0.0, 0.0, 0.05])
GRIP = np.array([0.0, 0.0, 0.014])
"""From the middle of the block to where it is gripped: above the handle's bars. [m]"""


def drawer_scripts(name: str) -> dict[str, Script]:
    """Return the scripts of a drawer task, by its class's name, for the parts prior, task and oracle."""
    clear, start, steps, horizon = {
        "DrawerGrasp": (_nothing, "closed", 30, 50),
        "DrawerBlockedDrawer": (_close_upper, "blocked", 45, 80),
        "DrawerBlockedObject": (_remove_block, "blocked", 60, 80),
    }[name]
    return {
        "prior": Script(start=start, steps=steps, act=partial(prior, clear), succeeded=joins),
        "task": Script(start="open", steps=25, act=task),
        "oracle": Script(start=start, steps=horizon, act=partial(oracle, clear)),
    }


def prior(clear: Clear, env: "DrawerGrasp", rng: Noise) -> Actions:
    """Clear the way, open the lower drawer, go to the neutral pose and stay there."""
    drop_beside, waver = rng.random(2) < 0.5

    def act() -> Actions:
        yield from clear(env, rng, drop_beside)
        yield from open_lower(env, rng, waver)
        yield from stay_neutral(env, OPEN)

    return noisy(act(), rng, sigma=0.1, flips=0.01)


def task(env: "DrawerGrasp", rng: Noise) -> Actions:
    """Grasp in the open drawer, the cube or at random, and lift to the neutral pose."""
    lost = rng.random() < 0.5
    spot = env.inside_pos + np.array([*rng.uniform(-SPREAD, SPREAD), 0.0])
    return noisy(take(env, lambda: spot if lost else env.cube_pos), rng, sigma=0.1, flips=0.01)


def oracle(clear: Clear, env: "DrawerGrasp", rng: Noise) -> Actions:
    """Do the whole task without noise or mistakes."""
    yield from clear(env, rng, False)
    yield from open_lower(env, rng, False)
    yield from take(env, lambda: env.cube_pos)


def joins(env: "DrawerGrasp") -> bool:
    """Return whether the task data could begin here: the drawer open, and the open gripper near the neutral pose."""
    near = np.linalg.norm(env.eef_pos - env.neutral_pos) < 0.05
    return bool(env.is_open() and near and env.gripper_opening > 0.07)


def _nothing(env: "DrawerGrasp", rng: Noise, errs: bool) -> Actions:
    """Find the way clear."""
    yield from ()


def _close_upper(env: "DrawerGrasp", rng: Noise, errs: bool) -> Actions:
    """Push the upper drawer in with closed fingers."""
    while not env.is_closed("upper"):
        yield from descend(env, lambda: env.upper_pos + BEFORE, ABOVE, CLOSED)
        while not env.is_closed("upper") and env.eef_pos[1] > env.upper_pos[1] - 0.01:
            goal = env.upper_pos + BEFORE
            goal[1] = env.eef_pos[1] - env.move
            yield towards(env, goal, CLOSED)


def _remove_block(env: "DrawerGrasp", rng: Noise, errs: bool) -> Actions:
    """Put the block into the tray, or beside it."""
    beside = np.array([*rng.uniform([-0.1, -0.1], [0.1, -0.03]), 0.0]) if errs else np.zeros(3)
    drop = env.drop_pos + beside
    yield from grasp(env, lambda: env.blocker_pos + GRIP, ABOVE)
    while env.eef_pos[2] < drop[2] + ABOVE - 0.02:
        yield towards(env, env.eef_pos + UP, CLOSED)
    yield from descend(env, lambda: drop, ABOVE, CLOSED)
    for _ in range(2):
        yield towards(env, drop, OPEN)
    while env.eef_pos[2] < drop[2] + ABOVE - 0.02:
        yield towards(env, env.eef_pos + UP, OPEN)


def open_lower(env: "DrawerGrasp", rng: Noise, wavers: bool) -> Actions:
    """Pull the lower drawer out by its handle, and rise."""
    while not env.is_open():
        yield from descend(env, lambda: env.handle_pos + HOOK, ABOVE, CLOSED)
        while not env.is_open() and abs(env.eef_pos[1] - env.handle_pos[1]) < 0.06:
            way = -1 if wavers and rng.random() < 0.5 else 1
            goal = env.handle_pos + HOOK
            goal[1] = env.eef_pos[1] + way * env.move
            yield towards(env, goal, CLOSED)
    while env.eef_pos[2] < env.neutral_pos[2] - 0.06:
        yield towards(env, env.eef_pos + UP, CLOSED)


def take(env: "DrawerGrasp", target: Callable[[], Point]) -> Actions:
    """Grasp at a point and lift to the neutral pose."""
    yield from grasp(env, target, ABOVE)
    yield from stay_neutral(env, CLOSED)

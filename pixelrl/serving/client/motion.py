"""How an action moves towards a target within range, rate, acceleration and workspace: numbers in, numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np

from .limits import Limits


def allowed(limits: Limits) -> tuple[Any, Any]:
    """Return the least and the largest action, float64 `[A]` each: of positions, within the box."""
    moves, low, high = np.array(limits.relative), np.array(limits.low), np.array(limits.high)
    floor, ceiling = np.maximum(low, limits.box_low), np.minimum(high, limits.box_high)
    return np.where(moves, low, floor), np.where(moves, high, ceiling)


def approach(limits: Limits, last: Any, velocity: Any, measured: Any, target: Any, *, acts: bool) -> tuple[Any, Any]:
    """Return the next action towards a target, as near as all limits allow, and its velocity, float64 `[A]` each.

    From rest it never passes a target that stays. Steps that are held go to rest as fast as `step` allows, and
    positions that are to stay do not travel on, whatever `change` is; what the box has braked begins anew from there.

    Args:
        limits: of the action.
        last: the action before, `[A]`.
        velocity: how much it differed from the one before it, `[A]`.
        measured: where the arm is, `[A]`; None: nobody knows.
        target: `[A]`.
        acts: False: the arm is to be held.
    """
    moves, width = np.array(limits.relative), span(limits)
    low, high = allowed(limits)
    change = np.clip(limits.change, 1e-9 * width, 2 * width)  # twice the range: none
    way = np.clip(target, low, high) - last
    wished = np.sign(way) * np.minimum(limits.step, _fastest(np.abs(way), change))
    wished = np.clip(wished, velocity - change, velocity + change)
    wished = wished if acts else np.where(moves | (way == 0), way, wished)
    free = np.clip(last + np.clip(wished, -np.array(limits.step), limits.step), low, high)
    action = free
    if measured is not None:  # an arm outside may come back, or stay
        floor = np.where(moves, np.minimum(np.array(limits.box_low) - measured, 0.0), low)
        ceiling = np.where(moves, np.maximum(np.array(limits.box_high) - measured, 0.0), high)
        action = np.clip(np.clip(free, floor, ceiling), low, high)
    still = action != free if acts else (action != free) | moves
    return action, np.where(still, 0.0, action - last)


def _fastest(way: Any, change: Any) -> Any:
    """Return the largest velocity from which one comes to rest within a way, braking by `change` a tick, `[A]`.

    v + (v - c) + ... + (v - n c) = way, where v - n c is the last one above 0.
    """
    n = np.floor((np.sqrt(1 + 8 * way / change) - 1) / 2)
    return (way + change * n * (n + 1) / 2) / (n + 1)


def boxed(limits: Limits) -> bool:
    """Tell whether there is a workspace."""
    return bool(np.isfinite(limits.box_low).any() or np.isfinite(limits.box_high).any())


def span(limits: Limits) -> Any:
    """Return the width of the range, float64 `[A]`."""
    return np.maximum(np.array(limits.high) - np.array(limits.low), 1e-9)


def numbers(value: Any, size: int) -> Any:
    """Return `size` finite numbers, the first row of `[H, A]`; None if the value is anything else."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except Exception:  # a policy's object may raise anything when it is read, and the arm still gets an action
        return None
    array = array[0] if array.ndim == 2 and len(array) else array
    return array if array.shape == (size,) and np.isfinite(array).all() else None

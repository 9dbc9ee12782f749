"""Where episodes end within a demo, and whether the frame after a step was recorded."""

import math
from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import BLOCK, child, dataset, expect, flags, has, is_array, members, where
from pixelrl.datasets.hdf5.keys import is_no_camera
from pixelrl.runtime.errors import DataError

ROUNDING = 8
"""How far a pixel of a picture that was drawn anew may be off."""

SAMPLE = 32
"""Of how many rows, evenly spaced, pictures are compared to see whether most of them differ."""

Pair = tuple[h5py.Dataset, h5py.Dataset]
"""What `obs` and `next_obs` hold of the same key, both `[N, ...]`."""


def find_next_missing(demo: h5py.Group, keys: Sequence[str], dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the frame after a step was not recorded, `[N]`, with all of these keys.

    An episode ends within a demo where `next_obs` is not the next row of `obs`: by its vectors, and where none of them
    moves by its pictures; at a done that the next step takes back, where there is nothing to compare; and at
    `timeouts`, as D4RL has them.

    Raises:
        DataError: `next_obs` mostly lies elsewhere than one row later, so it was recorded wrongly.
    """
    steps = len(dones)
    missing = np.zeros(steps, np.bool_)
    if has(demo, "timeouts"):
        expect(stops := dataset(demo, "timeouts"), (steps,), "fiub")
        missing[:-1] |= flags(stops[()], where(stops))[:-1]
    if has(demo, "frames"):
        return missing
    later = child(demo, "next_obs") if has(demo, "next_obs") else None
    taken_back = dones[:-1] & ~dones[1:]
    if later is None:
        missing[:-1] |= taken_back
    else:
        pairs = _pairs(child(demo, "obs"), later, steps)
        jumps, still, key = _compare_vectors(pairs, steps)
        if steps > 2 and jumps.sum() > (steps - 1) / 2:
            rows = f"at {jumps.sum()} of {steps - 1} rows, the first is {int(jumps.argmax())}"
            raise DataError(
                f"{where(later)}/{key}: not what obs holds one row later, {rows}; off by one? expected obs, shifted"
            )
        missing[:-1] |= jumps | _compare_pictures(pairs, still & ~jumps, taken_back)
    missing[-1] = later is None or not all(has(later, key) for key in keys)
    return missing


def _pairs(obs: h5py.Group, later: h5py.Group, steps: int) -> dict[str, Pair]:
    """Return the arrays `[N, ...]` that both groups hold with the same shape."""
    shared = [key for key in members(obs) if has(later, key)]
    shared = [key for key in shared if is_array(child(obs, key)) and is_array(child(later, key))]
    pairs = {key: (dataset(obs, key), dataset(later, key)) for key in shared}
    return {key: (one, two) for key, (one, two) in pairs.items() if one.shape == two.shape and len(one) == steps}


def _compare_vectors(pairs: dict[str, Pair], steps: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], str]:
    """Return where vectors of `next_obs` are not the next row of `obs`, and where none moves, both `[N - 1]`.

    A vector may differ by a hundredth of its range: simulators compute both anew. What moves further, and to where the
    next row is, goes on there; what stands still, as an open gripper does, may be the same in another episode. With
    the vector that jumps most often; empty if none does.
    """
    found, still = np.zeros(steps - 1, np.bool_), np.ones(steps - 1, np.bool_)
    worst, most = "", 0
    for key, (one, two) in pairs.items():
        if one.ndim == 2 and one.dtype.kind == "f":
            held = one[()]
            before, now, then = held[:-1], held[1:], two[:-1]
            slack = 0.01 * np.ptp(now, axis=0, keepdims=True) + 1e-6 if len(now) else 0
            jumps = (np.abs(now - then) > slack).any(axis=1)
            still &= ~(np.abs(then - before) > slack).any(axis=1)
            found |= jumps
            worst, most = (key, jumps.sum()) if jumps.sum() > most else (worst, most)
    return found, still, worst


def _compare_pictures(
    pairs: dict[str, Pair], still: NDArray[np.bool_], taken_back: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return where pictures of `next_obs` are not the next row of `obs`, `[N - 1]`, of rows that vectors leave open.

    These are the rows where vectors stand `still`, or a done is `taken_back`. The pictures of a camera that sees
    anything are compared. Where most of them differ, as after a lossy codec, or where there are none, episodes end at
    dones that are taken back while vectors stand still.
    """
    cameras = [key for key, (one, _) in pairs.items() if one.ndim == 4 and one.dtype == np.uint8]
    camera = next((key for key in cameras if not is_no_camera(key) and _sees(pairs[key][0])), None)
    if camera is None:
        return still & taken_back
    rows = still | taken_back
    found = _differing(*pairs[camera], rows)
    if found.any():
        seen = rows.copy()
        seen[:: max(1, len(seen) // SAMPLE)] = True
        if 2 * (found | _differing(*pairs[camera], seen & ~rows)).sum() > seen.sum():
            found &= still & taken_back
    return found


def _sees(frames: h5py.Dataset) -> bool:
    """Tell whether the pictures `[N, H, W, C]` of a camera change: one that is dead tells nothing apart."""
    return any((frames[0] != frames[row]).any() for row in {len(frames) // 2, len(frames) - 1})


def _differing(now: h5py.Dataset, then: h5py.Dataset, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return at which of some rows `[N - 1]` pictures `[N, H, W, C]` of `next_obs` are not the next ones of `obs`."""
    most = max(1, BLOCK // max(1, math.prod(now.shape[1:])))
    found = np.zeros(len(rows), np.bool_)
    chosen = np.flatnonzero(rows)
    for run in np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1):
        for block in np.split(run, range(most, len(run), most)) if len(run) else ():
            start, stop = int(block[0]), int(block[-1]) + 1
            apart = np.abs(now[start + 1 : stop + 1].astype(np.int16) - then[start:stop])
            found[start:stop] = (apart > ROUNDING).any(axis=(1, 2, 3))
    return found

"""Where episodes end within a demo, and whether the frame after a step was recorded."""

import math
from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import BLOCK, child, dataset, expect, flags, has, is_array, members, where
from pixelrl.runtime.errors import DataError

ROUNDING = 8
"""How far a pixel of a picture that was drawn anew may be off."""


def find_next_missing(demo: h5py.Group, keys: Sequence[str], dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the frame after a step was not recorded, `[N]`, with all of these keys.

    An episode ends within a demo where `next_obs` is not the next row of `obs`; where there is no `next_obs`, at a done
    that the next step takes back; and at `timeouts`, as D4RL has them.

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
    if later is None:
        missing[:-1] |= dones[:-1] & ~dones[1:]
    else:
        jumps, key = _jumps(child(demo, "obs"), later, dones)
        if steps > 2 and jumps.sum() > (steps - 1) / 2:
            rows = f"at {jumps.sum()} of {steps - 1} rows, the first is {int(jumps.argmax())}"
            place = f"{where(later)}{key and f'/{key}'}"
            raise DataError(f"{place}: not what obs holds one row later, {rows}; off by one? expected obs, shifted")
        missing[:-1] |= jumps
    missing[-1] = later is None or not all(has(later, key) for key in keys)
    return missing


def _jumps(obs: h5py.Group, later: h5py.Group, dones: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], str]:
    """Return where `next_obs` is not the next row of `obs`, `[N - 1]`, by vectors if there are any, else by pictures.

    With the vector that jumps most often; empty if none does.

    A vector may differ by a hundredth of its range: simulators compute both anew. Without vectors the pictures of a
    camera are compared; where most of them differ, as after a lossy codec, only those at dones count.
    """
    found = np.zeros(len(dones) - 1, np.bool_)
    shared = [key for key in members(obs) if has(later, key)]
    shared = [key for key in shared if is_array(child(obs, key)) and is_array(child(later, key))]
    pairs = [(key, dataset(obs, key), dataset(later, key)) for key in shared]
    pairs = [(key, one, two) for key, one, two in pairs if one.shape == two.shape and len(one) == len(dones)]
    vectors = [(key, one[1:], two[:-1]) for key, one, two in pairs if one.ndim == 2 and one.dtype.kind == "f"]
    worst, most = "", 0
    for key, now, then in vectors:
        slack = 0.01 * np.ptp(now, axis=0, keepdims=True) + 1e-6 if len(now) else 0
        jumps = (np.abs(now - then) > slack).any(axis=1)
        found |= jumps
        worst, most = (key, jumps.sum()) if jumps.sum() > most else (worst, most)
    cameras = [(one, two) for _, one, two in pairs if one.ndim == 4]
    if not vectors and cameras:
        found = _differing(*cameras[0])
        if 2 * found.sum() > len(found):
            found &= dones[:-1]
    return found, worst


def _differing(now: h5py.Dataset, then: h5py.Dataset) -> NDArray[np.bool_]:
    """Return which pictures `[N, H, W, C]` of `next_obs` are not the next ones of `obs`, `[N - 1]`; reads in blocks."""
    rows = max(1, BLOCK // max(1, math.prod(now.shape[1:]) * now.dtype.itemsize))
    found = [np.zeros(0, np.bool_)]
    for start in range(0, len(now) - 1, rows):
        stop = min(start + rows, len(now) - 1)
        apart = np.abs(now[start + 1 : stop + 1].astype(np.int16) - then[start:stop])
        found.append((apart > ROUNDING).any(axis=(1, 2, 3)))
    return np.concatenate(found)

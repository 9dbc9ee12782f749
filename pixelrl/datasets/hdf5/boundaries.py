"""Where episodes end within a demo, and whether the frame after a step was recorded."""

from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import child, dataset, flags, has, is_array, members, where
from pixelrl.runtime.errors import DataError


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
        missing[:-1] |= flags(dataset(demo, "timeouts")[()], f"{where(demo)}/timeouts")[: steps - 1]
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

    A vector may differ by a hundredth of its range: simulators compute both anew. Pictures are only looked at where an
    episode may end, at dones.
    """
    shared = [key for key in members(obs) if has(later, key) and is_array(obs, key) and is_array(later, key)]
    found = np.zeros(len(dones) - 1, np.bool_)
    pairs = [(key, dataset(obs, key), dataset(later, key)) for key in shared]
    pairs = [(key, one, two) for key, one, two in pairs if one.shape == two.shape and len(one) == len(dones)]
    vectors = [(key, one[1:], two[:-1]) for key, one, two in pairs if one.ndim == 2 and one.dtype.kind == "f"]
    worst, most = "", 0
    for key, now, then in vectors:
        slack = 0.01 * np.ptp(now, axis=0, keepdims=True) + 1e-6 if len(now) else 0
        jumps = (np.abs(now - then) > slack).any(axis=1)
        found |= jumps
        worst, most = (key, jumps.sum()) if jumps.sum() > most else (worst, most)
    if not vectors:
        for row in np.flatnonzero(dones[:-1]).tolist():
            found[row] = any((one[row + 1] != two[row]).any() for _, one, two in pairs if one.ndim == 4)
    return found, worst

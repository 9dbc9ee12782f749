"""OGBench's `.npz` with pictures: all episodes in a row, `visual-cube-single-play-v0.npz`.

    observations uint8 [T, H, W, C], actions [T, A], terminals [T], and what the simulator knows: qpos, qvel, ...

`terminals` is true at the last row of an episode, whose action leads nowhere: an episode of N + 1 rows has N steps.
Files have no rewards (they are made of qpos where a task is chosen); `rewards` [T] are read where there are some.
https://github.com/seohongpark/ogbench/blob/master/ogbench/utils.py
"""

import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import ZIP_ERRORS, Budget, DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.numpy_pickle import read_npy_header
from pixelrl.datasets.convert.pictures import MODES
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import DEFLATED, flags
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.env_args import gymnasium_env_args
from pixelrl.runtime.errors import DataError

CAMERA = "pixels"
"""What an observation that is a picture is called in an environment of Gymnasium."""

NEEDED = ("observations", "actions", "terminals")


class Rows:
    """An array of a .npz file, read from its first row on, a few rows in memory at a time.

    Attributes:
        shape: of the whole array, [T, ...].
        dtype: of its numbers.
    """

    def __init__(self, file: zipfile.ZipFile, name: str, budget: Budget) -> None:
        self.place, self._budget = f"{budget.path}: {name}", budget
        self._file: IO[bytes] = file.open(f"{name}.npy")
        try:
            self.shape, columns, self.dtype = read_npy_header(self._file)
        except DataError as error:
            raise DataError(f"{self.place}: {error}") from error
        if self.dtype.kind not in "fiub" or (columns and len(self.shape) > 1) or not self.shape:
            raise DataError(f"{self.place}: {self.dtype} {self.shape}; expected numbers, row by row")

    def take(self, count: int) -> NDArray[Any]:
        """Return the next rows.

        Raises:
            DataError: there are not so many.
        """
        size = count * math.prod(self.shape[1:]) * self.dtype.itemsize
        self._budget.spend(size)
        data = self._file.read(size)
        if len(data) != size:
            raise DataError(f"{self.place}: cut off; its header promises {self.shape[0]} rows")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:]).astype(self.dtype.newbyteorder("="))


def read_ogbench(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a file; `dropped` fills while the episodes are read.

    Raises:
        DataError: a file that is damaged or lacks something, no pictures, arrays of different lengths.
    """
    reward = options.reward_key
    with _opened(path) as file:
        held = [name.removesuffix(".npy") for name in file.namelist()]
        if odd := [name for name in held if not name.isprintable()]:
            raise DataError(f"{path}: holds something named {odd[0][:60]!a}; expected printable names")
        reward = reward or ("rewards" if "rewards" in held else None)
        if missing := [name for name in (*NEEDED, reward) if name not in (*held, None)]:
            raise DataError(f"{path}: no {missing[0]!r} in it; it holds {', '.join(held)[:200] or 'nothing'}")
        if "next_observations" in held:
            raise DataError(f"{path}: holds next_observations, so that each row is a step; expected OGBench's layout")
        budget = Budget(path, DEFLATED)
        masks = ("masks",) if "masks" in held else ()
        names = (*NEEDED, reward, *masks) if reward else (*NEEDED, *masks)
        arrays = {name: Rows(file, name, budget) for name in names}
        _check_shapes(path, arrays)
        terminals = arrays["terminals"].take(arrays["terminals"].shape[0])
        ends = np.flatnonzero(flags(terminals, f"{path}: terminals"))
        total, size = arrays["actions"].shape
    if not len(ends) or ends[-1] != total - 1 or np.diff(ends, prepend=-1).min() < 2:
        what = f"terminals mark {len(ends)} ends"
        raise DataError(f"{path}: {what}; expected one at the last row, and two rows or more each")
    for name in held:
        if name not in names:
            dropped[name] += 0
    if reward is None:
        dropped["rewards, which are not there: 0 is written (--reward says more)"] += 0

    def episodes() -> Iterator[Episode]:
        with _opened(path) as file:
            budget = Budget(path, DEFLATED)
            arrays = {name: Rows(file, name, budget) for name in names if name != "terminals"}
            for rows in np.diff(ends, prepend=-1).tolist():
                part = {name: each.take(rows) for name, each in arrays.items()}
                paid = part[reward] if reward else np.zeros(rows, np.float32)
                if paid[-1]:
                    dropped[f"{reward} of the last row of an episode, whose action leads nowhere"] += 1
                yield Episode(
                    sensors={CAMERA: part["observations"]},
                    actions=part["actions"][:-1],
                    rewards=paid[:-1],
                    dones=_goals(part, reward, f"{path}: masks", dropped)[:-1],
                )

    name = path.stem.removesuffix("-val")
    if found := re.fullmatch(r"(.+)-[^-]+-(v\d+)", name):  # the environment is named without what played in it
        name = f"{found[1]}-{found[2]}"
    env_args = gymnasium_env_args(name, {})
    return DatasetStream(episodes=episodes, count=len(ends), env_args=env_args, action_dims=unnamed_dims(size))


def _goals(part: dict[str, NDArray[Any]], reward: str | None, place: str, dropped: DroppedFields) -> NDArray[np.bool_]:
    """Return where the value ends, `[T]`: at masks of 0, or, as they are made, where a cost of 1 a step is not due."""
    if "masks" in part:
        return ~flags(part["masks"], place)
    if reward is not None and set(np.unique(part[reward]).tolist()) <= {-1.0, 0.0}:
        dropped["masks, which are not there: a reward of 0 ends the value (--ends masks)"] += 1
        return np.asarray(part[reward] == 0)
    return np.zeros(len(part["actions"]), np.bool_)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except ZIP_ERRORS as error:
        raise DataError(f"{path}: not a .npz file, or a damaged one ({ascii(str(error))[1:-1][:80]})") from error


def _check_shapes(path: Path, arrays: dict[str, Rows]) -> None:
    """Raise unless there are T pictures, T actions and T ends."""
    shapes = {name: each.shape for name, each in arrays.items()}
    frames, actions, total = arrays["observations"], arrays["actions"], shapes["terminals"][0]
    if frames.dtype != np.uint8 or len(frames.shape) != 4 or frames.shape[3] not in MODES:
        came = f"{frames.dtype} {frames.shape}"
        raise DataError(f"{path}: observations are {came}; expected pictures, uint8 (T, H, W, C): a visual task")
    if actions.dtype.kind != "f" or len(actions.shape) != 2 or not actions.shape[1]:
        raise DataError(f"{path}: actions are {actions.dtype} {actions.shape}; expected floats (T, A)")
    for name, shape in shapes.items():
        if shape[0] != total or (name not in ("observations", "actions") and len(shape) != 1):
            raise DataError(f"{path}: {name} has shape {shape} beside {total} terminals; expected as many rows")

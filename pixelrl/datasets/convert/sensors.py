"""What others keep of their sensors in HDF5, as pixelrl learns from it: uint8 pictures `[N, H, W, C]`, float vectors.

Pictures may lie there as JPEG or PNG (bytes of any length, or rows padded with zeros), or grey without channels; widths
as `[N]`; states of a gripper as integers or truth values.
"""

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import Budget
from pixelrl.datasets.convert.pictures import decode_pictures
from pixelrl.datasets.hdf5.access import CHANNELS, SMALL, child, dataset, members, where
from pixelrl.runtime.errors import DataError

CODED = (b"\xff\xd8\xff", b"\x89PNG")
"""How JPEG and PNG begin."""

SMALLEST = 8
"""From these sides on [px] bytes `[N, H, W]` are pictures."""

DEEPEST = 6
"""Groups within groups; the format allows a group to hold itself."""

Rows = NDArray[Any] | list[bytes]
"""What is stored of a sensor: numbers `[N, ...]`, or N coded pictures."""


def leaves(group: h5py.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...], h5py.Dataset]]:
    """Yield the datasets of a group: a name that joins those of nested groups with a dot, the place, the dataset."""
    for name in members(group):
        item, place = child(group, name), (*above, name)
        if isinstance(item, h5py.Group) and len(place) <= DEEPEST:
            yield from leaves(item, place)
        elif isinstance(item, h5py.Dataset):
            yield ".".join(place), place, item


def is_sensor(item: h5py.Dataset) -> bool:
    """Tell whether a dataset holds numbers, or coded pictures."""
    try:
        return bool(item.shape) and (item.dtype.kind in "fiub" or _is_coded(item))
    except TypeError:  # a type that NumPy does not know
        return False


def _is_coded(item: h5py.Dataset) -> bool:
    """Tell whether a dataset holds pictures coded as bytes `[N]`."""
    vlen = h5py.check_vlen_dtype(item.dtype) == np.uint8
    text = item.dtype.kind == "V" or h5py.check_string_dtype(item.dtype) is not None
    chunk = (item.chunks or (0,))[0] * item.dtype.itemsize if item.ndim else 0  # which is read as a whole
    small = item.dtype.itemsize <= item.file.id.get_filesize() and chunk <= max(SMALL, item.size * item.dtype.itemsize)
    if not (vlen or text) or item.ndim != 1 or not len(item) or not small or item.external or item.is_virtual:
        return False
    return bytes(item[0]).startswith(CODED)


def stored_rows(group: h5py.Group, place: tuple[str, ...], rows: tuple[int, ...], budget: Budget) -> Rows:
    """Read what is stored of a sensor, of which there should be one of these numbers of rows.

    Raises:
        DataError: another number, or more than the file can hold.
    """
    for part in place[:-1]:
        group = child(group, part)
    item = child(group, place[-1])
    if not isinstance(item, h5py.Dataset) or not item.shape or len(item) not in rows:
        came = f"shape {item.shape}" if isinstance(item, h5py.Dataset) else "a group"
        raise DataError(f"{where(group)}/{place[-1]}: {came}; expected {' or '.join(map(str, rows))} rows")
    if item.dtype.kind in "fiub":
        budget.spend(item.size * item.dtype.itemsize)
        values = np.asarray(dataset(group, place[-1])[()])
        padded = values.dtype == np.uint8 and values.ndim == 2 and values[:1].tobytes().startswith(CODED)
        return [row.tobytes().rstrip(b"\0") for row in values] if padded else values
    if not _is_coded(item):
        raise DataError(f"{where(item)}: {item.dtype}; expected numbers, or JPEG or PNG, in this file")
    coded = []
    for index in range(len(item)):
        data = bytes(item[index])
        budget.spend(len(data))
        coded.append(data)
    return coded


def as_sensor(rows: Rows, place: str, budget: Budget) -> NDArray[Any]:
    """Return a sensor as it is learned from, `[N, H, W, C]` or `[N, D]`; what is neither stays as it is.

    Raises:
        DataError: pictures that are damaged, of floats, or with their channels first.
    """
    if isinstance(rows, list):
        return decode_pictures(rows, place, budget)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim == 2 and rows.dtype.kind in "iub":
        single = rows.astype(np.float32)
        return single if (single == rows).all() else rows.astype(np.float64)
    if rows.ndim == 3 and rows.dtype == np.uint8 and min(rows.shape[1:]) >= SMALLEST:
        return rows[..., None]
    if rows.ndim == 4 and rows.dtype.kind == "f" and rows.shape[3] in (3, 4):
        return _bytes_of(rows, place)
    if rows.ndim == 4 and rows.dtype == np.uint8 and rows.shape[3] not in CHANNELS and rows.shape[1] in CHANNELS:
        raise DataError(f"{place}: uint8 {rows.shape} (channels come first: transpose); expected (N, H, W, C)")
    return rows


def _bytes_of(frames: NDArray[Any], place: str) -> NDArray[np.uint8]:
    """Return float pictures as bytes, if they are whole numbers from 0 to 255: what others mean is not known."""
    with np.errstate(invalid="ignore"):
        whole = frames.astype(np.uint8)
    if (whole != frames).any() or whole.max(initial=0) < 2:
        low, high = float(frames.min()), float(frames.max())
        hint = "multiply by 255 and round, or leave it out with --keys"
        raise DataError(f"{place}: {frames.dtype} pictures from {low:g} to {high:g}; expected uint8 ({hint})")
    return whole

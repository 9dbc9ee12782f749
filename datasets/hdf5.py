"""HDF5 with clear errors: each names the file and the place in it, what came, and what would have been right."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.errors import DataError

CHANNELS = (1, 3, 4)


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; turn what goes wrong in it into a `DataError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except BlockingIOError as error:
        raise DataError(f"{path}: another process is writing it; wait until that is done, or stop it") from error
    except OSError as error:
        raise DataError(f"{path}: not an HDF5 file, or a damaged one ({error})") from error


def where(item: h5py.Group | h5py.Dataset) -> str:
    """Name the file of an item and its place in it."""
    return f"{item.file.filename}: {item.name}".removesuffix(": /")


def child(group: h5py.Group, name: str) -> Any:
    """Return a member of a group, and refuse links: they may lead out of the file."""
    key = name.encode()
    if not isinstance(group, h5py.Group) or not group.id.links.exists(key):
        held = ", ".join(group) if isinstance(group, h5py.Group) else "a dataset"
        raise DataError(f"{where(group)}: no {name!r} in it; it holds {held or 'nothing'}")
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{where(group)}/{name}: a link; expected the data themselves (copy them into the file)")
    return group[name]


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of numbers whose bytes lie in this file."""
    item = child(group, name)
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub" or not item.ndim:
        raise DataError(f"{where(group)}/{name}: expected an array of numbers, came {item}")
    if not all(_inside(source) for source in _sources(item)):
        raise DataError(f"{where(item)}: its bytes lie in other files; expected them in this one")
    return item


def _sources(item: h5py.Dataset) -> Iterator[h5py.Dataset | None]:
    """Yield the datasets that hold an item's bytes; None stands for one in another file."""
    if not item.is_virtual:
        yield item
        return
    for source in item.virtual_sources():
        held: Any = item.file if source.file_name == "." else None
        for part in source.dset_name.strip("/").split("/") if held is not None else ():
            held = child(held, part)
        yield held


def _inside(item: h5py.Dataset | None) -> bool:
    """Tell whether a dataset's bytes lie in its own file, at first hand."""
    return isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual


def is_array(group: h5py.Group, name: str) -> bool:
    """Tell whether a member is an array of numbers; files may hold others, say sentences, which nobody need read."""
    item = child(group, name)
    return isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and item.ndim > 0


def expect(item: h5py.Dataset, shape: tuple[int, ...], kinds: str) -> None:
    """Raise unless a dataset has this shape and one of these kinds of type; pictures must be bytes, channels last."""
    if len(shape) == 4 and (item.dtype != np.uint8 or item.shape[-1] not in CHANNELS):
        hint = " (channels come first: transpose)" if item.ndim == 4 and item.shape[1] in CHANNELS else ""
        raise DataError(f"{where(item)}: {item.dtype} {item.shape}{hint}; expected uint8 (N, H, W, C), C in {CHANNELS}")
    if item.shape != shape:
        raise DataError(f"{where(item)}: shape {item.shape}; expected {shape}, as the rest of the data has")
    if item.dtype.kind not in kinds:
        raise DataError(f"{where(item)}: type {item.dtype}; expected {'floats' if kinds == 'f' else 'numbers'}")


def finite(values: NDArray[Any], place: str) -> NDArray[np.float32]:
    """Return float32, or raise at the first NaN or infinity."""
    numbers = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        raise DataError(f"{place}{bad[0].tolist()} is {values[tuple(bad[0])]}; expected finite numbers")
    return numbers


def json_attribute(group: h5py.Group, name: str, default: Any, kind: type = dict) -> Any:
    """Return an attribute that holds JSON of a kind, or the default where it is missing."""
    text = group.attrs.get(name)
    if text is None:
        return default
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where(group)}: attribute {name!r} is not JSON ({error}): {str(text)[:60]!r}") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise DataError(f"{where(group)}: attribute {name!r} holds {str(text)[:60]!r}; expected {wanted}")
    return value

"""HDF5 with clear errors: each names the file and the place in it, what came, and what would have been right.

Files may be damaged, or made to harm. Nothing here leaves the file, and nothing is read whose size is not plausible.
"""

import json
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.file_objects import CheckedFile, name_of
from pixelrl.runtime.errors import DataError, PixelrlError

CHANNELS = (1, 3, 4)

LEAVE_OUT = " (--images KEY ... names the cameras to learn from, and leaves out others; --proprio the vectors)"

DEFLATED = 1100
"""Bytes that one stored byte may stand for: gzip reaches 1032."""

SMALL = 2**20
"""Arrays up to so many bytes may be read whatever is stored of them."""

BLOCK = 4 * 2**20
"""Bytes of pictures that are read at a time: a demo may be longer than memory."""

DEEPEST = 100
"""How deep lists and objects may lie in each other in an attribute."""

PARTS_NOTES = "parts.json"
"""In a folder of parts: what the file was begun with."""


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; turn what goes wrong in it into a `DataError`."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path}: {_what_is_there(path)}")
        with closing(CheckedFile(path)) as raw, h5py.File(raw, "r") as file:
            yield file
    except PixelrlError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError) as error:
        what = ascii(" ".join(str(error).split()))[1:-1]
        hint = "" if path.suffix in (".hdf5", ".h5") else "; `pixelrl convert` reads some other formats"
        raise DataError(f"{path}: not an HDF5 file, or a damaged one ({what}){hint}") from error


def overclaim(claimed: int, held: int) -> str | None:
    """Return what is wrong where arrays claim more bytes than a file of so many can hold: one under many names."""
    if claimed <= max(SMALL, DEFLATED * held):
        return None
    return f"claims {claimed} bytes; a file of {held} cannot hold them"


def parts_folder(path: Path) -> Path:
    """Return where the finished episodes of a file lie, one file each, until all of them are there."""
    return path.with_name(f"{path.name}.parts")


def _what_is_there(path: Path) -> str:
    """Say what is found in the place of a file."""
    if path.exists():
        return "not a file; expected HDF5"
    parts, command = parts_folder(path), "program"
    if not parts.is_dir():
        return "no such file"
    with suppress(OSError, ValueError, LookupError, TypeError):
        command = json.loads((parts / PARTS_NOTES).read_text(encoding="utf-8"))["command"]
    return f"not finished; {parts}/*.hdf5 are its first episodes, and the same `{command!s:.200}` goes on with it"


def where(item: h5py.Group | h5py.Dataset) -> str:
    """Name the file of an item and its place in it."""
    return f"{name_of(item.file.filename)}: {item.name}".removesuffix(": /")


def has(group: h5py.Group, name: str) -> bool:
    """Tell whether a group has a member, without following it."""
    return isinstance(group, h5py.Group) and bool(group.id.links.exists(name.encode()))


def members(group: h5py.Group) -> list[str]:
    """Return the names in a group, or raise a `DataError` if it is none or a name cannot be shown in a line."""
    if not isinstance(group, h5py.Group):
        raise DataError(f"{where(group)}: expected a group, came {_kind(group)}")
    names = list(group)
    for name in names:
        if isinstance(name, bytes) or not name.isprintable():  # bytes: a name that UTF-8 does not know
            raise DataError(f"{where(group)}: holds something named {name!a}; expected printable names")
    return names


def child(group: h5py.Group, name: str) -> Any:
    """Return a member of a group, and refuse links: they may lead out of the file."""
    key = name.encode()
    if not isinstance(group, h5py.Group) or not group.id.links.exists(key):
        held = ", ".join(members(group)[:20]) if isinstance(group, h5py.Group) else "a dataset"
        raise DataError(f"{where(group)}: no {name!r} in it; it holds {held or 'nothing'}")
    if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise DataError(f"{where(group)}/{name}: a link; expected the data themselves (copy them into the file)")
    item = h5py.h5o.open(group.id, key)  # what group[name] does, in half the time
    return {h5py.h5g.GroupID: h5py.Group, h5py.h5d.DatasetID: h5py.Dataset}.get(type(item), h5py.Datatype)(item)


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return a dataset of numbers whose bytes lie in this file, are as many as it says, and can be read."""
    item = child(group, name)
    if not is_array(item):
        raise DataError(f"{where(group)}/{name}: expected an array of numbers, came {_kind(item)}")
    if item.is_virtual or item.external:
        for source in [_source(item, view) for view in item.virtual_sources()] if item.is_virtual else [None]:
            if not isinstance(source, h5py.Dataset) or source.external or source.is_virtual:
                raise DataError(f"{where(item)}: its bytes lie in other files; expected them in this one")
            _check_stored(source)
    _check_stored(item)
    return item


def text_array(group: h5py.Group, name: str) -> list[str]:
    """Return a one-dimensional array of texts."""
    item = child(group, name)
    plain = isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual
    if not plain or h5py.check_string_dtype(item.dtype) is None or item.ndim != 1:
        raise DataError(f"{where(group)}/{name}: expected an array of texts, came {_kind(item)}")
    _check_stored(item)
    return [bytes(value).decode("utf-8", "replace") for value in item[()]]


def _source(item: h5py.Dataset, view: Any) -> Any:
    """Return what holds a part of a virtual dataset's bytes; None stands for another file."""
    held: Any = item.file if view.file_name == "." else None
    for part in view.dset_name.strip("/").split("/") if held is not None else ():
        held = child(held, part)
    return held


def _check_stored(item: h5py.Dataset) -> None:
    """Raise unless a dataset's bytes are in the file, or may be: those of a chunk, too, are read as a whole."""
    declared = math.prod(item.shape) * item.dtype.itemsize
    held = item.file.id.get_filesize() if declared > SMALL or item.chunks else SMALL
    if item.chunks:  # which alone are filtered, and read as a whole
        plist = item.id.get_create_plist()
        filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
        held *= DEFLATED if filters else 1
        for code, _, _, name in filters:
            if not h5py.h5z.filter_avail(code):
                known = name.decode("ascii", "replace") or f"number {code}"
                raise DataError(
                    f"{where(item)}: packed with the filter {known!a}, which is not installed; try h5repack"
                )
    chunk = math.prod(item.chunks or (0,)) * item.dtype.itemsize
    held = max(SMALL, held * DEFLATED if item.is_virtual else held)
    if max(declared, chunk) > held:
        size = f"shape {item.shape}, chunks {item.chunks}" if item.chunks else f"shape {item.shape}"
        raise DataError(f"{where(item)}: {item.dtype}, {size}: more than the file can hold; expected what was written")


def unwritten(item: h5py.Dataset) -> str | None:
    """Return what of an array was never written, and would be read as zeros, after a writer was killed; None: nothing.

    An array that lies in one piece is written as a whole, others chunk by chunk, or through views on other arrays.
    """
    if not item.size:
        return None
    if item.is_virtual:
        views = item.virtual_sources()
        seen = sum(view.vspace.get_select_npoints() for view in views)
        if seen < item.size:
            return f"of its {item.size} numbers {item.size - seen} were never written"
        told = (unwritten(source) for view in views if isinstance(source := _source(item, view), h5py.Dataset))
        return next((each for each in told if each), None)
    if not item.id.get_storage_size():
        return "was never written"
    if item.chunks:
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(item.shape, item.chunks, strict=True))
        if (lacking := wanted - item.id.get_num_chunks()) > 0:
            return f"of its {wanted} chunks {lacking} were never written"
    return None


def is_array(item: Any) -> bool:
    """Tell whether something is an array of numbers; files may hold others, say sentences, which nobody need read."""
    try:
        return isinstance(item, h5py.Dataset) and bool(item.shape) and item.dtype.kind in "fiub"
    except TypeError:  # a type that NumPy does not know
        return False


def _kind(item: Any) -> str:
    if not isinstance(item, h5py.Dataset):
        return type(item).__name__.lower()
    try:
        return f"{item.dtype} {item.shape}"
    except TypeError:
        return "a type that NumPy does not know"


def expect(item: h5py.Dataset, shape: tuple[int, ...], kinds: str) -> None:
    """Raise unless a dataset has this shape and one of these kinds of type; pictures must be bytes, channels last."""
    if len(shape) == 4 and (item.dtype != np.uint8 or item.shape[-1] not in CHANNELS):
        hint = " (channels come first: transpose)" if item.ndim == 4 and item.shape[1] in CHANNELS else ""
        raise DataError(
            f"{where(item)}: {item.dtype} {item.shape}{hint}; expected uint8 (N, H, W, C), C in {CHANNELS}{LEAVE_OUT}"
        )
    if item.shape != shape:
        raise DataError(f"{where(item)}: shape {item.shape}; expected {shape}, as the rest of the data has")
    if item.dtype.kind not in kinds:
        raise DataError(f"{where(item)}: type {item.dtype}; expected {'floats' if kinds == 'f' else 'numbers'}")


def finite(values: NDArray[Any], place: str) -> NDArray[np.float32]:
    """Return float32, or raise at the first NaN or infinity."""
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        bad = np.argwhere(~np.isfinite(numbers))[0]
        raise DataError(f"{place}{bad.tolist()} is {values[tuple(bad)]}; expected finite numbers")
    return numbers


def flags(values: NDArray[Any], place: str) -> NDArray[np.bool_]:
    """Return truth values, or raise at the first number that is neither 0 nor 1."""
    truth: NDArray[np.bool_] = values == 1
    bad = np.argwhere(~truth & (values != 0))
    if len(bad):
        raise DataError(f"{place}{bad[0].tolist()} is {values[tuple(bad[0])]}; expected 0 or 1")
    return truth


def json_attribute(group: h5py.Group, name: str, default: Any, kind: type = dict) -> Any:
    """Return an attribute that holds JSON of a kind, or the default where it is missing.

    What could not be written again is refused: NaN, infinities, halves of surrogate pairs, and what is nested deeper
    than `DEEPEST`.
    """
    text = group.attrs.get(name)
    if text is None:
        return default
    try:
        value = json.loads(text, parse_constant=_number, parse_float=_number)
        _check_nesting(value)
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # half a surrogate pair is a ValueError too
        raise DataError(f"{where(group)}: attribute {name!r} is not JSON ({error}): {str(text)[:60]!a}") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise DataError(f"{where(group)}: attribute {name!r} holds {str(text)[:60]!a}; expected {wanted}")
    return value


def _check_nesting(value: Any, left: int = DEEPEST) -> None:
    """Raise a `ValueError` if lists and objects lie in each other too deep for whatever reads or writes them."""
    if left == 0:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_nesting(each, left - 1)


def _number(text: str) -> float:
    """Return a finite number, or raise a `ValueError`."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value

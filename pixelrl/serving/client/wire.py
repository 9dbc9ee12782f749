"""Messages between a robot and its policy: msgpack with NumPy arrays, as openpi's clients speak it.

An array is a map of `__ndarray__`, `data`, `dtype` and `shape`. Whatever comes from the other side is held to a short
list of kinds before it becomes an object: no extension types, no objects, two types of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgpack
import numpy as np

DTYPES: dict[str, Any] = {"|u1": np.dtype(np.uint8), "<f4": np.dtype(np.float32)}
"""How arrays may be coded: bytes, and float32 of little-endian order."""

ARRAY_KEYS = {b"__ndarray__", b"data", b"dtype", b"shape"}
FLAT_ITEMS, NESTED_ITEMS = 64, 4096
"""Entries that a map or a list may have: in an observation, and in a contract."""

TEXT = 4096
"""Bytes that a text in an observation may have; one in a contract may fill the message."""

LINE = 300
"""Characters of an error that are told."""


class WireError(Exception):
    """A message that is not what was agreed on; its text is one line."""


def pack(value: Any) -> bytes:
    """Return a value of maps, lists, texts, numbers and arrays as a message."""
    packed = msgpack.packb(value, default=_array_as_map)
    assert isinstance(packed, bytes)
    return packed


def unpack(message: bytes | str, *, flat: bool) -> dict[str, Any]:
    """Return the map that a message holds; its arrays are views that cannot be written to.

    Args:
        message: what came.
        flat: it is an observation: texts, numbers and arrays under text keys, and nothing within them. Otherwise maps
            and lists may lie in each other.

    Raises:
        WireError: it is not that, or larger than sensible.
    """
    if isinstance(message, str):
        raise WireError("a text frame came; expected a binary frame of msgpack")
    items = FLAT_ITEMS if flat else NESTED_ITEMS
    try:
        value = msgpack.unpackb(
            message,
            object_hook=partial(_of_map, flat=flat),
            list_hook=_check_numbers if flat else None,
            ext_hook=_no_extension,
            max_str_len=TEXT if flat else len(message),
            max_bin_len=len(message),
            max_array_len=items,
            max_map_len=items,
            max_ext_len=0,
        )
    except WireError:
        raise
    except Exception as error:  # msgpack's errors share no base, and the message is anybody's
        raise WireError(one_line(f"not a message of msgpack: {type(error).__name__} {error}")) from None
    if not isinstance(value, dict) or not {str}.issuperset(map(type, value)):
        raise WireError("expected a map with texts as keys")
    return value


def one_line(text: Any) -> str:
    """Return a text on one line, without control characters, cut where it is long."""
    line = " ".join(str(text).split())
    line = "".join(each if each.isprintable() else "?" for each in line)
    return line if len(line) <= LINE else line[: LINE - 3] + "..."


def _array_as_map(value: Any) -> Mapping[bytes, Any]:
    """Return how an array is coded, or raise a `WireError` if it is none, or not of a type that is agreed on."""
    array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None
    if array is None or array.dtype.str not in DTYPES:
        kind = type(value).__name__ if array is None else array.dtype
        raise WireError(f"{kind} cannot be sent; send uint8 or float32 arrays")
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def _of_map(value: dict[Any, Any], *, flat: bool) -> Any:
    """Return what is made of each map as soon as it is read, so that nothing deep is ever built."""
    if value.keys() == ARRAY_KEYS:
        return _array_of(value)
    if b"__ndarray__" in value or "__ndarray__" in value:
        return _array_of({key.encode() if isinstance(key, str) else key: each for key, each in value.items()})
    if flat and not {dict, list}.isdisjoint(map(type, value.values())):
        raise WireError("maps and lists must not lie in a map; send arrays")
    return value


def _check_numbers(value: Sequence[Any]) -> Sequence[Any]:
    """Return a list that can be the shape of an array."""
    if len(value) > 4 or not all(type(each) is int for each in value):
        raise WireError("a list must be the shape of an array: at most four integers")
    return value


def _no_extension(code: int, _: bytes) -> Any:
    raise WireError(f"extension type {code}; no such types are taken")


def _array_of(value: Mapping[bytes, Any]) -> Any:
    """Return the array that a map describes, if its parts fit each other."""
    if value.keys() != ARRAY_KEYS:
        came, expected = (sorted(key.decode() for key in keys) for keys in (value, ARRAY_KEYS))
        raise WireError(one_line(f"an array with the parts {came}; expected {expected}"))
    data, shape = value[b"data"], value[b"shape"]
    dtype = DTYPES.get(value[b"dtype"]) if isinstance(value[b"dtype"], str) else None
    if dtype is None:
        raise WireError(one_line(f"an array of type {value[b'dtype']!r}; expected {' or '.join(DTYPES)}"))
    if not isinstance(data, bytes) or not isinstance(shape, (list, tuple)) or len(shape) > 4:
        raise WireError("an array without data, or with more than four axes")
    count = 1
    for size in shape:
        if type(size) is not int or not 0 < size < 2**31:
            raise WireError(one_line(f"an array of shape {shape!r}; expected positive integers"))
        count *= size
    if count * dtype.itemsize != len(data):
        raise WireError(one_line(f"an array of shape {shape!r} and {dtype} with {len(data)} bytes"))
    return np.frombuffer(data, dtype).reshape(shape)

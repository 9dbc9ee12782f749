"""numpy's object arrays (`np.save` of lists and dicts), read without running what the file says.

Such a file is a pickle, and a pickle is a program: `np.load(allow_pickle=True)` lets it call any function there is.
This is an interpreter of its own, for the few instructions that plain data need. A whitelist in
`Unpickler.find_class` was not taken, though it is shorter: even where every name leads to a function of ours, a
pickle's BUILD may set attributes of that very function, its memo and its lengths size allocations before a byte is
read, numpy's own `__setstate__` would meet hostile bytes, and a deeply nested tuple as the key of a dict exhausts the
C stack when it is hashed.

Here a name is an inert value; four of them may be called, with exactly the arguments that numpy writes; sizes are
held against the bytes that are there; and the numbers of an array are never copied: they stay in the mapped file.
https://github.com/python/cpython/blob/main/Lib/pickletools.py lists the instructions.
"""

import math
import mmap
import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import DataError

Progress = Callable[[int, int], None]
"""Called now and then with the bytes read so far and the bytes in all."""

SIDES, SIDE = 32, 2**31
"""How many dimensions an array may have, and how long one may be."""

HEADER = 10_000
"""How long the header of a file may be [bytes]; longer ones belong to other types."""

FREE, DENSITY = 200_000, 4
"""How many instructions any file may have, and at how many bytes each thereafter: data are numbers, not structure."""


class Name(Enum):
    """What a file may name, as the pair of module and name that numpy writes."""

    RECONSTRUCT = "numpy.core.multiarray", "_reconstruct"
    SCALAR = "numpy.core.multiarray", "scalar"
    NDARRAY = "numpy", "ndarray"
    DTYPE = "numpy", "dtype"
    ENCODE = "_codecs", "encode"


class Array:
    """An array of a file; `value` is read-only and lies in the file, or is the list of an object array."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | list[Any] | None = None


class _Dtype:
    """A type of numbers that is being told; `value` is None for objects."""

    __slots__ = ("code", "known", "value")

    def __init__(self, code: str) -> None:
        self.code, self.known = code, False
        self.value: np.dtype[Any] | None = None


def load_object_array(path: Path, progress: Progress | None = None) -> list[Any]:
    """Return the items of a one-dimensional object array: lists, tuples, dicts, text, numbers, None and `Array`.

    Dicts have text as keys. Bytes come as `memoryview`.

    Raises:
        DataError: another kind of file, a damaged one, or one that wants more than plain data.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(8)
            width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(magic, 0)
            size = int.from_bytes(file.read(width), "little")
            header = file.read(min(size, HEADER)).decode("latin-1")
            start = file.tell()
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except ValueError as error:
        raise DataError(f"{path}: an empty file; expected .npy") from error
    said = re.fullmatch(
        r"\{'descr': '\|O', 'fortran_order': (?:False|True), 'shape': \(([0-9]{1,15}),\), \}\s*", header
    )
    if not said:
        came = " ".join(header.split())[:80] or "no header of .npy's version 1 or 2"
        raise DataError(
            f"{path}: {came}; expected an object array, 'descr': '|O', 'shape': (N,): a list of trajectories"
        )
    count = int(said[1])
    whole = _Machine(path, memoryview(held), start).run(progress)
    if not isinstance(whole, Array) or not isinstance(whole.value, list) or len(whole.value) != count:
        raise DataError(f"{path}: its header promises {count} objects; they do not follow")
    return whole.value


class _Machine:
    """The stack machine: one pass over the bytes, no recursion, no calls into what a file names."""

    def __init__(self, path: Path, data: memoryview, at: int) -> None:
        self.path, self.data, self.at, self.end = path, data, at, len(data)
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0
        handlers = self._handlers()
        self.table = [handlers.get(bytes((code,)), self._unknown) for code in range(256)]

    def run(self, progress: Progress | None) -> Any:
        """Return what the program leaves on the stack."""
        stop, told, left = ord("."), self.at, FREE + self.end // DENSITY
        try:
            while (code := self.data[self.at]) != stop:
                self.at += 1
                self.table[code]()
                left -= 1
                if not left:
                    self._refuse("more structure than data")
                if progress is not None and self.at - told > 1 << 20:
                    told = self.at
                    progress(told, self.end)
            (result,) = self.stack
        except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
            self._refuse(f"damaged or cut short ({type(error).__name__})", error)
        if progress is not None:
            progress(self.end, self.end)
        return result

    def _refuse(self, why: str, error: Exception | None = None) -> NoReturn:
        """Raise about the byte just read."""
        place = f"{self.path}: byte {min(self.at, self.end)}"
        raise DataError(f"{place}: {why}; expected arrays, lists, dicts, text and numbers only") from error

    def _unknown(self) -> NoReturn:
        """Refuse an instruction, by its name where it has one."""
        code = self.data[self.at - 1]
        known = {op.code: op.name for op in pickletools.opcodes}.get(chr(code), hex(code))
        self._refuse(f"instruction {known}, which plain data do not need")

    def _handlers(self) -> dict[bytes, Callable[[], None]]:
        """Return what to do at each instruction: those of pickle's protocols 2 to 4 that build plain data."""
        push = self._push
        return {
            b"\x80": lambda: self._protocol(self._number("<B")),
            b"\x95": lambda: self._frame(self._number("<Q")),
            b"N": lambda: push(None),
            b"\x88": lambda: push(True),
            b"\x89": lambda: push(False),
            b"J": lambda: push(self._number("<i")),
            b"K": lambda: push(self._number("<B")),
            b"M": lambda: push(self._number("<H")),
            b"G": lambda: push(self._number(">d")),
            b"\x8a": lambda: push(self._long(self._number("<B"))),
            b"C": lambda: push(self._take(self._number("<B"))),
            b"B": lambda: push(self._take(self._number("<I"))),
            b"\x8e": lambda: push(self._take(self._number("<Q"))),
            b"\x8c": lambda: push(self._text(self._number("<B"))),
            b"X": lambda: push(self._text(self._number("<I"))),
            b"\x8d": lambda: push(self._text(self._number("<Q"))),
            b"(": self._mark,
            b"]": lambda: push([]),
            b"}": lambda: push({}),
            b")": lambda: push(()),
            b"l": lambda: push(self._marked()),
            b"t": lambda: push(tuple(self._marked())),
            b"d": self._dict,
            b"\x85": lambda: self._tuple(1),
            b"\x86": lambda: self._tuple(2),
            b"\x87": lambda: self._tuple(3),
            b"a": lambda: self._extend([self.stack.pop()]),
            b"e": lambda: self._extend(self._marked()),
            b"s": lambda: self._set(self._pop(2)),
            b"u": lambda: self._set(self._marked()),
            b"q": lambda: self._remember(self._number("<B")),
            b"r": lambda: self._remember(self._number("<I")),
            b"\x94": lambda: self._remember(len(self.memo)),
            b"h": lambda: push(self.memo[self._number("<B")]),
            b"j": lambda: push(self.memo[self._number("<I")]),
            b"c": lambda: self._name(*self._lines()),
            b"\x93": lambda: self._name(*self._pop(2)),
            b"R": lambda: self._call(*self._pop(2)),
            b"b": self._build,
        }

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        """Take the last items off the stack, in their order."""
        if len(self.stack) < count:
            raise IndexError
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _take(self, size: int) -> memoryview:
        """Return the next bytes, uncopied."""
        if size > self.end - self.at:
            self._refuse(f"{size} bytes promised where {self.end - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def _copy(self, size: int) -> None:
        """Account for bytes that are made, not read: what is copied over and over would fill the memory."""
        self.copied += size
        if self.copied > self.end:
            self._refuse("unpacks to more than the file holds")

    def _number(self, form: str) -> Any:
        """Return the next number."""
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def _long(self, size: int) -> int:
        if size > 16:
            self._refuse(f"an integer of {size} bytes")
        return int.from_bytes(self._take(size), "little", signed=True)

    def _text(self, size: int) -> str:
        return str(self._take(size), "utf-8")

    def _lines(self) -> Iterator[str]:
        """Return two short lines: a module and a name in it."""
        for _ in range(2):
            line = bytes(self.data[self.at : self.at + 200]).partition(b"\n")
            if not line[1]:
                self._refuse("a name without an end")
            self.at += len(line[0]) + 1
            yield line[0].decode("ascii", "replace")

    def _protocol(self, version: int) -> None:
        if not 2 <= version <= 5:
            self._refuse(f"pickle protocol {version} (known are 2 to 5)")

    def _frame(self, size: int) -> None:
        if size > self.end - self.at:
            self._refuse(f"a frame of {size} bytes where {self.end - self.at} are left")

    def _mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _marked(self) -> list[Any]:
        """Return what came since the last mark, which goes."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def _tuple(self, size: int) -> None:
        self.stack.append(tuple(self._pop(size)))

    def _dict(self) -> None:
        items = self._marked()
        self.stack.append({})
        self._set(items)

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            self._refuse("items for something that is no list")
        self.stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        """Add keys and values in turn to the dict on the stack."""
        held = self.stack[-1]
        if type(held) is not dict or len(items) % 2 or any(type(key) is not str for key in items[::2]):
            self._refuse("items for something that is no dict, or keys that are no text")
        held.update(zip(items[::2], items[1::2], strict=True))

    def _remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _name(self, module: Any, name: Any) -> None:
        """Push the inert value of a name."""
        if type(module) is not str or type(name) is not str:
            self._refuse("a name that is no text")
        try:
            self.stack.append(Name((module.replace("numpy._core.", "numpy.core.", 1), name)))
        except ValueError:
            named = repr(f"{module}.{name}"[:80])
            self._refuse(f"names {named}: the file could run code, so it is not read")

    def _call(self, name: Any, arguments: Any) -> None:
        """Do what numpy means by a call, if the arguments are the ones that it writes."""
        match name, arguments:
            case Name.RECONSTRUCT, (Name.NDARRAY, (0,), (bytes() | memoryview()) as kind) if bytes(kind) == b"b":
                self.stack.append(Array())
            case Name.DTYPE, (str() as code, 0, 1) if re.fullmatch(r"b1|[iu][1248]|f[248]|O8", code):
                self.stack.append(_Dtype(code))
            case Name.SCALAR, (_Dtype(known=True, value=np.dtype() as dtype), (bytes() | memoryview()) as raw):
                if len(raw) != dtype.itemsize:
                    self._refuse(f"{len(raw)} bytes for a number of {dtype.itemsize}")
                self.stack.append(np.frombuffer(raw, dtype)[0].item())
            case Name.ENCODE, (str() as text, "latin1"):
                self._copy(len(text))
                self.stack.append(text.encode("latin-1"))
            case _:
                self._refuse(f"a call of {name.value[1] if isinstance(name, Name) else 'a value'} as numpy makes none")

    def _build(self) -> None:
        """Complete the dtype or the array on the stack."""
        state = self.stack.pop()
        match self.stack[-1], state:
            case _Dtype(known=False) as dtype, (3, ("|" | "<" | ">") as order, None, None, None, -1, -1, int()):
                dtype.known = True
                dtype.value = None if dtype.code == "O8" else np.dtype(dtype.code).newbyteorder(order)
            case Array(value=None) as array, (1, tuple() as shape, _Dtype(known=True) as dtype, bool() as columns, raw):
                array.value = self._array(shape, dtype.value, "F" if columns else "C", raw)
            case _:
                self._refuse("a state that numpy does not write")

    def _array(self, shape: tuple[Any, ...], dtype: np.dtype[Any] | None, order: Any, raw: Any) -> Any:
        """Return an array that is as long as its shape says, or the list of an object array."""
        if len(shape) > SIDES or not all(type(side) is int and 0 <= side < SIDE for side in shape):
            self._refuse(f"an array of {len(shape)} dimensions, or of impossible ones")
        count = math.prod(shape)
        if dtype is None:
            if type(raw) is not list or len(raw) != count:
                self._refuse(f"an object array without the {count} objects of its shape")
            return raw
        if not isinstance(raw, bytes | memoryview) or len(raw) != count * dtype.itemsize:
            self._refuse(f"an array without the {count} numbers of its shape")
        if not count:
            return np.zeros(0, dtype)
        if dtype.kind != "b":
            return np.frombuffer(raw, dtype).reshape(shape, order=order)
        self._copy(count)
        return (np.frombuffer(raw, np.uint8) != 0).reshape(shape, order=order)  # other bytes are no truth values

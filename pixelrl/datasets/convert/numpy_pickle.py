"""Read numpy's object arrays (`np.save` of lists and dicts) without running what the file says.

Such a file is a pickle, and a pickle is a program: `np.load(allow_pickle=True)` lets it call any function. Here
the five names that numpy writes lead to functions of ours, which check what they are given, and any other name ends
the reading. numpy's own `__setstate__` would meet hostile bytes: a type with false flags makes it take numbers for
pointers. What plain data cannot do is done first in a process of its own, with limits: to fill the memory, to go on for
ever, to exhaust the C stack by a deeply nested key.
"""

import math
import pickle
import re
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from pixelrl.runtime.child_process import limit_this_process, run_module
from pixelrl.runtime.errors import DataError

GROWTH, SPARE = 6, 2**28
"""How many bytes of memory a file may take for each of its own, and how many more. [bytes]"""

SPEED, PATIENCE = 10e6, 60.0
"""How many bytes are read at least in a second of the processor's, and how many seconds more there are."""


class _Type:
    """A type of numbers that is being told, as numpy tells it: a code, then its state."""

    def __init__(self, code: str, align: Any = False, copy: Any = True) -> None:
        if not (isinstance(code, str) and re.fullmatch(r"b1|[iu][1248]|f[248]|O8", code)):
            raise ValueError(f"a type {str(code)[:20]!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        match state:
            case (3, ("|" | "<" | ">") as order, None, None, None, -1, -1, int()):
                self.value = self.value.newbyteorder(order)
            case _:
                raise ValueError("a type as numpy tells none")


class _Array(np.ndarray[Any, Any]):
    """An array that takes only the state of plain data."""

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, _Type() as kind, bool() as columns, (bytes() | list()) as raw):
                held = len(raw) * (1 if isinstance(raw, bytes) else kind.value.itemsize)
                fits = all(type(side) is int and side >= 0 for side in shape)
                fits = fits and isinstance(raw, list) == (kind.value.kind == "O")
                if not fits or math.prod(shape) * kind.value.itemsize != held:
                    raise ValueError(f"an array of shape {str(shape)[:40]} without the numbers or objects of its shape")
                if kind.value.kind == "b" and not set(raw) <= {0, 1}:
                    raise ValueError("truth values other than 0 and 1")
                checked: Any = (1, shape, kind.value, columns, raw)
                super().__setstate__(checked)
            case _:
                raise ValueError("an array as numpy writes none")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """Return an empty array, whose state follows."""
    if (kind, shape, code) != ("ndarray", (0,), b"b"):
        raise ValueError("an array that does not begin as numpy's do")
    return _Array((0,))


def _scalar(kind: Any, raw: Any) -> Any:
    if not isinstance(kind, _Type) or kind.value.kind == "O" or not isinstance(raw, bytes):
        raise ValueError("a number as numpy writes none")
    if len(raw) != kind.value.itemsize:
        raise ValueError(f"{len(raw)} bytes for a number of {kind.value.itemsize}")
    return np.frombuffer(raw, kind.value)[0].item()


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes, which pickle's protocol 2 writes as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes as pickle writes none")
    return text.encode("latin-1")


class _PlainDataUnpickler(pickle.Unpickler):
    """Knows the names that numpy writes, and no other."""

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what stands for a name."""
        match module.replace("numpy._core.", "numpy.core.", 1), name:
            case "numpy.core.multiarray", "_reconstruct":
                return _reconstruct
            case "numpy.core.multiarray", "scalar":
                return _scalar
            case "numpy", "ndarray":
                return "ndarray"
            case "numpy", "dtype":
                return _Type
            case "_codecs", "encode":
                return _encode
        raise ValueError(f"names {f'{module}.{name}'[:80]!r}: the file could run code, so it is not read")


def load_object_array(path: Path) -> list[Any]:
    """Return the items of a one-dimensional object array: lists, tuples, dicts, text, numbers, None and arrays.

    Raises:
        DataError: another kind of file, a damaged one, or one that wants more than plain data.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    tried = run_module(__name__, str(path))
    if tried.returncode:
        why = tried.stdout.strip() or f"it takes more time or memory than its size explains (exit {tried.returncode})"
        raise DataError(f"{path}: {why}")
    return read_plain_data(path)


def read_plain_data(path: Path) -> list[Any]:
    """Return the items of a file in this process, without limits; see `load_object_array`."""
    with path.open("rb") as file:
        shape, _, dtype = read_npy_header(file)
        if dtype.char != "O" or len(shape) != 1:
            raise DataError(f"{dtype} {shape}; expected an object array (N,): a list of trajectories")
        try:
            whole = _PlainDataUnpickler(file).load()
        except MemoryError:
            raise
        except Exception as error:  # a hostile pickle may raise anything
            raise DataError(f"{_line(error)}; expected arrays, lists, dicts, text and numbers only") from error
    if not isinstance(whole, _Array) or whole.dtype != object or whole.shape != shape:
        raise DataError(f"its header promises {shape[0]} objects; they do not follow")
    return list(whole)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array as numpy writes it: its shape, whether columns come first, its type.

    Raises:
        DataError: it is none.
    """
    try:
        form: Any = np.lib.format
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[form.read_magic(file)]
        shape, columns, dtype = read(file)
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
    except Exception as error:  # numpy parses it as Python
        raise DataError(f"no .npy file of version 1 or 2 ({_line(error)})") from error
    return tuple(map(int, shape)), bool(columns), dtype


def _line(error: Exception) -> str:
    text = ascii(" ".join(str(error).split()))[1:-1]
    return text[:200] or type(error).__name__


def _main() -> int:
    """Try to read the file named on the command line, and print what is wrong with it."""
    path = Path(sys.argv[1])
    size = path.stat().st_size
    limit_this_process(seconds=PATIENCE + size / SPEED, memory=GROWTH * size + SPARE)
    try:
        read_plain_data(path)
    except (DataError, OSError) as error:
        print(error)
    except MemoryError:
        print("unpacks to more than its size explains")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(_main())

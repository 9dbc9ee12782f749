"""Arrays of Zarr's format 2, in a folder or a zip, read a few rows at a time.

Chunks are unpacked by `numcodecs`, and by `imagecodecs` where they are pictures; only codecs that are known to do no
more than unpack are asked for: numcodecs has one that runs pickles.
https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

import itertools
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import ZIP_ERRORS, Budget, DroppedFields, reading
from pixelrl.runtime.errors import DataError, PixelrlError

CODECS = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma")
PICTURES = ("imagecodecs_jpegxl", "imagecodecs_jpeg2k", "imagecodecs_jpeg", "imagecodecs_png")
LARGEST_NAME = 200

NEVER_ZERO = re.compile(r"meta/.*|data/(action|robot\d+_eef_(pos|rot_axis_angle))")
"""Arrays in which a whole chunk of zeros is next to impossible; so are pictures."""


def files_below(path: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, also of linked ones, but for links that lead back up."""
    for folder, folders, names in os.walk(path, followlinks=True):
        above = Path(folder).resolve()
        folders[:] = [name for name in folders if not above.is_relative_to((above / name).resolve())]
        yield from (Path(folder, name) for name in names)


class Store:
    """The files of a store by their keys, say `data/img/0.0.0.0`."""

    def __init__(self, path: Path, archive: zipfile.ZipFile | None) -> None:
        self.path, self._archive = path, archive
        if archive is None:
            files = [each for each in files_below(path) if each.is_file()]
            self._sizes = {str(each.relative_to(path)): each.stat().st_size for each in files}
        else:
            self._sizes = {each.filename: each.compress_size for each in archive.infolist()}
        self.size = sum(self._sizes.values())

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def arrays(self, group: str) -> list[str]:
        """Return the names of the arrays in a group.

        Raises:
            DataError: a name that cannot be shown in a line.
        """
        found = [re.fullmatch(rf"{group}/([^/]+)/\.zarray", key, re.DOTALL) for key in self._sizes]
        names = sorted(match[1] for match in found if match)
        for name in names:
            if not name.isprintable() or len(name) > LARGEST_NAME:
                raise DataError(f"{self.path}: holds something named {name[:60]!a}; expected printable names")
        return names

    def chunks(self, name: str) -> list[tuple[int, ...]]:
        """Return the numbers of the chunks of an array that are there."""
        found = [re.fullmatch(rf"{re.escape(name)}/([0-9]{{1,20}}([./][0-9]{{1,20}})*)", key) for key in self._sizes]
        return [tuple(map(int, re.split("[./]", match[1]))) for match in found if match]

    def read(self, key: str, budget: Budget) -> bytes:
        """Return the bytes of a key."""
        if self._archive is None:
            return (self.path / key).read_bytes()
        budget.spend(self._archive.getinfo(key).file_size)
        return self._archive.read(key)


@contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """Open a folder or a zip; turn what goes wrong in it into a `DataError`."""
    with reading(f"{path}: no Zarr store, or a damaged one", ZIP_ERRORS):
        if path.is_dir():
            yield Store(path, None)
        else:
            with zipfile.ZipFile(path) as archive:
                yield Store(path, archive)


class ZarrArray:
    """One array.

    Attributes:
        shape: [T, ...].
        dtype: of its numbers.
    """

    def __init__(self, store: Store, name: str, budget: Budget, dropped: DroppedFields | None = None) -> None:
        """Open an array; `dropped` fills where chunks are missing as its rows are read."""
        self.place, self._store, self._name, self._budget = f"{store.path}: {name}", store, name, budget
        self._dropped = DroppedFields() if dropped is None else dropped
        if f"{name}/.zarray" not in store:
            new = f"{name}/zarr.json" in store
            raise DataError(f"{self.place}: {'an array of format 3' if new else 'no such array'}; expected format 2")
        with reading(f"{self.place}/.zarray: not as Zarr writes it"):
            said = json.loads(store.read(f"{name}/.zarray", budget))
            self.shape, self._chunks = (tuple(said[key]) for key in ("shape", "chunks"))
            kind, filters, self._codec = said["dtype"], said.get("filters"), said.get("compressor")
            whole = said["zarr_format"] == 2 and said.get("order", "C") == "C" and not filters
            sides = all(type(side) is int and side >= 0 for side in self.shape)
            sides = sides and all(type(side) is int and side > 0 for side in self._chunks)
            if not whole or not sides or len(self.shape) != len(self._chunks) or not self.shape:
                raise ValueError("not format 2 in rows, without filters")
            if not re.fullmatch(r"[<>|][fiub][1248]", kind) or not isinstance(self._codec, dict | None):
                raise ValueError(f"type {str(kind)[:20]}")
            self.dtype, self._fill = np.dtype(kind), np.dtype(kind).type(said.get("fill_value") or 0)
            self._needed = said.get("fill_value") is None or len(self.shape) == 4 or NEVER_ZERO.fullmatch(name)
            self._separator = "/" if said.get("dimension_separator") == "/" else "."
        self._held: tuple[tuple[int, ...], NDArray[Any]] | None = None
        self._told = False

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return some successive rows, which must be there.

        Raises:
            DataError: a chunk that is damaged or missing, or more than the store can hold.
            PixelrlError: a chunk that is packed with what is not installed.
        """
        self._budget.spend((stop - start) * math.prod(self.shape[1:]) * self.dtype.itemsize)
        result = np.full((stop - start, *self.shape[1:]), self._fill, self.dtype)
        first = range(start // self._chunks[0], -(-stop // self._chunks[0]))
        others = [range(-(-side // chunk)) for side, chunk in zip(self.shape[1:], self._chunks[1:], strict=True)]
        for index in itertools.product(first, *others):
            key = f"{self._name}/{self._separator.join(map(str, index))}"
            if key not in self._store:
                self._miss(key)
            else:
                begin = index[0] * self._chunks[0]
                low, high = max(start, begin), min(stop, begin + self._chunks[0])
                sides = zip(index[1:], self._chunks[1:], strict=True)
                region = result[low - start : high - start, *(slice(n * side, (n + 1) * side) for n, side in sides)]
                region[...] = self._chunk(index, key)[low - begin :][*map(slice, region.shape)]
        return result.astype(self.dtype.newbyteorder("="), copy=False)

    def _miss(self, key: str) -> None:
        """Tell once that chunks are missing, or raise where one cannot stand for the fill value."""
        if self._needed:
            chunk = key.removeprefix(f"{self._name}/")
            raise DataError(
                f"{self.place}: chunk {chunk} is missing; expected all of its chunks (an interrupted copy?)"
            )
        if not self._told:
            grid = [-(-side // chunk) for side, chunk in zip(self.shape, self._chunks, strict=True)]
            held = [index for index in self._store.chunks(self._name) if len(index) == len(grid)]
            total = math.prod(grid)
            missing = total - sum(all(map(int.__lt__, index, grid)) for index in held)
            what = f"{missing} of {total} chunks not in the store, which stand for rows of {self._fill}"
            self._dropped[f"{self._name}: {what}: check that the copy was whole"] += 0
            self._told = True

    def _chunk(self, index: tuple[int, ...], key: str) -> NDArray[Any]:
        """Return a chunk; the last one is kept, as episodes do not end where chunks do."""
        if self._held is None or self._held[0] != index:
            size = math.prod(self._chunks) * self.dtype.itemsize
            self._budget.spend(size)
            data = self._store.read(key, self._budget)
            unpacked = data if self._codec is None else self._unpacked(data, key)
            if len(unpacked) != size:
                raise DataError(f"{self.place}: chunk {key} holds {len(unpacked)} bytes; expected {size}")
            self._held = index, np.frombuffer(unpacked, self.dtype).reshape(self._chunks)
        return self._held[1]

    def _unpacked(self, data: bytes, key: str) -> Any:
        name = str(self._codec and self._codec.get("id"))[:40]
        codec = find_codec(self.place, name, self._codec)
        out = np.empty(self._chunks, self.dtype)
        with reading(f"{self.place}: chunk {key} is damaged", (Exception,)):  # whatever a codec raises
            if name in PICTURES:
                out[...] = np.asarray(codec.decode(data)).reshape(self._chunks)
            else:
                codec.decode(data, out=out.reshape(-1).view(np.uint8))
        return out.tobytes()


def find_codec(place: str, name: str, about: Any) -> Any:
    """Return what unpacks the chunks of an array.

    Raises:
        DataError: a codec that is not known.
        PixelrlError: a codec that is not installed.
    """
    if name not in CODECS + PICTURES:
        raise DataError(f"{place}: packed with the codec {name!a}; expected one of {', '.join(CODECS + PICTURES)}")
    try:
        import numcodecs

        if name in PICTURES:
            import imagecodecs.numcodecs

            imagecodecs.numcodecs.register_codecs()
    except ImportError as error:
        what = "imagecodecs and numcodecs" if name in PICTURES else "numcodecs"
        why = f"packed with the codec {name!r}, which needs {what}"
        raise PixelrlError(f"{place}: {why}: pip install 'pixelrl[zarr]'") from error
    try:
        return numcodecs.get_codec(about)
    except (ValueError, TypeError) as error:
        raise DataError(f"{place}: the codec {name!r} does not take {str(about)[:60]!a}") from error

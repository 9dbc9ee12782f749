"""The files that HDF5 reads through h5py: bytes are checked before the library sees them.

The library (2.0.0) loops for ever, and not even Ctrl-C ends it, where an object in a global heap takes no room: a block
of zeros will do, as a full disk or a power cut leaves it. Global heaps hold texts and what virtual datasets consist
of, so every file has them. https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E
"""

import fcntl
import io
import os
import re
import struct
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import lock

HEAP = re.compile(rb"GCOL\x01\0\0\0")
LARGEST_CHECKED = 2**13
"""Longer reads are of pictures; heaps begin within shorter ones. [bytes]"""


class NamedFile(io.FileIO):
    """A file that h5py knows by the name given for messages; see `name_of`."""

    def __init__(self, path: Path, mode: str, name: Path) -> None:
        super().__init__(path, mode)
        self._name = str(name)

    def __repr__(self) -> str:
        """Return the name in ASCII, which h5py takes for the file's name."""
        return self._name.encode("unicode_escape").decode()


class CheckedFile(NamedFile):
    """A file open for reading; other processes cannot write it meanwhile, where the disk knows locks.

    Raises:
        DataError: another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r", path)
        if os.environ.get("HDF5_USE_FILE_LOCKING") not in ("FALSE", "0"):  # as the library itself reads it
            try:
                lock(self.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                self.close()
                raise DataError(f"{path}: another process is writing it; wait for it, or stop it") from error

    def readinto(self, buffer: Any) -> int:
        """Read what is there, and zeros behind the end of the file.

        Raises:
            OSError: HDF5 would not come back from what was read.
        """
        view, place = memoryview(buffer).cast("B"), self.tell()
        length = 0
        while length < len(view) and (more := super().readinto(view[length:])):  # the system reads 2 GB at a time
            length += more
        view[length:] = bytes(len(view) - length)
        if len(view) <= LARGEST_CHECKED:
            for found in HEAP.finditer(view):
                self._check_heap(place + found.start())
        return len(view)

    def _check_heap(self, place: int) -> None:
        """Raise an `OSError` if an object of a global heap is empty, or does not lie within it."""
        (size,) = struct.unpack("<Q", os.pread(self.fileno(), 16, place)[8:].ljust(8, b"\0"))
        heap = os.pread(self.fileno(), min(size, os.fstat(self.fileno()).st_size), place)
        here = 16
        while here + 16 <= len(heap):
            index, length = struct.unpack_from("<HxxxxxxQ", heap, here)
            taken = 16 + -(-length // 8) * 8 if index else length  # object 0 is what is free, with its own head
            if not 0 < taken <= len(heap) - here:
                raise OSError(f"the global heap at byte {place} holds an object of {length} bytes")
            here += taken


def name_of(said: str) -> str:
    """Return the name of a file that h5py knows by the `repr` of a `NamedFile`, or by its own name."""
    try:
        return said.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return said

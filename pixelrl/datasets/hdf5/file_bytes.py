"""The bytes of an HDF5 file, looked at before the HDF5 library sees them.

The library (2.0.0) loops for ever, and not even Ctrl-C ends it, where an object in a global heap takes no room: a block
of zeros will do, as a full disk or a power cut leaves it. Global heaps hold texts and what virtual datasets consist
of, so every file has them. https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, III.E
"""

import fcntl
import io
import os
import re
import struct
from typing import Any

HEAP = re.compile(rb"GCOL\x01\0\0\0")
LOOKED_AT = 2**13
"""Reads of more bytes are of pictures; heaps begin within smaller ones."""


class Bytes(io.RawIOBase):
    """A file that is open for reading, for h5py to take for a file; closing it closes the file."""

    def __init__(self, file: int, name: str) -> None:
        """Take an open file, and its name for messages."""
        self.file = file
        self.place = 0
        self._name = name

    def __repr__(self) -> str:
        """Return the name in ASCII, which h5py takes for the file's name; see `name_of`."""
        return self._name.encode("unicode_escape").decode()

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self.file)
        super().close()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: os.fstat(self.file).st_size}[whence]
        self.place = origin + offset
        return self.place

    def tell(self) -> int:
        """Return the place."""
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Read what is there, and zeros behind the end of the file.

        Raises:
            OSError: HDF5 would not come back from what was read.
        """
        view = memoryview(buffer).cast("B")
        length = os.preadv(self.file, [view], self.place)
        view[length:] = bytes(len(view) - length)
        if len(view) <= LOOKED_AT:
            for found in HEAP.finditer(view):
                self._check_heap(self.place + found.start())
        self.place += len(view)
        return len(view)

    def _check_heap(self, place: int) -> None:
        """Raise an `OSError` if an object of a global heap is empty, or does not lie within it."""
        (size,) = struct.unpack("<Q", os.pread(self.file, 16, place)[8:].ljust(8, b"\0"))
        heap = os.pread(self.file, min(size, os.fstat(self.file).st_size), place)
        here = 16
        while here + 16 <= len(heap):
            index, length = struct.unpack_from("<HxxxxxxQ", heap, here)
            taken = 16 + -(-length // 8) * 8 if index else length  # object 0 is what is free, with its own head
            if not 0 < taken <= len(heap) - here:
                raise OSError(f"the global heap at byte {place} holds an object of {length} bytes")
            here += taken


def open_bytes(name: str) -> Bytes:
    """Open a file for reading, and keep writers away.

    Raises:
        BlockingIOError: somebody is writing it.
    """
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        lock(file, fcntl.LOCK_SH)
    except BaseException:
        os.close(file)
        raise
    return Bytes(file, name)


def lock(file: int, kind: int) -> None:
    """Take the lock that the HDF5 library itself looks for, where the disk knows locks.

    Raises:
        BlockingIOError: somebody else has it.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network disks have none
        return


def name_of(said: str) -> str:
    """Return the name of a file that h5py knows by the `repr` of its `Bytes`, or by its own name."""
    try:
        return said.encode("ascii").decode("unicode_escape")
    except UnicodeError:
        return said

"""An HDF5 file that grows by one group at a time, and opens whenever and however its writer was stopped.

HDF5 changes a file in place, block after block; a process that is killed between two of them leaves a file that may
not open. Here no byte that the file reaches is ever overwritten, but for one write of the superblock, which lies
within a page and is therefore whole or absent:

1. HDF5 writes a new group behind the end of the file. What it would change before the end is kept in memory and
   forgotten.
2. The index of `/data` with the new group in it is written by us. There are two roots that take turns, A and B, and
   the place of each one's index is only ever overwritten while the other one is the file's.
3. The superblock then names the other root, and the new end.

The index is that of HDF5's own groups, format by default; numbers in brackets are sections of
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import fcntl
import io
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pixelrl.datasets.hdf5.file_bytes import Bytes, lock
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import atomic_path

SUPERBLOCK, END, ROOT = 96, 40, 56
"""Version 0 [II.A]: its length, and where in it the end of the file and the entry of the root stand, in bytes."""
LEAF, NODE = 8, 32
"""Links in a symbol table node, and children in a node of the B-tree, as superblock 0 has it by default."""
ENTRY = 80
"""Bytes set aside for a link: 41 in its node, 16 for a name of up to 15 letters, 3 in the B-tree, and some to spare."""
NOWHERE = 2**64 - 1


class GrowingFile:
    """An unfinished file, open for writing, and locked: nobody else opens it meanwhile.

    Attributes:
        attributes: those of `/data`.
        links: the members of `/data`, and the address of each.
    """

    def __init__(self, path: Path) -> None:
        """Open a file that `create` made, as it was when the last group had been added.

        Raises:
            DataError: it is no such file, or another process has it open.
        """
        self._path = path
        self._file = os.open(path, os.O_RDWR)
        try:
            lock(self._file, fcntl.LOCK_EX)
            with self.read() as file:
                if "sides" not in file.attrs:
                    wanted = "expected one that its writer left; if it is whole, it lacks only its name"
                    raise DataError(f"{path}: not an unfinished file; {wanted}")
                self._sides = file.attrs["sides"].tolist()
                data = file["data"]
                self.attributes: dict[str, Any] = dict(data.attrs)
                self.links = {name: int(h5py.h5o.get_info(data.id, name.encode()).addr) for name in data}
        except BlockingIOError as error:
            os.close(self._file)
            raise DataError(f"{path}: another process has it open; expected nobody to use it") from error
        except BaseException:
            os.close(self._file)
            raise

    @classmethod
    def create(cls, path: Path, attributes: Mapping[str, Any]) -> "GrowingFile":
        """Make a file whose `/data` has these attributes and no members, and open it."""
        image = io.BytesIO()
        with h5py.File(image, "w") as file:
            pairs = [(root, root.create_group("data")) for root in (file.create_group("A"), file.create_group("B"))]
            sides = [[_address(group) for group in pair] for pair in pairs]
            for root, data in pairs:
                root.attrs["sides"] = np.array(sides, np.int64)
                data.attrs.update(attributes)
        raw = bytearray(image.getvalue())
        raw[:SUPERBLOCK] = _superblock(raw, sides[0][0], len(raw))
        with atomic_path(path) as temporary:
            temporary.write_bytes(raw)
        return cls(path)

    @contextmanager
    def read(self) -> Iterator[h5py.File]:
        """Open the file for reading."""
        with self._library("r") as (file, _):
            yield file

    def add(self, name: str, write: Callable[[h5py.Group], None]) -> None:
        """Add a group, which `write` fills, to `/data`: it is there when this returns, and not in part before.

        Raises:
            OSError: the disk is full.
        """
        with self._library("r+") as (file, tail):
            group = file.create_group(name)
            write(group)
            address = _address(group)
        links = {**self.links, name: address}
        count = len(links)
        root, data = self._sides[count % 2]
        room = _room(count)
        place = self._index_of(data) if count > 2 and room == _room(count - 2) else None
        self._commit(root, data, links, tail.end(), place, room)
        self.links = links

    def finish(self, write: Callable[[h5py.Group], None]) -> None:
        """Give the file its last root, which `write` fills; it makes the group `data` in it and gives it no members.

        Raises:
            OSError: the disk is full.
        """
        with self._library("r+") as (file, tail):
            root = file.create_group("final")
            write(root)
            addresses = _address(root), _address(root["data"])
        self._commit(*addresses, self.links, tail.end(), None, 0)
        os.fsync(self._file)

    def close(self) -> None:
        """Cut off whatever lies behind the end, and let others open the file."""
        try:
            os.ftruncate(self._file, _Tail(self._file).end())
        finally:
            os.close(self._file)

    @contextmanager
    def _library(self, mode: str) -> Iterator[tuple[h5py.File, "_Tail"]]:
        """Open the file in HDF5, with a tail that it writes to."""
        tail = _Tail(self._file)
        try:
            with h5py.File(tail, mode) as file:
                yield file, tail
        finally:
            if tail.error is not None:
                raise tail.error

    def _commit(self, root: int, data: int, links: Mapping[str, int], end: int, place: int | None, room: int) -> None:
        """Write an index for the group at `data`, at `place` or else at the end, and make `root` the file's root."""
        if place is None:
            place = -(-end // 8) * 8
            end = place + max(room, len(_index(links, 0)[0]))
        blocks, tree = _index(links, place)
        self._write(blocks, place)
        self._write(struct.pack("<QQ", tree, place), self._symbol_table(data))
        os.ftruncate(self._file, end)  # HDF5 takes a file that is shorter than its superblock says for a damaged one
        os.fdatasync(self._file)
        self._write(_superblock(os.pread(self._file, SUPERBLOCK, 0), root, end), 0)

    def _index_of(self, group: int) -> int:
        """Return the place of a group's index, which begins with its heap."""
        (heap,) = struct.unpack("<8xQ", os.pread(self._file, 16, self._symbol_table(group)))
        return int(heap)

    def _symbol_table(self, group: int) -> int:
        """Return where a group's object header [IV.A.1.a] holds the addresses of its B-tree and heap [IV.A.2.r]."""
        (size,) = struct.unpack("<I", os.pread(self._file, 4, group + 8))
        parts = [(group + 16, size)]
        for start, length in parts:
            place = start
            while place < start + length:
                kind, size = struct.unpack("<HH", os.pread(self._file, 4, place))
                if kind == 0x11:
                    return place + 8
                if kind == 0x10:  # the header goes on elsewhere [IV.A.2.q]
                    parts.append(struct.unpack("<QQ", os.pread(self._file, 16, place + 8)))
                place += 8 + size
        raise DataError(f"{self._path}: the group at byte {group} has no symbol table; expected a file of ours")

    def _write(self, block: bytes, place: int) -> None:
        """Write all of a block."""
        _write_all(self._file, block, place)


class _Tail(Bytes):
    """What HDF5 takes for the file: before the end it only seems to change, behind it it does.

    An error is kept for later, and nothing is written from then on, so that HDF5 can always close the file.

    Attributes:
        error: the first error, if any: a full disk, Ctrl-C.
    """

    def __init__(self, file: int) -> None:
        super().__init__(file, "unfinished")
        self.error: BaseException | None = None
        self._held: list[tuple[int, bytes]] = []
        self._start = self.end()
        os.ftruncate(file, self._start)  # an interrupted group may lie there

    def end(self) -> int:
        """Return the end of the file as its superblock, or HDF5's new one, has it."""
        raw = bytearray(8)
        self.seek(END)
        self.readinto(raw)
        return int.from_bytes(raw, "little")

    def close(self) -> None:
        """Leave the file open: it will be used again."""

    def readinto(self, buffer: Any) -> int:
        """Read what was written, here or before; zeros where nothing was."""
        view, place = memoryview(buffer).cast("B"), self.place
        super().readinto(view)
        for start, block in self._held:
            first, last = max(start, place), min(start + len(block), place + len(view))
            if first < last:
                view[first - place : last - place] = block[first - start : last - start]
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write behind the end, and keep what lies before it."""
        view = memoryview(buffer).cast("B")
        before = min(max(self._start - self.place, 0), len(view))
        try:
            if before:
                self._held.append((self.place, bytes(view[:before])))
            if self.error is None:
                _write_all(self.file, view[before:], self.place + before)
        except BaseException as error:  # also Ctrl-C: HDF5 could not go on, nor close the file
            self.error = self.error or error
        self.place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Do nothing: the file gets its size when the group is added."""
        return self.place if size is None else size

    def flush(self) -> None:
        """Do nothing."""


def _write_all(file: int, block: bytes | memoryview, place: int) -> None:
    """Write all of a block: a full disk may take a part of it before it says so."""
    left = memoryview(block)
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def _address(group: h5py.Group) -> int:
    """Return where the object header of a group lies."""
    return int(h5py.h5o.get_info(group.id).addr)


def _room(count: int) -> int:
    """Return how many bytes are set aside for an index of so many links: twice as many whenever they run out."""
    return ENTRY * max(64, 1 << (count - 1).bit_length())


def _superblock(old: bytes | bytearray, root: int, end: int) -> bytes:
    """Return a superblock with another root and another end of the file."""
    new = bytearray(old[:SUPERBLOCK])
    struct.pack_into("<Q", new, END, end)
    struct.pack_into("<QQQ16x", new, ROOT, 0, root, 0)
    return bytes(new)


def _index(links: Mapping[str, int], place: int) -> tuple[bytes, int]:
    """Return a group's heap, symbol table nodes and B-tree, to be written at `place`, and the address of the B-tree."""
    names = sorted(links, key=str.encode)
    letters, offsets = bytearray(8), []
    for name in names:
        offsets.append(len(letters))
        letters += name.encode() + bytes(8 - len(name.encode()) % 8)
    blocks = bytearray(struct.pack("<4sxxxxQQQ", b"HEAP", len(letters), 1, place + 32) + letters)  # 1: nothing is free
    entries = [struct.pack("<QQ24x", offset, links[name]) for name, offset in zip(names, offsets, strict=True)]
    children: list[tuple[int, int]] = []  # address, offset of the last name in it
    for start in range(0, len(names), LEAF):
        held = entries[start : start + LEAF]
        children.append((place + len(blocks), offsets[start + len(held) - 1]))
        blocks += (struct.pack("<4sBxH", b"SNOD", 1, len(held)) + b"".join(held)).ljust(8 + 40 * LEAF, b"\0")
    level = 0
    while level == 0 or len(children) > 1:
        nodes, children = _level(children, level, place + len(blocks))
        blocks += nodes
        level += 1
    return bytes(blocks), children[0][0]


def _level(children: Sequence[tuple[int, int]], level: int, place: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Return one level of a B-tree [III.A.1], to be written at `place`, and its nodes as children of the next level."""
    size = 24 + 16 * NODE + 8
    blocks, nodes, before = b"", [], 0
    for start in range(0, len(children), NODE):
        held = children[start : start + NODE]
        here = place + len(blocks)
        left, right = here - size if start else NOWHERE, here + size if start + NODE < len(children) else NOWHERE
        keys = [number for address, last in held for number in (address, last)]
        block = struct.pack(f"<4sBBHQQQ{len(keys)}Q", b"TREE", 0, level, len(held), left, right, before, *keys)
        blocks += block.ljust(size, b"\0")
        before = held[-1][1]
        nodes.append((here, before))
    return blocks, nodes

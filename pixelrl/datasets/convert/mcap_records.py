"""MCAP's records: found here and parsed by the mcap library, whose readers take as much memory as a length asks for."""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pixelrl.runtime.errors import DataError

if TYPE_CHECKING:
    from mcap.records import Message

HEAD = struct.Struct("<BQ")
"""A record's kind and length."""

LARGEST, LARGEST_METADATA = 2**27, 2**20
"""Bytes of a chunk, and of a metadata record."""


def is_mcap(file: BinaryIO) -> bool:
    """Tell whether a file begins as MCAP does, and stop behind that."""
    from mcap.writer import MCAP0_MAGIC

    return file.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC


def records(file: BinaryIO, end: int, begin: int = 8) -> Iterator[tuple[int, int, int]]:
    """Yield kind, place and length of each record up to the first that is not whole."""
    while begin + HEAD.size <= end:
        file.seek(begin)
        kind, length = HEAD.unpack(file.read(HEAD.size))
        begin += HEAD.size + length
        if not kind or begin > end:
            return
        yield kind, begin - length, length


def metadata(path: Path, file: BinaryIO, name: str) -> Mapping[str, str] | None:
    """Return the metadata record of a name, None where there is none.

    Raises:
        DataError: a damaged one comes before it.
    """
    from mcap.opcode import Opcode
    from mcap.records import Metadata

    for kind, start, length in records(file, path.stat().st_size):
        if kind == Opcode.METADATA and length <= LARGEST_METADATA:
            with _reading(path, start):
                record = Metadata.read(_stream(file, start, length))
            if record.name == name:
                return dict(record.metadata)
    return None


def messages(
    path: Path, file: BinaryIO, chunk: tuple[int, int], topics: dict[int, str]
) -> Iterator[tuple[str, "Message"]]:
    """Yield the messages of a chunk with their topics.

    Args:
        path: of the file.
        file: open.
        chunk: place and length of its record.
        topics: channel -> topic; those that the chunk announces are added.

    Raises:
        DataError: the chunk is damaged, or packed.
    """
    from mcap.opcode import Opcode
    from mcap.records import Channel, Chunk, Message

    start, length = chunk
    if length > LARGEST:
        raise DataError(f"{path}: a chunk of {length} bytes; expected {LARGEST} at most")
    with _reading(path, start):
        held = Chunk.read(_stream(file, start, length))
        if held.compression:
            packed = f"chunks packed with {held.compression[:20]!r}"
            raise DataError(f"{path}: {packed}; expected none: `mcap decompress` unpacks them")
        if zlib.crc32(held.data) != held.uncompressed_crc:
            raise DataError(f"{path}: the chunk at byte {start} is damaged; `mcap recover` leaves it out")
        inner = BytesIO(held.data)
        for kind, place, size in records(inner, len(held.data), begin=0):
            if kind == Opcode.CHANNEL:
                channel = Channel.read(_stream(inner, place, size))
                topics[channel.id] = channel.topic
            elif kind == Opcode.MESSAGE:
                message = Message.read(_stream(inner, place, size), size)
                if message.channel_id in topics:
                    yield topics[message.channel_id], message


def parsed(text: bytes) -> Any:
    """Return the value of JSON, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _stream(file: BinaryIO, start: int, length: int) -> Any:
    """Return what mcap parses: the bytes of one record, and none behind them."""
    from mcap.data_stream import ReadDataStream

    file.seek(start)
    return ReadDataStream(BytesIO(file.read(length)))


@contextmanager
def _reading(path: Path, place: int) -> Iterator[None]:
    """Turn what parsing a damaged record raises into a `DataError`."""
    from mcap.exceptions import McapError

    try:
        yield
    except (McapError, struct.error, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path}: the record at byte {place} is damaged ({ascii(str(error))[1:-1][:80]})") from error

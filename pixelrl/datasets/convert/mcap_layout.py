"""How `pixelrl serve --record NAME.mcap` lays out what a policy saw and said, and how MCAP's records are read.

    /camera/KEY   foxglove.CompressedImage   the picture of an instant, as PNG
    /proprio      pixelrl.Proprioception     the vectors of the same instant
    /action       pixelrl.Action             what was answered to both, and how long it took
    /episode      pixelrl.Episode            an episode is over, and why

All are JSON; no array lies in an array, which a viewer need not know. The messages of a step have one `sequence`, lie
in one chunk, which is not compressed (PNG is), and end with its action. `log_time` is the server's clock: when the
observation came, and when its answer was ready; `publish_time` is the peer's stamp, of its own clock, if it gave one.
The metadata record `pixelrl` says what a data set must; the attachments policy.json and provenance.json say the rest.
Records are found here and parsed by the mcap library, whose readers take as much memory as a length asks for.
https://mcap.dev/spec, https://docs.foxglove.dev/docs/sdk/schemas/compressed-image
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pixelrl.datasets.convert.dataset_stream import reading
from pixelrl.runtime.errors import DataError

if TYPE_CHECKING:
    from mcap.records import Message

SUFFIX, PART = ".mcap", ".part"
"""Of a finished recording, and what is added while it is being written, or where its server was killed."""

ABOUT, LAYOUT = "pixelrl", "1"
CAMERA, VECTORS, ACTION, EPISODE = "/camera/", "/proprio", "/action", "/episode"

HEAD = struct.Struct("<BQ")
"""A record's kind and length."""

LARGEST, LARGEST_METADATA = 2**27, 2**20
"""Bytes of a chunk, and of a metadata record."""


def about(
    *,
    inputs: Mapping[str, Sequence[int]],
    env_args: Mapping[str, Any],
    action_dims: Sequence[Mapping[str, Any]],
    chunk: int,
    version: str,
) -> dict[str, str]:
    """Return the metadata record: what a data set is besides its episodes.

    Args:
        inputs: observation key -> shape of one instant, `[H, W, C]` or `[D]`.
        env_args: robomimic's description of the environment.
        action_dims: what each dimension of the action means.
        chunk: actions in an answer.
        version: of pixelrl.
    """
    said = {"inputs": inputs, "env_args": env_args, "action_dims": action_dims, "chunk": chunk}
    return {"layout": LAYOUT, "version": version} | {name: json.dumps(value) for name, value in said.items()}


def schemas() -> dict[str, tuple[str, bytes]]:
    """Return topic -> the name of its schema, and the schema itself (JSON Schema)."""
    integer, number, text = {"type": "integer"}, {"type": "number"}, {"type": "string"}
    numbers = {"type": "array", "items": number}
    time = _object("time", sec={**integer, "minimum": 0}, nsec={**integer, "minimum": 0, "maximum": 999_999_999})
    picture = {**text, "contentEncoding": "base64"}
    which = {"connection": integer, "episode": integer, "step": integer}
    one = _object("pixelrl.OneAction", action=numbers, normalised=numbers)
    made = {"seq": integer, "stamp_ns": integer, "infer_ms": number, "queue_ms": number}
    clipped = {"type": "array", "items": text}
    each = {
        CAMERA: _object("foxglove.CompressedImage", timestamp=time, frame_id=text, data=picture, format=text),
        VECTORS: _object("pixelrl.Proprioception", **which, vectors={"type": "object"}),
        ACTION: _object("pixelrl.Action", **which, **made, clipped=clipped, actions={"type": "array", "items": one}),
        EPISODE: _object("pixelrl.Episode", connection=integer, episode=integer, steps=integer, ended=text),
    }
    return {topic: (schema["title"], json.dumps(schema).encode()) for topic, schema in each.items()}


def _object(title: str, **properties: Any) -> dict[str, Any]:
    return {"title": title, "type": "object", "properties": properties}


def begins_as_mcap(file: BinaryIO) -> bool:
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


def _reading(path: Path, place: int) -> AbstractContextManager[None]:
    """Turn what parsing a damaged record raises into a `DataError`."""
    from mcap.exceptions import McapError

    damage = (McapError, struct.error, ValueError, OverflowError, MemoryError)
    return reading(f"{path}: the record at byte {place} is damaged", damage)

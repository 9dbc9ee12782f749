"""What a served policy saw and did, as MCAP; `datasets.convert.mcap_layout` says how it lies there."""

import binascii
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer

from pixelrl.datasets.convert.mcap_layout import ABOUT, ACTION, CAMERA, EPISODE, PART, VECTORS, about, schemas
from pixelrl.datasets.convert.pictures import encode_png
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.recording import Step
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import file_lock, flush, rename
from pixelrl.version import __version__

if TYPE_CHECKING:
    from pixelrl.export.runtime import ExportedPolicy

CHUNK = 2**20
"""Bytes after which a chunk is ended, with the step that it holds last."""

WHOLE = 2**62
"""What mcap is told instead: it would cut steps apart."""


class McapSteps:
    """Steps as messages, each written as it comes; nothing stays in memory but the index of the chunks.

    Attributes:
        count: steps that came.
    """

    def __init__(self, file: BinaryIO, policy: "ExportedPolicy", provenance: Mapping[str, Any]) -> None:
        """Begin a file with all that is known of the policy."""
        self._file, self._writer = file, Writer(file, chunk_size=WHOLE, compression=CompressionType.NONE)
        self.count, self._bytes = 0, 0
        self._steps = Counter[int]()
        self._connections = dict[int, int]()
        contract = policy.contract
        self._writer.start(library=f"pixelrl {__version__}")
        dims = contract["outputs"]["action"]["dims"]
        said = about(
            inputs={key: spec.shape for key, spec in policy.instant.items()},
            env_args=contract["env_args"],
            action_dims=dims,
            chunk=contract.get("chunk", 1),
            version=__version__,
        )
        self._writer.add_metadata(ABOUT, said)
        for name, value in (("policy.json", contract), ("provenance.json", provenance)):
            self._writer.add_attachment(0, 0, name, "application/json", json.dumps(value, indent=2).encode())
        self._channels = self._register([key for key, spec in policy.instant.items() if spec.dtype == "uint8"])
        self.flush()

    def add(self, episode: int, step: Step) -> None:
        """Write a step: its pictures, its vectors, its action."""
        request, reply = step.request, step.reply
        self.count += 1
        self._steps[episode] += 1
        self._connections[episode] = step.connection
        came = step.time_ns - round((reply.infer + reply.queue) * 1e9)
        stamp = {"sec": came // 10**9, "nsec": came % 10**9}
        which = {"connection": step.connection, "episode": episode, "step": self._steps[episode]}
        vectors = {}
        for key, value in step.sensors.items():
            if (topic := f"{CAMERA}{key}") in self._channels:
                head = json.dumps({"timestamp": stamp, "frame_id": key, "format": "png"})[:-1]
                picture = binascii.b2a_base64(encode_png(value, level=1), newline=False)
                self._write(topic, step, came, b'%s, "data": "%s"}' % (head.encode(), picture))
            else:
                vectors[key] = value.tolist()
        self._write(VECTORS, step, came, json.dumps({**which, "vectors": vectors}).encode())
        given = {"seq": request.seq, "stamp_ns": request.stamp_ns}
        said = {
            **which,
            **{name: value for name, value in given.items() if value is not None},
            "infer_ms": reply.infer * 1e3,
            "queue_ms": reply.queue * 1e3,
            "clipped": reply.clipped,
            "actions": [
                {"action": action.tolist(), "normalised": normalised.tolist()}
                for action, normalised in zip(reply.action, reply.normalised, strict=True)
            ],
        }
        self._write(ACTION, step, step.time_ns, json.dumps(said).encode())
        if self._bytes >= CHUNK:
            self.flush()

    def end(self, episode: int, why: str) -> None:
        """Write that an episode is over, and force it onto the disk."""
        steps, connection = self._steps.pop(episode), self._connections.pop(episode)
        said = {"connection": connection, "episode": episode, "steps": steps, "ended": why}
        now = time.time_ns()
        self._writer.add_message(self._channels[EPISODE], now, json.dumps(said).encode(), now)
        self.flush()
        with self._told():
            os.fsync(self._file.fileno())

    def flush(self) -> None:
        """End the chunk, and let the system have it."""
        with self._told():
            self._writer.flush()  # type: ignore[no-untyped-call]
        self._bytes = 0

    def finish(self) -> None:
        """End the file with its index."""
        with self._told():
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._file.flush()

    def _register(self, pictures: Sequence[str]) -> dict[str, int]:
        """Announce all topics, and return the channel of each."""
        channels = {}
        for topic, (name, schema) in schemas().items():
            number = self._writer.register_schema(name, SchemaEncoding.JSONSchema, schema)
            for each in [f"{CAMERA}{key}" for key in pictures] if topic == CAMERA else [topic]:
                channels[each] = self._writer.register_channel(each, MessageEncoding.JSON, number)
        return channels

    def _write(self, topic: str, step: Step, time_ns: int, message: bytes) -> None:
        stamp = step.request.stamp_ns
        published = time_ns if stamp is None else stamp
        self._writer.add_message(self._channels[topic], time_ns, message, published, self.count % 2**32)
        self._bytes += len(message)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say of a full disk which file it kept from being written."""
        try:
            yield
        except OSError as error:
            kept = "it keeps what was recorded before"
            raise DataError(f"{self._file.name}: could not be written ({error.strerror or error}); {kept}") from error


@contextmanager
def mcap_steps(policy: "ExportedPolicy", path: Path) -> Iterator[McapSteps]:
    """Yield a file of messages; until it is finished it lies beside, as `NAME.mcap.part`.

    Raises:
        PixelrlError: another process writes to it, one that was killed has left it, or no steps came.
    """
    part = path.with_name(path.name + PART)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(part, wait=False))
        except BlockingIOError as error:
            raise PixelrlError(f"{part}: another process is writing to it; wait for it, or stop it") from error
        if part.stat().st_size:
            what = f"`pixelrl convert {part} NAME.hdf5` reads it"
            raise PixelrlError(f"{part}: left behind by a server that was killed; {what}; rename or remove it")
        file = part.open("r+b")
        flush(part.parent)
        stack.callback(_close, file)
        steps = McapSteps(file, policy, Provenance().record())
        try:
            yield steps
        finally:
            if not steps.count:
                part.unlink()
        if not steps.count:
            raise PixelrlError(f"--record {path}: no observations came; nothing was written")
        steps.finish()
        rename(part, path)


def _close(file: BinaryIO) -> None:
    """Close a file, whatever of it a full disk does not take."""
    with suppress(OSError):
        file.close()

"""Serve an exported policy: openpi's wire, for peers that nobody vouches for.

A connection holds one history of pictures and at most one observation that waits: a newer one takes its place. One
thread computes, and the event loop waits for no action that takes longer than going to that thread and back. Nothing
that a peer sends is executed, opened as a file, or told in more than one line.
"""

import asyncio
import logging
import math
import signal
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import History
from pixelrl.serving.admission import Admission, Limits, address, check_host
from pixelrl.serving.client.wire import WireError, one_line, pack
from pixelrl.serving.inference import Inference, Recorder, Reply
from pixelrl.serving.metrics import Log, Metrics
from pixelrl.serving.protocol import Request, greeting, labelled, largest_message, read_request

REFUSALS = 32
"""Messages in a row that are answered by an error before a peer is sent away."""

AT_ONCE = 0.001
"""An action that takes less is computed where messages are read: going to another thread and back takes as long. [s]"""

SMALL = 2**14
"""Bytes of a message that never waits where none waits before it; a slow peer may have twice as much in the buffer."""

SILENT = logging.CRITICAL + 1
"""The level of a logger that says nothing: what matters is logged as an event, and peers must not fill the log."""


@dataclass(kw_only=True, eq=False)
class Peer:
    """A connection: what it was told and what it waits for.

    Attributes:
        heard, recorded: messages that came, and the number of the last one that was recorded, from 1.
        waiting: an observation, when it came, and its number.
    """

    number: int
    socket: ServerConnection
    history: History
    step: int = 0
    refusals: int = 0
    heard: int = 0
    recorded: int = 0
    waiting: tuple[Request, float, int] | None = None
    busy: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class PolicyServer:
    """A policy that answers over websockets until it is told to stop.

    Args:
        policy: what is served.
        host, port: where; port 0 takes a free one.
        token: what peers must present, None on this machine alone.
        tls: the server's side of TLS.
        names: peer's key -> policy's key, where they differ.
        limits: of peers.
        log: writes events.
        record: takes all that is answered.

    Raises:
        PixelrlError: no token for a host that others can reach, or what `greeting` refuses.
    """

    def __init__(
        self,
        policy: ExportedPolicy,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        log: Log | None = None,
        record: Recorder | None = None,
    ) -> None:
        check_host(host, token)
        self.policy, self.host, self.port, self.tls = policy, host, port, tls
        self.names, self.limits, self.log, self.record = names or {}, limits or Limits(), log or Log(), record
        self.metrics = Metrics()
        self._greeting = greeting(policy, self.names)
        self._inference = Inference(policy)
        self._peers: set[Peer] = set()
        self._count, self._took = 0, math.inf
        self._door = Admission(
            token=token, limits=self.limits, metrics=self.metrics, log=self.log, connected=lambda: len(self._peers)
        )
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    async def run(self, ready: Callable[[int], None] | None = None) -> None:
        """Serve until SIGTERM, SIGINT or `stop`, then let peers have what they wait for.

        Args:
            ready: is told the port once connections are taken.

        Raises:
            OSError: the port is taken.
        """
        loop, stop = self._stop = asyncio.get_running_loop(), asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(name, stop.set)
        options: dict[str, Any] = {"ssl_handshake_timeout": self.limits.handshake} if self.tls else {}
        with ThreadPoolExecutor(1, thread_name_prefix="inference") as self._thread:
            async with serve(
                self._converse,
                self.host,
                self.port,
                create_connection=self._door.connection_type(),
                process_request=self._door.admit,
                compression=None,
                max_size=largest_message(self.policy),
                max_queue=1,
                open_timeout=self.limits.handshake,
                close_timeout=self.limits.handshake,
                ssl=self.tls,
                logger=logging.Logger("pixelrl.serving", SILENT),
                server_header=None,
                **options,
            ) as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                self.log("serving", host=self.host, port=self.port, tls=bool(self.tls), token=bool(self._door.token))
                if ready is not None:
                    ready(self.port)
                await stop.wait()
                await self._drain(server)
        self._stop = None
        self.log("stopped")

    def stop(self) -> None:
        """End `run`, from any thread."""
        if self._stop is not None:
            self._stop[0].call_soon_threadsafe(self._stop[1].set)

    async def _converse(self, socket: ServerConnection) -> None:
        """Tell a peer of the policy, then answer it until it goes."""
        if len(self._peers) >= self.limits.connections:  # others came in since it was admitted
            await socket.close(1013, "too many are connected")
            return
        self._count += 1
        peer = Peer(number=self._count, socket=socket, history=History(self.policy.contract.get("history", 1)))
        self._peers.add(peer)
        self.metrics.connections.set(len(self._peers))
        self.log("connected", connection=peer.number, peer=address(socket))
        answering, loop = asyncio.create_task(self._answer(peer)), asyncio.get_running_loop()
        reason = "peer"
        try:
            await self._send(peer, self._greeting)
            async with asyncio.timeout(self.limits.idle) as patience:
                while True:
                    message = await socket.recv()
                    patience.reschedule(loop.time() + self.limits.idle)
                    await self._take(peer, message)
        except ConnectionClosed as error:
            reason = one_line(error)
        except TimeoutError:
            reason = "idle or slow"
            self.metrics.dropped.labels("slow").inc()
            socket.transport.abort()
        finally:
            answering.cancel()
            if self.record is not None:
                self.record.end(peer.number, reason)
            self._peers.discard(peer)
            self.metrics.connections.set(len(self._peers))
            self.log("gone", connection=peer.number, steps=peer.step, reason=reason)

    async def _take(self, peer: Peer, message: bytes | str) -> None:
        """Read a message, and let it wait for its answer in place of an older one."""
        peer.heard += 1
        try:
            request = read_request(message, self.names)
            if self._door.closed:
                raise WireError(labelled(request.seq, "the server is about to stop"))
        except WireError as error:
            await self._refuse(peer, "message", error)
            return
        if peer.waiting is not None:
            older, *_ = peer.waiting
            request = replace(request, reset=request.reset or older.reset)
            self.metrics.refused.labels("superseded").inc()
            await self._send(peer, labelled(older.seq, "superseded by a newer observation"))
        peer.waiting = (request, time.perf_counter(), peer.heard)
        peer.news.set()

    async def _answer(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await peer.news.wait()
                peer.news.clear()
                assert peer.waiting is not None
                (request, since, number), peer.waiting, peer.busy = peer.waiting, None, True
                try:
                    if self._took < AT_ONCE:
                        answer, reply = self._reply(peer, request, since)
                    else:
                        answer, reply = await loop.run_in_executor(self._thread, self._reply, peer, request, since)
                    await self._send(peer, answer)
                    peer.refusals = 0
                    if reply is not None:
                        self._note(peer, request, reply, number)
                except PixelrlError as error:
                    await self._refuse(peer, "observation", labelled(request.seq, error))
                except (ConnectionClosed, TimeoutError):
                    raise
                except Exception as error:  # a fault of ours: the peer is told so, and the log what it was
                    self.log("fault", connection=peer.number, error=one_line(f"{type(error).__name__}: {error}"))
                    await self._refuse(peer, "fault", labelled(request.seq, "the server failed; its log tells why"))
                finally:
                    peer.busy = False
        except (ConnectionClosed, TimeoutError):
            peer.socket.transport.abort()  # which ends the reading, too

    def _reply(self, peer: Peer, request: Request, since: float) -> tuple[bytes | str, Reply | None]:
        """Return the answer to an observation, and what is in it; all of this may take long."""
        if request.reset:
            peer.history.reset()
            peer.step = 0
        if request.only_reset:
            return "reset successful", None
        reply = self._inference(request, peer.history, since)
        self._took = reply.infer
        peer.step += 1
        about = {"seq": request.seq, "stamp_ns": request.stamp_ns, "step": peer.step, "clipped": reply.clipped}
        answer = {
            "actions": reply.action,
            "server_timing": {"infer_ms": reply.infer * 1e3, "queue_ms": reply.queue * 1e3},
            "pixelrl": {**about, "normalised": reply.normalised},
        }
        return pack(answer), reply

    def _note(self, peer: Peer, request: Request, reply: Reply, number: int) -> None:
        """Count a reply to a peer's message of that number, and record it: nobody waits for this."""
        self.metrics.replies.inc()
        self.metrics.infer.observe(reply.infer)
        self.metrics.queue.observe(reply.queue)
        for name in reply.clipped:
            self.metrics.clipped.labels(name).inc()
        if self.record is None:
            return
        if self.record(peer.number, peer.step, request, reply, gap=number != peer.recorded + 1):
            peer.recorded = number
        else:
            self.metrics.unrecorded.inc()

    async def _refuse(self, peer: Peer, reason: str, error: object) -> None:
        """Answer by one line; a peer that has been answered by nothing else for long is sent away."""
        self.metrics.refused.labels(reason).inc()
        peer.refusals += 1
        if peer.refusals == 1:
            self.log("refused", connection=peer.number, error=one_line(error))
        await self._send(peer, one_line(error))
        if peer.refusals >= REFUSALS:
            self.metrics.dropped.labels("refused").inc()
            await peer.socket.close(1008, f"{REFUSALS} messages in a row were refused")

    async def _send(self, peer: Peer, message: bytes | str) -> None:
        """Send a message to a peer that takes it in time."""
        if len(message) <= SMALL and not peer.socket.transport.get_write_buffer_size():  # asyncio keeps it, at worst
            await peer.socket.send(message)
            return
        async with asyncio.timeout(self.limits.handshake):
            await peer.socket.send(message)

    async def _drain(self, server: Server) -> None:
        """Take no more connections, let peers have their answers, and say goodbye."""
        self._door.closed = True
        server.close(close_connections=False)
        self.log("draining", connections=len(self._peers))
        end = time.monotonic() + self.limits.drain
        while any(peer.busy or peer.waiting for peer in self._peers) and time.monotonic() < end:
            await asyncio.sleep(0.005)
        await asyncio.gather(*(peer.socket.close(1001, "the server stops") for peer in set(self._peers)))

"""Who may speak with a served policy: a token in a file that nobody else can read, TLS, and limits of peers."""

import asyncio
import hmac
import http
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from pixelrl.runtime.errors import PixelrlError

if TYPE_CHECKING:  # an evaluation, which reads a token here, needs no metrics
    from pixelrl.serving.metrics import Log, Metrics

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST = 16
"""Characters of a token: fewer could be guessed."""

PENDING = 64
"""Connections beyond the allowed ones that may be open at a time while they introduce themselves."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What peers may take.

    Attributes:
        connections: how many at a time.
        idle: how long a peer may say nothing [s].
        handshake: how long it may take to introduce itself, and to take what it is sent [s].
        drain: how long peers are waited for when the server ends [s].
    """

    connections: int = 8
    idle: float = 300.0
    handshake: float = 5.0
    drain: float = 5.0


@dataclass(kw_only=True, eq=False)
class Admission:
    """Lets peers in, or refuses them.

    Attributes:
        token: what they must present; None: nothing.
        limits: how many may come, among others.
        metrics, log: what is told of those who are refused.
        connected: returns how many are in.
        closed: whether nobody else is let in.
        opened: connections that are open, those that have not introduced themselves among them.
    """

    token: str | None
    limits: Limits
    metrics: "Metrics"
    log: "Log"
    connected: Callable[[], int]
    closed: bool = False
    opened: int = 0

    def connection_type(self) -> type[ServerConnection]:
        """Return a connection that is cut at once where too many are open, before it could say anything."""
        counts = self

        class Connection(ServerConnection):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                counts.opened += 1
                super().connection_made(transport)
                if counts.opened > counts.limits.connections + PENDING:
                    counts.metrics.rejected.labels("flood").inc()
                    self.transport.abort()

            def connection_lost(self, exc: Exception | None) -> None:
                counts.opened -= 1
                super().connection_lost(exc)

        return Connection

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer requests for pages, and refuse peers without the token, from browsers, or beyond the limit."""

        def refuse(status: http.HTTPStatus, reason: str, text: str) -> Response:
            self.metrics.rejected.labels(reason).inc()
            self.log("rejected", reason=reason, peer=address(connection))
            return connection.respond(status, text + "\n")

        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.token is not None and not has_token(request.headers.get_all("Authorization"), self.token):
            return refuse(http.HTTPStatus.UNAUTHORIZED, "token", "the token is missing or wrong")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.text())
        if request.path != "/":
            return refuse(http.HTTPStatus.NOT_FOUND, "path", "there are /, /healthz and /metrics")
        if "Origin" in request.headers:  # any page that its user visits could reach the server on this machine
            return refuse(http.HTTPStatus.FORBIDDEN, "browser", "browsers are not served")
        if self.connected() >= self.limits.connections or self.closed:
            return refuse(http.HTTPStatus.SERVICE_UNAVAILABLE, "full", "too many are connected")
        return None


def address(connection: ServerConnection) -> str:
    """Return where a peer is."""
    host, port, *_ = connection.remote_address or ("?", 0)
    return f"{host}:{port}"


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        PixelrlError: others than its owner can read or write the file, or it holds no token.
    """
    if not path.is_file():
        raise PixelrlError(f"{path}: there is no such file; write a token of {SHORTEST} or more characters into it")
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        raise PixelrlError(f"{path}: its mode is {mode:04o}: others can reach the token; chmod 600 {path}")
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < SHORTEST or not token.isascii() or any(each.isspace() for each in token):
        raise PixelrlError(f"{path}: expected one token of {SHORTEST} or more ASCII characters without spaces")
    return token


def check_host(host: str, token: str | None) -> None:
    """Raise unless the server stays on this machine or has a token."""
    if host not in LOOPBACK and token is None:
        raise PixelrlError(f"--host {host}: whatever reaches this machine could use the policy; give --token-file, too")


def has_token(headers: Sequence[str], token: str) -> bool:
    """Tell whether the one `Authorization` header carries the token, as `Api-Key TOKEN` or `Bearer TOKEN`."""
    scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    return same and scheme.lower() in ("api-key", "bearer")


def tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return the server's side of TLS, or None without a certificate.

    Raises:
        PixelrlError: a key without a certificate, or files that are not a certificate and its key.
    """
    if cert is None:
        if key is not None:
            raise PixelrlError(f"--key {key}: it belongs to a certificate; give --cert, too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise PixelrlError(f"--cert {cert}: not a certificate with its key in PEM files ({error})") from error
    return context

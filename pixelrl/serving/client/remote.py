"""A policy that runs on another computer."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from typing import Any, Mapping

import numpy as np
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .address import RemoteError, address_of, check_seconds
from .wire import WireError, one_line, pack, unpack

PATIENCE = 5.0
"""How long connecting may take [s]."""

SLOWEST = 2.0
"""The longest pause between two attempts to connect; the first one is a twentieth of a second. [s]"""


class LateError(RemoteError):
    """No action came before the deadline."""


class RefusedError(RemoteError):
    """The server does not let us in, or serves another policy than before: trying again is of no use."""


class RemotePolicy:
    """A policy at `ws://HOST:PORT`; a call ends at its deadline, with an action or with an error.

    After an error it connects again by itself in a thread, at most every two seconds. What the policy had seen before
    is then forgotten, and a server whose policy is another one is refused for good. One thread at a time may ask.

    Attributes:
        contract: what the server says of its policy.
        timing: how long the last action took on the server, and here [ms].
        reconnects: how often the connection was lost and made again.
    """

    contract: dict[str, Any]

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline: float | None = None,
        connect_timeout: float = PATIENCE,
        tls: ssl.SSLContext | None = None,
        expect: str | None = None,
    ) -> None:
        """Connect.

        Args:
            url: `ws://HOST:PORT`, or `wss://HOST:PORT` for TLS.
            token: what the server wants to see.
            deadline: how long an action may take [s]; None: one period of the policy's control rate, or 0.1 s.
            connect_timeout: how long connecting may take [s].
            tls: whom to trust, instead of the system's authorities.
            expect: the hash that `contract_hash` gave for the policy that is expected; None: any policy.

        Raises:
            RemoteError: wrong arguments; no server there, it refuses us, or its policy is not the expected one.
        """
        address_of(url)
        check_seconds("connect_timeout", connect_timeout)
        check_seconds("deadline", 1.0 if deadline is None else deadline)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise RemoteError("the token holds other than printable ASCII characters")
        self.url, self.reconnects = url, 0
        self.timing: dict[str, float] = {}
        self._token, self._tls, self._timeout, self._hash = token, tls, connect_timeout, expect
        self._seq, self._fresh = 0, True
        self._refusal: RefusedError | None = None
        self._closed = threading.Event()
        self._socket: ClientConnection | None = self._connect()
        self.deadline = self._period if deadline is None else deadline

    @property
    def deadline(self) -> float:
        """How long an action may take [s]; sending alone may take as long."""
        return self._deadline

    @deadline.setter
    def deadline(self, seconds: float) -> None:
        check_seconds("deadline", seconds)
        self._deadline = seconds
        if self._socket is not None:
            self._bound_sending(self._socket)

    def act(self, sensors: Mapping[str, Any], stamp: float | None = None) -> Any:
        """Return actions in the robot's units, float32 `[H, A]`: the first one is for now.

        Args:
            sensors: observation key -> array, as the contract says, without a batch; others are not sent.
            stamp: when they were taken, by your own clock [s]; the server repeats it in its reply.

        Raises:
            LateError: no action came before the deadline.
            RemoteError: the server refused the observation, or is not there at present.
        """
        return self.infer(sensors, stamp)["actions"]

    def infer(self, sensors: Mapping[str, Any], stamp: float | None = None) -> dict[str, Any]:
        """Return the server's whole reply, as `act`."""
        begin = time.perf_counter()
        if self._refusal is not None:
            raise self._refusal
        connection = self._socket
        if connection is None:
            raise RemoteError(f"{self.url}: no connection at present")
        names = self.contract["inputs"]
        message: dict[str, Any] = {key: np.ascontiguousarray(sensors[key]) for key in names if key in sensors}
        self._check_shapes(message)
        self._seq += 1
        message["pixelrl/seq"] = self._seq
        if self._fresh:
            message["pixelrl/reset"] = True
        if stamp is not None:
            if not 0 <= stamp < 2**63 / 1e9:
                raise RemoteError(f"stamp is {stamp}; expected seconds from 0 on")
            message["pixelrl/stamp_ns"] = int(stamp * 1e9)
        try:
            packed = pack(message)
        except WireError as error:
            kinds = ", ".join(f"{key} {value.dtype}" for key, value in message.items() if hasattr(value, "dtype"))
            raise RemoteError(one_line(f"{error} ({kinds})")) from None
        try:
            reply = self._ask(connection, packed, begin)
        except (WireError, OSError, WebSocketException) as error:
            self._socket = None
            threading.Thread(target=self._connect_again, args=(connection,), name="reconnect", daemon=True).start()
            said = one_line(error) or type(error).__name__
            raise RemoteError(one_line(f"{self.url}: the connection is lost: {said}")) from None
        self._fresh = False  # only now: of a late observation nobody knows whether the server has heard
        self.timing = {**reply["server_timing"], "total_ms": (time.perf_counter() - begin) * 1e3}
        return reply

    def _check_shapes(self, sensors: Mapping[str, Any]) -> None:
        """Raise a `RemoteError` that names an array of a wrong shape: the server hangs up on a large one."""
        for key, value in sensors.items():
            whole, newest = self._shapes[key]
            if value.shape not in (whole, newest):
                kind = self.contract["inputs"][key]["dtype"]
                raise RemoteError(f"{key} is {value.dtype} {list(value.shape)}; expected {kind} {list(newest)}")

    def reset(self) -> None:
        """Say that an episode begins with the next observation."""
        self._fresh = True

    def close(self) -> None:
        """Leave the server."""
        self._closed.set()
        if self._socket is not None:
            self._socket.close()

    def _ask(self, connection: ClientConnection, packed: bytes, begin: float) -> dict[str, Any]:
        """Send a message and return its reply, leaving out answers to earlier ones."""
        mine = f"seq {self._seq}"
        connection.send(packed)
        while True:
            left = begin + self.deadline - time.perf_counter()
            try:
                if left <= 0:
                    raise TimeoutError
                message = connection.recv(timeout=left)
            except TimeoutError:
                raise LateError(f"no action within {self.deadline * 1e3:.0f} ms") from None
            if isinstance(message, str):
                number, separator, text = message.partition(": ")
                if separator and number.startswith("seq ") and number != mine:
                    continue
                raise RemoteError(one_line(text if number == mine else message))
            reply = unpack(message, flat=False)
            about = reply.get("pixelrl")
            if not isinstance(about, dict) or about.get("seq") in (self._seq, None):
                return self._checked(reply)

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a reply that is what was agreed on; whether its numbers are sensible, the guard decides."""
        actions, size = reply.get("actions"), len(self.contract["outputs"]["action"]["dims"])
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.shape[1] != size:
            raise RemoteError(one_line(f"the server's reply holds no actions [H, {size}]"))
        if not isinstance(reply.get("server_timing"), dict):
            raise RemoteError("the server's reply tells no timing")
        return reply

    def _connect_again(self, lost: ClientConnection) -> None:
        """Try to connect until it works, the server refuses us, or we leave."""
        with contextlib.suppress(OSError):  # a server that hangs would be waited for otherwise
            lost.socket.shutdown(socket.SHUT_RDWR)
        lost.close()
        pause = 0.05
        while not self._closed.wait(pause):
            try:
                connection = self._connect()
            except RefusedError as error:
                self._refusal = error
                return
            except RemoteError:
                pause = min(2 * pause, SLOWEST)
                continue
            self._bound_sending(connection)
            self.reconnects += 1
            self._fresh = True
            self._socket = connection
            if self._closed.is_set():  # while we connected
                connection.close()
            return

    def _bound_sending(self, connection: ClientConnection) -> None:
        """Let sending to a server that stopped reading fail at the deadline."""
        seconds = max(self.deadline, 0.001)
        bound = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        with contextlib.suppress(OSError):
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)

    def _connect(self) -> ClientConnection:
        """Connect, and see that the policy is the one that it was; a `RefusedError` is for good, others may pass."""
        host, port, secure = address_of(self.url)
        headers = {} if self._token is None else {"Authorization": f"Api-Key {self._token}"}
        tls = (self._tls or ssl.create_default_context()) if secure else None
        try:
            raw = socket.create_connection((host, port), self._timeout)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = connect(
                self.url,
                sock=raw,
                ssl=tls,
                additional_headers=headers,
                compression=None,
                max_size=2**24,
                open_timeout=self._timeout,
                close_timeout=0.5,
            )
        except InvalidStatus as error:
            code = error.response.status_code
            said = one_line((error.response.body or b"").decode("utf-8", "replace"))
            kind = RemoteError if code == 503 else RefusedError
            raise kind(one_line(f"{self.url}: refused with {code}: {said}")) from None
        except (OSError, WebSocketException, UnicodeError) as error:  # of a name that is no host's
            raise RemoteError(one_line(f"{self.url}: no server there ({str(error) or type(error).__name__})")) from None
        return self._greet(connection)

    def _greet(self, connection: ClientConnection) -> ClientConnection:
        try:
            contract = unpack(connection.recv(timeout=self._timeout), flat=False)
            inputs, dims = contract["inputs"], contract["outputs"]["action"]["dims"]
            if not (isinstance(inputs, dict) and isinstance(dims, list) and dims):
                raise WireError("the contract names no inputs or no action")
            self._shapes = {key: _shapes_of(each, contract.get("history") or 1) for key, each in inputs.items()}
            self._period = 1.0 / (contract.get("control_freq") or 10.0)
            check_seconds("a period of control_freq", self._period)
        except (WireError, RemoteError, OSError, WebSocketException, LookupError, TypeError) as error:
            connection.close()
            why = str(error) or type(error).__name__
            raise RemoteError(one_line(f"{self.url}: sends no contract ({why})")) from None
        found = contract_hash(contract)
        if self._hash is not None and found != self._hash:
            connection.close()
            raise RefusedError(f"{self.url}: serves another policy: {found[:12]}, expected {self._hash[:12]}")
        self._hash, self.contract = found, contract
        return connection

    def __getstate__(self) -> dict[str, Any]:
        if self._tls is not None:
            raise TypeError("a policy with a TLS context of its own cannot be sent to another process")
        state = {"url": self.url, "token": self._token, "deadline": self.deadline}
        return {**state, "connect_timeout": self._timeout, "expect": self._hash}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect anew, to the same policy."""
        RemotePolicy.__init__(self, **state)


def _shapes_of(entry: Mapping[str, Any], history: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shape of an input with its history, and that of one instant."""
    whole = tuple(entry["shape"][1:])
    return whole, (*whole[:-1], whole[-1] // history) if entry["dtype"] == "uint8" else whole


def contract_hash(contract: Mapping[str, Any]) -> str:
    """Return a hash of what a contract says."""
    text = json.dumps(contract, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()

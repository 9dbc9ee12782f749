"""Where a policy is, what opens its door, and how long it may take."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from urllib.parse import urlsplit

from .wire import one_line


class RemoteError(Exception):
    """The policy has given no action; the text is one line that says why."""


def address_of(url: str) -> tuple[str, int, bool]:
    """Return host, port, and whether TLS is asked for.

    Raises:
        RemoteError: it is no address of a server.
    """
    with contextlib.suppress(ValueError):  # of a port that is no number, or is too large
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss") and parts.hostname:
            secure = parts.scheme == "wss"
            return parts.hostname, (443 if secure else 80) if parts.port is None else parts.port, secure
    raise RemoteError(one_line(f"{url}: expected ws://HOST:PORT or wss://HOST:PORT"))


def check_seconds(name: str, value: float) -> None:
    """Raise a `RemoteError` unless somebody can wait so long."""
    if not 0 < value < threading.TIMEOUT_MAX:
        raise RemoteError(f"{name} is {value}; expected seconds, above 0 and below {threading.TIMEOUT_MAX:.0e}")


def read_token(path: str | Path) -> str:
    """Return the token in a file that nobody but its owner can read.

    Raises:
        RemoteError: others can, or it cannot be read, is no text, or holds nothing.
    """
    file = Path(path)
    try:
        if file.stat().st_mode & 0o077:
            raise RemoteError(f"{file}: others can read the token; chmod 600 it")
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise RemoteError(f"{file}: holds no token ({one_line(error)})") from None
    if not token:
        raise RemoteError(f"{file}: holds no token")
    return token

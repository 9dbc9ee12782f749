"""Who may speak to the server: a token in a file that nobody else can read, and TLS."""

import hmac
import ssl
from collections.abc import Sequence
from pathlib import Path

from pixelrl.runtime.errors import PixelrlError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHORTEST = 16
"""Characters of a token: fewer could be guessed."""


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

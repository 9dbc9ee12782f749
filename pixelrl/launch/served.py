"""A policy by the word that names it on the command line: a directory, or the URL of a server."""

from pathlib import Path
from typing import TYPE_CHECKING

from pixelrl.runtime.errors import PixelrlError

if TYPE_CHECKING:
    from pixelrl.export.loaded_policy import LoadedPolicy


def is_url(name: str | Path) -> bool:
    """Tell whether a policy is served elsewhere."""
    return str(name).startswith(("ws://", "wss://"))


def load_from_server(name: str | Path, token_file: Path | None, out: Path | None, *, chosen: bool) -> "LoadedPolicy":
    """Connect to a server and return its policy.

    Args:
        name: the URL.
        token_file: with the server's token.
        out: where results go; a server has no directory for them.
        chosen: whether a checkpoint was asked for, which a server cannot choose.

    Raises:
        PixelrlError: there is no server, or options that do not go with one.
    """
    if out is None or chosen:
        raise PixelrlError(f"{name}: give --out DIRECTORY, where to write; a server has no --step and no --select")
    from pixelrl.serving.access import read_token
    from pixelrl.serving.remote_policy import load_served

    return load_served(str(name), None if token_file is None else read_token(token_file))

"""`pixelrl serve`: an exported policy over the network, for robots whose own computer is too small."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pixelrl.launch.options import key_values
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.extras import require_extras

if TYPE_CHECKING:
    from pixelrl.export.runtime import ExportedPolicy
    from pixelrl.launch.recording import EpisodeFile, Recording
    from pixelrl.serving.server import PolicyServer


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve an exported policy to robots, over websockets, as openpi's clients speak.

    Stops on SIGTERM or Ctrl-C, after the last answers. `/healthz` tells that it lives, `/metrics` gives figures for
    Prometheus; the log is JSON, one event a line.
    """

    artefact: Positional[Path]
    """directory of an exported policy"""
    host: str = "127.0.0.1"
    """address to listen on; others than this machine's own take --token-file"""
    port: int = 8000
    """to listen on; 0: a free one"""
    token_file: Path | None = None
    """a file with the token that peers must present, readable by its owner alone (chmod 600)"""
    cert: Path | None = None
    """certificate for TLS (PEM)"""
    key: Path | None = None
    """its key, if that is not in --cert"""
    connections: int = 8
    """peers that may be connected at a time"""
    idle: float = 300.0
    """seconds without a message after which a peer is dropped"""
    rename: tuple[str, ...] = ()
    """keys that peers call otherwise, say observation/wrist_image_left=wrist_image"""
    threads: int = 1
    """threads that compute"""
    providers: tuple[str, ...] = ("cpu",)
    """what computes, the first choice first: cpu, cuda, tensorrt, openvino, coreml, as far as onnxruntime has them"""

    record: Path | None = None
    """file to write: what the policy saw and said. NAME.hdf5: one demo an episode, once the server ends; NAME.mcap: a
    message for each picture, reading and action, for Foxglove and `pixelrl convert`"""

    def __call__(self) -> None:
        """Serve until told to stop.

        Raises:
            PixelrlError: no such policy, or options that would leave it open to everybody.
        """
        require_extras("serve")
        from pixelrl.export.runtime import ExportedPolicy
        from pixelrl.serving.admission import Limits, read_token, tls
        from pixelrl.serving.metrics import Log
        from pixelrl.serving.server import PolicyServer

        if min(self.connections, self.threads) < 1 or not self.idle > 0 or not 0 <= self.port < 2**16:
            raise PixelrlError("--connections and --threads are at least 1, --idle above 0, --port from 0 to 65535")
        log = Log()
        token = None if self.token_file is None else read_token(self.token_file)
        if token is not None and self.cert is None:
            log("warning", message="without --cert the token can be read on the way; use TLS or an SSH tunnel")
        policy = ExportedPolicy(self.artefact, threads=self.threads, providers=self.providers)
        options: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "token": token,
            "tls": tls(self.cert, self.key),
            "names": {theirs: str(ours) for theirs, ours in key_values("--rename", self.rename).items()},
            "limits": Limits(connections=self.connections, idle=self.idle),
            "log": log,
        }
        with nullcontext() if self.record is None else recording_of(policy, self.record) as record:
            self._run(PolicyServer(policy, **options, record=record))

    def _run(self, server: "PolicyServer") -> None:
        """Run a server until it is told to stop.

        Raises:
            PixelrlError: it cannot listen at that address and port.
        """
        try:
            asyncio.run(server.run())
        except (OSError, UnicodeError) as error:  # a name that is too long is no host's, says its encoding
            why = getattr(error, "strerror", None) or error
            raise PixelrlError(f"--host {self.host} --port {self.port}: cannot listen there ({why})") from error


@contextmanager
def recording_of(policy: "ExportedPolicy", path: Path) -> Iterator["Recording"]:
    """Yield what records a policy's episodes into a file, of the format that its suffix says.

    Raises:
        PixelrlError: the file is there already, no such format, or nothing came that could be kept.
    """
    from pixelrl.launch.recording import Recording, demos
    from pixelrl.serving.protocol import largest_message

    if path.exists():
        raise PixelrlError(f"--record {path}: exists already; choose another name")
    if path.suffix == ".mcap":
        from pixelrl.launch.mcap_recording import mcap_steps

        opened: AbstractContextManager[EpisodeFile] = mcap_steps(policy, path)
    elif path.suffix in (".hdf5", ".h5"):
        opened = demos(policy, path)
    else:
        raise PixelrlError(f"--record {path}: expected NAME.hdf5 or NAME.mcap")
    inputs = {key: spec.shape for key, spec in policy.instant.items()}
    with opened as file, Recording(file, inputs, largest_message(policy)) as record:
        yield record

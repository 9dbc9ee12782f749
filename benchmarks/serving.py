"""`python -m benchmarks.serving`: an action through the wire beside bare onnxruntime; `--drill`: hostile peers.

Each observation goes to onnxruntime in this process and to a server in another one, in turns, so that other programs
slow both alike. The drill sends hostile messages and opens connections that go nowhere, and looks at the server's
memory before and after.
"""

import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import psutil
import torch
import tyro
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pixelrl.encoders.conv import SmallCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.export.artefact import export_policy
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.provenance import Provenance
from pixelrl.learning.batch import Spec
from pixelrl.learning.build import build_networks
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.files import write_json
from pixelrl.serving.client import RemotePolicy
from pixelrl.serving.client.wire import unpack
from pixelrl.terms.td import TD

CASES = {
    "small 48x48": (SmallCNN(), 48, (48, 48)),
    "small 84x84": (SmallCNN(), 84, (84, 84)),
    "impala 84x84": (ImpalaCNN(), 84, (84, 84)),
    "small 480x640": (SmallCNN(), 84, (480, 640)),
}
"""Name -> encoder, size that it was trained at, size of the camera [px]."""

KINDS = (b"", b"\xc1", b"\x80\x80", b"\x91" * 600, b"\xdf\xff\xff\xff\xff", b"\xc7\x01\x05x", b"\xd6\xff" + bytes(4))
"""Bytes that are no message, or one of a kind that is not taken."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Time actions through the wire."""

    calls: int = 300
    """timed calls of each case, after a tenth as many"""
    drill: bool = False
    """hostile messages and connections instead"""
    messages: int = 10_000
    """of the drill"""
    connections: int = 1_000
    """of the drill"""
    out: Path = Path("bench_serving.json")
    """ledger to write"""

    def __call__(self) -> None:
        """Measure, print, and write the ledger."""
        provenance, rows = Provenance(seed=0), dict[str, Any]()
        with tempfile.TemporaryDirectory() as folder:
            if self.drill:
                rows = {"drill": drill(export(Path(folder), "small 48x48"), self.messages, self.connections)}
            else:
                for name in CASES:
                    rows[name] = latency(export(Path(folder), name), self.calls)
                    print(name, json.dumps(rows[name]))
        if self.drill:
            print(json.dumps(rows, indent=2))
        load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
        write_json(self.out, {"cases": rows, "load_per_core": round(load, 2), **provenance.record()})


def export(folder: Path, name: str) -> Path:
    """Export a policy with random weights."""
    encoder, trained, camera = CASES[name]
    images = {"camera": (3, trained, trained)}
    spec = Spec(
        images=images,
        proprio={"position": 7},
        action=unnamed_dims(7),
        sources=("task",),
        proprio_mean=(0.0,) * 7,
        proprio_std=(1.0,) * 7,
    )
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"critic_hidden": (8,), "actor_hidden": (256, 256)}
    recipe = Recipe(critic=(TD(),), actor=(), steps=1, encoder=encoder, shared_encoder=True, ensemble=1, **sizes)
    networks = build_networks(recipe, spec)
    frames: dict[str, Any] = {"camera": np.zeros((2, trained, trained, 3), np.uint8)}
    frames["position"] = np.zeros((2, 7), np.float32)
    out = folder / name.replace(" ", "-")
    sizes = {"camera": camera}
    given: dict[str, Any] = {"control_freq": 20.0, "env_args": {}, "checkpoint": Path(__file__), "step": 0}
    export_policy(networks, spec, out, frames=frames, camera_sizes=sizes, **given)
    return out


@contextmanager
def served(artefact: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Serve an artefact in another process."""
    command = [sys.executable, "-m", "pixelrl.launch.cli", "serve", str(artefact), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        begun = json.loads(process.stderr.readline())
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield psutil.Process(process.pid), begun["port"]
    finally:
        process.terminate()
        process.wait()


def latency(artefact: Path, calls: int) -> dict[str, Any]:
    """Return percentiles of one action: bare, through the wire, what the server says of itself, and the difference."""
    bare, random_ = ExportedPolicy(artefact), np.random.default_rng(0)
    spec = bare.instant
    times: dict[str, list[float]] = {"bare": [], "wire": [], "infer": []}
    with served(artefact) as (_, port), closing(RemotePolicy(f"ws://127.0.0.1:{port}", deadline=10.0)) as remote:
        for call in range(calls + calls // 10):
            sensors: dict[str, Any] = {
                "camera": random_.integers(0, 256, spec["camera"].shape, dtype=np.uint8),
                "position": random_.normal(size=7).astype(np.float32),
            }
            begin = time.perf_counter()
            here = bare.act(sensors)
            middle = time.perf_counter()
            there = remote.act(sensors)[0]
            end = time.perf_counter()
            assert np.array_equal(here, there), "the wire changes actions"
            if call >= calls // 10:
                took = (middle - begin, end - middle, remote.timing["infer_ms"] / 1e3)
                for name, seconds in zip(times, took, strict=True):
                    times[name].append(1e3 * seconds)
    times["overhead"] = [a - b for a, b in zip(times["wire"], times["bare"], strict=True)]
    names = ("p50_ms", "p95_ms", "p99_ms")
    return {
        name: dict(zip(names, np.round(np.percentile(each, [50, 95, 99]), 3).tolist(), strict=True))
        for name, each in times.items()
    }


def hostile(draw: random.Random, depth: int = 0) -> Any:
    """Return a value that no robot would send."""
    kind = draw.randrange(9 if depth < 4 else 6)
    if kind < 6:
        return draw.choice([None, True, -1, 2**63, 1e308, float("nan"), "x" * draw.randrange(99), draw.randbytes(40)])
    if kind == 6:
        return [hostile(draw, depth + 1) for _ in range(draw.randrange(5))]
    if kind == 7:
        return {draw.choice(["a", "camera", "pixelrl/seq"]): hostile(draw, depth + 1) for _ in range(3)}
    dtype = draw.choice(["|u1", "<f4", "|O", "<f8", "<M8", "|V8", hostile(draw, 9)])
    shape = draw.choice([[7], [48, 48, 3], [2**31] * 4, [-1], [0], hostile(draw, 9)])
    return {b"__ndarray__": True, b"data": draw.randbytes(28), b"dtype": dtype, b"shape": shape}


def drill(artefact: Path, messages: int, connections: int) -> dict[str, Any]:
    """Attack a server, and return what it answered and how its memory grew."""
    draw, answers, codes = random.Random(0), Counter[str](), Counter[int]()
    with served(artefact) as (process, port):
        url = f"ws://127.0.0.1:{port}"
        sent, before = 0, 0
        while sent < messages:
            with suppress(ConnectionClosed), connect(url, compression=None, max_size=None) as peer:
                try:
                    largest = unpack(peer.recv(timeout=10), flat=False)["largest_message"]
                    while sent < messages:
                        sent += 1
                        before = process.memory_info().rss if sent == messages // 10 else before
                        roll = draw.random()
                        peer.send(
                            draw.choice(KINDS) if roll < 0.1
                            else draw.randbytes(draw.randrange(99)) if roll < 0.2
                            else b"\x00" * (largest + 1) if roll < 0.201
                            else "text" if roll < 0.21
                            else msgpack.packb({draw.choice(["camera", "position", "x"]): hostile(draw)})
                        )  # fmt: skip
                        answer = peer.recv(timeout=10)
                        answers["an action" if isinstance(answer, bytes) else "one line"] += 1
                        assert isinstance(answer, bytes) or ("\n" not in answer and len(answer) <= 300)
                except ConnectionClosed as error:
                    codes[error.rcvd.code if error.rcvd else 1006] += 1
                    raise
        after = process.memory_info().rss
        flood = half_open(port, connections)
        policy, remote = ExportedPolicy(artefact), RemotePolicy(url, deadline=10.0)
        good = {key: np.zeros(spec.shape, spec.dtype) for key, spec in policy.instant.items()}
        same = bool(np.array_equal(remote.act(good)[0], policy.act(good)))
        remote.close()
        return {
            "messages": sent,
            "answers": dict(answers),
            "close_codes": {str(code): count for code, count in codes.items()},
            "mib_after_a_tenth": round(before / 2**20, 1),
            "mib_after_all": round(after / 2**20, 1),
            **flood,
            "mib_at_the_end": round(process.memory_info().rss / 2**20, 1),
            "still_answers_rightly": same,
        }


def half_open(port: int, connections: int) -> dict[str, Any]:
    """Open connections that say nothing or a part of a request, and return how many the server cut, and when."""
    begin, cut = time.perf_counter(), 0
    with ExitStack() as stack:
        peers = []
        for number in range(connections):
            peer = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), 10)))
            if number % 2:
                with suppress(OSError):
                    peer.sendall(b"GET / HTTP/1.1\r\nHost:")
            peers.append(peer)
        opened = time.perf_counter() - begin
        for peer in peers:
            peer.settimeout(30)
            with suppress(OSError):
                cut += peer.recv(1) == b""
                continue
            cut += 1  # reset
    return {
        "half_open_connections": connections,
        "cut_by_the_server": cut,
        "seconds_to_open": round(opened, 2),
        "seconds_until_all_were_cut": round(time.perf_counter() - begin, 2),
    }


if __name__ == "__main__":
    tyro.cli(Serving)()

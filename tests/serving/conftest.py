"""A small exported policy, and servers of it."""

import asyncio
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from pixelrl.export.artefact import export_policy
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.commands.serve import recording_of
from pixelrl.learning.batch import Spec
from pixelrl.runtime.actions import ActionDim
from pixelrl.serving.admission import Limits
from pixelrl.serving.client import RemotePolicy
from pixelrl.serving.metrics import Log
from pixelrl.serving.server import PolicyServer
from tests.tiny import networks_of

Kind = TypeVar("Kind", bound=ExportedPolicy)

HISTORY = 2
IMAGES = {"front_image": (3, 40, 48), "wrist_image": (3, 40, 48)}
DIMS = (
    ActionDim(name="dx", low=-0.05, high=0.05, unit="m"),
    ActionDim(name="dz", low=-0.5, high=1.5, unit="rad"),
    ActionDim(name="gripper"),
)


def make_frames(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return what a robot gives at so many instants."""
    random = np.random.default_rng(seed)
    return [
        {key: random.integers(0, 256, (h, w, c), dtype=np.uint8) for key, (c, h, w) in IMAGES.items()}
        | {"position": random.normal(0.2, 0.2, 3).astype(np.float32)}
        for _ in range(count)
    ]


def export_of(
    out: Path,
    images: dict[str, tuple[int, int, int]],
    proprio: dict[str, int],
    dims: Sequence[ActionDim],
    *,
    history: int,
    mean: Sequence[float] = (),
    std: float = 0.2,
    **options: Any,
) -> Path:
    """Export a fresh policy whose actions depend on what it sees."""
    size = sum(proprio.values())
    spec = Spec(
        images=images,
        proprio=proprio,
        action=tuple(dims),
        sources=("task",),
        proprio_mean=tuple(mean) or (0.1,) * size,
        proprio_std=(std,) * size,
        history=history,
    )
    torch.manual_seed(0)
    networks = networks_of(spec, shared_encoder=True, ensemble=1)
    nn.init.normal_(networks.actor.last.weight)
    random = np.random.default_rng(0)
    frames: dict[str, Any] = {
        key: random.integers(0, 256, (6, h, w, c * history), dtype=np.uint8) for key, (c, h, w) in images.items()
    }
    frames |= {key: random.normal(size=(6, size)).astype(np.float32) for key, size in proprio.items()}
    export_policy(networks, spec, out, frames=frames, checkpoint=Path(__file__), step=1, **options)
    return out


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_of(
        tmp_path_factory.mktemp("serving") / "artefact",
        IMAGES,
        {"position": 3},
        DIMS,
        history=HISTORY,
        control_freq=20.0,
        env_args={"env_name": "Lift", "type": 1, "env_kwargs": {}},
        provenance={"command": ["secret", "/home/somebody"], "actions": "unit"},
    )


@pytest.fixture(scope="session")
def policy(artefact: Path) -> ExportedPolicy:
    return ExportedPolicy(artefact)


def as_another(policy: ExportedPolicy, kind: type[Kind], **contract: Any) -> Kind:
    """Return a policy as one of another class, or with other values in its contract."""
    other, state = kind.__new__(kind), policy.__getstate__()
    other.__setstate__(state | {"contract": state["contract"] | contract})
    return other


class Slow(ExportedPolicy):
    """A policy that tells when it is asked, and answers when it may."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def both(self, sensors: Any) -> Any:
        self.begun.set()
        assert self.go_on.wait(20)
        return super().both(sensors)


class Running:
    """A server in a thread."""

    def __init__(self, server: PolicyServer, log: io.StringIO) -> None:
        self.server, self._log = server, log
        ready = threading.Event()

        def run() -> None:
            asyncio.run(server.run(lambda _: ready.set()))

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(20)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()


Serve = Callable[..., AbstractContextManager[Running]]
"""The fixture `serve`: serves the policy, with options of a server, for as long as a block lasts."""


@contextmanager
def serving(policy: Any, **options: Any) -> Iterator[Running]:
    """Serve a policy for as long as the block lasts."""
    log = io.StringIO()
    options = {"limits": Limits(connections=4, idle=20.0, handshake=5.0, drain=5.0), "port": 0, **options}
    running = Running(PolicyServer(policy, log=Log(log), **options), log)
    try:
        yield running
    finally:
        running.stop()


def remote(server: Running, **options: Any) -> closing[RemotePolicy]:
    """Connect to a server for as long as a block lasts; a busy machine has 20 s for an action."""
    return closing(RemotePolicy(server.url, **{"deadline": 20.0, **options}))


@contextmanager
def recorded(policy: ExportedPolicy, path: Path) -> Iterator[RemotePolicy]:
    """Connect to a server that records into a file."""
    with recording_of(policy, path) as record, serving(policy, record=record) as server, remote(server) as there:
        yield there


@pytest.fixture(scope="module")
def server(policy: ExportedPolicy) -> Iterator[Running]:
    with serving(policy) as running:
        yield running


@pytest.fixture
def serve(policy: ExportedPolicy) -> Serve:
    return lambda **options: serving(policy, **options)

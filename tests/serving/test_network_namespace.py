"""Packets that are really lost: the server in a network namespace of its own, whose link goes down and comes back."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pixelrl.serving.client import Guard, Limits, RemotePolicy
from tests.serving.conftest import make_frames
from tests.serving.test_server import TOKEN

NAME, OURS, THEIRS = (f"{kind}{os.getpid() % 10**6}" for kind in ("pixelrl", "pxo", "pxt"))
HERE, THERE = (f"10.213.{os.getpid() % 250}.{last}" for last in (1, 2))
INSIDE = ("ip", "netns", "exec", NAME)
MEASURED = (0.0, 0.0, 0.3)


@pytest.fixture
def namespace() -> Iterator[None]:
    """Make a namespace behind a link; skip where we may not."""
    commands = (
        f"ip netns add {NAME}",
        f"ip link add {OURS} type veth peer name {THEIRS} netns {NAME}",
        f"ip address add {HERE}/30 dev {OURS}",
        f"ip link set {OURS} up",
        f"ip -n {NAME} address add {THERE}/30 dev {THEIRS}",
        f"ip -n {NAME} link set {THEIRS} up",
    )
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{command}: {done.stderr.strip()}")
        yield
    except FileNotFoundError:
        pytest.skip("there is no `ip` here")
    finally:
        if Path("/run/netns", NAME).exists():
            subprocess.run(["ip", "link", "delete", OURS], check=False)
            subprocess.run(["ip", "netns", "delete", NAME], check=True)


@pytest.fixture
def url(namespace: None, artefact: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the artefact in the namespace."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    serve = (sys.executable, "-m", "pixelrl.launch.cli", "serve", artefact, "--host", THERE, "--port", "0")
    command = [str(word) for word in (*INSIDE, *serve, "--token-file", token)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            events = (json.loads(line) for line in process.stderr)
            port = next(event["port"] for event in events if event["event"] == "serving")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield f"ws://{THERE}:{port}"
        finally:
            process.kill()


def link(state: str) -> None:
    """Let every packet pass, or none."""
    subprocess.run(["ip", "-n", NAME, "link", "set", THEIRS, state], check=True)


def test_guard_holds_while_every_packet_is_lost_and_goes_on_when_they_pass_again(url: str) -> None:
    policy = RemotePolicy(url, token=TOKEN, deadline=20.0)
    guard = Guard(Limits.of_contract(policy.contract, deadline=20.0, max_age=20.0, stop_after=4, ramp=0.0))
    (frame,) = make_frames(1)
    try:
        action, report = guard(policy, frame, measured=MEASURED)
        assert report.mode == "act"
        link("down")
        policy.deadline = 0.2
        modes = []
        for _ in range(5):
            after, report = guard(policy, frame, measured=MEASURED)
            modes.append(report.mode)
            assert (abs(after - action) <= np.array(guard.limits.step) + 1e-6).all()
            action = after
        assert modes == ["hold", "hold", "hold", "stop", "stop"]  # from the first tick on
        assert "4 ticks without a good action" in (guard.state.stopped or "")
        link("up")
        guard.reset()
        policy.deadline = 20.0  # TCP sends again by itself, or the client connects anew
        for _ in range(50):
            _, report = guard(policy, frame, measured=MEASURED)
            if report.mode == "act":
                break
            guard.reset()
        assert report.mode == "act"
    finally:
        policy.close()

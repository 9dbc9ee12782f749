"""The example that serves a policy and drives an arm in MuJoCo: a server that dies, a network that fails."""

import runpy
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pixelrl.simulation.envs.make import make_env, named_env_args, with_cameras
from tests.serving.conftest import export_of

EXAMPLE = Path(__file__).parents[2] / "examples/serve_and_drive_mujoco.py"
SPEED, OUTSIDE = 3.0, 0.01
"""What joints and hand may reach at most: rad/s; m beyond the box, which the arm's own controller overshoots by."""


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    env_args = with_cameras(named_env_args("pick-place-tray"), {"agentview_image": (48, 48)}, {})
    with closing(make_env(env_args)) as env:
        dims, rate = env.action_dims, env.control_freq
        start = env.reset(seed=0)[0]["robot0_eef_pos"].tolist()
    images, proprio = {"agentview_image": (3, 48, 48)}, {"robot0_eef_pos": 3}
    out = tmp_path_factory.mktemp("example") / "artefact"
    known = {"mean": start, "std": 0.02}  # a box of 16 cm around where the hand begins
    return export_of(out, images, proprio, dims, history=1, control_freq=rate, env_args=env_args, **known)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("fault", ["kill", "late", "silent"])
def test_arm_rests_and_stops_for_good_when_nothing_comes_in_time(
    fault: str, artefact: Path, example: dict[str, Any]
) -> None:
    (result,) = example["Drive"](artefact=artefact, episodes=1, fault=fault, at=3)()
    assert "5 ticks without a good action" in result["stopped"]
    assert result["bad_ticks_after_fault"] == result["steps"] - 3  # from the very tick of the fault to the end
    assert result["modes"]["stop"] >= result["steps"] - 7 and result["modes"]["hold"] >= 4
    assert result["largest_joint_speed"] < SPEED and result["metres_beyond_box"] < OUTSIDE


@pytest.mark.parametrize("fault", ["cut", "lossy"])
def test_arm_stays_in_its_box_and_below_its_speed_when_the_network_falters(
    fault: str, artefact: Path, example: dict[str, Any]
) -> None:
    (result,) = example["Drive"](artefact=artefact, episodes=1, fault=fault, at=3)()
    assert result["modes"]["hold"] >= 1 and sum(result["modes"].values()) == result["steps"]
    assert result["bad_ticks_after_fault"] >= (fault == "cut")
    assert result["largest_joint_speed"] < SPEED and result["metres_beyond_box"] < OUTSIDE


@pytest.fixture
def echo() -> Iterator[int]:
    """Run a server that sends back whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=reply, args=(peer,), daemon=True).start()

        def reply(peer: socket.socket) -> None:
            with peer:
                try:
                    while piece := peer.recv(100):
                        peer.sendall(piece)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_link_passes_on_holds_back_and_cuts(echo: int, example: dict[str, Any]) -> None:
    with example["Link"](echo) as link:

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", int(link.url.rsplit(":")[-1])), timeout=10)

        with connect() as peer:
            peer.sendall(b"one")
            assert peer.recv(100) == b"one"
            link.open.clear()
            peer.sendall(b"two")
            peer.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.recv(100)
            peer.settimeout(10)
            link.open.set()
            assert peer.recv(100) == b"two"  # late, and not lost
            link.cut()
            with pytest.raises(ConnectionResetError):
                assert peer.recv(100) == b""
                raise ConnectionResetError
        with connect() as peer:  # and may be made anew
            peer.sendall(b"three")
            assert peer.recv(100) == b"three"

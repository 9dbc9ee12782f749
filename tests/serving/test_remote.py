"""A policy that is elsewhere: the same actions, and a clear end where there are none."""

import ast
import json
import math
import pickle
import re
import shutil
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.protocol import State
from websockets.sync.client import ClientConnection

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.serving import client
from pixelrl.serving.client import (
    Guard,
    LateError,
    Limits,
    RefusedError,
    RemoteError,
    RemotePolicy,
    contract_hash,
    read_token,
)
from tests.serving.conftest import IMAGES, Running, Serve, Slow, as_another, make_frames, remote, serving
from tests.serving.test_server import TOKEN

PATIENT = 20.0


def until_it_acts(policy: RemotePolicy, sensors: Any) -> Any:
    """Ask until the connection is there again."""
    pause = threading.Event()
    for _ in range(400):
        try:
            return policy.act(sensors)
        except RefusedError:
            raise
        except RemoteError:
            pause.wait(0.05)
    raise AssertionError("no action after 20 s")


def test_actions_and_episodes_are_those_in_process(server: Running, policy: ExportedPolicy) -> None:
    frames = make_frames(5, 1)
    with remote(server) as there:
        for _ in range(2):
            policy.reset()
            there.reset()
            for frame in frames:
                np.testing.assert_array_equal(there.act(frame | {"more": np.zeros(1)})[0], policy.act(frame))
        assert set(there.timing) == {"infer_ms", "queue_ms", "total_ms"} and there.reconnects == 0


def test_policy_can_be_sent_to_another_process(server: Running) -> None:
    frame = make_frames(1)[0]
    with remote(server) as there:
        other = pickle.loads(pickle.dumps(there))
        np.testing.assert_array_equal(other.act(frame), there.act(frame))
        other.close()


def test_observation_that_is_refused_is_told_and_the_next_one_answered(server: Running) -> None:
    frame = make_frames(1)[0]
    with remote(server) as there:
        with pytest.raises(RemoteError, match=r"^the policy needs 'position'"):
            there.act({key: value for key, value in frame.items() if key != "position"})
        with pytest.raises(RemoteError, match=r"float64 cannot be sent; send uint8 or float32 arrays \(.*float64\)"):
            there.act(frame | {"position": np.zeros(3)})
        for key, value, said in (
            ("position", np.zeros(4, np.float32), r"^position is float32 \[4\]; expected float32 \[3\]$"),
            (
                "front_image",
                np.zeros((2000, 2000, 3), np.uint8),
                r"^front_image is uint8 .*; expected uint8 \[40, 48, 3\]",
            ),
            ("wrist_image", np.zeros((3, 40, 48), np.uint8), r"^wrist_image is uint8 \[3, 40, 48\]"),
        ):  # before they are sent: what is too large would end the connection
            with pytest.raises(RemoteError, match=said):
                there.act(frame | {key: value})
        assert there.act(frame).shape == (1, 3) and there.reconnects == 0
        stacked = {key: np.concatenate([frame[key]] * 2, axis=-1) for key in IMAGES}
        assert there.act(frame | stacked).shape == (1, 3)


def test_default_deadline_is_a_period(server: Running) -> None:
    with remote(server, deadline=None) as there:
        assert there.deadline == 0.05
        for seconds in (0.05, 2.5):  # sending, too, ends then
            there.deadline = seconds
            assert there._socket is not None
            bound = there._socket.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
            whole, part = struct.unpack("ll", bound)
            assert whole + part / 1e6 == pytest.approx(seconds, abs=0.02)  # the kernel rounds


def test_late_action_is_told_and_never_given_for_a_newer_observation(policy: ExportedPolicy) -> None:
    slow, frames = as_another(policy, Slow), make_frames(3)
    with serving(slow) as server, remote(server, deadline=0.02) as there:
        for frame in frames[:2]:
            with pytest.raises(LateError, match="no action within 20 ms"):
                there.act(frame)
        slow.go_on.set()
        there.deadline = PATIENT
        there.reset()
        policy.reset()
        np.testing.assert_array_equal(there.act(frames[2])[0], policy.act(frames[2]))


def test_lost_server_is_found_again_and_another_policy_is_refused(policy: ExportedPolicy) -> None:
    frames = make_frames(2)
    with serving(policy) as server:
        there, port = RemotePolicy(server.url, deadline=PATIENT), server.server.port
        there.act(frames[0])
    with pytest.raises(RemoteError):
        there.act(frames[0])
    policy.reset()
    with serving(policy, port=port):
        np.testing.assert_array_equal(until_it_acts(there, frames[1])[0], policy.act(frames[1]))
        assert there.reconnects == 1
    other = as_another(policy, ExportedPolicy, control_freq=21.0)
    with serving(other, port=port), pytest.raises(RemoteError, match="another policy"):
        for _ in range(3):
            try:
                until_it_acts(there, frames[0])
            except LateError:
                continue
    there.close()


def test_connection_that_is_made_while_we_leave_is_closed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    there = RemotePolicy(server.url, deadline=PATIENT)
    lost, connect = there._socket, there._connect

    def late() -> ClientConnection:
        connection = connect()
        there.close()
        return connection

    there._socket = None
    monkeypatch.setattr(there, "_connect", late)
    assert lost is not None
    there._connect_again(lost)
    made = there._socket
    assert made is not None and made is not lost and made.state is State.CLOSED


def test_guard_holds_when_the_server_is_gone(policy: ExportedPolicy) -> None:
    frame = make_frames(1)[0]
    measured = [0.0, 0.0, 0.0]
    with serving(policy) as server:
        there = RemotePolicy(server.url, deadline=PATIENT)
        limits = Limits.of_contract(there.contract, deadline=PATIENT, stop_after=3, ramp=0.0)
        guard = Guard(limits)
        assert guard(there, frame, measured=measured)[1].mode == "act"
    modes = [guard(there, frame, measured=measured)[1].mode for _ in range(4)]
    assert modes == ["hold", "hold", "stop", "stop"]
    there.close()


def test_wrong_token_and_unexpected_policy_are_refused_for_good(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    with pytest.raises(RemoteError, match="chmod 600"):
        read_token(file)
    file.chmod(0o600)
    with serve(token=TOKEN) as server:
        with pytest.raises(RefusedError, match="refused with 401: the token is missing or wrong"):
            RemotePolicy(server.url, token="wrong")
        with remote(server, token=read_token(file)) as there:
            expected = contract_hash(there.contract)
        with remote(server, token=TOKEN, expect=expected):
            pass
        with pytest.raises(RefusedError, match="serves another policy"):
            RemotePolicy(server.url, token=TOKEN, expect="0" * 64)
    with pytest.raises(RemoteError, match="no server there"):
        RemotePolicy(server.url, token=TOKEN)
    with pytest.raises(RemoteError, match="expected ws://HOST:PORT"):
        RemotePolicy("http://localhost")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ws://h:abc"}, "ws://h:abc: expected ws://HOST:PORT"),
        ({"url": "ws://h:99999"}, "ws://h:99999: expected ws://HOST:PORT"),
        ({"url": "ws://[::1"}, "expected ws://HOST:PORT"),
        ({"url": f"ws://{70 * 'a'}:1"}, "no server there"),
        ({"deadline": math.inf}, "deadline is inf; expected seconds, above 0 and below 9e+09"),
        ({"deadline": math.nan}, "deadline is nan"),
        ({"deadline": 0}, "deadline is 0"),
        ({"connect_timeout": math.inf}, "connect_timeout is inf"),
        ({"token": "two\nlines"}, "the token holds other than printable ASCII"),
    ],
)
def test_arguments_of_no_use_are_refused_in_words(server: Running, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemoteError, match=re.escape(message)):
        RemotePolicy(**{"url": server.url, **options})


def test_stamp_that_is_no_time_and_period_that_is_none_are_refused(policy: ExportedPolicy) -> None:
    slow = as_another(policy, ExportedPolicy, control_freq=1e-300)
    with serving(policy) as server, remote(server) as there:
        for stamp in (math.nan, math.inf, -1.0):
            with pytest.raises(RemoteError, match=r"stamp is .*; expected seconds from 0 on"):
                there.act(make_frames(1)[0], stamp)
        assert there.act(make_frames(1)[0], 1.5).shape == (1, 3)
    with serving(slow) as server, pytest.raises(RemoteError, match=r"a period of control_freq is 9\.9"):
        RemotePolicy(server.url)


def test_token_file_of_bytes_or_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(RemoteError, match="token: holds no token"):
        read_token(file)
    for held in (b"\xff" * 20, b" \n"):
        file.write_bytes(held)
        file.chmod(0o600)
        with pytest.raises(RemoteError, match="token: holds no token"):
            read_token(file)


def test_connection_is_encrypted_with_a_certificate(serve: Serve, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    import ssl
    import subprocess

    from pixelrl.serving.admission import tls

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    words = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-keyout", key, "-out", cert)
    subprocess.run([*words, *subject], check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=str(cert))
    with serve(tls=tls(cert, key)) as server:
        url = server.url.replace("ws:", "wss:")
        there = RemotePolicy(url, tls=trust, deadline=PATIENT)
        assert there.act(make_frames(1)[0]).shape == (1, 3)
        there.close()
        with pytest.raises(RemoteError, match="certificate"):
            RemotePolicy(url)


def test_client_is_python_3_8() -> None:
    folder = Path(client.__file__).parent
    for path in folder.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))
        assert path.name == "__init__.py" or "from __future__ import annotations" in path.read_text()
    link = Path(__file__).parents[2] / "client/pixelrl_client"
    assert link.is_symlink() and link.resolve() == folder.resolve()


def test_contract_hash_is_of_its_content() -> None:
    assert contract_hash({"a": 1, "b": 2}) == contract_hash(json.loads('{"b": 2, "a": 1}')) != contract_hash({"a": 2})

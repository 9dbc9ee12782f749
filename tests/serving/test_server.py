"""A server answers as the policy acts, and any other client gets one line."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.admission import Limits, read_token, tls
from pixelrl.serving.client.wire import pack, unpack
from pixelrl.serving.protocol import largest_message
from pixelrl.serving.server import REFUSALS, PolicyServer
from tests.serving.conftest import Running, Serve, Slow, as_another, make_frames, serving

TOKEN = "0123456789abcdef-token"


@contextlib.contextmanager
def connected(server: Running, **options: Any) -> Any:
    with connect(server.url, compression=None, max_size=None, **options) as connection:
        yield connection, unpack(connection.recv(timeout=10), flat=False)


def ask(connection: ClientConnection, content: Any) -> Any:
    connection.send(content if isinstance(content, bytes | str) else pack(content))
    answer = connection.recv(timeout=10)
    return answer if isinstance(answer, str) else unpack(answer, flat=False)


def get(server: Running, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server.port, timeout=10)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_contract_comes_first_with_the_keys_of_roboarena(server: Running, policy: ExportedPolicy) -> None:
    with connected(server) as (_, contract):
        assert contract["inputs"] == policy.contract["inputs"] and contract["control_freq"] == 20.0
        assert contract["outputs"]["action"]["dims"] == policy.contract["outputs"]["action"]["dims"]
        assert contract["image_resolution"] == [40, 48] and contract["action_space"] == "cartesian_velocity"
        assert contract["needs_wrist_camera"] is True and contract["n_external_cameras"] == 1
        assert "secret" not in json.dumps(contract)


def test_actions_equal_those_in_process_with_a_history_for_each_connection(
    server: Running, policy: ExportedPolicy
) -> None:
    streams = [make_frames(6, seed) for seed in (1, 2)]
    expected = []
    for stream in streams:
        policy.reset()
        expected.append([policy.act(frame) for frame in stream])
    with connected(server) as (one, _), connected(server) as (two, _):
        for episode in range(2):
            for step in range(6):
                for connection, stream, actions in zip((one, two), streams, expected, strict=True):
                    request = stream[step] | {"pixelrl/seq": step, "pixelrl/stamp_ns": 5, "prompt": "pick it up"}
                    if episode and step == 0:
                        request["pixelrl/reset"] = True
                    reply = ask(connection, request)
                    np.testing.assert_array_equal(reply["actions"], actions[step][np.newaxis])
                    about = reply["pixelrl"]
                    assert (about["seq"], about["stamp_ns"], about["step"]) == (step, 5, step + 1)
                    assert about["clipped"] == [] and set(reply["server_timing"]) == {"infer_ms", "queue_ms"}


def test_peer_may_keep_the_history_itself_and_reset_as_roboarena_does(server: Running, policy: ExportedPolicy) -> None:
    first, second = make_frames(2, 3)
    stacked = second | {
        key: np.concatenate([first[key], second[key]], axis=-1) for key in ("front_image", "wrist_image")
    }
    expected = policy({key: value[np.newaxis] for key, value in stacked.items()})
    with connected(server) as (connection, _):
        np.testing.assert_array_equal(ask(connection, stacked)["pixelrl"]["normalised"], expected)
        assert ask(connection, {"endpoint": "reset"}) == "reset successful"
        policy.reset()
        np.testing.assert_array_equal(ask(connection, {**first, "endpoint": "infer"})["actions"][0], policy.act(first))


def test_wrong_observation_is_answered_by_one_line_and_the_next_one_by_an_action(server: Running) -> None:
    good = make_frames(1)[0]
    wrong: list[tuple[Any, str]] = [
        ({}, "the policy needs 'front_image'"),
        (good | {"position": np.zeros(4, np.float32)}, "position is float32 [4]; expected float32 [3]"),
        (good | {"position": np.full(3, np.nan, np.float32)}, "position holds NaN or an infinity"),
        (good | {"front_image": np.zeros((40, 47, 3), np.uint8)}, "front_image is uint8 [40, 47, 3]; expected uint8"),
        (good | {"pixelrl/seq": -1}, "pixelrl/seq is no integer"),
        (good | {"pixelrl/seq": 7, "pixelrl/reset": 1}, "seq 7: pixelrl/reset is no truth value"),
        (good | {"endpoint": "exec"}, "endpoint is neither"),
        ("text", "a text frame came"),
        (b"\xc1", "not a message of msgpack"),
        (msgpack.packb({"a": {"b": {"c": 1}}}), "must not lie in a map"),
    ]
    with connected(server) as (connection, _):
        for content, says in wrong:
            answer = ask(connection, content)
            assert isinstance(answer, str) and says in answer and "\n" not in answer, answer
            assert "Traceback" not in answer
        assert ask(connection, good)["actions"].shape == (1, 3)


def test_keys_that_the_policy_does_not_use_are_ignored(server: Running, policy: ExportedPolicy) -> None:
    good = make_frames(1)[0]
    more = {"prompt": "x" * 4096, "depth": np.zeros((240, 320, 3), np.uint8), "force": np.zeros(6, np.float32), "n": 1}
    with connected(server) as (connection, _):
        policy.reset()
        np.testing.assert_array_equal(ask(connection, good | more)["actions"][0], policy.act(good))


def test_peer_that_sends_only_nonsense_is_sent_away(server: Running) -> None:
    with connected(server) as (connection, _), pytest.raises(ConnectionClosed) as error:
        for _ in range(REFUSALS + 1):
            ask(connection, b"\xc1")
    assert error.value.rcvd is not None and error.value.rcvd.code == 1008


def test_message_beyond_the_contracts_size_ends_the_connection(server: Running, policy: ExportedPolicy) -> None:
    with connected(server) as (connection, contract):
        assert contract["largest_message"] == largest_message(policy) == 2 * 40 * 48 * 6 + 12 + 2**20
        with pytest.raises(ConnectionClosed) as error:
            ask(connection, b"\x00" * (contract["largest_message"] + 1))
        assert error.value.rcvd is not None and error.value.rcvd.code == 1009


def test_newest_observation_wins_and_a_reset_is_not_lost(policy: ExportedPolicy) -> None:
    slow, frames = as_another(policy, Slow), make_frames(4)
    with serving(slow) as server, connected(server) as (connection, _):
        connection.send(pack(frames[0] | {"pixelrl/seq": 0}))
        assert slow.begun.wait(20)
        connection.send(pack(frames[1] | {"pixelrl/seq": 1, "pixelrl/reset": True}))
        connection.send(pack(frames[2] | {"pixelrl/seq": 2}))
        assert connection.recv(timeout=10) == "seq 1: superseded by a newer observation"
        slow.go_on.set()
        replies = [unpack(connection.recv(timeout=10), flat=False) for _ in range(2)]
        assert [reply["pixelrl"]["seq"] for reply in replies] == [0, 2]
        policy.reset()
        np.testing.assert_array_equal(replies[1]["actions"][0], policy.act(frames[2]))
        assert 'pixelrl_refused_total{reason="superseded"} 1.0' in server.server.metrics.text()


def test_actions_beyond_the_range_are_clipped_and_told_and_those_that_are_no_numbers_are_not_sent(
    policy: ExportedPolicy,
) -> None:
    class Wild(ExportedPolicy):
        value = 9.0

        def both(self, sensors: Any) -> Any:
            action, normalised = super().both(sensors)
            action = action.copy()
            action[:, 1] = self.value
            return action, normalised

    with serving(as_another(policy, Wild)) as server, connected(server) as (connection, _):
        reply = ask(connection, make_frames(1)[0])
        assert reply["actions"][0, 1] == 1.5 and reply["pixelrl"]["clipped"] == ["dz"]
        for Wild.value in (float("nan"), float("inf"), -float("inf")):
            assert ask(connection, make_frames(1)[0]) == "the policy's action is not finite"
        assert 'pixelrl_clipped_total{dim="dz"} 1.0' in server.server.metrics.text()


def test_token_is_demanded_and_pages_are_given(serve: Serve) -> None:
    with serve(token=TOKEN) as server:
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            with pytest.raises(InvalidStatus) as error, connected(server, additional_headers=headers):
                pass
            assert error.value.response.status_code == 401
        for scheme in ("Api-Key", "Bearer"):
            with connected(server, additional_headers={"Authorization": f"{scheme} {TOKEN}"}) as (connection, _):
                assert "actions" in ask(connection, make_frames(1)[0])
        assert get(server, "/healthz") == (200, "OK\n")
        assert get(server, "/metrics")[0] == 401
        status, text = get(server, "/metrics", {"Authorization": f"Bearer {TOKEN}"})
        assert status == 200 and "pixelrl_replies_total 2.0" in text
        assert 'pixelrl_rejected_total{reason="token"} 4.0' in text
        assert TOKEN not in json.dumps(server.events) and TOKEN not in text


def test_browsers_other_paths_and_too_many_peers_are_refused(serve: Serve) -> None:
    with serve(limits=Limits(connections=1)) as server:
        with pytest.raises(InvalidStatus) as error, connected(server, origin="http://evil.example"):
            pass
        assert error.value.response.status_code == 403
        assert get(server, "/etc/passwd")[0] == 404
        with connected(server):
            with pytest.raises(InvalidStatus) as error, connected(server):
                pass
            assert error.value.response.status_code == 503


def test_host_that_others_reach_takes_a_token_that_only_its_owner_reads(policy: ExportedPolicy, tmp_path: Path) -> None:
    with pytest.raises(PixelrlError, match=r"--host 0\.0\.0\.0: .* give --token-file"):
        PolicyServer(policy, host="0.0.0.0")
    PolicyServer(policy, host="0.0.0.0", token=TOKEN)
    file = tmp_path / "token"
    with pytest.raises(PixelrlError, match="no such file"):
        read_token(file)
    file.write_text(TOKEN + "\n")
    file.chmod(0o640)
    with pytest.raises(PixelrlError, match="mode is 0640"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.write_text("short")
    with pytest.raises(PixelrlError, match="16 or more"):
        read_token(file)
    assert tls(None, None) is None
    with pytest.raises(PixelrlError, match="give --cert"):
        tls(None, file)
    with pytest.raises(PixelrlError, match="not a certificate"):
        tls(file, None)


def test_unknown_name_is_refused_and_a_known_one_used(policy: ExportedPolicy, serve: Serve) -> None:
    with pytest.raises(PixelrlError, match="the policy takes front_image, wrist_image, position"):
        PolicyServer(policy, names={"a": "b"})
    frame = make_frames(1)[0]
    frame["observation/wrist_image_left"] = frame.pop("wrist_image")
    with serve(names={"observation/wrist_image_left": "wrist_image"}) as server, connected(server) as (connection, _):
        assert "actions" in ask(connection, frame)


def test_peers_that_say_nothing_are_dropped(serve: Serve) -> None:
    with serve(limits=Limits(idle=0.05, handshake=0.2)) as server:
        with connected(server) as (connection, _), pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
        with socket.create_connection(("127.0.0.1", server.server.port)) as raw:  # never finishes its request
            raw.sendall(b"GET / HTTP/1.1\r\nHost: a")
            raw.settimeout(10)
            assert raw.recv(1000) == b""
        assert get(server, "/healthz") == (200, "OK\n")
        assert 'pixelrl_dropped_total{reason="slow"} 1.0' in server.server.metrics.text()


def test_flood_of_half_open_connections_is_cut_and_the_server_lives(serve: Serve) -> None:
    with serve(limits=Limits(connections=2, handshake=0.5)) as server, contextlib.ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(contextlib.suppress(OSError))
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.server.port)))
        raw.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""
        assert server.server._door.opened <= 66
        stack.close()
        with connected(server) as (connection, _):
            assert "actions" in ask(connection, make_frames(1)[0])


def test_stopped_server_says_goodbye_after_the_last_answer(serve: Serve) -> None:
    with serve() as server, connected(server) as (connection, _):
        assert "actions" in ask(connection, make_frames(1)[0])
        server.stop()
        with pytest.raises(ConnectionClosed) as error:
            connection.recv(timeout=10)
        assert error.value.rcvd is not None and error.value.rcvd.code == 1001
        assert [event["event"] for event in server.events][-2:] == ["gone", "stopped"]
        assert server.events[1]["event"] == "connected" and server.events[0]["port"] == server.server.port


def test_command_serves_until_it_is_told_to_stop(artefact: Path) -> None:
    command = [sys.executable, "-m", "pixelrl.launch.cli", "serve", str(artefact), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        begun = json.loads(process.stderr.readline())
        assert begun["event"] == "serving" and begun["host"] == "127.0.0.1"
        with connect(f"ws://127.0.0.1:{begun['port']}", compression=None) as connection:
            assert "inputs" in unpack(connection.recv(timeout=10), flat=False)
            assert "actions" in ask(connection, make_frames(1)[0])
            process.terminate()
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=10)
        rest = process.stderr.read()
        assert process.wait(20) == 0 and "Traceback" not in rest, rest
    finally:
        process.kill()


def test_command_refuses_an_open_door_in_one_line(artefact: Path, pixelrl: Callable[..., tuple[int, str]]) -> None:
    code, said = pixelrl("serve", artefact, "--host", "0.0.0.0")
    assert code == 1 and "give --token-file" in said and "Traceback" not in said
    code, said = pixelrl("serve", artefact.parent)
    assert code == 1 and "not an exported policy" in said
    code, said = pixelrl("serve", artefact, "--providers", "quantum")
    assert code == 1 and "provider 'quantum': this onnxruntime has" in said

"""What a server refuses leaves no trace in what it goes on with."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.admission import read_token
from pixelrl.serving.protocol import check_names
from pixelrl.serving.server import PolicyServer
from tests.serving.conftest import IMAGES, Running, Serve, as_another, make_frames
from tests.serving.test_server import ask, connected


def test_refused_observation_is_not_seen(server: Running, policy: ExportedPolicy) -> None:
    first, second, other = make_frames(3)
    policy.reset()
    expected = [policy.act(first), policy.act(second)]
    refused: list[dict[str, Any]] = [
        other | {"position": np.full(3, np.nan, np.float32)},
        {key: other[key] for key in ("front_image", "position")},
        other | {"wrist_image": other["wrist_image"].transpose(2, 0, 1)},
    ]
    with connected(server) as (connection, _):
        np.testing.assert_array_equal(ask(connection, first)["actions"][0], expected[0])
        for observation in refused:
            assert isinstance(ask(connection, observation), str)
        np.testing.assert_array_equal(ask(connection, second)["actions"][0], expected[1])


def test_two_arrays_for_one_input_are_refused(policy: ExportedPolicy, serve: Serve) -> None:
    frame, other = make_frames(2)
    cam = {"cam": other["front_image"], "pixelrl/seq": 4}
    with serve(names={"cam": "front_image"}) as server, connected(server) as (connection, _):
        said = "seq 4: front_image and cam are both the policy's front_image; send one of them"
        assert ask(connection, frame | cam) == said
        del frame["front_image"]
        policy.reset()
        expected = policy.act(frame | {"front_image": cam["cam"]})
        np.testing.assert_array_equal(ask(connection, frame | cam)["actions"][0], expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a": "front_image", "b": "front_image"}, "b=front_image: peers call front_image 'a' already"),
        ({"front_image": "wrist_image"}, "front_image is an input, too; say what peers call it, KEY=front_image"),
    ],
)
def test_names_that_share_an_input_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        check_names(names, IMAGES)


def test_names_of_inputs_may_be_exchanged() -> None:
    check_names({"front_image": "wrist_image", "wrist_image": "front_image"}, IMAGES)


def test_array_for_an_endpoint_is_answered_by_an_error(server: Running) -> None:
    frame = make_frames(1)[0]
    with connected(server) as (connection, _):
        for endpoint in (np.zeros(2, np.float32), 3, b"infer"):
            assert "endpoint is neither" in ask(connection, frame | {"endpoint": endpoint})
        assert "actions" in ask(connection, frame)


def test_token_file_of_bytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff" * 20)
    file.chmod(0o600)
    with pytest.raises(PixelrlError, match="token: expected one token of 16 or more ASCII characters"):
        read_token(file)


def test_address_where_nobody_can_listen_is_named(artefact: Path, pixelrl: Callable[..., tuple[int, str]]) -> None:
    code, said = pixelrl("serve", artefact, "--rename", "a=front_image", "a=wrist_image")
    assert code == 1 and "--rename: 'a' is given twice; give one value" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = pixelrl("serve", artefact, "--port", port)
    assert code == 1 and f"--host 127.0.0.1 --port {port}: cannot listen there" in said
    file = artefact.parent / "token"
    file.write_text("0123456789abcdef")
    file.chmod(0o600)
    for host in ("no.such.host.invalid", 70 * "a"):
        code, said = pixelrl("serve", artefact, "--host", host, "--token-file", file, "--port", 0)
        assert code == 1 and f"--host {host} --port 0: cannot listen there (" in said


@pytest.mark.parametrize("value", [10**30, "\ud800"])
def test_contract_that_cannot_be_sent_is_refused(policy: ExportedPolicy, value: object) -> None:
    with pytest.raises(PixelrlError, match=r"policy.json: holds what cannot be sent to peers \("):
        PolicyServer(as_another(policy, ExportedPolicy, env_args={"seed": value}))

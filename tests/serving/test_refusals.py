"""What a server refuses leaves no trace in what it goes on with."""

from typing import Any

import numpy as np

from pixelrl.export.runtime import ExportedPolicy
from tests.serving.conftest import Running, make_frames
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

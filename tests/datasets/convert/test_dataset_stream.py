"""The fingerprint of a data set: anything that differs changes it, and the order of keys does not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert.dataset_stream import DatasetStream, fingerprint
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.actions import ActionDim


def episode(steps: int, **changes: Any) -> Episode:
    base = Episode(
        sensors={"image": np.zeros((steps + 1, 4, 6, 3), np.uint8), "pos": np.zeros((steps + 1, 2), np.float32)},
        actions=np.zeros((steps, 2), np.float32),
        rewards=np.zeros(steps, np.float32),
        dones=np.zeros(steps, bool),
        states=np.zeros((steps + 1, 3)),
        notes={"a": 1, "b": 2},
    )
    return replace(base, **changes)


def of(*episodes: Episode, **about: Any) -> dict[str, str]:
    said: dict[str, Any] = {"env_args": {}, "action_dims": (ActionDim(name="x"),), "masks": {}} | about
    return fingerprint(DatasetStream(episodes=lambda: iter(episodes), count=len(episodes), **said)).digests()


PLAIN = of(episode(3), episode(2))


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (lambda: of(episode(3, rewards=np.zeros(3)), episode(2)), {"rewards"}),
        (lambda: of(episode(3, rewards=np.array([0, 0, -0.0], np.float32)), episode(2)), {"rewards"}),
        (lambda: of(episode(3, actions=np.zeros((2, 3), np.float32)), episode(2)), {"actions"}),
        (lambda: of(episode(3, notes={"a": 1, "b": 3}), episode(2)), {"notes"}),
        (lambda: of(episode(3), episode(2, attributes={"model_file": "x"})), {"attributes"}),
        (lambda: of(episode(3), episode(2), masks={"train": (0,)}), {"masks"}),
        (lambda: of(episode(3), episode(2), env_args={"env_name": "Lift"}), {"env_args"}),
        (lambda: of(episode(3), episode(2), action_dims=(ActionDim(name="x", unit="m"),)), {"action_dims"}),
        (lambda: of(episode(3), episode(2, states=None)), {"states"}),
        (
            lambda: of(episode(2), episode(3)),
            {"sensors/image", "sensors/pos", "actions", "rewards", "dones", "states"},
        ),
    ],
)
def test_whatever_differs_is_told(other: Callable[[], dict[str, str]], differs: set[str]) -> None:
    came = other()
    assert {name for name in {**PLAIN, **came} if PLAIN.get(name) != came.get(name)} == differs


def test_the_order_of_keys_is_of_no_concern() -> None:
    turned = episode(3, notes={"b": 2, "a": 1})
    assert of(replace(turned, sensors=dict(reversed(turned.sensors.items()))), episode(2)) == PLAIN


def test_kinds_say_what_an_array_is() -> None:
    stream = DatasetStream(episodes=lambda: iter([episode(3)]), count=1, env_args={}, action_dims=())
    assert fingerprint(stream).shapes == {
        "sensors/image": "uint8 [N+1, 4, 6, 3]",
        "sensors/pos": "float32 [N+1, 2]",
        "actions": "float32 [N, 2]",
        "rewards": "float32 [N]",
        "dones": "bool [N]",
        "states": "float64 [N, 3]",
    }

"""A run's networks as a policy."""

import pickle

import numpy as np
import pytest
import torch

from pixelrl.encoders.conv import SmallCNN
from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.learning.batch import Observation, Spec
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from tests.tiny import networks_of

SPEC = Spec(
    images={"front_image": (3, 32, 40)},
    proprio={"position": 3, "gripper": 1},
    action=(ActionDim(name="dx"), ActionDim(name="dy")),
    sources=("task",),
    proprio_mean=(0.1, 0.2, 0.3, 0.4),
    proprio_std=(1.0, 2.0, 0.5, 0.1),
)


@pytest.fixture(scope="module")
def policy() -> CheckpointPolicy:
    torch.manual_seed(0)
    networks = networks_of(SPEC, encoder=SmallCNN(), shared_encoder=True)
    torch.nn.init.normal_(networks.actor.last.weight)  # a fresh actor hardly looks at what it is shown
    return CheckpointPolicy(networks, SPEC, torch.device("cpu"))


@pytest.fixture
def sensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "gripper": random.normal(size=(5, 1)).astype(np.float32),  # in another order than the spec's
        "position": random.normal(size=(5, 3)).astype(np.float32),
        "front_image": random.integers(0, 256, (5, 32, 40, 3), dtype=np.uint8),
        "object": np.zeros((5, 10), np.float32),
    }


def test_policy_acts_by_the_mode_of_its_networks(policy: CheckpointPolicy, sensors: Sensors) -> None:
    obs = Observation(
        images={"front_image": torch.from_numpy(sensors["front_image"].transpose(0, 3, 1, 2).copy())},
        proprio=torch.from_numpy(np.concatenate([sensors["position"], sensors["gripper"]], axis=1)),
    )
    with torch.no_grad():
        expected = policy.networks.policy(obs).mode.numpy()
    action = policy(sensors)
    assert action.dtype == np.float32 and action.shape == (5, 2)
    np.testing.assert_allclose(action, expected, atol=1e-6)
    assert np.ptp(action, axis=0).min() > 0.01


def test_values_are_q_of_the_policys_own_actions(policy: CheckpointPolicy, sensors: Sensors) -> None:
    obs = Observation(
        images={"front_image": torch.from_numpy(sensors["front_image"].transpose(0, 3, 1, 2).copy())},
        proprio=torch.from_numpy(np.concatenate([sensors["position"], sensors["gripper"]], axis=1)),
    )
    critic = policy.networks.critic
    torch.nn.init.normal_(critic.head.last.weight)
    with torch.no_grad():
        expected = critic.q_values(critic.embed_state(critic.encode(obs)), torch.from_numpy(policy(sensors))).value
    values = policy.values(sensors)
    assert values.dtype == np.float32 and values.shape == (5, 2)
    np.testing.assert_allclose(values, expected.T.numpy(), atol=1e-6)
    assert np.ptp(values, axis=1).min() > 1e-4, "the critics are one and the same"


def test_policy_acts_and_values_alike_in_another_process(policy: CheckpointPolicy, sensors: Sensors) -> None:
    """It goes to a cluster by value, together with its critics."""
    act, values = pickle.loads(pickle.dumps((policy, policy.values)))
    np.testing.assert_array_equal(act(sensors), policy(sensors))
    np.testing.assert_array_equal(values(sensors), policy.values(sensors))
    assert values.__self__ is act


def test_flipped_view_of_a_picture_is_read_as_it_looks(policy: CheckpointPolicy, sensors: Sensors) -> None:
    picture = sensors["front_image"]
    stored = np.ascontiguousarray(picture[:, ::-1])
    np.testing.assert_array_equal(policy({**sensors, "front_image": stored[:, ::-1]}), policy(sensors))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("gripper", None, r"needs 'gripper', float32 \[B, 1\].* given position, front_image"),
        ("front_image", np.zeros((5, 3, 32, 40), np.uint8), r"uint8 \[5, 3, 32, 40\].* uint8 \[B, 32, 40, 3\]"),
        ("front_image", np.zeros((5, 32, 40, 3), np.float32), r"front_image is float32 .*\(bytes from 0 to 255"),
        ("position", np.zeros((5, 3)), r"position is float64 \[5, 3\]; .* float32 \[B, 3\]"),
        ("position", np.zeros(3, np.float32), r"position is float32 \[3\]; .* float32 \[B, 3\]"),
        ("position", np.full((5, 3), np.nan, np.float32), r"position holds NaN"),
        ("position", np.zeros((4, 3), np.float32), r"position has 4 rows and front_image has 5"),
        ("position", torch.zeros(5, 3), r"position is a Tensor; .* NumPy array"),
    ],
)
def test_wrong_readings_are_refused_by_name(
    policy: CheckpointPolicy, sensors: dict[str, np.ndarray], key: str, value: np.ndarray | None, message: str
) -> None:
    del sensors[key]
    with pytest.raises(PixelrlError, match=message):
        policy(sensors if value is None else {**sensors, key: value})

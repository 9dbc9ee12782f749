"""The environment and the units in which a policy is tried."""

from dataclasses import replace

import numpy as np
import pytest

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.launch.environment import environment_for
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors


def test_environment_draws_the_pictures_that_the_policy_takes() -> None:
    pictures = {"agentview_image": (60, 80), "robot0_eye_in_hand_image": (48, 48)}
    recorded = {"env_name": "Stack", "type": 1, "env_kwargs": {"camera_names": "frontview", "control_freq": 10}}
    loaded = LoadedPolicy(policy=lambda sensors: None, env_args=recorded, pictures=pictures, action=(), origin={})  # type: ignore[arg-type,return-value]
    found = environment_for(loaded, None)
    assert found["env_kwargs"].pop("use_camera_obs") is True
    cameras = {
        "camera_names": ["agentview", "robot0_eye_in_hand"],
        "camera_heights": [60, 48],
        "camera_widths": [80, 48],
    }
    assert found == {"env_name": "Stack", "type": 1, "env_kwargs": {**cameras, "control_freq": 10}}
    assert recorded["env_kwargs"] == {"camera_names": "frontview", "control_freq": 10}
    assert environment_for(loaded, None, {"control_freq": 20})["env_kwargs"]["control_freq"] == 20
    by_name = environment_for(replace(loaded, env_args={}), "Lift")
    assert by_name["env_name"] == "Lift" and cameras.items() <= by_name["env_kwargs"].items()
    with pytest.raises(PixelrlError, match="name one, say --env Lift"):
        environment_for(replace(loaded, env_args={}), None)
    with pytest.raises(PixelrlError, match="rgb: not a camera"):
        environment_for(replace(loaded, pictures={"rgb": (48, 48)}), None)


def test_actions_are_converted_from_units_of_data_to_units_of_environment() -> None:
    # The data's 1 is 2 cm, the environment's 1 is 5 cm: full speed in the data is 0.4 in the environment.
    def full_speed(sensors: Sensors) -> np.ndarray:
        return np.array([[1.0], [-0.5]], np.float32)

    data = ActionDim(name="dx", low=-0.02, high=0.02, unit="m")
    robot = ActionDim(name="dx", low=-0.05, high=0.05, unit="m")
    loaded = LoadedPolicy(policy=full_speed, env_args={}, pictures={}, action=(data,), origin={})
    np.testing.assert_allclose(loaded.in_units_of((robot,))({}), [[0.4], [-0.2]], atol=1e-6)
    assert loaded.in_units_of((data,)) is full_speed
    nameless = replace(loaded, action=(ActionDim(name="action_0"),))
    assert nameless.in_units_of((robot,)) is full_speed  # nobody knows better than the recorded action itself
    with pytest.raises(Exception, match="gives 1 actions and its environment takes 2"):
        loaded.in_units_of((robot, robot))

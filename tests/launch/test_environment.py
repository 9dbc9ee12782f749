"""The environment in which a policy is tried."""

from dataclasses import replace

import pytest

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.launch.policy_options import environment_for
from pixelrl.runtime.errors import PixelrlError


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

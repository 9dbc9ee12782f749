"""The example that serves a policy and drives an arm in MuJoCo, with a server that dies."""

import runpy
from contextlib import closing
from pathlib import Path

from pixelrl.simulation.envs.make import make_env, named_env_args, with_cameras
from tests.serving.conftest import export_of

EXAMPLE = Path(__file__).parents[2] / "examples/serve_and_drive_mujoco.py"


def test_arm_rests_and_stops_for_good_when_its_server_is_killed(tmp_path: Path) -> None:
    env_args = with_cameras(named_env_args("pick-place-tray"), {"agentview_image": (48, 48)}, {})
    with closing(make_env(env_args)) as env:
        dims, rate = env.action_dims, env.control_freq
    images, proprio = {"agentview_image": (3, 48, 48)}, {"robot0_eef_pos": 3}
    out = tmp_path / "artefact"
    export_of(out, images, proprio, dims, history=1, control_freq=rate, env_args=env_args)
    drive = runpy.run_path(str(EXAMPLE))["Drive"](artefact=out, episodes=1, fault="kill", at=3)
    (result,) = drive()
    assert "5 ticks without a good action" in result["stopped"]
    assert result["modes"]["stop"] == result["steps"] - 7 and result["modes"]["hold"] >= 4
    assert result["largest_joint_speed"] < 3.0

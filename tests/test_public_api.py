"""What `import pixelrl` gives, and what it does not import."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pixelrl


@pytest.mark.parametrize("name", pixelrl.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(pixelrl, name) is not None and name in dir(pixelrl)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'pixelrl' has no attribute 'Recipes'"):
        pixelrl.Recipes  # type: ignore[attr-defined]  # noqa: B018


def test_import_and_policy_of_a_robot_take_no_torch() -> None:
    script = "import sys, pixelrl; pixelrl.ExportedPolicy; pixelrl.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_library_is_used_by_its_public_names() -> None:
    recipe = pixelrl.quick_cog_dr3()
    assert isinstance(recipe, pixelrl.Recipe) and recipe.critic[-1] == pixelrl.DR3(weight=0.001)


def test_library_does_the_whole_job_by_its_public_names(tmp_path: Path) -> None:
    path, run = tmp_path / "reach.hdf5", tmp_path / "run"
    env_args = pixelrl.named_env_args("gym:tests.toy_gym:Toy/Reach-v0")
    env = pixelrl.make_env(env_args, allow_import=["tests.toy_gym"])
    with pixelrl.EpisodeWriter(path, env_args=env_args, action_dims=env.action_dims) as writer:
        for seed in range(2):
            seen = [env.reset(seed=seed)[0]]
            seen += [env.step(np.array([0.9, 0.0], np.float32))[0] for _ in range(4)]
            sensors = {key: np.stack([each[key] for each in seen]) for key in seen[0]}
            actions, rewards = np.full((4, 2), 0.9, np.float32), np.array([0, 0, 0, 1], np.float32)
            writer.add(pixelrl.Episode(sensors=sensors, actions=actions, rewards=rewards, dones=rewards > 0))
    env.close()
    small = replace(pixelrl.quick_bc(), encoder=pixelrl.CogCNN(channels=2), actor_hidden=(8,), batch_size=4, steps=2)
    pixelrl.Train(recipe=replace(small, warmup=(), warmup_steps=0), task=(path,), out=run, threads=1)()
    policy = pixelrl.load_policy(run)
    assert list(policy.pictures.values()) == [(8, 16)] and policy.env_args["env_name"] == env_args["env_name"]
    outcomes = pixelrl.evaluate(policy, episodes=2, seed=1, allow_import=["tests.toy_gym"])
    assert [outcome.index for outcome in outcomes] == [0, 1]
    assert all(isinstance(outcome, pixelrl.Outcome) and outcome.length > 0 for outcome in outcomes)

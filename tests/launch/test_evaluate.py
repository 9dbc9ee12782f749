"""`pixelrl evaluate` in strangers' environments and from files of initial states, as a user types it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.launch.options import key_values
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.gymnasium_env import GymnasiumEnv
from pixelrl.simulation.envs.make import make_env, named_env_args, with_cameras
from pixelrl.simulation.evaluation.initial_states import read_initial_states
from tests import Pixelrl

TOY = "gym:tests.toy_gym:Toy/Reach-v0"
ALLOWED = ("--allow-import", "tests.toy_gym")


def wander(env: GymnasiumEnv, episodes: int) -> Iterator[Episode]:
    """Record random episodes."""
    for seed in range(episodes):
        random = np.random.default_rng(seed)
        sensors, _ = env.reset(seed=seed)
        steps: list[tuple[Any, ...]] = []
        while not steps or not (steps[-1][3] or steps[-1][4]):
            action = random.uniform([0.2, -0.9], 0.9).astype(np.float32)
            steps.append((action, *env.step(action)))
        seen = [sensors, *(step[1] for step in steps)]
        yield Episode(
            sensors={key: np.stack([each[key] for each in seen]) for key in sensors},
            actions=np.stack([step[0] for step in steps]),
            rewards=np.array([step[2] for step in steps], np.float32),
            dones=np.array([step[3] for step in steps]),
        )


def write_toy(path: Path) -> Mapping[str, Any]:
    """Write four random episodes of the toy, and return the description of their environment."""
    env_args = with_cameras(named_env_args(TOY), {"pixels_front_image": (32, 48)}, {})
    env = make_env(env_args, allow_import=["tests.toy_gym"])
    assert isinstance(env, GymnasiumEnv)
    write_episodes(path, wander(env, 4), env_args=env.env_args, action_dims=env.action_dims)
    return env.env_args


def test_policy_is_trained_and_evaluated_in_a_gymnasium_environment(tmp_path: Path, pixelrl: Pixelrl) -> None:
    data, run = tmp_path / "data.hdf5", tmp_path / "run"
    env_args = write_toy(data)
    code, said = pixelrl(
        "train", "quick_bc", "--task", data, "--out", run, "--steps", 4, "--batch-size", 16, "--device", "cpu",
        "--actor-hidden", 16, "--log-every", 2,
    )  # fmt: skip
    assert code == 0, said
    code, said = pixelrl("evaluate", run, "--episodes", 1, "--workers", 1)
    assert code == 1 and "if you trust it, name it yourself: --allow-import tests.toy_gym" in said, said
    code, said = pixelrl("evaluate", run, "--episodes", 3, "--workers", 2, "--video", "--videos", 1, *ALLOWED)
    assert code == 0 and "of 3 episodes succeed" in said, said
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["env_args"] == env_args and evaluation["restarts"] == 0
    assert [each["seed"] for each in evaluation["outcomes"]] == [derive(0, "evaluate", index) for index in range(3)]
    assert all(1 <= each["length"] <= 12 for each in evaluation["outcomes"])
    assert (run / "evaluation.mp4").stat().st_size > 0
    code, said = pixelrl("export", run, "--out", tmp_path / "artefact")
    contract = json.loads((tmp_path / "artefact/policy.json").read_text())
    assert code == 0 and contract["control_freq"] == 5, said
    assert contract["evaluation"]["episodes"] == 3 and contract["evaluation"]["env"] == env_args["env_name"]
    assert contract["evaluation"]["success_interval_95"] == evaluation["success_interval_95"]
    action = contract["outputs"]["action"]
    for step, dim in zip(action["control"]["largest_step"], action["dims"], strict=True):
        assert 0 < step <= dim["high"] - dim["low"]
    other = ("--env", TOY, "--env-options", "says=success", "--camera-sources", "pixels_front=render")
    code, said = pixelrl("evaluate", tmp_path / "artefact", "--episodes", 1, *other)
    assert code == 0 and "of 1 episodes succeed" in said, said
    (tmp_path / "evaluation.json").mkdir()
    for words, expected in (
        (("--env", TOY, "--env-options", "kind=blind"), "no camera 'pixels_front'; it has: render"),
        (("--env", TOY, "--env-options", "kind"), "--env-options: 'kind' is not KEY=VALUE"),
        (("--env", "gym:Nope-v0"), "gym:Nope-v0: cannot be made: Environment `Nope` doesn't exist"),
        (("--env", "gym:tests.toy_gym:Toy/Slow-v0"), "acts at 5 Hz and tests.toy_gym:Toy/Slow-v0 at 2 Hz"),
        (("--env", "gym:tests.toy_gym:Toy/Screen-v0"), "cannot draw here (No available video device)"),
        (("--drawing", "fast"), "--drawing fast: tests.toy_gym:Toy/Reach-v0 is Gymnasium's"),
        (("--time-limit", 0), "the time limit of a step is 0 s"),
        (("--time-limit", 0, "--out", data), "data.hdf5: is a file; expected a directory"),  # before it plays
        (("--time-limit", 0, "--out", tmp_path), "evaluation.json: is a directory; expected a file"),
        (("--starts", data), "not a file of initial states"),
        (("--starts", data, "--seed", 1), "has its own seed and environment; leave --seed"),
    ):
        code, said = pixelrl("evaluate", run, "--episodes", 1, "--workers", 1, *ALLOWED, *words)
        assert code == 1 and expected in said and "Traceback" not in said, said


def test_file_of_starts_holds_those_of_its_seed(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = tmp_path / "starts.hdf5"
    command = ("starts", "pick-place-tray", "--out", path, "--episodes", 3, "--seed", 4, "--workers", 1)
    code, said = pixelrl(*command, "--env-options", "distractor=true")
    assert code == 0 and "3 starts of PickPlaceTray" in said, said
    starts = read_initial_states(path)
    assert (starts.seed, starts.env_args["env_kwargs"]["distractor"]) == (4, True)
    assert [state.seed for state in starts.states] == [derive(4, "evaluate", index) for index in range(3)]
    assert json.loads(path.with_suffix(".starts.json").read_text())["sha256"] == starts.sha256
    named = ("starts", "tests.toy_suite:StrangeTray", "--out", tmp_path / "strange.hdf5", "--episodes", 1)
    code, said = pixelrl(*named, "--workers", 1, "--allow-import", "tests.toy_gym")
    assert code == 0 and "1 starts of StrangeTray" in said, said
    for words, expected in (
        (command, "exists already; choose another --out"),
        ((*command[:3], path / "x.hdf5", *command[4:]), "starts.hdf5: is a file; expected a directory"),
        (("starts", TOY, "--out", tmp_path / "toy.hdf5"), "keeps its state where nobody sees it; evaluate by --seed"),
        (("starts", "Lifft", "--out", tmp_path / "x.hdf5"), "no task 'Lifft' in robosuite; did you mean Lift"),
    ):
        code, said = pixelrl(*words)
        assert code == 1 and expected in said, said


def test_key_value_options_are_read_as_json_or_text() -> None:
    assert key_values("--x", ("a=1", "b=true", "c=red", 'd={"e": 2}', "f=x=y")) == {
        "a": 1, "b": True, "c": "red", "d": {"e": 2}, "f": "x=y",
    }  # fmt: skip
    for word in ("a=NaN", "a=1e999", 'a={"b": [-Infinity]}'):
        with pytest.raises(PixelrlError, match=r"^--x: 'a=.*' is no finite number"):
            key_values("--x", (word,))

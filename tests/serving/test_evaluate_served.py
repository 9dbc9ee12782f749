"""A policy on a server is tried as one in process is, to the bit."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.export.loaded_policy import load_policy
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.runtime.errors import PixelrlError
from pixelrl.serving.remote_policy import load_served
from pixelrl.simulation.envs.make import make_env, named_env_args, with_cameras
from pixelrl.simulation.evaluation.rollout import evaluate
from tests.serving.conftest import export_of, serving
from tests.serving.test_server import TOKEN

ALLOWED = ["tests.toy_gym"]
Pixelrl = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported policy of a Gymnasium environment, with a history."""
    camera = {"pixels_front_image": (32, 48)}
    env_args = with_cameras(named_env_args("gym:tests.toy_gym:Toy/Reach-v0"), camera, {})
    with closing(make_env(env_args, allow_import=ALLOWED)) as env:
        described, sensors, _ = env.env_args, *env.reset(seed=0)
        dims, rate = env.action_dims, env.control_freq
    images = {key: (3, *value.shape[:2]) for key, value in sensors.items() if value.dtype == np.uint8}
    proprio = {key: value.size for key, value in sensors.items() if value.dtype != np.uint8}
    out = tmp_path_factory.mktemp("reach") / "artefact"
    return export_of(out, images, proprio, dims, history=3, control_freq=rate, env_args=described)


class Noting:
    """A policy whose actions are noted."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.actions = policy, list[bytes]()

    def __call__(self, sensors: Any) -> Any:
        action = self.policy(sensors)
        self.actions.append(action.tobytes())
        return action


def test_outcomes_and_actions_are_bit_equal_to_those_in_process(reach: Path, tmp_path: Path, pixelrl: Pixelrl) -> None:
    with serving(ExportedPolicy(reach), token=TOKEN) as server:
        here, there = load_policy(reach), load_served(server.url, TOKEN)
        assert there.env_args == here.env_args and there.action == here.action and there.history == here.history == 3
        assert (there.pictures, there.control_freq) == (here.pictures, here.control_freq)
        outcomes = [evaluate(each, episodes=5, seed=3, workers=1, allow_import=ALLOWED) for each in (here, there)]
        assert outcomes[0] == outcomes[1] and len({outcome.return_ for outcome in outcomes[0]}) > 1
        noted = [Noting(each.policy) for each in (here, there)]
        shape = (3, 32, 48, 9)
        random = np.random.default_rng(0)
        contract = json.loads((reach / "policy.json").read_text())
        for _ in range(5):
            sensors = {
                key: random.integers(0, 256, shape, dtype=np.uint8)
                if entry["dtype"] == "uint8"
                else random.normal(size=(3, entry["shape"][1])).astype(np.float32)
                for key, entry in contract["inputs"].items()
            }
            for each in noted:
                each(sensors)
        assert noted[0].actions == noted[1].actions and len(set(noted[0].actions)) == 5
        file = tmp_path / "token"
        file.write_text(TOKEN)
        file.chmod(0o600)
        words = ("--episodes", 3, "--seed", 3, "--workers", 2, "--allow-import", *ALLOWED)
        code, said = pixelrl("evaluate", server.url, "--token-file", file, "--out", tmp_path / "there", *words)
        assert code == 0 and f"{server.url}: " in said and "of 3 episodes succeed" in said, said
        code, said = pixelrl("evaluate", reach, "--out", tmp_path / "here", *words)
        assert code == 0, said
        results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("here", "there")]
        assert results[0]["outcomes"] == results[1]["outcomes"]
        assert results[1]["policy"] == {"server": server.url, "sha256": contract["sha256"]}
        cell = ("--only", "action-delay", "--levels", 1, "--episodes", 2, "--workers", 1, "--allow-import", *ALLOWED)
        for name, words in (("there", (server.url, "--token-file", file)), ("here", (reach,))):
            code, said = pixelrl("sweep", *words, "--out", tmp_path / name, *cell)
            assert code == 0, said
        swept = [json.loads((tmp_path / name / "sweep.json").read_text()) for name in ("here", "there")]
        assert swept[0]["cells"] == swept[1]["cells"] and len(swept[1]["cells"]) == 2
        for words, says in (
            ((), "give --out DIRECTORY"),
            (("--out", tmp_path, "--step", 3), "a server has no --step"),
            (("--out", tmp_path), "refused with 401"),
        ):
            code, said = pixelrl("evaluate", server.url, *words)
            assert code == 1 and says in said and "Traceback" not in said, said
    with pytest.raises(PixelrlError, match="no server there"):
        load_served(server.url)


def test_whoever_reads_the_contract_alone_takes_no_place(reach: Path) -> None:
    with serving(ExportedPolicy(reach)) as server:
        loaded = load_served(server.url)
        for _ in range(400):
            if any(event["event"] == "gone" for event in server.events):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("still connected after 20 s")
        outcomes = evaluate(loaded, episodes=1, seed=3, workers=1, allow_import=ALLOWED)
        assert len(outcomes) == 1 and loaded.policy._remote is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(("run", "count"), [("ws://gpu-box:8000", 8), ("runs/first", 64)])
def test_workers_are_no_more_than_a_server_lets_in(run: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelrl.launch.options.cores", lambda: 64)
    assert Evaluate(run=run).usual_workers == count


def test_server_that_ends_during_an_evaluation_is_told(reach: Path) -> None:
    with serving(ExportedPolicy(reach)) as server:
        loaded = load_served(server.url)
        inputs = loaded.policy.connect().contract["inputs"]  # type: ignore[attr-defined]
    with pytest.raises(PixelrlError, match="connection is lost"):
        loaded.policy(
            {
                key: np.zeros([1, *entry["shape"][1:]], np.uint8 if entry["dtype"] == "uint8" else np.float32)
                for key, entry in inputs.items()
            }
        )

"""A run's directory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixelrl.encoders.conv import CogCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.launch.recipes import cog
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training import checkpoint
from pixelrl.training.configuration import to_json
from pixelrl.training.run_directory import Run, checkpoint_path, pick_device, read_networks, read_run
from tests.tiny import SPEC, learn, make_learner, observation, same, shrink

ENV_ARGS = {"env_name": "Tray", "type": 1, "env_kwargs": {"camera_names": ["front"], "size": 48, "limit": None}}
FILES = {"task": ("a.h5", "b.h5"), "prior": ()}
RUN = Run(
    recipe=shrink(cog()), spec=SPEC, env_args=ENV_ARGS, data=FILES, fingerprint="7 transitions, crc32 0", actions="unit"
)


def test_a_run_tells_the_whole_of_itself(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    found = read_run(tmp_path)
    assert (found.recipe, found.spec, found.data) == (RUN.recipe, RUN.spec, RUN.data)
    assert to_json(found) == to_json(RUN)
    assert list(found.spec.images) == list(SPEC.images) and list(found.spec.proprio) == list(SPEC.proprio)


def test_the_environments_description_comes_back_as_it_was(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    assert read_run(tmp_path).env_args == ENV_ARGS


def test_an_environment_may_have_an_option_of_any_name(tmp_path: Path) -> None:
    replace(RUN, env_args={"env_kwargs": {"is": "sim"}}).write(tmp_path)
    assert read_run(tmp_path).env_args == {"env_kwargs": {"is": "sim"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not a run of `pixelrl train`: it has no config.json"),
        ("", r"config\.json: not a configuration of pixelrl, or damaged"),
        ("{", r"config\.json: not a configuration of pixelrl, or damaged"),
        ("[" * 100_000, r"config\.json: not a configuration of pixelrl, or damaged"),
        ('{"a": ' * 900 + "1" + "}" * 900, r"config\.json: not "),
        (json.dumps(to_json(RUN) | {"env_args": []}), r"config\.json: not the configuration of a run"),
        (
            json.dumps(to_json(RUN) | {"recipe": to_json(RUN.recipe) | {"warmup": [1]}}),
            r"config\.json: not a configuration of pixelrl, or damaged",
        ),
        ("[]", r"config\.json: not the configuration of a run"),
        (json.dumps(to_json(RUN.recipe)), r"config\.json: not the configuration of a run"),
        (
            json.dumps({"is": "Run"}),
            r"config\.json: not a configuration of pixelrl, .*missing",
        ),
        (json.dumps({"is": "os.path"}), "no configuration class 'os.path'"),
    ],
)
def test_what_is_not_a_run_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(PixelrlError, match=message):
        read_run(tmp_path)


def test_trained_networks_are_read_to_be_used(tmp_path: Path) -> None:
    learner = learn(make_learner(RUN.recipe), 3)
    RUN.write(tmp_path)
    checkpoint.save(checkpoint_path(tmp_path), learner)
    checkpoint.save_networks(checkpoint_path(tmp_path, 2), make_learner(replace(RUN.recipe, seed=4)).networks, 2)
    run, networks, step = read_networks(tmp_path)
    assert step == 3 and run.recipe == RUN.recipe and same(networks, learner.networks)
    assert not networks.training and not any(parameter.requires_grad for parameter in networks.parameters())
    with torch.no_grad():
        expected = learner.networks.policy(observation()).mode
    torch.testing.assert_close(networks.policy(observation()).mode, expected)
    _, earlier, step = read_networks(tmp_path, 2)
    assert step == 2 and not same(earlier, networks)
    with pytest.raises(PixelrlError, match=r"snapshots/7\.safetensors: there is no such checkpoint"):
        read_networks(tmp_path, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"critic_hidden": (10**6, 10**6)},  # 8 TB
        {"critic_hidden": (10**12, 10**12)},
        {"critic_hidden": (1.5, 8)},
        {"actor_hidden": (1,) * 10_000},
        {"ensemble": 10**9},
        {"encoder": CogCNN(channels=10**7)},
        {"encoder": ImpalaCNN(blocks=10**9)},
        {"encoder": None},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_networks_that_the_checkpoint_does_not_hold_are_never_made(tmp_path: Path, changes: dict[str, Any]) -> None:
    checkpoint.save(checkpoint_path(tmp_path), make_learner(RUN.recipe))
    replace(RUN, recipe=replace(RUN.recipe, **changes)).write(tmp_path)
    with pytest.raises(PixelrlError, match=r"last\.safetensors: (belongs to other networks|config\.json tells of no)"):
        read_networks(tmp_path)


def test_the_device_is_chosen_by_name() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_said(name: str) -> None:
    with pytest.raises(PixelrlError, match="torch finds no CUDA device; use --device cpu"):
        pick_device(name)


@pytest.mark.parametrize(("name", "reason"), [("gpu", "no such device"), ("mps", "only the CPU"), ("meta", "only the")])
def test_a_device_that_cannot_be_used_is_named(name: str, reason: str) -> None:
    with pytest.raises(PixelrlError, match=f"--device {name}: .*{reason}"):
        pick_device(name)

"""`policy.pt2`: a program that torch alone runs, proved like the network, and what reading one may do."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.learning.interventions import HareTortoise
from pixelrl.learning.policies import Acting, FlowPolicy
from pixelrl.runtime.errors import PixelrlError
from tests.export.test_artefact import CAMERA, go, make_frames, make_networks

MANY: dict[str, Any] = {"shared_encoder": False, "intervention": HareTortoise(), "value": True, "target_actor": True}
"""Networks of which a policy needs few."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("program")
    go(make_networks(**MANY), out, pt2=True)
    return out


POLICIES: dict[str, dict[str, Any]] = {
    "separate encoders, average": MANY,
    "best of the flow": {"policy": FlowPolicy(steps=2, one_step=False), "acting": Acting(kind="best", samples=4)},
}


@pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)
def test_program_acts_as_the_checkpoint_and_as_the_network(tmp_path: Path, options: dict[str, Any]) -> None:
    result = go(make_networks(**options), tmp_path, pt2=True)
    contract = ExportedPolicy(tmp_path).contract
    assert contract["pt2"] == result["pt2"] and contract["pt2"]["outputs"] == ["action", "normalised"]
    assert max(contract["pt2"]["parity"][source]["normalised"] for source in ("data", "random")) < 1e-5
    assert contract["sha256"]["policy.pt2"] == hashlib.sha256((tmp_path / "policy.pt2").read_bytes()).hexdigest()
    module, frames = torch.export.load(tmp_path / "policy.pt2").module(), make_frames(3, CAMERA, seed=5)
    action, normalised = module(*(torch.from_numpy(frames[key]) for key in contract["pt2"]["inputs"]))
    np.testing.assert_allclose(normalised.detach(), ExportedPolicy(tmp_path)(frames), atol=1e-5)
    np.testing.assert_allclose(action.detach(), ExportedPolicy(tmp_path).act(frames), atol=1e-5)


def test_program_holds_the_policy_alone_and_no_paths_of_the_machine(program: Path) -> None:
    with zipfile.ZipFile(program / "policy.pt2") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
        weights = json.loads(archive.read("policy/data/weights/model_weights_config.json"))["config"]
    assert str(Path(__file__).parents[2]).encode() not in text
    assert not [name for name in weights if any(each in name for each in ("target", "value", "critic.head"))]


def test_torch_alone_runs_it_and_unpickles_nothing(program: Path, tmp_path: Path) -> None:
    frames = make_frames(1, CAMERA)
    np.savez(tmp_path / "frames.npz", **frames)  # type: ignore[arg-type]
    script = (
        "import sys, numpy, torch; readings = numpy.load('frames.npz');"
        "module = torch.export.load(sys.argv[1]).module();"
        "action, _ = module(*map(torch.from_numpy, readings.values()));"
        "print('pixelrl' in sys.modules, action.tolist())"
    )
    # a file that had more in it than tensors would be refused under this variable
    strict = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1", "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(program / "policy.pt2")],
        cwd=tmp_path,
        env=strict,
        capture_output=True,
        text=True,
        check=True,
    )
    alien, action = done.stdout.split(" ", 1)
    assert alien == "False"
    np.testing.assert_allclose(json.loads(action), ExportedPolicy(program).act(frames), atol=1e-5)


class Bomb:
    """A pickle that writes a file where it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def test_foreign_program_runs_nothing_under_torchs_strict_variable(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmed, sign = tmp_path / "harmed.pt2", tmp_path / "it_ran"
    evil = io.BytesIO()
    torch.save((Bomb(str(sign)),), evil, pickle_module=pickle)
    with zipfile.ZipFile(program / "policy.pt2") as old, zipfile.ZipFile(harmed, "w") as new:
        for item in old.infolist():
            inputs = item.filename.endswith("sample_inputs/model.pt")
            new.writestr(item.filename, evil.getvalue() if inputs else old.read(item))
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(Exception):  # noqa: B017 (whatever torch raises)
        torch.export.load(harmed)
    assert not sign.exists()


def test_program_that_acts_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelrl.export.program.OUTPUTS", ("normalised", "action"))
    with pytest.raises(PixelrlError, match="differs from the checkpoint"):
        go(make_networks(), tmp_path / "out", pt2=True)
    assert not (tmp_path / "out").exists()


def test_export_without_a_program_leaves_none_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "policy.pt2").write_bytes(b"an earlier one")
    go(make_networks(), tmp_path)
    assert not (tmp_path / "policy.pt2").exists() and "pt2" not in ExportedPolicy(tmp_path).contract

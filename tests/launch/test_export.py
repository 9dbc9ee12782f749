"""`pixelrl export` as a user types it; what it writes is tested in tests/export."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixelrl.launch.commands.export import check_folder
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import sha256_of
from tests import Pixelrl
from tests.dots import SMALL, write_dots


def test_demos_that_the_training_left_out_need_not_be_sound(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    pytest.importorskip("onnx")
    task, run = dots[0], tmp_path / "run"
    with h5py.File(task, "r+") as file:
        del file["data/demo_3/actions"]
        file["mask/good"] = [f"demo_{number}".encode() for number in range(6) if number != 3]
    words = ("--task", task, "--task-mask", "good", "--out", run, *SMALL, "--steps", 1)
    assert pixelrl("train", "quick_bc", *words)[0] == 0
    code, said = pixelrl("export", run, "--out", tmp_path / "artefact")
    assert code == 0, said


def test_largest_steps_are_those_of_all_files(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    pytest.importorskip("onnx")
    run, out, first = tmp_path / "run", tmp_path / "artefact", write_dots(tmp_path / "first.hdf5", "task", 2, size=32)
    with h5py.File(dots[0], "r+") as file:
        actions = file["data/demo_5/actions"]
        actions[:3] = [[-1, 0], [1, 0], [-1, 0]]
    assert pixelrl("train", "quick_bc", "--task", first, dots[0], "--out", run, *SMALL, "--steps", 1)[0] == 0

    def largest(*words: object) -> tuple[float, float, str]:
        code, said = pixelrl("export", run, "--out", out, *words)
        assert code == 0, said
        control = json.loads((out / "policy.json").read_text())["outputs"]["action"]["control"]
        return control["largest_step"][0], control["largest_change"][0], said

    step, change, said = largest()
    assert step == pytest.approx(0.2) and change == pytest.approx(0.4) and "warning" not in said
    assert largest("--data", first)[:2] == (step, change)
    dots[0].unlink()
    step, _, said = largest()
    assert 0 < step < 0.2 and "warning: 1 of 2 files of the run's data are gone; the largest steps in policy.j" in said
    code, said = pixelrl("export", run, "--out", out, "--data", tmp_path / "nope.hdf5")
    assert code == 1 and said == f"pixelrl: --data {tmp_path}/nope.hdf5: there is no such file"


@pytest.mark.parametrize("actions", ["unit", "min-max"])
def test_largest_steps_are_in_units_of_every_source_and_end_with_an_episode(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, actions: str
) -> None:
    pytest.importorskip("onnx")
    with h5py.File(dots[0], "r+") as file:
        for number, name in enumerate(names := [*file["data"]]):
            demo, fast = file["data"][name], 0.5 if number % 2 else 0.25
            demo["actions"][:] = 0
            demo["actions"][0, 0] = fast
            demo["actions"][4:] = 1  # of another episode
            demo["timeouts"] = np.arange(len(demo["actions"])) == 3
        file["mask/slow"], file["mask/fast"] = ([name.encode() for name in names[part::2]] for part in (0, 1))
    for task, other in (("slow", "fast"), ("fast", "slow")):
        words = ("--task-mask", task, "--source", f"name=other,files={dots[0]},mask={other}", "--actions", actions)
        run, out = tmp_path / task, tmp_path / f"{task} out"
        assert pixelrl("train", "quick_bc", "--task", dots[0], *words, "--out", run, *SMALL, "--steps", 1)[0] == 0
        assert pixelrl("export", run, "--out", out)[0] == 0
        control = json.loads((out / "policy.json").read_text())["outputs"]["action"]["control"]
        assert control["largest_step"] == pytest.approx([0.05, 0]), control  # 0.5 of 0.1 m


def test_directory_of_other_files_is_left_alone(tmp_path: Path, pixelrl: Pixelrl) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "evaluation.json").write_text("{}")
    code, said = pixelrl("export", tmp_path / "run", "--out", tmp_path)
    assert code == 1 and said.endswith("holds files and no policy.json of an export; name a new or an empty directory")
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize("contract", [None, "{}", '{"format": 2}'])
def test_network_and_contract_of_strangers_are_left_alone(tmp_path: Path, contract: str | None) -> None:
    (tmp_path / "policy.onnx").write_bytes(b"theirs")
    if contract is not None:
        (tmp_path / "policy.json").write_text(contract)
    with pytest.raises(PixelrlError, match=r"no policy.json of an export; name a new or an empty directory"):
        check_folder(tmp_path)


def test_damaged_record_of_a_run_is_named(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    pytest.importorskip("onnx")
    run, out = tmp_path / "run", tmp_path / "artefact"
    assert pixelrl("train", "quick_bc", "--task", dots[0], "--out", run, *SMALL, "--steps", 1)[0] == 0
    written = (run / "config.json").read_text()

    def refused(said: str) -> None:
        code, printed = pixelrl("export", run, "--out", out)
        assert code == 1 and printed.startswith(f"pixelrl: {run}/{said}"), printed
        assert not list(tmp_path.glob("*artefact*"))

    for keys, value, said in (
        (("spec", "proprio_mean", 0), math.nan, "config.json: spec.proprio_mean[0] is nan; expected a number"),
        (("spec", "proprio_std", 0), math.nan, "config.json: spec.proprio_std[0] is nan; expected a number"),
        (("spec", "proprio_std", 1), 0.0, "config.json: spec.proprio_std[1] is 0.0; expected a number above 0"),
        (("spec", "proprio_std", 1), -1, "config.json: spec.proprio_std[1] is -1; expected a number above 0"),
        (("env_args", "control_freq"), 0, "config.json: control_freq in env_args is 0; expected actions a second"),
        (("env_args", "control_freq"), 10**400, "config.json: env_args.control_freq is 1000"),
    ):
        config = part = json.loads(written)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        (run / "config.json").write_text(json.dumps(config))
        refused(said)
    (run / "config.json").write_text(written)
    result = {
        "policy": {"sha256": sha256_of(run / "last.safetensors")},
        "env_args": {"env_name": "Dot"},
        "episodes": 10,
        "successes": 5,
        "success_rate": 0.5,
        "success_interval_95": [0.2, 0.8],
        "seeds": [1],
        "began": "today",
    }
    for harm, said in (
        ({"success_rate": math.nan}, "success_rate is nan"),
        ({"success_rate": 2}, "success_rate is 2"),
        ({"success_interval_95": [0.8]}, "success_interval_95 is [0.8]"),
        ({"successes": 50}, "successes is 50"),
        ({"seeds": [math.inf]}, "seeds[0] is inf"),
        ({"env_args": {}}, "KeyError('env_name')"),
    ):
        (run / "evaluation.json").write_text(json.dumps(result | harm))
        refused(f"evaluation.json: damaged ({said}); evaluate again, or remove it")
    (run / "evaluation.json").write_text("{")
    refused("evaluation.json: damaged (JSONDecodeError(")
    (run / "evaluation.json").write_text(json.dumps(result))
    assert pixelrl("export", run, "--out", out)[0] == 0
    assert json.loads((out / "policy.json").read_text())["evaluation"]["successes"] == 5

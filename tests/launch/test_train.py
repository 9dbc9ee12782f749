"""`pixelrl train` on a tiny world: configuration, checkpoints, interruptions, errors."""

import errno
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file
from torch import nn

from pixelrl.learning.learner import Learner
from pixelrl.learning.rounding import BUCKET, inner_weights
from pixelrl.runtime.files import exclusive_directory
from pixelrl.training import checkpoint, loop
from pixelrl.training.loop import Report
from pixelrl.training.run_directory import read_networks
from tests import Pixelrl
from tests.dots import POSITION, SMALL, write_dots
from tests.launch.interruption import check_resume


def test_train_tells_its_whole_configuration(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    task, prior = dots
    run = tmp_path / "run"
    code, said = pixelrl(
        "train", "quick_cog_dr3", "--task", task, "--prior", prior, "--out", run, "--steps", 10, *SMALL,
        "--critic.dr3.weight", 0.5,
    )  # fmt: skip
    assert code == 0, said
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"]["critic"][-1] == {
        "is": "DR3", "weight": 0.5, "site": "last_hidden", "stop_gradient": False, "pairs": "consecutive",
    }  # fmt: skip
    assert config["data"] == {"task": [str(task)], "prior": [str(prior)]}
    record = json.loads((run / "training.json").read_text())
    assert record["steps"] == 10 and record["seeds"] == {"seed": 0}
    assert record["command"][:3] == ["pixelrl", "train", "quick_cog_dr3"]
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "features/srank" in header and "q/data@prior" in header
    assert list((run / "tensorboard").iterdir())


def test_run_is_never_overwritten_and_resumes_only_as_itself(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    command = ["train", "quick_cog", "--task", dots[0], "--prior", dots[1], "--out", tmp_path / "run", *SMALL]
    assert pixelrl(*command, "--steps", 4)[0] == 0
    code, said = pixelrl(*command, "--steps", 4)
    assert code == 1 and "add --resume" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume", "--gamma", 0.5)
    assert code == 1 and "was trained with gamma = 0.95, not 0.5" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume", "--critic.cql.weight", 0.5)
    assert code == 1 and "was trained with critic.1.weight = 0.1, not 0.5; --resume" in said
    code, said = pixelrl("train", "quick_cog_dr3", *command[2:], "--steps", 8, "--resume")
    assert code == 1 and "was trained with critic = TD + CQL + BC, not TD + CQL + BC + DR3; --resume" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume", "--proprio")
    assert code == 1 and "was trained with proprio" in said
    code, said = pixelrl(*command[:3], dots[1], dots[0], *command[4:], "--steps", 8, "--resume")
    assert code == 1 and "was trained on other data" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume")
    assert code == 0 and "going on from step 4" in said
    file = tmp_path / "a_file"
    file.write_text("of value")
    code, said = pixelrl(*command[: -len(SMALL) - 1], file, *SMALL, "--steps", 1)
    assert code == 1 and "a_file: is a file; expected a directory" in said and file.read_text() == "of value"
    (tmp_path / "lift/meta").mkdir(parents=True)
    (tmp_path / "lift/meta/info.json").write_text("{}")
    code, said = pixelrl(*command[: -len(SMALL) - 1], tmp_path / "lift", *SMALL, "--steps", 1)
    assert code == 1 and "lift: holds LeRobot's data (meta/info.json); choose another --out" in said
    assert [each.name for each in (tmp_path / "lift").iterdir()] == ["meta"]
    assert json.loads((tmp_path / "run/training.json").read_text())["steps"] == 8


def test_run_starts_from_another_ones_networks(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    task, first, second = dots[0], tmp_path / "first", tmp_path / "second"
    command = ["train", "quick_cog", "--task", task, *SMALL, "--steps", 2]
    assert pixelrl(*command, "--out", first, "--seed", 1, "--snapshot-every", 1)[0] == 0
    still = ("--critic-lr", 0, "--actor-lr", 0, "--tau", 1e-9, "--warmup-steps", 0)
    whole = [*command, "--out", second, *still, "--initial", first]
    assert pixelrl(*whole)[0] == 0
    theirs, mine = (load_file(run / "last.safetensors") for run in (first, second))
    names = [name for name in theirs if name.startswith("networks.") and "target" not in name]
    assert names and all(np.array_equal(theirs[name], mine[name]) for name in names)
    assert json.loads((second / "config.json").read_text())["initial"]["run"] == str(first)
    third = tmp_path / "third"
    words = [*command, "--out", third, *still, "--initial", first, "--initial-step", 1, "--initial-part", "critic"]
    assert pixelrl(*words)[0] == 0
    snapshot, fresh = load_file(first / "snapshots/1.safetensors"), load_file(third / "last.safetensors")
    alike = {name: np.array_equal(snapshot[name], fresh[name]) for name in names}
    assert all(same for name, same in alike.items() if name.startswith("networks.critic."))
    assert not all(same for name, same in alike.items() if name.startswith("networks.actor."))
    code, said = pixelrl(*whole, "--resume", "--initial-step", 1)
    assert code == 1 and "second: started from {'run'" in said and "'step': 1" in said
    code, said = pixelrl(*command, "--out", tmp_path / "fourth", "--critic-hidden", 8, 4, "--initial", first)
    assert code == 1 and "has shape" in said and "--initial-part" in said and not (tmp_path / "fourth").exists()
    for words, told in (
        (("--layer-norm-place", "after"), "its layer_norm_place is before, here it is after"),
        (("--policy", "hybrid"), "its policy is GaussianPolicy("),
        (("--actions", "min-max"), "its actions is unit, here it is min-max"),
        (("--actor.maximizeq.weight", "inf"), "recipe: actor[0].weight is inf; expected a finite number"),
    ):
        code, said = pixelrl(*command, "--out", tmp_path / "fourth", "--initial", first, *words)
        assert code == 1 and told in said, said
    code, said = pixelrl(*command, "--out", tmp_path / "fourth", "--initial", first, "--initial-step", 7)
    assert code == 1 and "7.safetensors: there is no such checkpoint" in said
    for words in (("--initial-step", 1), ("--initial-part", "critic")):
        code, said = pixelrl(*command, "--out", tmp_path / "fourth", *words)
        assert code == 1 and "give --initial RUN" in said and not (tmp_path / "fourth").exists()
    code, said = pixelrl(*command, "--out", tmp_path / "fourth", "--initial", tmp_path / "none")
    assert code == 1 and "none: not a run of `pixelrl train`" in said


@pytest.mark.parametrize("actions", ["unit", "min-max"])
def test_run_starts_from_no_network_whose_actions_mean_something_else(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, actions: str
) -> None:
    command = ["train", "quick_bc", *SMALL, "--steps", 1, "--actions", actions]
    assert pixelrl(*command, "--task", dots[0], "--out", tmp_path / "first")[0] == 0
    with h5py.File(dots[0], "r+") as file:
        if actions == "unit":
            file["data"].attrs["action_dims"] = file["data"].attrs["action_dims"].replace('"x"', '"vel_x"')
        else:
            for demo in file["data"].values():
                demo["actions"][:, 0] *= 0.5
    whole = [*command, "--task", dots[0], "--out", tmp_path / "second", "--initial", tmp_path / "first"]
    code, said = pixelrl(*whole)
    assert code == 1 and "first: its action 0 is x [" in said and "expected the same, and the same range" in said, said
    assert ("--actions min-max takes from the data" in said) is (actions == "min-max")
    assert not (tmp_path / "second").exists()


def test_contract_tells_the_readings_that_the_network_normalises_by(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    pytest.importorskip("onnx")
    command = ["train", "quick_bc", *SMALL, "--steps", 1, "--task", dots[0]]
    assert pixelrl(*command, "--out", tmp_path / "first")[0] == 0
    with h5py.File(dots[0], "r+") as file:
        for demo in file["data"].values():
            for group in ("obs", "next_obs"):
                demo[f"{group}/{POSITION}"][...] += 100
    assert pixelrl(*command, "--out", tmp_path / "second", "--initial", tmp_path / "first")[0] == 0
    means = []
    for run in ("first", "second"):
        assert pixelrl("export", tmp_path / run, "--out", tmp_path / f"{run} out")[0] == 0
        means.append(json.loads((tmp_path / f"{run} out/policy.json").read_text())["inputs"][POSITION]["mean"])
    assert means[0] == pytest.approx(means[1])


def test_run_goes_on_without_the_one_that_it_started_from(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["train", "quick_bc", "--task", dots[0], "--device", "cpu", *SMALL]
    assert pixelrl(*command, "--out", first, "--steps", 2, "--seed", 1)[0] == 0
    again = [*command, "--out", second, "--snapshot-every", 2, "--steps"]
    assert pixelrl(*again, 2, "--initial", first)[0] == 0
    begun = json.loads((second / "config.json").read_text())["initial"]
    assert pixelrl(*command, "--out", first, "--steps", 4, "--seed", 1, "--resume")[0] == 0
    code, said = pixelrl(*again, 4, "--resume", "--initial", first)
    assert code == 0 and "going on from step 2" in said, said
    shutil.copytree(first, tmp_path / "other")
    shutil.rmtree(first)
    for steps, words in ((6, ("--initial", first)), (8, ())):
        code, said = pixelrl(*again, steps, "--resume", *words)
        assert code == 0 and f"going on from step {steps - 2}" in said, said
    assert json.loads((second / "config.json").read_text())["initial"] == begun
    for words in (("--initial", tmp_path / "other"), ("--initial", second)):
        code, said = pixelrl(*again, 10, "--resume", *words)
        assert code == 1 and f"second: started from {{'run': '{first}'" in said, said
    plain = tmp_path / "other"
    code, said = pixelrl(*command, "--out", plain, "--steps", 6, "--seed", 1, "--resume", "--initial", second)
    assert code == 1 and "other: started from nothing, not {'run'" in said, said


@pytest.mark.parametrize("kept", [(), ("snapshots",)])
def test_run_without_a_checkpoint_yet_begins_from_the_weights_that_it_recorded(
    kept: tuple[str, ...], dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["train", "quick_bc", "--task", dots[0], "--device", "cpu", *SMALL]
    assert pixelrl(*command, "--out", first, "--steps", 2, "--seed", 1)[0] == 0
    again = [*command, "--out", second, "--snapshot-every", 1, "--steps", 2]
    assert pixelrl(*again, "--initial", first)[0] == 0
    expected, weights = load_file(second / "last.safetensors"), (first / "last.safetensors").read_bytes()
    (second / "last.safetensors").unlink()
    if not kept:
        shutil.rmtree(second / "snapshots")
    assert pixelrl(*command, "--out", first, "--steps", 4, "--seed", 1, "--resume")[0] == 0
    for words in ((), ("--initial", first)):
        code, said = pixelrl(*again, "--resume", *words)
        assert code == 1 and "first/last.safetensors: is gone or has changed since this run began from it" in said, said
    (first / "last.safetensors").write_bytes(weights)
    code, said = pixelrl(*again, "--resume")
    assert code == 0 and "nothing to go on with; beginning" in said, said
    found = load_file(second / "last.safetensors")
    assert all(np.array_equal(found[key], value) for key, value in expected.items())


def test_weights_of_an_average_that_acts_are_rounded(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    words = ("--weight-bits", 1, "--intervention", "hare_tortoise", "--intervention.decay", 0.9, "--steps", 2)
    assert pixelrl("train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, *words)[0] == 0
    networks = read_networks(tmp_path / "run")[1]
    assert networks.average is not None
    for weight in inner_weights(networks.average.actor):
        assert len(weight.flatten()[:BUCKET].unique()) <= 2


def test_run_directory_takes_one_training_at_a_time(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, "--steps", 2, "--resume"]
    with exclusive_directory(tmp_path / "run"):
        code, said = pixelrl(*command)
        assert code == 1 and said == f"pixelrl: {tmp_path}/run: another process is at work in it; choose another --out"
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert not (tmp_path / "run").exists()
    assert pixelrl(*command)[0] == 0


def test_snapshot_that_a_full_disk_refused_is_written_when_the_run_goes_on(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, "--steps", 6]
    command += ["--log-every", 2, "--checkpoint-every", 2, "--snapshot-every", 2]
    save = checkpoint.save_networks

    def full(path: Path, networks: nn.Module, step: int) -> None:
        if step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, networks, step)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_networks", full)
        code, said = pixelrl(*command)
    assert code == 1 and "snapshots/4.safetensors" in said
    code, said = pixelrl(*command, "--resume")
    assert code == 0 and "going on from step 2" in said
    assert {path.name for path in (tmp_path / "run/snapshots").iterdir()} == {f"{n}.safetensors" for n in (2, 4, 6)}


def test_snapshots_alone_are_a_run_too(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    run = tmp_path / "run"
    command = ["train", "quick_bc", "--task", dots[0], "--out", run, *SMALL, "--steps", 2, "--snapshot-every", 1]
    assert pixelrl(*command)[0] == 0
    (run / "last.safetensors").unlink()
    before = (run / "snapshots/1.safetensors").read_bytes()
    code, said = pixelrl(*command)
    assert code == 1 and "run: holds a run already; add --resume" in said
    code, said = pixelrl(*command, "--resume", "--gamma", 0.5)
    assert code == 1 and "was trained with gamma = " in said
    assert (run / "snapshots/1.safetensors").read_bytes() == before
    code, said = pixelrl(*command, "--resume")
    assert code == 0 and "nothing to go on with; beginning" in said


def test_interrupted_run_resumes_to_the_same_weights(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    command = ["train", "quick_cog_dr3", "--task", dots[0], "--prior", dots[1], *SMALL, "--steps", 12]
    check_resume(pixelrl, command, tmp_path, 7)


def test_resumed_run_keeps_its_number_of_threads(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL]
    assert pixelrl(*command, "--steps", 2)[0] == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == 1  # OMP_NUM_THREADS of these tests
    chosen: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", chosen.append)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    for options, threads in (((), 1), (("--threads", 2), 2), (("--threads", "auto"), 2)):
        assert pixelrl(*command, "--steps", 2, "--resume", *options)[0] == 0
        assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == threads
    assert chosen == [1, 2, 2]
    code, said = pixelrl(*command, "--steps", 2, "--resume", "--threads", 0)
    assert code == 1 and "--threads is 0; it must be auto or at least 1" in said


def test_diverging_run_ends_in_one_line_that_names_the_last_good_checkpoint(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    command = ["train", "quick_cog", "--task", dots[0], "--prior", dots[1], "--out", tmp_path / "run", *SMALL]
    assert pixelrl(*command, "--steps", 5)[0] == 0
    before = (tmp_path / "run/last.safetensors").read_bytes()
    torn = tmp_path / "run/config.json"
    torn.write_text(torn.read_text().replace('"critic_lr": 0.0005', '"critic_lr": 1e+30'))
    code, said = pixelrl(*command, "--steps", 20, "--resume", "--critic-lr", 1e30)
    assert code == 1, said
    assert "pixelrl: step " in said and "critic/" in said and "in rows of" in said and "Traceback" not in said
    assert f"the last good checkpoint is {tmp_path / 'run/last.safetensors'}, step 5" in said
    assert (tmp_path / "run/last.safetensors").read_bytes() == before


def test_interrupted_run_keeps_no_weights_that_are_not_finite(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = loop.train

    def interrupted(learner: Learner, *args: object, **options: object) -> Iterator[Report]:
        for report in steps(learner, *args, **options):  # type: ignore[arg-type]
            if report.step == 7:  # nothing is measured here
                learner.actor.parameters[0].data.view(-1)[3] = np.nan
                signal.raise_signal(signal.SIGINT)
            yield report

    monkeypatch.setattr(loop, "train", interrupted)
    command = ["train", "quick_cog", "--task", dots[0], "--prior", dots[1], "--out", tmp_path / "run", *SMALL]
    code, said = pixelrl(*command, "--steps", 20)
    assert code == 1 and "step 7: networks.actor" in said and "the last good checkpoint was never saved" in said
    assert not (tmp_path / "run/last.safetensors").exists()


def test_run_on_pictures_alone_knows_its_data_too(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    run = tmp_path / "run"
    command = ["train", "quick_cog", "--out", run, *SMALL, "--proprio", "--steps"]
    assert pixelrl(*command, 6, "--task", dots[0])[0] == 0
    other = write_dots(tmp_path / "other.hdf5", "task", 6, seed=1, size=32)
    code, said = pixelrl(*command, 8, "--task", other, "--resume")
    assert code == 1 and "was trained on other data" in said
    code, said = pixelrl(*command, 3, "--task", dots[0], "--resume")
    assert code == 1 and "has done 6 steps already" in said
    assert json.loads((run / "config.json").read_text())["recipe"]["steps"] == 6


def test_full_disk_ends_in_one_line_and_keeps_the_earlier_checkpoint(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, "--steps"]
    assert pixelrl(*command, 4)[0] == 0
    before = (tmp_path / "run/last.safetensors").read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pixelrl.training.checkpoint.save_file", full)
    code, said = pixelrl(*command, 8, "--resume")
    assert code == 1 and "last.safetensors: cannot be written" in said and "No space left" in said
    assert (tmp_path / "run/last.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob(".*"))


def test_encoder_is_chosen_by_name(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    code, said = pixelrl(
        "train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", "--encoder", "cog", *SMALL,
        "--encoder.channels", 4, "--steps", 2,
    )  # fmt: skip
    assert code == 0, said
    config = json.loads((tmp_path / "run/config.json").read_text())
    encoder = config["recipe"]["encoder"]
    assert encoder["is"] == "CogCNN" and encoder["channels"] == 4


def test_memory_and_loader_threads_change_no_weights(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    command = ["train", "quick_cog", "--task", dots[0], "--prior", dots[1], *SMALL, "--steps", 6]
    weights = []
    for memory, threads in (("ram", 0), ("cache", 2), ("file", 1)):
        run = tmp_path / memory
        code, said = pixelrl(*command, "--memory", memory, "--loader-threads", threads, "--out", run)
        assert code == 0, said
        weights.append(load_file(run / "last.safetensors"))
    for other in weights[1:]:
        for key, value in weights[0].items():
            np.testing.assert_array_equal(value, other[key], err_msg=key)
    code, said = pixelrl(*command[:-1], 8, "--memory", "ram", "--out", tmp_path / "cache", "--resume")
    assert code == 0 and "going on from step 6" in said, "the same data, wherever they live"

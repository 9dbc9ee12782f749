"""The data that `pixelrl train` takes, and what it says of those that it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import Pixelrl
from tests.dots import SMALL, write_dots
from tests.spoil import put


def test_critic_refuses_data_without_reward(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    with h5py.File(dots[0], "r+") as file:
        for demonstration in file["data"].values():
            demonstration["rewards"][...] = 0
    code, said = pixelrl("train", "quick_cog", "--task", dots[0], "--out", tmp_path / "run", "--steps", 2)
    assert code == 1 and "no transition of the task data has a reward" in said
    assert not (tmp_path / "run").exists()


def test_calibrated_critic_refuses_costs_in_recordings_that_do_not_end(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    costs = ("--reward-scale", 1, "--reward-shift", -1, "--critic.td.target-range", -20, 0, "--steps", 2, *SMALL)
    train = ("train", "quick_calql", "--task", dots[0], "--device", "cpu", *costs, "--ends", "never")
    code, said = pixelrl(*train, "--out", tmp_path / "run")
    assert code == 1 and "steps with costs lie in recordings that do not end (ends=never)" in said, said
    assert not (tmp_path / "run").exists()
    code, said = pixelrl(*train, "--out", tmp_path / "run", "--critic.cql.no-calibrated")
    assert code == 0, said


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("quick_qc", ("--chunk", 40, "--n-step", 40), "too close to the end of their episode for a chunk of actions"),
        ("quick_cog", ("--chunk", 2), "n_step is 3; it must be 2, as chunk is"),
        ("quick_hlgauss_cog", ("--form.high", 5), "returns reach from 0 to 10, but the recipe cuts every target to [0"),
        (
            "quick_hlgauss_cog",
            ("--form.high", 20, "--reward-scale", 20),
            "returns reach from 0 to 20, but the recipe cuts every target to [0, 10]",
        ),
        (
            "quick_hlgauss_cog",
            ("--form.low", 20, "--form.high", 30),
            "[0, 10] and [20, 30], which have nothing in common",
        ),
        ("quick_cog", ("--value-lr", 1e-3), "value_lr is 0.001; there is no value network"),
        (
            "quick_cog",
            ("--backup.aggregate", "subset", "--backup.subset", 5),
            "a subset of 5 critics; ensemble is 2",
        ),
        ("quick_cog", ("--critic.td.target-range", 0, 5), "returns reach from 0 to 10, but the recipe cuts every"),
    ],
)
def test_combinations_that_cannot_work_are_refused_before_anything_is_made(
    recipe: str, options: tuple[object, ...], expected: str, dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    code, said = pixelrl("train", recipe, "--task", dots[0], "--out", tmp_path / "run", "--steps", 2, *options)
    assert code == 1 and expected in said and "Traceback" not in said, said
    assert not (tmp_path / "run").exists()


def edited(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return harm


def replaced(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return edited(lambda file: put(file, f"data/demo_3/{key}", change(file[f"data/demo_3/{key}"][()])))


def with_nan(values: np.ndarray) -> np.ndarray:
    values[1, 0] = np.nan
    return values


PICTURES, POSE = "frames/agentview_image", "frames/robot0_eef_pos"


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("hello"), "not an HDF5 file"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not an HDF5 file, or a damaged one"),
        (edited(lambda file: file.move("data", "dates")), "no 'data' in it"),
        (edited(lambda file: file["data/demo_3"].pop("actions")), "demo_3: no 'actions' in it"),
        (replaced("rewards", lambda values: values[:-1]), "demo_3/rewards: shape"),
        (replaced(PICTURES, lambda values: values / 255), "demo_3/frames/agentview_image: float64"),
        (replaced(PICTURES, lambda values: values.transpose(0, 3, 1, 2)), "channels come first"),
        (replaced(PICTURES, lambda values: values[:, :16, :16]), "demo_3/frames/agentview_image: shape"),
        (replaced("actions", with_nan), "demo_3/actions[1, 0] is nan"),
        (replaced(POSE, with_nan), "demo_3/frames/robot0_eef_pos[1, 0] is nan"),
        (replaced("actions", lambda values: values * 5), "expected normalised actions (--actions min-max"),
    ],
)
def test_training_names_what_is_wrong_with_a_file(
    harm: Callable[[Path], None], expected: str, dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    harm(dots[0])
    code, said = pixelrl("train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, "--steps", 2)
    assert code == 1 and "task.hdf5" in said and expected in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_training_refuses_data_that_disagree_and_unknown_names(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    larger = write_dots(tmp_path / "larger.hdf5", "prior", 2, size=40)
    train = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run"]
    code, said = pixelrl(*train, "--prior", larger)
    assert code == 1 and "larger.hdf5: agentview_image is (40, 40, 3); expected (32, 32, 3)" in said
    code, said = pixelrl(*train, "--images", "wrist_image")
    assert code == 1 and "no 'wrist_image' among its pictures: agentview_image" in said
    code, said = pixelrl(*train, "--encoder", "huge")
    assert code == 1 and "no encoder 'huge', but: small, cog, drq" in said
    code, said = pixelrl("train", "quick_bs", "--task", dots[0], "--out", tmp_path / "run")
    assert code == 1 and "no recipe 'quick_bs'; did you mean quick_bc" in said
    code, said = pixelrl(*train, "--task-mask", "valid")
    assert code == 1 and "no 'mask' in it" in said
    assert not (tmp_path / "run").exists()


def test_training_takes_more_sources_globs_fractions_and_a_history(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    write_dots(tmp_path / "more" / "human.hdf5", "task", 4, seed=5, size=32)
    run = tmp_path / "run"
    command = [
        "train", "quick_cog", "--task", tmp_path / "t*.hdf5", "--task-fraction", 0.5, "--prior", tmp_path / "pri*.hdf5",
        "--task-share", 0.5, "--source", f"name=human,files={tmp_path}/**/hum*.hdf5,share=0.3,reward_scale=1",
        "--source", f"name=old,files={dots[1]},share=0.05,fraction=0.25,reward_scale=0,ends=dones", "--history", 2,
        "--memory", "cache", "--cache-dir", tmp_path / "caches", "--loader-threads", 2, "--out", run, *SMALL,
    ]  # fmt: skip
    code, said = pixelrl(*command, "--steps", 6)
    assert code == 0, said
    assert "of frames in a cache on disk (room: GPU none, RAM" in said
    assert len(list((tmp_path / "caches").iterdir())) == 3 and not list(tmp_path.glob("*.frames"))
    config = json.loads((run / "config.json").read_text())
    assert config["data"] == {
        "task": [str(dots[0])],
        "prior": [str(dots[1])],
        "human": [str(tmp_path / "more/human.hdf5")],
        "old": [str(dots[1])],
    }
    assert {name: rule["share"] for name, rule in config["sources"].items()} == pytest.approx(
        {"task": 0.5, "prior": 0.15, "human": 0.3, "old": 0.05}
    )
    assert config["sources"]["task"]["fraction"] == 0.5 and config["sources"]["old"]["ends"] == "dones"
    assert [rule["reward_scale"] for rule in config["sources"].values()] == [10, 0, 1, 0]
    assert config["spec"]["history"] == 2 and config["spec"]["images"]["agentview_image"] == [3, 32, 32]
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "time/data_wait" in header and "q/data@human" in header
    command[command.index("--source") + 1] = f"name=human,files={tmp_path}/**/hum*.hdf5,share=0.3,reward_scale=2"
    code, said = pixelrl(*command, "--steps", 8, "--resume")
    assert code == 1 and "was trained with source human: reward_scale = 1.0, not 2.0; --resume changes" in said
    code, said = pixelrl("export", run, "--out", tmp_path / "artefact")
    assert code == 0, said
    assert json.loads((tmp_path / "artefact/policy.json").read_text())["history"] == 2


def test_rules_of_the_task_reach_a_source_that_tells_none(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    labels, small = tmp_path / "labels.json", (*SMALL, "--steps", 1)
    train = ("train", "quick_cog", "--task", dots[0], "--source", f"name=human,files={dots[1]}", *small)
    code, said = pixelrl(*train, "--out", tmp_path / "run", "--task-reward", "last:1", "--task-dones", "last")
    assert code == 0 and "human: rewards sum to 0 in the files, 6 by its rule, 6 in the steps" in said, said
    labels.write_text(json.dumps({f"demo_{index}": 1 for index in range(6)}))
    code, said = pixelrl(*train, "--out", tmp_path / "other", "--task-reward", f"labels:{labels}")
    assert code == 1 and f"'demo_0' is of {dots[0]} and of {dots[1]}; expected" in said, said
    labels.write_text(json.dumps({f"{path.name}/demo_{index}": 1 for path in dots for index in range(6)}))
    code, said = pixelrl(*train, "--out", tmp_path / "other", "--task-reward", f"labels:{labels}")
    assert code == 0, said


def test_labels_are_found_from_any_folder(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    run, labels = tmp_path / "run", tmp_path / "labels.json"
    labels.write_text(json.dumps({f"demo_{index}": 1 for index in range(6)}))
    train = ("train", "quick_cog", "--task", dots[0], "--out", run, *SMALL, "--task-dones", "last", "--task-reward")
    assert pixelrl(*train, "labels:labels.json", "--steps", 2)[0] == 0
    config = json.loads((run / "config.json").read_text())
    assert config["sources"]["task"]["reward"] == f"labels:{labels}"
    monkeypatch.chdir(tmp_path / "elsewhere")
    for words in (("probe", run, "--rows", 8), ("distill", run, "--out", tmp_path / "student", "--steps", 1)):
        code, said = pixelrl(*words)
        assert code == 0, said
    code, said = pixelrl(*train, "labels:../labels.json", "--steps", 4, "--resume")
    assert code == 0 and "going on from step 2" in said, said
    monkeypatch.chdir(tmp_path)
    config["sources"]["task"]["reward"] = "labels:labels.json"  # as an older run has it
    (run / "config.json").write_text(json.dumps(config))
    assert pixelrl("probe", run, "--rows", 8)[0] == 0
    code, said = pixelrl(*train, "labels:labels.json", "--steps", 6, "--resume")
    assert code == 0 and "going on from step 4" in said, said
    code, said = pixelrl(*train, "last:1", "--steps", 8, "--resume")
    assert code == 1 and "was trained with source task: reward = labels:/" in said and "not last:1" in said, said


def test_wrong_data_options_are_refused(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    train = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", "--device", "cpu"]
    for words, expected in (
        (("--source", "name=a,file=b.h5"), "'file=b.h5' is not KEY=VALUE with KEY one of name, files"),
        (("--source", f"name=task,files={dots[1]}"), "named ['task', 'task']; expected one or more, with different"),
        (("--source", f"name=a,files={dots[1]},share=0.3"), "shares are task: None, a: 0.3"),
        (("--prior", dots[1], "--task-share", 0.7, "--source", f"name=a,files={dots[1]},share=0.3"), "nothing is left"),
        (("--prior", tmp_path / "*.h5"), "source 'prior': no file matches"),
        (("--task-fraction", 0), "source 'task': fraction is 0.0; expected above 0 and at most 1"),
        (("--memory", "gpu"), "--memory gpu: the learner's device is cpu"),
        (("--history", 0), "history is 0; it must be at least 1 frame"),
        (("--loader-threads", -1), "--loader-threads and --snapshot-every at least 0"),
    ):
        code, said = pixelrl(*train, *words)
        assert code == 1 and expected in said and "Traceback" not in said, said
    assert not (tmp_path / "run").exists()


def test_two_armed_recordings_of_both_orders_are_not_mixed(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    """robosuite 1.4 gave a two-armed robot's grippers their place after each arm, 1.5 at the end."""
    data = ("--task", dots[0], "--prior", dots[1])
    for version, robots in (("1.4.1", ["Baxter"]), ("1.5.2", ["Baxter"]), ("1.4.1", ["Panda", "Panda"])):
        for path, each in zip(dots, (version, "1.5.2"), strict=True):
            about = {"env_name": "TwoArmLift", "type": 1, "env_version": each, "env_kwargs": {"robots": robots}}
            with h5py.File(path, "r+") as file:
                file["data"].attrs["env_args"] = json.dumps(about)
        mixed = version == "1.4.1" and robots == ["Baxter"]
        words = ("quick_bc", *data, "--out", tmp_path / f"{version}{len(robots)}", "--steps", 1, *SMALL[:2])
        code, said = pixelrl("train", *words)
        assert (code, "a two-armed robot's actions are arms, grippers; expected arm, gripper" in said) == (mixed, mixed)
        code, said = pixelrl("inspect", *data, "--no-sheet")
        assert (code, "a two-armed robot's actions" in said) == (mixed, mixed)

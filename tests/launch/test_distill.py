"""`pixelrl distill` on a tiny world: what a student is, resume, cameras, DAgger, errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.launch.recipes import RECIPES, quick_iql
from pixelrl.launch.recipes.students import STUDENTS
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import HLGauss
from pixelrl.learning.interventions import HareTortoise, Intervention, PlasticityInjection, ReDo, Reset
from pixelrl.learning.policies import Acting
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.training.run_directory import read_networks
from tests import Pixelrl
from tests.dots import SMALL
from tests.launch.interruption import check_resume
from tests.launch.test_evaluate import ALLOWED, write_toy

TINY = ("--batch-size", "16", "--actor-hidden", "16", "--log-every", "5", "--device", "cpu")


@pytest.fixture
def teacher(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> Path:
    """Return a run of a few steps."""
    run = tmp_path / "teacher"
    command = ("train", "quick_cog", "--task", dots[0], "--prior", dots[1], "--out", run, "--steps", 4, *SMALL)
    assert pixelrl(*command)[0] == 0
    return run


def test_student_is_an_ordinary_run_with_a_smaller_policy(teacher: Path, tmp_path: Path, pixelrl: Pixelrl) -> None:
    out = tmp_path / "student"
    code, said = pixelrl("distill", teacher, "--recipe", "small", "--out", out, "--steps", 6, *TINY)
    assert code == 0, said
    config, first = (json.loads((run / "config.json").read_text()) for run in (out, teacher))
    assert config["recipe"]["actor"] == [{"is": "Distillation", "weight": 1.0, "loss": "squared_error"}]
    assert config["data"] == first["data"] and config["sources"] == first["sources"]
    assert config["teacher"]["run"] == str(teacher) and config["teacher"]["step"] == 4
    assert "distillation/sign_flips" in (out / "metrics.csv").read_text()
    sizes = [sum(p.numel() for p in read_networks(run)[1].actor.parameters()) for run in (out, teacher)]
    assert sizes[0] < sizes[1] + sum(p.numel() for p in read_networks(teacher)[1].critic.encoders.parameters())
    assert pixelrl("export", out, "--out", tmp_path / "artefact")[0] == 0


def test_student_learns_what_its_teacher_does(teacher: Path, tmp_path: Path, pixelrl: Pixelrl) -> None:
    out = tmp_path / "student"
    command = ("distill", teacher, "--recipe", "same", "--out", out, "--steps", 60, "--actor-lr", 3e-3)
    assert pixelrl(*command, *TINY, "--shift", 0)[0] == 0
    rows = [line.split(",") for line in (out / "metrics.csv").read_text().splitlines()]
    losses = [float(row[rows[0].index("actor/distillation")]) for row in rows[1:]]
    assert losses[-1] < 0.2 * losses[0]


def test_interrupted_student_resumes_to_the_same_weights_and_only_under_its_teacher(
    teacher: Path, tmp_path: Path, pixelrl: Pixelrl
) -> None:
    command = ["distill", teacher, "--steps", 8, "--weight-bits", 4, *TINY]
    check_resume(pixelrl, command, tmp_path, 5)
    command[1] = tmp_path / "whole"
    code, said = pixelrl(*command, "--out", tmp_path / "parts", "--resume")
    assert code == 1 and "was taught by" in said and "whole" in said


def two_cameras(path: Path) -> Path:
    """Write a few episodes of noise."""
    random = np.random.default_rng(0)
    episodes = [
        Episode(
            sensors={key: random.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8) for key in ("a_image", "b_image")},
            actions=random.uniform(-1, 1, (5, 2)).astype(np.float32),
            rewards=np.zeros(5, np.float32),
            dones=np.zeros(5, bool),
        )
        for _ in range(3)
    ]
    write_episodes(path, episodes, env_args={"env_name": "x", "type": 2, "env_kwargs": {}}, action_dims=unnamed_dims(2))
    return path


def test_student_may_have_a_camera_less_than_its_teacher(tmp_path: Path, pixelrl: Pixelrl) -> None:
    data, run, out = two_cameras(tmp_path / "data.hdf5"), tmp_path / "run", tmp_path / "student"
    assert pixelrl("train", "quick_bc", "--task", data, "--out", run, "--steps", 2, *TINY)[0] == 0
    code, said = pixelrl("distill", run, "--out", out, "--steps", 2, *TINY, "--images", "b_image")
    assert code == 0, said
    assert list(read_networks(out)[0].spec.images) == ["b_image"]
    code, said = pixelrl("distill", run, "--out", tmp_path / "x", "--steps", 2, *TINY, "--images", "c_image")
    assert code == 1 and "--images c_image: the teacher has no such camera, but a_image, b_image" in said


def test_first_student_plays_and_the_second_learns_on_what_it_saw(tmp_path: Path, pixelrl: Pixelrl) -> None:
    data, run, out = tmp_path / "data.hdf5", tmp_path / "run", tmp_path / "student"
    write_toy(data)
    assert pixelrl("train", "quick_bc", "--task", data, "--out", run, "--steps", 4, *TINY)[0] == 0
    command = ("distill", run, "--out", out, "--steps", 4, "--dagger", 2, "--workers", 1, *ALLOWED, *TINY)
    code, said = pixelrl(*command)
    assert code == 0 and "of 2 episodes succeed" in said, said
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["dagger"] == [str(out / "dagger2.hdf5")] and config["teacher"]["dagger"] == 2
    assert json.loads((out / "first/training.json").read_text())["steps"] == 2
    with h5py.File(out / "dagger2.hdf5") as file:
        assert len(file["data"]) == 2 and len(file["data/demo_0/actions"]) > 0
        assert file["data/demo_0/obs/pixels_front_image"].shape[1:] == (32, 48, 3)
    code, said = pixelrl(*command)
    assert code == 1 and "holds a run already" in said
    code, said = pixelrl(*command, "--resume")
    assert code == 0 and "going on from step 4" in said and "episodes succeed" not in said  # nothing is played again


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--recipe=tiny",), "--recipe: there is no student 'tiny', but: small, narrow, same"),
        (("--history", "2"), "--history 2: the teacher's is 1, and a student's must be the same"),
        (("--data", "gone.hdf5"), "gone.hdf5: the teacher was trained on it and it is gone"),
        (("--step", "3"), "3.safetensors: there is no such checkpoint; --snapshot-every keeps snapshots of more steps"),
        (("--dagger", "-1"), "--dagger -1: expected 1 or more episodes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], complaint: str, teacher: Path, tmp_path: Path, pixelrl: Pixelrl
) -> None:
    code, said = pixelrl("distill", teacher, "--out", tmp_path / "out", "--steps", 2, *TINY, *words)
    assert code == 1 and complaint in said, said


def test_student_of_another_seed_is_not_shown_other_demos(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    run, small = tmp_path / "half", (*SMALL, "--steps", 2)
    assert pixelrl("train", "quick_bc", "--task", dots[0], "--task-fraction", 0.5, "--out", run, *small)[0] == 0
    command = ("distill", run, "--out", tmp_path / "out", "--steps", 2, *TINY)
    code, said = pixelrl(*command, "--seed", 1)
    assert (
        code == 1 and "--seed 1: the teacher's data are a part of source task, drawn by its seed; give --seed 0" in said
    )
    assert pixelrl(*command)[0] == 0
    code, said = pixelrl("probe", tmp_path / "out", "--rows", 16)  # whose teacher is not at hand
    assert code == 0 and "policy/distance" in said, said


def test_what_is_no_run_is_refused(tmp_path: Path, pixelrl: Pixelrl) -> None:
    code, said = pixelrl("distill", tmp_path, "--out", tmp_path / "out")
    assert code == 1 and "not a run of `pixelrl train`: it has no config.json" in said
    code, said = pixelrl("distill", "--help")
    assert code == 0 and "--dagger" in said and "--weight-bits" in said


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_students(name: str) -> None:
    for make in STUDENTS.values():
        student = make(RECIPES[name]())
        assert student.chunk == RECIPES[name]().chunk and not student.critic


@pytest.mark.parametrize("make", STUDENTS.values(), ids=STUDENTS)
def test_what_only_critics_and_value_networks_can_have_is_left_to_the_teacher(make: Callable[[Recipe], Recipe]) -> None:
    for intervention in (PlasticityInjection(at=1), ReDo(), Reset(), HareTortoise()):
        teacher = replace(quick_iql(), value_lr=1e-4, intervention=intervention, acting=Acting(kind="best"))
        student = make(replace(teacher, backup=Backup(action="value"), form=HLGauss(), gradient_noise=0.1))
        assert student.value_lr is None and student.intervention == Intervention()


def test_run_with_a_rate_for_its_value_network_has_students(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    run, small = tmp_path / "run", (*SMALL, "--steps", 2, "--value-lr", 1e-4)
    assert pixelrl("train", "quick_iql", "--task", dots[0], "--out", run, "--device", "cpu", *small)[0] == 0
    code, said = pixelrl("distill", run, "--out", tmp_path / "student", "--steps", 2, *TINY)
    assert code == 0, said

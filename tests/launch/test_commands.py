"""The commands, as a user types them, on a tiny world."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from pixelrl.launch.commands.demo import Demo, DemoSize
from pixelrl.launch.loaded_policy import LoadedPolicy, environment_for, in_environment_units
from pixelrl.learning.learner import Learner
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import exclusive_directory
from pixelrl.runtime.interfaces import Sensors
from pixelrl.training import loop
from pixelrl.training.loop import Report
from tests.dots import write_dots

Pixelrl = Callable[..., tuple[int, str]]
SMALL = ("--batch-size", "16", "--critic-hidden", "16", "8", "--actor-hidden", "16", "--log-every", "5")


@pytest.fixture
def dots(tmp_path: Path) -> tuple[Path, Path]:
    """Return a task file and a prior file of a world that takes no simulator."""
    return write_dots(tmp_path / "task.hdf5", "task", 6, size=32), write_dots(
        tmp_path / "prior.hdf5", "prior", 6, size=32
    )


def test_demo_runs_the_whole_job_and_repeats_nothing(tmp_path: Path) -> None:
    size = DemoSize(prior=4, task=4, episodes=2, videos=1, curve_episodes=1)
    demo = Demo(out=tmp_path, seed=3, workers=2, recipes=("quick_cog_dr3",), steps=12, curve=12, size=size)
    demo()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary["policies"]) == {"quick_cog_dr3", "export"}
    assert summary["policies"]["export"]["parity"]["data"]["normalised"] <= 1e-4
    assert summary["policies"]["quick_cog_dr3"]["measured"]["srank"] >= 1
    assert summary["policies"]["export"]["against_baseline"].keys() == {"won", "lost", "p"}
    assert summary["data"]["task"]["held_at_start"] == 4 and summary["data"]["prior"]["held_at_start"] == 0
    assert summary["data"]["prior"]["whole_task"] == summary["data"]["task"]["whole_task"] == 0
    assert (tmp_path / "summary.png").stat().st_size > 0
    (point,) = summary["curves"]["quick_cog_dr3"]
    assert point["step"] == 12 and point["episodes"] == 1
    for part, episodes in (("prior", 4), ("task", 4)):
        assert summary["data"][part]["episodes"] == episodes
    for made in ("evaluation.mp4", "evaluation.png", "evaluation.json", "training.json", "last.safetensors"):
        assert (tmp_path / "runs/quick_cog_dr3" / made).stat().st_size > 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.stem != "summary"}
    demo()
    again = json.loads((tmp_path / "summary.json").read_text())
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.stem != "summary"}
    assert {path: time for path, time in after.items() if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }
    assert again["policies"] == summary["policies"]
    with pytest.raises(Exception, match="choose another --out"):
        replace(demo, seed=4)()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "drawer"), "--task.*'drawer'.*drawer-grasp"),
        (("--recipes", "cogg"), "--recipes.*'cogg'.*quick_cog"),
        (("--task", "drawer-grasp", "--distractor"), "--distractor: only pick-place-tray"),
        (("--steps", "0"), "--steps 1 at least"),
    ],
)
def test_a_demo_that_cannot_be_is_told_why(
    tmp_path: Path, pixelrl: Pixelrl, words: tuple[str, ...], message: str
) -> None:
    code, said = pixelrl("demo", "--out", tmp_path / "demo", *words)
    assert code == 1 and re.search(message, said), said
    assert not list(tmp_path.iterdir())


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
        "is": "DR3", "weight": 0.5, "site": "last_hidden", "stop_gradient": False,
    }  # fmt: skip
    assert config["data"] == {"task": [str(task)], "prior": [str(prior)]}
    record = json.loads((run / "training.json").read_text())
    assert record["steps"] == 10 and record["seeds"] == {"seed": 0}
    assert record["command"][:3] == ["pixelrl", "train", "quick_cog_dr3"]
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert "features/srank" in header and "q/data@prior" in header
    assert list((run / "tensorboard").iterdir())


def test_a_run_is_never_overwritten_and_resumes_only_as_itself(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    command = ["train", "quick_cog", "--task", dots[0], "--prior", dots[1], "--out", tmp_path / "run", *SMALL]
    assert pixelrl(*command, "--steps", 4)[0] == 0
    code, said = pixelrl(*command, "--steps", 4)
    assert code == 1 and "add --resume" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume", "--gamma", 0.5)
    assert code == 1 and "was trained with gamma = 0.95, not 0.5" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume", "--proprio")
    assert code == 1 and "was trained with proprio" in said
    code, said = pixelrl(*command[:3], dots[1], dots[0], *command[4:], "--steps", 8, "--resume")
    assert code == 1 and "was trained on other data" in said
    code, said = pixelrl(*command, "--steps", 8, "--resume")
    assert code == 0 and "going on from step 4" in said
    assert json.loads((tmp_path / "run/training.json").read_text())["steps"] == 8


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


def test_paths_with_markup_are_printed_as_they_are(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    run, artefact = tmp_path / "runs [bold] :smile:" / "a", tmp_path / "artefacts [red]x[/red] [/y]" / "a"
    command = ["train", "quick_bc", "--task", dots[0], "--out", run, *SMALL, "--steps", 2]
    code, said = pixelrl(*command, "--resume")
    assert code == 0 and f"{run}: nothing to resume" in said
    code, said = pixelrl("export", run, "--out", artefact)
    assert code == 0 and f"{artefact}: acts as {run} at step 2" in said
    code, said = pixelrl(*command)
    assert code == 1 and f"{run}: holds a run already" in said


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_cog_dr3", "--task", dots[0], "--prior", dots[1], *SMALL, "--steps", 12]
    assert pixelrl(*command, "--out", tmp_path / "whole")[0] == 0
    steps = loop.train

    def interrupted(*args: object, **options: object) -> Iterator[Report]:
        for report in steps(*args, **options):  # type: ignore[arg-type]
            if report.step == 7:
                signal.raise_signal(signal.SIGINT)  # as Ctrl-C does, in the middle of things
            yield report

    monkeypatch.setattr(loop, "train", interrupted)
    code, said = pixelrl(*command, "--out", tmp_path / "parts")
    assert code == 130 and "kept at step 7" in said
    monkeypatch.setattr(loop, "train", steps)
    assert pixelrl(*command, "--out", tmp_path / "parts", "--resume")[0] == 0
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        np.testing.assert_array_equal(value, parts[key], err_msg=key)


def test_the_number_of_threads_is_kept_for_a_resumed_run(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL]
    assert pixelrl(*command, "--steps", 2)[0] == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == 1  # OMP_NUM_THREADS of these tests
    settled: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", settled.append)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    for options, threads in (((), 1), (("--threads", 2), 2), (("--threads", "auto"), 2)):
        assert pixelrl(*command, "--steps", 2, "--resume", *options)[0] == 0
        assert json.loads((tmp_path / "run/config.json").read_text())["threads"] == threads
    assert settled == [1, 2, 2]
    code, said = pixelrl(*command, "--steps", 2, "--resume", "--threads", 0)
    assert code == 1 and "--threads is 0; it must be auto or at least 1" in said


def test_values_that_explode_end_a_run_in_one_line_that_tells_where_to_go_back_to(
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


def test_an_interrupted_run_keeps_nothing_that_has_gone_wrong(
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


def test_a_profile_tells_where_time_goes_and_trains_nothing(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    run = tmp_path / "run"
    code, said = pixelrl("train", "quick_cog_dr3", "--task", dots[0], "--out", run, *SMALL, "--profile")
    assert code == 0, said
    assert "backward critic" in said and "The learner waits for its batch in" in said
    assert sorted(path.name for path in run.iterdir()) == ["profile.json", "trace.json.gz"]


def test_a_run_that_was_only_pictures_knows_its_data_too(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    run = tmp_path / "run"
    command = ["train", "quick_cog", "--out", run, *SMALL, "--proprio", "--steps"]
    assert pixelrl(*command, 6, "--task", dots[0])[0] == 0
    other = write_dots(tmp_path / "other.hdf5", "task", 6, seed=1, size=32)
    code, said = pixelrl(*command, 8, "--task", other, "--resume")
    assert code == 1 and "was trained on other data" in said
    code, said = pixelrl(*command, 3, "--task", dots[0], "--resume")
    assert code == 1 and "has done 6 steps already" in said
    assert json.loads((run / "config.json").read_text())["recipe"]["steps"] == 6


def test_a_full_disk_ends_in_one_line_and_spares_what_was_there(
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


def test_an_error_that_nobody_foresaw_shows_its_traceback_only_on_demand(
    dots: tuple[Path, Path], pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("pixelrl.launch.commands.inspect.inspect", broken)
    code, said = pixelrl("inspect", dots[0])
    assert code == 1 and "unexpected KeyError: 'surprise' (--debug shows where)" in said and "Traceback" not in said
    with pytest.raises(KeyError, match="surprise"):
        pixelrl("inspect", dots[0], "--debug")


def test_data_without_reward_are_refused_by_a_critic(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    with h5py.File(dots[0], "r+") as file:
        for demonstration in file["data"].values():
            demonstration["rewards"][...] = 0
    code, said = pixelrl("train", "quick_cog", "--task", dots[0], "--out", tmp_path / "run", "--steps", 2)
    assert code == 1 and "no transition of the task data has a reward" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("evaluate", "nowhere"), "nowhere: not a run"),
        (("export", "nowhere", "--out", "x"), "nowhere: not a run"),
        (("collect", "pick-place-trya", "prior", "--out", "x.hdf5"), "pick-place-tray"),
        (("collect", "pick-place-tray", "prayer", "--out", "x.hdf5", "--episodes", "1"), "prior"),
        (("inspect", "nothing.hdf5"), "nothing.hdf5"),
        (("train", "quick_bc", "--task", "nothing.hdf5", "--out", "x"), "nothing.hdf5"),
    ],
)
def test_bad_input_gets_one_clear_line(
    words: tuple[str, ...], expected: str, tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = pixelrl(*words)
    assert code == 1 and expected in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def edited(edit: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return harm


def replaced(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def edit(file: h5py.File) -> None:
        value = change(file[f"data/demo_3/{key}"][()])
        del file[f"data/demo_3/{key}"]
        file[f"data/demo_3/{key}"] = value

    return edited(edit)


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
def test_training_tells_what_is_wrong_with_a_file(
    harm: Callable[[Path], None], expected: str, dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    harm(dots[0])
    code, said = pixelrl("train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", *SMALL, "--steps", 2)
    assert code == 1 and "task.hdf5" in said and expected in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_data_that_disagree_and_names_that_are_unknown(
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
    assert code == 1 and "no recipe 'quick_bs', but: quick_cog_dr3" in said
    code, said = pixelrl(*train, "--task-mask", "valid")
    assert code == 1 and "no 'mask' in it" in said
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_chosen_by_name(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    code, said = pixelrl(
        "train", "quick_bc", "--task", dots[0], "--out", tmp_path / "run", "--encoder", "cog", *SMALL,
        "--encoder.channels", 4, "--steps", 2,
    )  # fmt: skip
    assert code == 0, said
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["recipe"]["encoder"] == {"is": "CogCNN", "channels": 4}


def test_inspect_looks_at_a_file_and_writes_beside_it(dots: tuple[Path, Path], pixelrl: Pixelrl) -> None:
    code, said = pixelrl("inspect", *dots)
    assert code == 0 and "task.hdf5" in said and "prior.hdf5" in said
    for path in dots:
        assert path.with_suffix(".inspection.png").stat().st_size > 0
        assert json.loads(path.with_suffix(".inspection.json").read_text())["demos"] == 6


def test_an_environment_draws_what_the_policy_takes() -> None:
    pictures = {"agentview_image": (60, 80), "robot0_eye_in_hand_image": (48, 48)}
    recorded = {"env_name": "Stack", "type": 1, "env_kwargs": {"camera_names": "frontview", "control_freq": 10}}
    loaded = LoadedPolicy(policy=lambda sensors: None, env_args=recorded, pictures=pictures, action=(), origin={})  # type: ignore[arg-type,return-value]
    found = environment_for(loaded, None)
    assert found["env_kwargs"].pop("use_camera_obs") is True
    cameras = {
        "camera_names": ["agentview", "robot0_eye_in_hand"],
        "camera_heights": [60, 48],
        "camera_widths": [80, 48],
    }
    assert found == {"env_name": "Stack", "type": 1, "env_kwargs": {**cameras, "control_freq": 10}}
    assert recorded["env_kwargs"] == {"camera_names": "frontview", "control_freq": 10}
    assert environment_for(loaded, None, {"control_freq": 20})["env_kwargs"]["control_freq"] == 20
    by_name = environment_for(replace(loaded, env_args={}), "Lift")
    assert by_name["env_name"] == "Lift" and cameras.items() <= by_name["env_kwargs"].items()
    with pytest.raises(PixelrlError, match="name one, say --env Lift"):
        environment_for(replace(loaded, env_args={}), None)
    with pytest.raises(PixelrlError, match="rgb: not a camera"):
        environment_for(replace(loaded, pictures={"rgb": (48, 48)}), None)


def test_actions_are_translated_between_data_and_environment() -> None:
    # The data's 1 is 2 cm, the environment's 1 is 5 cm: full speed in the data is 0.4 in the environment.
    def full_speed(sensors: Sensors) -> np.ndarray:
        return np.array([[1.0], [-0.5]], np.float32)

    data = ActionDim(name="dx", low=-0.02, high=0.02, unit="m")
    robot = ActionDim(name="dx", low=-0.05, high=0.05, unit="m")
    loaded = LoadedPolicy(policy=full_speed, env_args={}, pictures={}, action=(data,), origin={})
    np.testing.assert_allclose(in_environment_units((robot,), loaded)({}), [[0.4], [-0.2]], atol=1e-6)
    assert in_environment_units((data,), loaded) is full_speed
    nameless = replace(loaded, action=(ActionDim(name="action_0"),))
    assert in_environment_units((robot,), nameless) is full_speed  # nobody knows better than the recorded action itself
    with pytest.raises(Exception, match="gives 1 actions and its environment takes 2"):
        in_environment_units((robot, robot), loaded)


def test_more_sources_and_globs_and_fractions_and_a_history(
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
    assert "of frames in a cache on disk, as asked (room: GPU none, RAM" in said
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


def test_memory_and_threads_change_nothing_that_is_learned(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
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


def test_data_options_that_cannot_be(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
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
        (("--loader-threads", -1), "--loader-threads at least 0"),
    ):
        code, said = pixelrl(*train, *words)
        assert code == 1 and expected in said and "Traceback" not in said, said
    assert not (tmp_path / "run").exists()

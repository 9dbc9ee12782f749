"""Data sets that call their cameras and sensors otherwise, joined by one command."""

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from pixelrl.runtime.files import sha256_of
from tests import Pixelrl
from tests.dots import CAMERA, POSITION, SMALL

OTHER = {CAMERA: "zz_rgb", POSITION: "a.pos"}
RENAME = [f"{theirs}={ours}" for ours, theirs in OTHER.items()]


def with_other_names(path: Path, names: Mapping[str, str], *, plain: bool) -> Path:
    """Write a file again with other names for its sensors; plain: as robomimic does, without `frames`."""
    target = path.with_name(f"other_{path.name}")
    with h5py.File(path) as file, h5py.File(target, "w") as other:
        other.create_group("data").attrs.update(file["data"].attrs)
        for name, demo in file["data"].items():
            to = other.create_group(f"data/{name}")
            to.attrs.update(demo.attrs)
            for key in ("actions", "rewards", "dones"):
                to[key] = demo[key][()]
            for key, new in names.items():
                frames = demo[f"frames/{key}"][()]
                if plain:
                    to[f"obs/{new}"], to[f"next_obs/{new}"] = frames[:-1], frames[1:]
                else:
                    to[f"frames/{new}"] = frames
    return target


def trained(pixelrl: Pixelrl, out: Path, *words: object) -> str:
    code, said = pixelrl("train", "quick_cog_dr3", *words, "--out", out, *SMALL, "--device", "cpu")
    assert code == 0, said
    return said


@pytest.mark.parametrize("memory", ["ram", "file", "cache"])
@pytest.mark.parametrize("plain", [False, True])
def test_renamed_sources_train_the_very_policy_of_the_same_data(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, memory: str, plain: bool
) -> None:
    task, prior = dots
    other = with_other_names(prior, OTHER, plain=plain)
    steps = ("--steps", 4, "--memory", memory)
    trained(pixelrl, tmp_path / "one", "--task", task, "--prior", prior, *steps)
    said = trained(pixelrl, tmp_path / "two", "--task", task, "--prior", other, "--prior-rename", *RENAME, *steps)
    assert f"prior: renamed: zz_rgb is {CAMERA}, a.pos is {POSITION}" in said
    assert f"learned from: {CAMERA}, {POSITION}" in said
    runs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "two")]
    assert runs[0]["fingerprint"] == runs[1]["fingerprint"] and runs[0]["spec"] == runs[1]["spec"]
    assert runs[1]["sources"]["prior"]["rename"] == {"zz_rgb": CAMERA, "a.pos": POSITION}
    assert "rename" not in runs[0]["sources"]["prior"]
    weights = [np.fromfile(tmp_path / name / "last.safetensors", np.uint8)[-1000:] for name in ("one", "two")]
    assert (weights[0] == weights[1]).all()


def test_what_is_renamed_is_resumed_probed_viewed_and_exported_by_its_new_name(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    task, prior = dots
    other, run = with_other_names(task, OTHER, plain=True), tmp_path / "run"
    sources = ("--task", other, "--task-rename", *RENAME, "--prior", prior)
    trained(pixelrl, run, *sources, "--steps", 2)
    before = sha256_of(run / "last.safetensors")
    trained(pixelrl, run, *sources, "--steps", 4, "--resume")
    assert sha256_of(run / "last.safetensors") != before
    assert pixelrl("probe", run, "--rows", 8)[0] == 0
    for words in ((), ("--rename", *RENAME)):
        code, said = pixelrl("view", other, "--run", run, "--count", 1, "--out", tmp_path / "v.html", *words)
        assert code == 0 and CAMERA in (tmp_path / "v.html").read_text(), said
    pytest.importorskip("onnx")
    code, said = pixelrl("export", run, "--out", tmp_path / "artefact")
    assert code == 0, said
    contract = (tmp_path / "artefact" / "policy.json").read_text()
    assert CAMERA in contract and "zz_rgb" not in contract
    swapped = with_other_names(task, {CAMERA: "zz_rgb", POSITION: POSITION}, plain=True)
    words = ("--task", swapped, "--task-rename", RENAME[0], "--prior", prior, "--out", run, *SMALL, "--resume")
    code, said = pixelrl("train", "quick_cog_dr3", *words, "--steps", 6)
    assert code == 1 and "was trained with source task: rename" in said


def test_run_goes_on_with_pictures_of_the_same_names_only(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    run = tmp_path / "run"
    trained(pixelrl, run, "--task", dots[0], "--steps", 1)
    renamed = with_other_names(dots[0], OTHER, plain=True)
    words = ("--task", renamed, "--out", run, *SMALL, "--resume", "--steps", 2)
    code, said = pixelrl("train", "quick_cog_dr3", *words)
    assert code == 1 and f"was trained on images {CAMERA}, not zz_rgb" in said


def test_a_source_renames_too(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    task, prior = dots
    other = with_other_names(prior, OTHER, plain=True)
    rules = ",".join(f"rename={each}" for each in RENAME)
    said = trained(
        pixelrl,
        tmp_path / "run",
        *("--task", task, "--source", f"name=more,files={other},reward_scale=0,{rules}", "--steps", 1),
    )
    assert f"more: renamed: zz_rgb is {CAMERA}" in said


def test_two_cameras_may_be_exchanged(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    for path in dots:
        with h5py.File(path, "r+") as file:
            for demo in file["data"].values():
                demo["frames/wrist_image"] = demo[f"frames/{CAMERA}"][()] // 2
    other = with_other_names(dots[0], {CAMERA: "wrist_image", "wrist_image": CAMERA, POSITION: POSITION}, plain=True)
    exchange = (f"{CAMERA}=wrist_image", f"wrist_image={CAMERA}")
    task = ("--task", dots[0], "--prior", dots[1], "--steps", 1)
    trained(pixelrl, tmp_path / "one", *task)
    trained(pixelrl, tmp_path / "two", "--task", other, *task[2:], "--task-rename", *exchange)
    runs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "two")]
    assert runs[0]["fingerprint"] == runs[1]["fingerprint"]
    said = trained(  # the same file as two sources, which see it by other names
        pixelrl,
        tmp_path / "three",
        *("--task", dots[0], "--prior", dots[0], "--prior-rename", *exchange, "--steps", 1, "--memory", "ram"),
    )
    assert f"prior: renamed: {CAMERA} is wrist_image, wrist_image is {CAMERA}" in said


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (("front=agentview_image",), "no 'front' to rename; expected one of agentview_image, robot0_eef_pos"),
        (("agentview_image=robot0_eef_pos",), "'agentview_image' and 'robot0_eef_pos' would both be named"),
        (("agentview_image",), "--task-rename agentview_image: expected OLD=NEW"),
        (
            ("agentview_image=a", "agentview_image=b"),
            "--task-rename agentview_image=b: expected OLD=NEW, each name once",
        ),
        (("agentview_image=a", "robot0_eef_pos=a"), "--task-rename robot0_eef_pos=a: expected OLD=NEW, each name once"),
        (("agentview_image=a/b",), "no '/' in NEW"),
        (("agentview_image=other",), "other is missing; expected (32, 32, 3), as in"),
    ],
)
def test_rules_that_cannot_be_are_one_line_of_train_and_of_inspect(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl, rename: tuple[str, ...], message: str
) -> None:
    data = ("--task", dots[0], "--task-rename", *rename, "--prior", dots[1])
    code, said = pixelrl("train", "quick_cog_dr3", *data, "--out", tmp_path / "run", *SMALL)
    assert code == 1 and message in said and not (tmp_path / "run").exists()
    code, said = pixelrl("inspect", *data, "--no-sheet")
    assert code == 1 and message in said, said


def test_renaming_without_prior_data_is_refused(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    words = ("--task", dots[0], "--prior-rename", "a=b", "--out", tmp_path / "run")
    code, said = pixelrl("train", "quick_cog_dr3", *words)
    assert code == 1 and "--prior-rename a=b: there are no prior data" in said


def test_inspect_compares_and_tells_by_new_names(dots: tuple[Path, Path], pixelrl: Pixelrl) -> None:
    task, prior = dots
    other = with_other_names(prior, OTHER, plain=True)
    with h5py.File(other, "r+") as file:
        for demo in file["data"].values():
            demo["obs/object"] = np.zeros((len(demo["actions"]), 3))
    code, said = pixelrl("inspect", "--task", task, "--prior", other, "--no-sheet")
    assert code == 1 and "fix: --task-rename or --prior-rename OLD=NEW where" in said, said
    code, said = pixelrl("inspect", "--task", task, "--prior", other, "--prior-rename", *RENAME, "--no-sheet")
    assert code == 0 and f"prior: renamed: zz_rgb is {CAMERA}, a.pos is {POSITION}" in said, said
    assert "not learned from: object of prior (what the simulator knows" in said
    code, said = pixelrl("inspect", other, "--task-rename", *RENAME, "--no-sheet")
    assert code == 0 and f"{other.name}: renamed: zz_rgb is {CAMERA}" in said, said


def test_rewards_that_a_rule_gives_need_not_be_in_the_file(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    """IsaacLab and ALOHA record none; prior data need none: `inspect` says what `train` does."""
    for path in dots:
        with h5py.File(path, "r+") as file:
            for demo in file["data"].values():
                del demo["rewards"], demo["dones"]
    data, rules = ("--task", dots[0], "--prior", dots[1]), "--task-reward last:1 --task-dones last"
    code, said = pixelrl("inspect", *data, "--no-sheet")
    assert code == 1 and "rewards" in said
    code, said = pixelrl("inspect", *data, "--recipe", f"quick_cog_dr3 {rules}")
    assert code == 0 and "never positive" not in said, said
    assert (tmp_path / "task.inspection.png").is_file()
    trained(pixelrl, tmp_path / "run", *data, *rules.split(), "--steps", 1)
    pytest.importorskip("onnx")
    assert pixelrl("export", tmp_path / "run", "--out", tmp_path / "artefact")[0] == 0


def test_keys_that_are_not_asked_for_need_not_fit(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    with h5py.File(dots[1], "r+") as file:
        for demo in file["data"].values():
            demo["frames/extra"] = np.zeros((len(demo["actions"]) + 1, 3), np.float32)
    data, chosen = ("--task", dots[0], "--prior", dots[1]), ("--proprio", POSITION)
    trained(pixelrl, tmp_path / "run", *data, *chosen, "--steps", 1)
    assert pixelrl("inspect", *data, "--no-sheet")[0] == 1
    code, said = pixelrl("inspect", *data, "--no-sheet", "--recipe", f"quick_cog_dr3 --proprio {POSITION}")
    assert code == 0 and "not learned from: extra of prior (not asked for)" in said, said


def test_vectors_keep_their_order_whatever_the_file_does(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    """A file that remembers the order in which its members were made used to mix vectors up with those of others."""
    for index, path in enumerate(dots):
        with h5py.File(path, "r+", track_order=True) as file:
            for demo in file["data"].values():
                rows = len(demo["actions"]) + 1
                held = {key: demo[f"frames/{key}"][()] for key in demo["frames"]}
                held["a"], held["z"] = np.full((rows, 1), 1, np.float32), np.full((rows, 1), 2, np.float32)
                del demo["frames"], demo["obs"], demo["next_obs"]
                frames = demo.create_group("frames", track_order=True)
                for key in sorted(held, reverse=bool(index)):
                    frames[key] = held[key]
    trained(pixelrl, tmp_path / "run", "--task", dots[0], "--prior", dots[1], "--steps", 1)
    spec = json.loads((tmp_path / "run" / "config.json").read_text())["spec"]
    assert list(spec["proprio"]) == ["a", POSITION, "z"]
    assert spec["proprio_mean"][0] == 1 and spec["proprio_mean"][3] == 2

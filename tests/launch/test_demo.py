"""`pixelrl demo`, as small as it gets."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pixelrl.launch.commands.demo import Demo, DemoSize, Stages
from tests import Pixelrl


def test_demo_runs_the_whole_job_and_repeats_nothing(tmp_path: Path) -> None:
    size = DemoSize(prior=4, task=4, episodes=2, videos=1, curve_episodes=1)
    demo = Demo(out=tmp_path, seed=3, workers=1, recipes=("quick_cog_dr3",), steps=12, curve=12, size=size)
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
        (("--env", "drawer"), "--env.*'drawer'.*drawer-grasp"),
        (("--recipes", "cogg"), "--recipes.*'cogg'.*did you mean cog"),
        (("--env", "drawer-grasp", "--distractor"), "--distractor: only pick-place-tray"),
        (("--steps", "0"), "--steps 1 at least"),
    ],
)
def test_demo_with_wrong_options_is_refused(
    tmp_path: Path, pixelrl: Pixelrl, words: tuple[str, ...], message: str
) -> None:
    code, said = pixelrl("demo", "--out", tmp_path / "demo", *words)
    assert code == 1 and re.search(message, said), said
    assert not list(tmp_path.iterdir())


def test_demo_with_a_distractor_ends_with_a_policy_that_can_hold_two_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: dict[bool, tuple[str, ...]] = {}
    monkeypatch.setattr(
        Stages, "run", lambda stages: planned.update({stages.options.distractor: stages.options.recipes})
    )
    for distractor in (False, True):
        Demo(out=tmp_path, distractor=distractor)()
    assert planned == {
        False: ("quick_bc", "quick_cog", "quick_cog_dr3"),
        True: ("quick_bc", "quick_cog_dr3", "quick_fql"),
    }
    Demo(out=tmp_path, distractor=True, recipes=("quick_bc",))()
    assert planned[True] == ("quick_bc",)

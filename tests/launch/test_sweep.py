"""A sweep and an evaluation's page, as a user asks for them, of a policy that has learned nothing."""

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixelrl.encoders.conv import CogCNN
from pixelrl.launch import sweep_cells
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.commands.sweep import Sweep
from pixelrl.launch.recipes import quick_cog
from pixelrl.launch.reports.sweep_page import view_path
from pixelrl.launch.sweep_cells import compare_cells, key_of
from pixelrl.learning.batch import Spec
from pixelrl.learning.build import build_networks
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.envs.robosuite_env import default_env_args
from pixelrl.simulation.evaluation.perturbations import Perturbation
from pixelrl.training.checkpoint import save_networks
from pixelrl.training.run_directory import Run, checkpoint_path, read_run

MOVES = tuple(ActionDim(name=axis, low=-0.05, high=0.05, unit="m") for axis in ("dx", "dy", "dz"))
SPEC = Spec(
    images={"agentview_image": (3, 48, 48)},
    proprio={},
    action=(*MOVES, ActionDim(name="gripper")),
    sources=("task",),
    proprio_mean=(),
    proprio_std=(),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the directory of a run whose task ends after 5 steps."""
    recipe = replace(quick_cog(), encoder=CogCNN(channels=2), critic_hidden=(16, 8), actor_hidden=(16,))
    env_args = default_env_args("pick-place-tray", horizon=5)
    whole = Run(recipe=recipe, spec=SPEC, data={}, fingerprint="", actions="unit", env_args=env_args)
    directory = tmp_path / "fresh"
    whole.write(directory)
    save_networks(checkpoint_path(directory), build_networks(recipe, SPEC), 0)
    return directory


def test_sweep_goes_on_and_grows_and_is_of_one_policy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(run=run, only=("blur",), levels=(2,), episodes=2, seed=0, workers=1)
    sweep()
    assert list(json.loads((run / "sweep.json").read_text())["cells"]) == ["unperturbed", "blur_2"]
    assert view_path(run, "unperturbed").read_bytes() != view_path(run, "blur_2").read_bytes()
    played: list[str] = []

    def play(cell: Perturbation, *others: Any, **options: Any) -> dict[str, Any]:
        played.append(key_of(cell))
        if cell.level == 2:
            raise KeyboardInterrupt
        view_path(run, key_of(cell)).write_bytes(view_path(run, "unperturbed").read_bytes())
        return {"perturbation": cell.name, "unit": cell.unit, "level": cell.level, "outcomes": [True, False]}

    monkeypatch.setattr(sweep_cells, "play_cell", play)
    for levels in ((1, 2), (1, 3)):
        with suppress(KeyboardInterrupt):
            replace(sweep, only=("action-delay",), levels=levels)()
    assert played == ["action-delay_1", "action-delay_2", "action-delay_3"], "a cell was played twice"
    found = json.loads((run / "sweep.json").read_text())["cells"]
    assert list(found) == ["unperturbed", "blur_2", "action-delay_1", "action-delay_3"]
    page = (run / "sweep.html").read_text()
    assert "blur [pixels" in page and "action-delay [" not in page, "only what shows is shown"
    assert (run / "sweep.png").stat().st_size > 0
    with pytest.raises(PixelrlError, match="holds a sweep with another seed; choose another --out"):
        replace(sweep, seed=1)()
    with pytest.raises(PixelrlError, match="holds a sweep with another acting; choose another --out"):
        replace(sweep, acting="sample")()
    asked = json.loads((run / "sweep.json").read_text())
    (run / "sweep.json").write_text(json.dumps({**asked, "asked": {**asked["asked"], "acting": "sample"}}))
    with pytest.raises(PixelrlError, match="holds a sweep with another acting"):
        sweep()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ("fog",)}, "--only fog: there is no such perturbation, but: camera-moved, "),
        ({"levels": (1.0,)}, "--levels are of one perturbation; name it"),
        ({"only": ("noise",), "levels": (1.0, math.nan)}, "--levels nan: expected numbers of at least 0 "),
        ({"only": ("noise",), "levels": (math.inf,)}, "--levels inf: expected numbers of at least 0"),
        ({"only": ("noise",), "levels": (-1.0,)}, "--levels -1: expected numbers of at least 0"),
        ({"only": ("light",), "levels": (-0.5, -2.0)}, "--levels -2: expected numbers of at least -1"),
        ({"only": ("dropped-frames",), "levels": (0.5, 7.0)}, "--levels 7: expected .* at least 0 and at most 1 "),
        ({"only": ("action-delay",), "levels": (0.4,)}, r"--levels 0.4: expected whole numbers of at least 0 \(action"),
        ({"only": ("noise",), "levels": (1.0, 1.0000001)}, "--levels 1: noise_1 is there twice; expected different"),
        ({"only": ("noise",), "out": Path(__file__)}, "test_sweep.py: is a file; expected a directory, new or old"),
        ({"env": "Stack"}, "the policy acts at 5 Hz and Stack at 20 Hz"),
        ({"only": ("distractor",), "env": "drawer-grasp"}, "DrawerGrasp cannot have it; it takes a task with"),
    ],
)
def test_sweep_with_wrong_options_is_refused(run: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        Sweep(run=run, episodes=1, seed=0, workers=1, **options)()


def test_task_of_another_package_is_evaluated_and_swept(run: Path) -> None:
    strange: dict[str, Any] = {"run": run, "episodes": 1, "workers": 1, "seed": 0}
    evaluate = Evaluate(**strange, env="tests.toy_suite:StrangeTray", env_options=("control_freq=5", "horizon=3"))
    evaluate()
    result = json.loads((run / "evaluation.json").read_text())
    assert result["env_args"]["env_name"] == "StrangeTray" and result["outcomes"][0]["length"] == 3
    with pytest.raises(PixelrlError, match=r"nowhere:Lift: the module 'nowhere' cannot be imported"):
        replace(evaluate, env="nowhere:Lift")()
    recorded = read_run(run)
    env_args = default_env_args("StrangeTray", size=48, horizon=3, control_freq=5)
    replace(recorded, env_args=env_args).write(run)
    Sweep(**strange, only=("blur",), levels=(2,), allow_import=("tests.toy_suite",))()
    assert json.loads((run / "sweep.json").read_text())["asked"]["env_args"]["env_name"] == "StrangeTray"


def test_cells_are_compared_with_the_unperturbed_one_by_pairs() -> None:
    cells = {
        "unperturbed": {"outcomes": [True] * 10},
        "blur_1": {"perturbation": "blur", "level": 1, "outcomes": [True] * 9 + [False]},
        "blur_2": {"perturbation": "blur", "level": 2, "outcomes": [False] * 10},
    }
    found = compare_cells(cells)
    assert found["blur_1"]["against_unperturbed"] == {"won": 0, "lost": 1, "p": 1.0}
    assert found["blur_2"]["against_unperturbed"]["p"] == pytest.approx(2 / 2**10)
    assert found["blur_2"]["p_adjusted"] == pytest.approx(2 * 2 / 2**10), "two tests, not three"
    assert [cell.get("verdict") for cell in found.values()] == [None, "undetermined", "worse"]


def test_evaluation_page_shows_videos_of_failures_that_were_not_recorded_at_first(run: Path) -> None:
    Evaluate(run=run, episodes=2, seed=0, workers=1, videos=1, html=True)()
    result = json.loads((run / "evaluation.json").read_text())
    assert [each["success"] for each in result["outcomes"]] == [False] * 2
    assert sorted(path.name for path in (run / "videos").iterdir()) == [
        f"episode_00{index}_failure.mp4" for index in range(2)
    ]
    page = (run / "evaluation.html").read_text()
    assert page.count("<video") == 2 and result["policy"]["sha256"] in page
    assert (run / "failures.png").stat().st_size > 0

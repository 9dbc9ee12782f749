"""`pixelrl probe`, as a user types it."""

import json
from pathlib import Path

import pytest

from pixelrl.launch.policy_options import CheckpointOptions
from tests import Pixelrl
from tests.dots import SMALL, write_dots


def test_probe_measures_snapshots_on_the_same_rows(tmp_path: Path, dots: tuple[Path, Path], pixelrl: Pixelrl) -> None:
    task, prior = dots
    run = tmp_path / "run"
    common = ("--task", task, "--prior", prior, "--out", run, "--device", "cpu", *SMALL, "--snapshot-every", 5)
    code, said = pixelrl("train", "quick_cog_dr3", *common, "--steps", 10, "--held-out", 0.2)
    assert code == 0 and "in episodes that are held out" in said, said
    code, said = pixelrl("probe", run, "--step", 5, 10, "--rows", 16)
    assert code == 0 and "features/self_excitation" in said, said
    found = json.loads((run / "probe.json").read_text())["steps"]
    assert set(found) == {"5", "10"} and found["5"]["features/norm"] != found["10"]["features/norm"]
    pixelrl("probe", run, "--step", 10, 5, "--rows", 16, "--out", tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["steps"] == found
    code, said = pixelrl("probe", run, "--rows", 16, "--on-held-out", "--out", tmp_path / "held.json")
    assert code == 0, said
    held = json.loads((tmp_path / "held.json").read_text())["steps"]["10"]
    assert held["q/td_error"] != found["10"]["q/td_error"]
    told = ("--rows", 16, "--plasticity", 2, "--stay", 0, 0, "--out", tmp_path / "more.json")
    code, said = pixelrl("probe", run, *told)
    assert code == 0, said
    more = json.loads((tmp_path / "more.json").read_text())["steps"]["10"]
    new = {"plasticity/loss", "plasticity/fresh", "plasticity/lost", "q/margin", "q/margin@task", "q/margin@prior"}
    assert more.keys() - found["10"].keys() == new and {key: more[key] for key in found["10"]} == found["10"]
    code, said = pixelrl("probe", run, "--stay", 0)
    assert code == 1 and "--stay has 1 numbers; an action of this run has 2" in said, said
    write_dots(prior, "prior", 6, size=32, seed=9)
    code, said = pixelrl("probe", run)
    assert code == 1 and "was trained on other data" in said, said


@pytest.mark.parametrize("recipe", ["quick_cog", "quick_calql"])
def test_run_on_demos_that_stop_at_their_reward_is_measured(
    recipe: str, dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    """No action was recorded after the step that is paid, so that a probe leaves it out: nothing pays in its rows."""
    run = tmp_path / "run"
    words = ("--ends", "never", "--n-step", 1, "--held-out", 0.4, "--snapshot-every", 1, "--steps", 2)
    code, said = pixelrl("train", recipe, "--task", dots[0], "--out", run, "--device", "cpu", *SMALL, *words)
    assert code == 0, said
    for more in ((), ("--step", 1, 2, "--on-held-out")):
        code, said = pixelrl("probe", run, "--rows", 16, *more)
        assert code == 0 and "0 in the steps that are learned from" in said and "q/td_error" in said, said
    assert CheckpointOptions(select="td_error").chosen_step(run) in (1, 2)

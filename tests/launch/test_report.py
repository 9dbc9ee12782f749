"""The page about trainings."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixelrl.launch.reports.run_curves import draw_curves, over_runs
from pixelrl.launch.reports.run_page import differences, flat, read_run
from tests import Pixelrl
from tests.dots import SMALL


def write_run(
    path: Path, values: list[float], *, weight: float = 1.0, successes: int | None = None, environment: str = "Lift"
) -> Path:
    """Write what a training leaves, with one figure of Q."""
    path.mkdir(parents=True)
    term = {"is": "CQL", "weight": weight}
    config = {
        "recipe": {"is": "Recipe", "critic": [term], "gamma": 0.9, "seed": len(values)},
        "data": {"task": ["a.hdf5"]},
    }
    config["sources"] = {"task": {"reward": "recorded", "share": None}}
    (path / "config.json").write_text(json.dumps(config))
    rows = [f"{10 * (step + 1)},1.0,{value}" for step, value in enumerate(values)]
    (path / "metrics.csv").write_text("\n".join(["step,seconds,q/data", *rows]) + "\n")
    if successes is not None:
        result = {"policy": {"run": str(path), "step": 20}, "success_rate": successes / 100, "successes": successes}
        result |= {"episodes": 100, "success_interval_95": [0.1, 0.9], "env_args": {"env_name": environment}}
        (path / "evaluation.json").write_text(json.dumps(result))
    return path


def test_page_overlays_methods_and_shows_what_differs(tmp_path: Path, pixelrl: Pixelrl) -> None:
    write_run(tmp_path / "cog" / "seed0", [1.0, 2.0], successes=40)
    write_run(tmp_path / "cog" / "seed1", [3.0, 2.0, 5.0])
    write_run(tmp_path / "dr3", [1.0, 1.0], weight=0.5, successes=80)
    code, printed = pixelrl("report", tmp_path / "cog" / "seed*", tmp_path / "dr3", "--out", tmp_path / "r.html")
    assert (code, "3 runs" in printed) == (0, True)
    page = (tmp_path / "r.html").read_text()
    assert "q/data" in page and "Q of recorded actions" in page and page.count("<polyline") >= 4
    assert "80 of 100 succeed, 95 % interval 10% to 90%" in page
    assert re.search(r"critic\.cql\.weight</td>\s*<td>1</td>\s*<td>0\.5", page) and "recipe.seed" not in page
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_success_is_drawn_by_environment(tmp_path: Path, pixelrl: Pixelrl) -> None:
    run = write_run(tmp_path / "a", [1.0, 2.0], successes=90, environment="Easy")
    write_run(run / "harder", [1.0], successes=10, environment="Hard")
    assert read_run(run).successes == {"Easy": {20: 0.9}, "Hard": {20: 0.1}}
    assert pixelrl("report", run, "--out", tmp_path / "r.html")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert "Easy: share of episodes" in page and "Hard: share of episodes" in page
    assert "Hard, step 20: 10 of 100 succeed, 95 % interval" in page


def test_evaluation_without_a_step_is_told_and_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [1.0, 2.0], successes=90)
    result = json.loads((run / "evaluation.json").read_text())
    (run / "exported").mkdir()
    (run / "exported/evaluation.json").write_text(json.dumps(result | {"policy": {"sha256": "abc"}, "successes": 5}))
    found = read_run(run)
    assert found.successes == {"Lift": {20: 0.9}}
    assert any(line.startswith("Lift: 5 of 100 succeed") for line in found.evaluations)


def test_run_is_named_by_its_folder(tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (write_run(tmp_path / "cog", [1.0]), tmp_path / "cog" / "plots"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert pixelrl("report", "." if folder.name == "cog" else "..", "--out", tmp_path / "r.html")[0] == 0
        page = (tmp_path / "r.html").read_text()
        assert "Training of cog" in page and "<td>cog</td><td>cog</td>" in page


def test_names_of_runs_are_escaped(tmp_path: Path, pixelrl: Pixelrl) -> None:
    write_run(tmp_path / "<b>bold", [1.0])
    assert pixelrl("report", tmp_path / "<b>bold", "--out", tmp_path / "r.html")[0] == 0
    assert "<b>bold" not in (tmp_path / "r.html").read_text()


def test_curve_is_the_mean_over_runs_with_their_range() -> None:
    curve = over_runs([{10: 1.0, 20: 2.0, 30: float("nan")}, {10: 3.0, 30: float("nan")}], "red")
    assert curve is not None and curve.steps.tolist() == [10, 20]
    assert (curve.mean.tolist(), curve.low.tolist(), curve.high.tolist()) == ([2, 2], [1, 2], [3, 2])
    assert over_runs([{}, {1: float("inf")}], "red") is None


def test_axis_is_logarithmic_where_values_are_far_apart() -> None:
    far = over_runs([{1: 0.01, 2: 100.0}], "red")
    near = over_runs([{1: 1.0, 2: 2.0}], "red")
    assert far is not None and near is not None
    assert "(log)" in draw_curves([far]) and "(log)" not in draw_curves([near])
    heights = [float(pair.split(",")[1]) for pair in re.findall(r"points='([^']*)'", draw_curves([far]))[0].split()]
    assert np.ptp(heights) > 100


def test_axis_keeps_its_limits() -> None:
    curve = over_runs([{1: 0.98, 2: 1.0}], "red")
    assert curve is not None
    for limits, expected in ((None, ["1", "0.98"]), ((0.0, 1.0), ["1", "0"])):
        assert re.findall(r"<text x=0 [^>]*>([^<]*)<", draw_curves([curve], limits)) == expected


def test_leaves_of_a_recipe_are_named_by_term() -> None:
    recipe = {"is": "Recipe", "critic": [{"is": "TD", "weight": 1.0}], "encoder": {"is": "SmallCNN", "features": 8}}
    expected = {"critic.td": "TD", "critic.td.weight": "1", "encoder": "SmallCNN", "encoder.features": "8"}
    assert flat(recipe) == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "not a training run: it has no config.json"),
        (lambda run: (run / "config.json").write_text("{"), "its record is damaged"),
        (lambda run: (run / "metrics.csv").write_text("step,q\nx,1\n"), "metrics.csv: line 2 is damaged; expected"),
    ],
)
def test_what_is_no_run_is_one_line(
    tmp_path: Path, pixelrl: Pixelrl, spoil: Callable[[Path], object], message: str
) -> None:
    run = write_run(tmp_path / "run", [1.0])
    spoil(run)
    code, printed = pixelrl("report", run, "--out", tmp_path / "r.html")
    assert code == 1 and message in printed and not (tmp_path / "r.html").exists()


def test_report_on_nothing_overwrites_nothing(tmp_path: Path, pixelrl: Pixelrl) -> None:
    (tmp_path / "r.html").write_text("of yesterday")
    code, printed = pixelrl("report", "--out", tmp_path / "r.html")
    assert code == 1 and "no run to report on" in printed and (tmp_path / "r.html").read_text() == "of yesterday"


def test_pattern_that_matches_nothing_is_named(tmp_path: Path, pixelrl: Pixelrl) -> None:
    code, printed = pixelrl("report", tmp_path / "no*", "--out", tmp_path / "r.html")
    assert code == 1 and "no directory matches" in printed


def test_run_that_goes_on_can_be_shown(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [1.0]))
    assert run.training[0] == "running" and run.successes == {} and differences({"run": [run]}) == []


def test_page_tells_of_data_version_and_machine(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    run, page = tmp_path / "run", tmp_path / "r.html"
    assert pixelrl("train", "quick_bc", "--task", dots[0], "--out", run, *SMALL, "--steps", 2)[0] == 0
    assert pixelrl("report", run, "--out", page)[0] == 0
    training = json.loads((run / "training.json").read_text())
    for told in (*training["data"], training["version"], training["machine"]["processor"], "quick_bc --task"):
        assert html.escape(told, quote=False) in page.read_text().replace("&#39;", "'"), told

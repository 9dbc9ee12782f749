"""`pixelrl compare` on evaluations written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pixelrl.launch.commands.compare import Compare
from pixelrl.launch.commands.evaluate import conclusive
from pixelrl.launch.comparison import compare_methods
from pixelrl.runtime.errors import PixelrlError
from pixelrl.simulation.evaluation.rollout import Outcome


def evaluation(folder: Path, successes: Sequence[bool], *, seed: int = 0, env: str = "Dot") -> str:
    folder.mkdir(parents=True)
    outcomes = [{"index": i, "seed": seed + i, "success": each} for i, each in enumerate(successes)]
    body = {"success_rate": sum(successes) / len(successes), "outcomes": outcomes, "env_args": {"env_name": env}}
    (folder / "evaluation.json").write_text(json.dumps(body))
    return str(folder)


def test_two_policies_are_compared_on_the_same_starts(tmp_path: Path) -> None:
    # 8 won, 1 lost: p = 20 / 512, as in test_statistics; against itself nothing is clear
    first = evaluation(tmp_path / "a", [True] * 8 + [False] + [True] * 5 + [False] * 6)
    second = evaluation(tmp_path / "b", [False] * 8 + [True] + [True] * 5 + [False] * 6)
    found = compare_methods([first, second])["comparisons"][0]
    assert (found["won"], found["lost"], found["verdict"]) == (8, 1, "better")
    assert found["p"] == found["p_adjusted"] == pytest.approx(20 / 512)
    assert found["difference"] == pytest.approx(7 / 20)
    assert compare_methods([second, first])["comparisons"][0]["verdict"] == "worse"
    assert compare_methods([first, second, first])["comparisons"][0]["verdict"] == "undetermined"  # p x 2
    Compare(methods=(first, second), out=tmp_path / "out.json")()
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["methods"][0]["successes"] == 13 and written["comparisons"][0]["verdict"] == "better"


def test_several_runs_are_compared_by_their_interquartile_means(tmp_path: Path) -> None:
    for run, wins in enumerate((9, 8, 9, 7, 9)):
        evaluation(tmp_path / f"good{run}", [True] * wins + [False] * (10 - wins), seed=run)
        evaluation(tmp_path / f"bad{run}", [True] * (wins - 5) + [False] * (15 - wins), seed=100 + run)
    result = compare_methods([str(tmp_path / "good*"), str(tmp_path / "bad*")])
    # the middle three of .9 .8 .9 .7 .9 (one of five is cut at each end): .8667
    assert result["methods"][0]["rate"] == pytest.approx((0.8 + 0.9 + 0.9) / 3)
    assert result["methods"][0]["runs"] == 5
    found = result["comparisons"][0]
    assert found["difference"] == pytest.approx(0.5) and found["verdict"] == "better"
    low, high = found["interval_95"]
    assert 0.3 <= low < 0.5 < high <= 0.7


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["a"], "two methods or more"),
        (["a", "missing"], r"missing: no such file|missing/evaluation.json|`pixelrl evaluate .*missing` writes it"),
        (["a", "other"], "from other starts"),
        (["a", "broken"], "not an evaluation"),
    ],
)
def test_evaluations_that_do_not_match_are_refused(names: list[str], complaint: str, tmp_path: Path) -> None:
    evaluation(tmp_path / "a", [True, False])
    evaluation(tmp_path / "other", [True, False], seed=7)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/evaluation.json").write_text('{"successes": 3}')
    with pytest.raises(PixelrlError, match=complaint):
        compare_methods([str(tmp_path / name) for name in names])


def test_starts_are_the_same_in_the_same_scene_or_from_the_same_file(tmp_path: Path) -> None:
    def changed(name: str, **body: Any) -> str:
        folder = evaluation(tmp_path / name, [True, False])
        file = tmp_path / name / "evaluation.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | body))
        return folder

    def scene(**options: Any) -> dict[str, Any]:
        return {"env_name": "Dot", "type": 1, "env_kwargs": options}

    plain = changed("plain", env_args=scene(camera_heights=48))
    larger = changed("larger", env_args=scene(camera_heights=84, use_camera_obs=True))
    harder = changed("harder", env_args=scene(distractor=True))
    bank, other = (changed(digest, starts={"file": "bank.hdf5", "sha256": digest}) for digest in ("abc", "def"))
    moved = changed("moved", starts={"file": "elsewhere.hdf5", "sha256": "abc"})
    for first, second in ((plain, larger), (bank, moved)):
        assert compare_methods([first, second])["comparisons"][0]["verdict"] == "undetermined"
    for first, second in ((plain, harder), (plain, bank), (bank, other)):
        with pytest.raises(PixelrlError, match=r"evaluated from other starts; .* or from the same --starts"):
            compare_methods([first, second])


def test_early_stop_counts_no_episode_that_overtook_another() -> None:
    def outcomes(successes: Sequence[bool], indices: Sequence[int]) -> list[Outcome]:
        return [
            Outcome(index=i, seed=i, success=each, return_=0.0, length=1)
            for i, each in zip(indices, successes, strict=True)
        ]

    # 8 successes in a row refute a rate of 0.5: (the mixture is 0.196, over 0.5^8 = 0.0039: 50 > 20), 6 do not
    row = outcomes([True] * 10, range(10))
    assert [each.index for each in conclusive(row, 0.5)] == list(range(len(conclusive(row, 0.5))))
    assert 6 < len(conclusive(row, 0.5)) <= 8
    assert conclusive(row[:6], 0.5) == []
    assert conclusive(outcomes([True] * 10, range(1, 11)), 0.5) == []  # episode 0 is still played

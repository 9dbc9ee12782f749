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


def evaluation(
    folder: Path, successes: Sequence[bool], *, seed: int = 0, env: str = "Dot", trained: int | None = None
) -> str:
    folder.mkdir(parents=True)
    outcomes = [{"index": i, "seed": seed + i, "success": each} for i, each in enumerate(successes)]
    body = {"success_rate": sum(successes) / len(successes), "outcomes": outcomes, "env_args": {"env_name": env}}
    body |= {} if trained is None else {"policy": {"training_seed": trained}}
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


def test_policy_is_shown_to_be_not_worse_than_the_first_by_more_than_the_margin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [evaluation(tmp_path / name, [True] * 198 + [False] * 2) for name in "ab"]
    names.append(evaluation(tmp_path / "c", [True] * 180 + [False] * 20))
    same, worse = compare_methods(names, margin=0.05)["comparisons"]
    assert (
        same["non_inferior"] and same["equivalent"] and same["score_interval_90"][1] == pytest.approx(0.0133, abs=1e-4)
    )
    assert not worse["non_inferior"] and worse["difference"] == pytest.approx(0.09)
    assert not compare_methods(names, margin=0.01)["comparisons"][0]["non_inferior"]
    Compare(methods=tuple(names), margin=0.05)()
    said = " ".join(capsys.readouterr().out.split())
    assert "by more than 5%: at most 1.3%, with 95 % confidence" in said and "perhaps worse" in said


def runs(folder: Path, name: str, wins: Sequence[int], *, trained: bool = True) -> str:
    for run, count in enumerate(wins):
        evaluation(folder / f"{name}{run}", [i < count for i in range(10)], trained=run if trained else None)
    return str(folder / f"{name}*")


def test_runs_that_share_seeds_are_compared_in_pairs(tmp_path: Path) -> None:
    # differences .1 .2 .1 .3 .1 .1: all of one sign, so p = 2 / 2^6
    good = runs(tmp_path, "good", (9, 4, 9, 7, 2, 8))
    bad = runs(tmp_path, "bad", (8, 2, 8, 4, 1, 7))
    result = compare_methods([good, bad])
    (found,) = result["comparisons"]
    assert (found["n"], found["p"], found["verdict"]) == (6, 2 / 64, "better") and "sign-flip" in found["test"]
    assert found["difference"] == pytest.approx(0.9 / 6) and not found["equivalent"]
    # the same rates without seeds: far apart within each method, so nothing is clear
    apart = compare_methods([runs(tmp_path, "a", (9, 4, 9, 7, 2, 8), trained=False), bad])["comparisons"][0]
    assert apart["verdict"] == "undetermined" and apart["p"] > 0.3 and "permutation" in apart["test"]
    assert apart["difference"] == pytest.approx(0.9 / 6)
    # mean of .9 .4 .9 .7 .2 .8, and of the middle four
    assert result["methods"][0]["rate"] == pytest.approx(3.9 / 6)
    assert result["methods"][0]["iqm"] == pytest.approx((0.4 + 0.7 + 0.8 + 0.9) / 4)


def test_few_runs_have_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = runs(tmp_path, "good", (9, 9, 9, 9, 9)), runs(tmp_path, "bad", (0, 0, 0, 0, 0))
    worse = runs(tmp_path, "worse", (0, 0, 0, 0, 0), trained=False)
    Compare(methods=(good, bad, worse), out=tmp_path / "out.json")()
    for found in json.loads((tmp_path / "out.json").read_text())["comparisons"]:
        assert (found["p"], found["p_adjusted"], found["verdict"]) == (None, None, "undetermined")
        assert found["interval_95"] == pytest.approx([0.9, 0.9])
    assert "no verdict from 5 runs" in capsys.readouterr().out


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
    def tried(name: str, **keys: Any) -> str:
        return changed(evaluation(tmp_path / name, [True, False]), **keys)

    def scene(**options: Any) -> dict[str, Any]:
        return {"env_name": "Dot", "type": 1, "env_kwargs": options}

    plain = tried("plain", env_args=scene(camera_heights=48))
    larger = tried("larger", env_args=scene(camera_heights=84, use_camera_obs=True))
    harder = tried("harder", env_args=scene(distractor=True))
    saved, other = (tried(digest, starts={"file": "starts.hdf5", "sha256": digest}) for digest in ("abc", "def"))
    moved = tried("moved", starts={"file": "elsewhere.hdf5", "sha256": "abc"})
    for first, second in ((plain, larger), (saved, moved)):
        assert compare_methods([first, second])["comparisons"][0]["verdict"] == "undetermined"
    for first, second in ((plain, harder), (plain, saved), (saved, other)):
        with pytest.raises(PixelrlError, match=r"evaluated from other starts; .* or from the same --starts"):
            compare_methods([first, second])


def changed(pattern: str, **keys: Any) -> str:
    """Change keys of all evaluations of a method."""
    for folder in Path("/").glob(pattern.removeprefix("/")):
        file = folder / "evaluation.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    return pattern


def test_several_runs_are_compared_only_if_they_were_tried_alike(tmp_path: Path) -> None:
    good, wins = runs(tmp_path, "good", (9, 9, 9, 9, 9, 9)), (5, 5, 5, 5, 5, 5)
    harder = {"env_name": "Dot", "env_kwargs": {"horizon": 10}}
    scene = changed(runs(tmp_path, "scene", wins), env_args=harder)
    unpaired = changed(runs(tmp_path, "unpaired", wins, trained=False), env_args=harder)
    fewer, other = str(tmp_path / "fewer*"), str(tmp_path / "other*")
    for seed in range(6):
        evaluation(tmp_path / f"fewer{seed}", [True, False], trained=seed)
        evaluation(tmp_path / f"other{seed}", [True] * 5 + [False] * 5, seed=1000, trained=seed)
    for second in (scene, unpaired, fewer, other):
        with pytest.raises(PixelrlError, match=r"evaluated from other starts; .* or from the same --starts"):
            compare_methods([good, second])
    pictures = changed(runs(tmp_path, "pictures", wins), env_args={"env_name": "Dot", "env_kwargs": {"has_x": 1}})
    assert compare_methods([good, pictures])["comparisons"][0]["verdict"] == "better"


def test_runs_that_were_stopped_early_have_their_own_interval_and_are_none_of_several(tmp_path: Path) -> None:
    one, two = (evaluation(tmp_path / name, [True] * 24) for name in ("one", "two"))
    changed(one, until=0.8, success_interval_95=[0.81, 1.0])
    result = compare_methods([one, two])["methods"]
    assert result[0]["interval_95"] == [0.81, 1.0] and result[1]["interval_95"][0] == pytest.approx(0.862, abs=1e-3)
    good, bad = runs(tmp_path, "good", (9,) * 6), runs(tmp_path, "bad", (5,) * 6)
    changed(str(tmp_path / "bad3"), until=0.3, success_interval_95=[0.4, 1.0])
    with pytest.raises(
        PixelrlError, match=r"bad3/evaluation\.json: was stopped by --until, .* evaluate each run without it"
    ):
        compare_methods([good, bad])


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

"""The page of an evaluation: it needs nothing else, and shows what happened."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixelrl.launch.commands.evaluate import replay_failures, write_videos
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.reports.episode_figures import around
from pixelrl.launch.reports.evaluation_page import video_path, write_evaluation_page
from pixelrl.runtime.video import MARK, write_video
from pixelrl.simulation.evaluation.failures import ValueFall
from pixelrl.simulation.evaluation.rollout import Outcome
from pixelrl.simulation.evaluation.statistics import summarise


def episode(index: int, *, success: bool, has_values: bool = True) -> Outcome:
    """Return an episode of 12 steps; if it fails, Q falls from 1 to 0 between steps 5 and 8."""
    frames = np.random.default_rng(index).integers(0, 256, (13, 24, 24, 3), dtype=np.uint8)
    q = np.array([1, 1, 1, 1, 1, 1, 0.5, 0.2, 0, 0, 0, 0], np.float32)
    values = np.stack([q, q + 0.1], axis=1) if has_values else None
    return Outcome(
        index=index, seed=100 + index, success=success, return_=float(success), length=12, frames=frames, values=values
    )


def write(directory: Path, outcomes: list[Outcome], policy: dict[str, Any]) -> str:
    """Write a page as `evaluate` does, and return it."""
    for outcome in outcomes:
        assert outcome.frames is not None
        write_video(video_path(directory, outcome), outcome.frames, 5)
    result = summarise(outcomes) | {"policy": policy, "env_args": {"env_name": "<Walk>"}}
    failures = [outcome for outcome in outcomes if not outcome.success]
    write_evaluation_page(directory, outcomes, failures, result | Provenance(seed=7).record(), 5)
    return (directory / "evaluation.html").read_text()


def test_page_holds_everything_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    outcomes = [episode(index, success=index % 2 == 0) for index in range(4)]
    page = write(tmp_path, outcomes, {"run": str(tmp_path / "first"), "step": 3})
    assert page.count("data:video/mp4;base64,") == 4
    assert page.count("data:image/png;base64,") == 1 + 4
    assert not re.search(r"(src|href)=['\"](?!data:)|<script|<link|url\(|@import|https?:", page)
    assert "2 of 4 episodes succeed: 50% (95 % Wilson interval 15% to 85%)" in page
    assert "Evaluation of first" in page and "&lt;Walk&gt;" in page and "<Walk>" not in page
    assert all(str(outcome.seed) in page for outcome in outcomes)
    assert "the 3 steps over which Q fell most" in page
    sheet = np.asarray(Image.open(tmp_path / "failures.png"))
    assert (sheet == MARK).all(axis=-1).any()


def test_page_says_so_where_there_is_no_critic(tmp_path: Path) -> None:
    page = write(tmp_path, [episode(0, success=False, has_values=False)], {"export": "here"})
    assert "This policy has no critic" in page and "Q fell most" not in page
    assert not (np.asarray(Image.open(tmp_path / "failures.png")) == MARK).all(axis=-1).any()


def test_page_without_failures_has_no_sheet_of_them(tmp_path: Path) -> None:
    (tmp_path / "failures.png").touch()
    assert "no episode failed" in write(tmp_path, [episode(0, success=True)], {"run": "here"})
    assert not (tmp_path / "failures.png").exists()


@pytest.mark.parametrize(
    ("fall", "last", "steps"),
    [
        (ValueFall(10, 13, 1, 0), 40, [0, 6, 8, 10, 11, 12, 13, 15, 40]),
        (ValueFall(0, 3, 1, 0), 4, [0, 1, 2, 3, 4]),
    ],
)
def test_steps_around_a_fall_of_q(fall: ValueFall, last: int, steps: list[int]) -> None:
    assert around(fall, last) == steps


def test_failure_that_goes_otherwise_when_it_is_played_again_is_left_out(tmp_path: Path) -> None:
    again = [episode(index, success=False) for index in range(5)]
    again[1:4] = replace(again[1], success=True), replace(again[2], return_=0.5), replace(again[3], length=11)
    first = [replace(episode(index, success=False), frames=None) for index in range(5)]

    def play(*, videos: int, only: list[int]) -> list[Outcome]:
        return [each for each in again if each.index in only]

    seen = episode(5, success=False)
    assert replay_failures(play, [*first, seen], 6) == ([again[0], again[4], seen], [1, 2, 3])
    result = summarise(first) | {"policy": {"run": "here"}, "env_args": {"env_name": "Walk"}}
    write_evaluation_page(tmp_path, first, [], result | Provenance(seed=7).record(), 5)
    page = (tmp_path / "evaluation.html").read_text()
    assert "No failure went the same way" in page and "no episode failed" not in page


def test_videos_of_an_earlier_evaluation_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_videos([episode(0, success=False), episode(1, success=False)], tmp_path, 5)
    (tmp_path / "videos/episode_7.mp4").touch()
    write_videos([episode(0, success=True)], tmp_path, 5)
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {"episode_000_success.mp4", "episode_7.mp4"}

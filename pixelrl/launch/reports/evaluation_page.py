"""One evaluation as one HTML page: how often, how sure, videos, Q along them, and how failures went wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelrl.launch.reports.episode_figures import draw_episode, write_failures
from pixelrl.launch.reports.pages import policy_name, write_page
from pixelrl.runtime.video import write_video
from pixelrl.simulation.evaluation.failures import MEANING
from pixelrl.simulation.evaluation.rollout import Outcome

SHOWN = 8
"""Episodes on the page, beside the first failures."""

VIDEO_BYTES = 4 * 2**20
"""Videos beyond it are named instead of shown, so that the page stays below 10 MB."""


def video_path(directory: Path, outcome: Outcome) -> Path:
    """Return where the video of an episode is."""
    word = "success" if outcome.success else "failure"
    return directory / "videos" / f"episode_{outcome.index:03d}_{word}.mp4"


def forget_videos(directory: Path) -> None:
    """Remove the videos of an earlier evaluation's episodes, which those of this one need not have the names of."""
    for word in ("success", "failure"):
        for path in (directory / "videos").glob(f"episode_[0-9]*_{word}.mp4"):
            path.unlink()


def write_evaluation_page(
    directory: Path, outcomes: Sequence[Outcome], failures: Sequence[Outcome], result: Mapping[str, Any], fps: float
) -> None:
    """Write `evaluation.html`, and what is new on it: `failures.png`, the videos of failures, at `fps` [Hz].

    The videos of `outcomes`, all episodes by their index, are there already; `failures`, the first ones, have frames.
    """
    sheet, has_values = directory / "failures.png", outcomes[0].values is not None
    sheet.unlink(missing_ok=True)
    for outcome in failures:
        assert outcome.frames is not None
        write_video(video_path(directory, outcome), outcome.frames, fps)
    if failures:
        missed = result["episodes"] - result["successes"]
        title = f"{len(failures)} of {missed} failures" + ("; yellow: where Q fell most" if has_values else "")
        write_failures(sheet, failures, title)
    first = [outcome for outcome in outcomes if outcome.frames is not None][:SHOWN]
    others = [outcome for outcome in failures if outcome.index not in {each.index for each in first}]
    known = {key: value for key, value in result.items() if key != "outcomes"}
    write_page(
        directory / "evaluation.html",
        "evaluation.html.j2",
        title=f"Evaluation of {policy_name(result)}",
        result=result,
        has_values=has_values,
        meaning=MEANING,
        failures_sheet=sheet.read_bytes() if failures else None,
        first=episode_cards(directory, first, VIDEO_BYTES // 2),
        other_failures=episode_cards(directory, others, VIDEO_BYTES // 2),
        source=json.dumps(known, indent=2, ensure_ascii=False),
    )


def episode_cards(directory: Path, outcomes: Sequence[Outcome], video_bytes: int) -> list[dict[str, Any]]:
    """Return what the page shows of each episode; videos beyond so many bytes are left out."""
    cards = []
    for outcome in outcomes:
        path = video_path(directory, outcome)
        video_bytes -= path.stat().st_size
        video = path.read_bytes() if video_bytes >= 0 else None
        cards.append({"outcome": outcome, "video": video, "file": path.name, "figure": draw_episode(outcome)})
    return cards

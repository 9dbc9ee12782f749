"""One evaluation as one HTML page: how often, how sure, films, Q along them, and how failures went wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelrl.launch.reports.episode_figures import draw_story, write_failures
from pixelrl.launch.reports.markup import film, name_of, origin, picture, table, text, write_document
from pixelrl.simulation.evaluation.failures import MEANING
from pixelrl.simulation.evaluation.rollout import Outcome
from pixelrl.runtime.video import write_video

SHOWN, FAILURES = 8, 8
"""Episodes on the page: the first ones, and the first failures."""

BUDGET = 4 * 2**20
"""Films beyond it are named instead of shown, so that the page stays below 10 MB. [bytes]"""


def film_path(directory: Path, outcome: Outcome) -> Path:
    """Return where the film of an episode is."""
    word = "success" if outcome.success else "failure"
    return directory / "videos" / f"episode_{outcome.index:03d}_{word}.mp4"


def write_evaluation_page(
    directory: Path, outcomes: Sequence[Outcome], failures: Sequence[Outcome], result: Mapping[str, Any], fps: float
) -> None:
    """Write `evaluation.html`, and what is new on it: `failures.png`, the films of failures.

    Args:
        directory: of the evaluation, where the films of `outcomes` are already.
        outcomes: all episodes, by index.
        failures: the first ones that failed, all filmed.
        result: what `evaluation.json` says.
        fps: of the films. [Hz]
    """
    sheet = directory / "failures.png"
    sheet.unlink(missing_ok=True)
    for outcome in failures:
        assert outcome.frames is not None
        write_video(film_path(directory, outcome), outcome.frames, fps)
    judged = outcomes[0].values is not None
    parts = [*_head(result), "" if judged else _NO_CRITIC, "<h2>Failures</h2>"]
    if failures:
        missed = result["episodes"] - result["successes"]
        title = f"{len(failures)} of {missed} failures" + ("; yellow: where Q fell most" if judged else "")
        write_failures(sheet, failures, title)
        if judged:
            parts.append(f"<p class=soft>Yellow: the moment it went wrong, which is {MEANING}.</p>")
        parts.append(picture(sheet.read_bytes(), "failures"))
    else:
        parts.append("<p class=good>no episode failed</p>")
    first = [outcome for outcome in outcomes if outcome.frames is not None][:SHOWN]
    parts += [f"<h2>The first {len(first)} episodes</h2>", *_stories(directory, first, BUDGET // 2)]
    others = [outcome for outcome in failures if outcome.index not in {each.index for each in first}]
    if others:
        parts += ["<h2>Other failures</h2>", *_stories(directory, others, BUDGET // 2)]
    parts += ["<h2>Every episode</h2>", _episodes(result["outcomes"])]
    known = {key: value for key, value in result.items() if key != "outcomes"}
    whole = text(json.dumps(known, indent=2, ensure_ascii=False))
    parts.append(f"<h2>Where this comes from</h2><div class=wide><pre><code>{whole}</code></pre></div>")
    write_document(directory / "evaluation.html", f"Evaluation of {name_of(result)}", parts)


_NO_CRITIC = (
    "<p class=soft>This policy has no critic (an exported policy brings none, and imitation learns none): there is no "
    "Q, and nobody can say when an episode went wrong. Each is shown from its start to its end.</p>"
)


def _head(result: Mapping[str, Any]) -> list[str]:
    """Return the title, the verdict and the setting."""
    low, high = result["success_interval_95"]
    kind = "confidence sequence" if "until" in result else "Wilson interval"
    verdict = (
        f"{result['successes']} of {result['episodes']} episodes succeed: {result['success_rate']:.0%} "
        f"(95 % {kind} {low:.0%} to {high:.0%})"
    )
    rows = [
        ("policy", ", ".join(f"{key} {value}" for key, value in result["policy"].items() if key != "sha256")),
        ("environment", result["env_args"]["env_name"]),
        ("mean length", f"{result['mean_length']:.1f} steps"),
        ("mean return", f"{result['mean_return']:.3g}"),
        ("seed", result["seeds"]["seed"]),
        ("commit", result["commit"] or "unknown"),
    ]
    if "until" in result:
        rows.append(("stopped", f"as soon as it was clear on which side of {result['until']:.0%} it is, if it was"))
    setting = table(("", ""), [(name, f"<code>{text(value)}</code>") for name, value in rows])
    title = f"<h1>Evaluation of {text(name_of(result))}</h1><div class=verdict>{text(verdict)}</div>"
    return [title, origin(result), setting]


def _stories(directory: Path, outcomes: Sequence[Outcome], budget: int) -> list[str]:
    """Return the film and the story of each episode; films beyond so many bytes are only named."""
    parts = []
    for outcome in outcomes:
        path = film_path(directory, outcome)
        budget -= path.stat().st_size
        shown = film(path.read_bytes()) if budget >= 0 else f"<p class=soft>the film is in <code>{path.name}</code></p>"
        word, mood = ("success", "good") if outcome.success else ("failure", "error")
        caption = f"<h3>Episode {outcome.index}: <b class={mood}>{word}</b> after {outcome.length} steps</h3>"
        story = picture(draw_story(outcome), f"episode {outcome.index}")
        parts.append(f"{caption}<div class=story>{shown}{story}</div>")
    return parts


def _episodes(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row for each episode."""
    moods = {True: "<b class=good>success</b>", False: "<b class=error>failure</b>"}
    rows = [
        (each["index"], each["seed"], moods[each["success"]], each["length"], f"{each['return']:.4g}")
        for each in outcomes
    ]
    return table(("episode", "seed", "", "steps", "return"), rows)

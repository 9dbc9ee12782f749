"""Evaluate a run or an exported policy by rollouts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.export.loaded_policy import load_policy
from pixelrl.launch.loaded_policy import check_control_rate, environment_for, warn_about_drawing
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.reports.evaluation_page import FAILURES, video_path, write_evaluation_page
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.commands.starts import chosen
from pixelrl.simulation.envs.make import make_env
from pixelrl.simulation.workers.jobs import TIME_LIMIT
from pixelrl.simulation.workers.ray import RayPool
from pixelrl.simulation.evaluation.rollout import Outcome, rollout
from pixelrl.simulation.evaluation.statistics import confidence_sequence, summarise
from pixelrl.runtime.video import Row, contact_sheet, mosaic, write_video

FPS = 10.0
"""Of films of environments that do not tell how often they act. [Hz]"""


def evaluate(
    directory: Path,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    workers: int,
    films: int = 0,
    step: int | None = None,
    env: str | None = None,
    env_options: Mapping[str, Any] | None = None,
    camera_sources: Mapping[str, str] | None = None,
    starts: Path | None = None,
    time_limit: float = TIME_LIMIT,
    drawing: str | None = None,
    until: float | None = None,
    out: Path | None = None,
    html: bool = False,
    cluster: RayPool | None = None,
    console: Console,
) -> dict[str, Any]:
    """Roll a policy out and write `evaluation.json` (films, and a page) into its directory, or into `out`.

    With `until`, stop when the confidence sequence of the success rate excludes that value: the verdict is wrong for
    one policy in twenty at most, although it is looked at after every episode.

    Raises:
        PixelrlError: no policy there, no environment known, or one that does not fit the policy.
    """
    bank, episodes, seed = chosen(starts, episodes, seed, env, env_options, drawing)
    provenance = Provenance(seed=seed)
    if until is not None and not 0 < until < 1:
        raise PixelrlError(f"--until is {until}; it is a success rate, so it must lie between 0 and 1")
    loaded = load_policy(directory, step)
    known = loaded if bank is None else replace(loaded, env_args=bank.env_args)
    env_args = environment_for(known, env, env_options, camera_sources, drawing)
    warn_about_drawing(loaded, env_args, console)
    make = partial(make_env, env_args)
    with closing(make()) as opened:
        policy, rate = loaded.in_units_of(opened.action_dims), opened.control_freq
    check_control_rate(loaded.control_freq, rate, env_args)
    critics = loaded.values if html else None
    playing = partial(rollout, policy, make, history=loaded.history, critics=critics, time_limit=time_limit)
    playing = partial(playing, episodes=episodes, seed=seed, workers=workers, pool=cluster)
    playing = partial(playing, initial_states=bank.states if bank else ())
    with closing(playing(videos=films)) as played:
        outcomes = watched(played, episodes, until, console)
    result = summarise(outcomes) | {"policy": loaded.origin, "env_args": env_args}
    result |= nodes_of(cluster) | provenance.record()
    if bank is not None:
        result |= {"starts": {"file": str(starts), "sha256": bank.sha256}}
    if until is not None:
        result |= {"until": until, "success_interval_95": confidence_sequence(*counts(outcomes))}
    home = directory if out is None else out
    if films:
        show(outcomes, home, rate or FPS)
    write_json(home / "evaluation.json", result)
    if html:
        write_evaluation_page(home, outcomes, again(playing, outcomes, episodes), result, rate or FPS)
    low, high = result["success_interval_95"]
    console.print(
        f"{directory}: {result['successes']} of {result['episodes']} episodes succeed: "
        f"{result['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
        + (f"; {result['restarts']} begun anew, as their workers were lost" if result["restarts"] else "")
    )
    return result


def watched(played: Iterable[Outcome], episodes: int, until: float | None, console: Console) -> list[Outcome]:
    """Wait for the outcomes and return them by index; with `until` only as many as settle the matter."""
    outcomes: list[Outcome] = []
    with progress_bar(console) as bar:
        job = bar.add_task("evaluate", total=episodes, note="")
        for outcome in played:
            outcomes.append(outcome)
            successes = sum(each.success for each in outcomes)
            bar.update(job, completed=len(outcomes), note=f"{successes} of {len(outcomes)} succeed")
            if until is not None and len(enough := clear(outcomes, until)):
                outcomes = enough
                break
    return sorted(outcomes, key=lambda outcome: outcome.index)


def clear(outcomes: Sequence[Outcome], rate: float) -> list[Outcome]:
    """Return the fewest first episodes that settle whether the success rate is above `rate`; none if none do.

    Only episodes without a gap before them count: successes end sooner, so those finished first are the better ones.
    """
    done = {outcome.index: outcome for outcome in outcomes}
    first: list[Outcome] = []
    while len(first) in done:
        first.append(done[len(first)])
        low, high = confidence_sequence(*counts(first))
        if not low <= rate <= high:
            return first
    return []


def counts(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Return the numbers of successes and failures."""
    successes = sum(outcome.success for outcome in outcomes)
    return successes, len(outcomes) - successes


def again(playing: Callable[..., Iterable[Outcome]], outcomes: Sequence[Outcome], episodes: int) -> list[Outcome]:
    """Play the first failures again, to film those that were not: the same seeds give the same episodes."""
    failed = [outcome for outcome in outcomes if not outcome.success][:FAILURES]
    unseen = [outcome.index for outcome in failed if outcome.frames is None]
    replayed = {outcome.index: outcome for outcome in playing(videos=episodes, only=unseen)} if unseen else {}
    return [replayed.get(outcome.index, outcome) for outcome in failed]


def show(outcomes: Sequence[Outcome], directory: Path, fps: float) -> None:
    """Write a film of each filmed episode, all of them side by side, and a sheet of pictures, failures first."""
    filmed = [(outcome, outcome.frames) for outcome in outcomes if outcome.frames is not None]
    rows = []
    for outcome, frames in filmed:
        word = "success" if outcome.success else "failure"
        write_video(video_path(directory, outcome), frames, fps)
        rows.append(Row(f"episode {outcome.index} · {word} · {outcome.length} steps", frames, outcome.success))
    write_video(directory / "evaluation.mp4", mosaic([frames for _, frames in filmed]), fps)
    rows.sort(key=lambda row: bool(row.ok))
    count = sum(outcome.success for outcome, _ in filmed)
    contact_sheet(directory / "evaluation.png", rows, title=f"{count} of {len(filmed)} filmed episodes succeed")

"""`pixelrl evaluate`: try a run or an exported policy in simulation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from pixelrl.launch.console import plain_console, progress_bar
from pixelrl.launch.options import key_values, nodes_of
from pixelrl.launch.policy_options import SimulationOptions, warn_about_drawing
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import check_writable, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pixelrl.simulation.evaluation.initial_states import InitialStates
    from pixelrl.simulation.evaluation.rollout import Outcome

FPS = 10.0
"""Of videos of environments that do not tell how often they act. [Hz]"""

FAILURES = 8
"""Failures of which the page shows videos."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(SimulationOptions):
    """Roll a policy out in simulation: success rate with its 95 % Wilson interval, return, length, every episode."""

    episodes: int | None = None
    """how many; episode i starts alike for every policy; default: 100, or all of --starts"""
    seed: int | None = None
    """of the starts; default: 0"""
    video: bool = False
    """write videos of the first episodes, and lay them out on one sheet of pictures"""
    videos: Annotated[int, arg(aliases=("--films",))] = 8
    """how many of them with --video"""
    starts: Path | None = None
    """a file of starts that `pixelrl starts` made; it names the environment, too"""
    time_limit: float = 60.0
    """seconds that a step or a reset may take before its worker counts as hung"""
    until: float | None = None
    """stop as soon as it is clear, with 95 % confidence, whether the success rate is above or below this"""
    html: bool = False
    """write videos, and evaluation.html: one page with them, Q along each of them where the policy has critics, the
    failures with the moment they went wrong, and every episode"""

    def __call__(self) -> None:
        """Play the episodes, and write `evaluation.json`, videos and a page.

        With `--until`, stop when the confidence sequence of the success rate excludes that value: the verdict is wrong
        for one policy in twenty at most, although it is looked at after every episode.

        Raises:
            PixelrlError: no policy there, no environment known, one that does not fit the policy, or nowhere to write.
        """
        from pixelrl.launch.reports.evaluation_page import write_evaluation_page
        from pixelrl.simulation.evaluation.statistics import confidence_sequence, summarise

        self.check_options()
        starts = self._initial_states()
        seed = starts.seed if starts else self.seed or 0
        provenance, console = Provenance(seed=seed), plain_console()
        play, about, fps = self._prepare(starts, seed, console)
        episodes: int = play.keywords["episodes"]
        videos = self.videos if self.video or self.html else 0
        directory = self.out or Path(self.run)
        check_writable(directory / "evaluation.json")
        with self.pool(console) as pool:
            play = partial(play, pool=pool)
            with closing(play(videos=videos)) as played:
                outcomes = wait_for(played, episodes, self.until, console)
            failures, unlike = replay_failures(play, outcomes, episodes) if self.html else ([], [])
        result: dict[str, Any] = summarise(outcomes) | about | nodes_of(pool) | provenance.record()
        if starts is not None:
            result |= {"starts": {"file": str(self.starts), "sha256": starts.sha256}}
        if self.until is not None:
            result |= {"until": self.until, "success_interval_95": confidence_sequence(*counts(outcomes))}
        write_json(directory / "evaluation.json", result)
        if videos:
            write_videos(outcomes, directory, fps)
        if self.html:
            write_evaluation_page(directory, outcomes, failures, result, fps)
        if unlike:
            those = ", ".join(map(str, unlike))
            console.print(f"{self.run}: no videos of episodes that went otherwise when played again: {those}")
        low, high = result["success_interval_95"]
        console.print(
            f"{self.run}: {result['successes']} of {result['episodes']} episodes succeed: "
            f"{result['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
            + (f"; {result['restarts']} begun anew, as their workers were lost" if result["restarts"] else "")
        )

    def check_options(self) -> None:
        """Raise a `PixelrlError` for an option that cannot be, whatever the policy is."""
        if self.until is not None and not 0 < self.until < 1:
            raise PixelrlError(f"--until is {self.until}; it is a success rate, so it must lie between 0 and 1")
        if self.videos < 1 and (self.video or self.html):
            raise PixelrlError(f"--videos is {self.videos}; it must be at least 1")
        key_values("--env-options", self.env_options)
        key_values("--camera-sources", self.camera_sources)

    def _initial_states(self) -> InitialStates | None:
        """Return the initial states of `--starts`; other options that name seed or environment do not go with it."""
        from pixelrl.simulation.evaluation.initial_states import read_initial_states

        if self.starts is None:
            return None
        if self.seed is not None or self.env or self.env_options or self.drawing:
            raise PixelrlError(
                f"--starts {self.starts} has its own seed and environment; leave --seed, --env, --env-options, "
                "--drawing away"
            )
        return read_initial_states(self.starts)

    def _prepare(
        self, starts: InitialStates | None, seed: int, console: Console
    ) -> tuple[partial[Generator[Outcome, None, None]], dict[str, Any], float]:
        """Return what plays the episodes, what to write about policy and environment, and the rate of videos [Hz]."""
        from pixelrl.simulation.envs.make import make_env
        from pixelrl.simulation.evaluation.fitted_policy import fitted_policy
        from pixelrl.simulation.evaluation.rollout import rollout

        loaded = self.policy()
        known = replace(loaded, env_args=starts.env_args) if starts else loaded
        env_args = self.env_args(known)
        warn_about_drawing(loaded, env_args, console)
        make = partial(make_env, env_args, allow_import=self.allowed_modules)
        with closing(make()) as env:
            policy, rate = fitted_policy(loaded, env, env_args), env.control_freq
        episodes = self.episodes
        if episodes is None:
            episodes = len(starts.states) if starts else 100
        play = partial(
            rollout,
            policy,
            make,
            episodes=episodes,
            seed=seed,
            history=loaded.history,
            critics=loaded.values if self.html else None,
            initial_states=starts.states if starts else (),
            time_limit=self.time_limit,
        )
        return play, {"policy": loaded.origin, "env_args": env_args}, rate or FPS


def wait_for(played: Iterable[Outcome], episodes: int, until: float | None, console: Console) -> list[Outcome]:
    """Wait for the outcomes and return them by index; with `until` only as many as decide it."""
    outcomes: list[Outcome] = []
    with progress_bar(console) as bar:
        job = bar.add_task("evaluate", total=episodes, note="")
        for outcome in played:
            outcomes.append(outcome)
            successes, _ = counts(outcomes)
            bar.update(job, completed=len(outcomes), note=f"{successes} of {len(outcomes)} succeed")
            if until is not None and (enough := conclusive(outcomes, until)):
                outcomes = enough
                break
    return sorted(outcomes, key=lambda outcome: outcome.index)


def conclusive(outcomes: Sequence[Outcome], rate: float) -> list[Outcome]:
    """Return the fewest first episodes that decide whether the success rate is above `rate`; none if none do.

    Only episodes without a gap before them count: successes end sooner, so those finished first are the better ones.
    """
    from pixelrl.simulation.evaluation.statistics import confidence_sequence

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


def replay_failures(
    play: Callable[..., Iterable[Outcome]], outcomes: Sequence[Outcome], episodes: int
) -> tuple[list[Outcome], list[int]]:
    """Play the first failures again for their videos, if they have none: the same seeds give the same episodes.

    Returns:
        Those that have videos; and the indices of those that went otherwise, as some environments ignore the seed.
    """
    failed = [outcome for outcome in outcomes if not outcome.success][:FAILURES]
    unseen = [outcome.index for outcome in failed if outcome.frames is None]
    replayed = {outcome.index: outcome for outcome in play(videos=episodes, only=unseen)} if unseen else {}
    pairs = [(outcome, replayed.get(outcome.index, outcome)) for outcome in failed]
    alike = [again for first, again in pairs if course(first) == course(again)]
    return alike, [first.index for first, again in pairs if course(first) != course(again)]


def course(outcome: Outcome) -> tuple[bool, float, int]:
    """Return by what an episode is known again: success, return and length."""
    return outcome.success, outcome.return_, outcome.length


def write_videos(outcomes: Sequence[Outcome], directory: Path, fps: float) -> None:
    """Write a video of each episode that has frames, one of them all, and a sheet of pictures, failures first.

    The videos of an earlier evaluation are removed.
    """
    from pixelrl.launch.reports.evaluation_page import forget_videos, video_path
    from pixelrl.runtime.video import Row, contact_sheet, mosaic, write_video

    seen = [(outcome, outcome.frames) for outcome in outcomes if outcome.frames is not None]
    rows = []
    forget_videos(directory)
    for outcome, frames in seen:
        word = "success" if outcome.success else "failure"
        write_video(video_path(directory, outcome), frames, fps)
        rows.append(Row(f"episode {outcome.index} · {word} · {outcome.length} steps", frames, outcome.success))
    write_video(directory / "evaluation.mp4", mosaic([frames for _, frames in seen]), fps)
    rows.sort(key=lambda row: bool(row.ok))
    count = sum(outcome.success for outcome, _ in seen)
    contact_sheet(directory / "evaluation.png", rows, title=f"{count} of {len(seen)} episodes succeed")

"""`pixelrl evaluate`: try a run or an exported policy in simulation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from pixelrl.launch.checkpoint_selection import Select, select_step
from pixelrl.launch.console import plain_console, progress_bar
from pixelrl.launch.options import Drawing, WorkerOptions, key_values, nodes_of
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.served import is_url, load_from_server
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pixelrl.export.loaded_policy import LoadedPolicy
    from pixelrl.simulation.evaluation.initial_states import InitialStates
    from pixelrl.simulation.evaluation.rollout import Outcome

FPS = 10.0
"""Of videos of environments that do not tell how often they act. [Hz]"""

FAILURES = 8
"""Failures of which the page shows videos."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(WorkerOptions):
    """Roll a policy out in simulation: success rate with its 95 % Wilson interval, return, length, every episode."""

    run: Annotated[Positional[str | Path], arg(metavar="DIRECTORY|URL")]
    """directory of a training run, or of an exported policy; or ws://HOST:PORT, where `pixelrl serve` serves one"""
    token_file: Path | None = None
    """with ws://: a file with the server's token"""
    episodes: int | None = None
    """how many; episode i starts alike for every policy; default: 100, or all of --starts"""
    seed: int | None = None
    """of the starts; default: 0"""
    video: bool = False
    """write videos of the first episodes, and lay them out on one sheet of pictures"""
    videos: int = 8
    """how many of them with --video"""
    step: int | None = None
    """use the snapshot of this step, not the last checkpoint"""
    acting: Literal["mode", "sample", "best"] | None = None
    """how the policy acts: by its mode, a sample, or the best of several by Q; default: as its recipe says"""
    select: Select = "last"
    """the checkpoint to use: the last; the snapshot where Q of recorded actions peaks; that of the least TD error on
    held-out episodes"""
    env: str | None = None
    """environment to use, say pick-place-tray, drawer-grasp or Lift, or gym:ID; MODULE:TASK or gym:MODULE:ID, where
    importing the module registers it; default: the one that the data came from"""
    env_options: tuple[str, ...] = ()
    """of the environment, say distractor=true, or obs_type=pixels for gymnasium.make"""
    allow_import: tuple[str, ...] = ()
    """modules that may be imported to register the data's environment; that of --env always may"""
    camera_sources: tuple[str, ...] = ()
    """where a Gymnasium environment has the policy's pictures, say agentview=pixels; render: what it draws for people;
    default: they have the same names"""
    starts: Path | None = None
    """a file of starts that `pixelrl starts` made; it names the environment, too"""
    time_limit: float = 60.0
    """seconds that a step or a reset may take before its worker counts as hung"""
    drawing: Drawing | None = None
    """stock (as robosuite draws) or fast (simple shapes, flat colours); default: as the data were drawn"""
    until: float | None = None
    """stop as soon as it is clear, with 95 % confidence, whether the success rate is above or below this"""
    out: Path | None = None
    """where to write evaluation.json and videos; default: the policy's directory"""
    html: bool = False
    """write videos, and evaluation.html: one page with them, Q along each of them where the policy has critics, the
    failures with the moment they went wrong, and every episode"""

    def __call__(self) -> None:
        """Play the episodes, and write `evaluation.json`, videos and a page.

        With `--until`, stop when the confidence sequence of the success rate excludes that value: the verdict is wrong
        for one policy in twenty at most, although it is looked at after every episode.

        Raises:
            PixelrlError: no policy there, no environment known, or one that does not fit the policy.
        """
        from pixelrl.launch.reports.evaluation_page import write_evaluation_page
        from pixelrl.simulation.evaluation.statistics import confidence_sequence, summarise

        if self.until is not None and not 0 < self.until < 1:
            raise PixelrlError(f"--until is {self.until}; it is a success rate, so it must lie between 0 and 1")
        starts = self._initial_states()
        seed = starts.seed if starts else self.seed or 0
        provenance, console = Provenance(seed=seed), plain_console()
        play, about, fps = self._prepare(starts, seed, console)
        episodes: int = play.keywords["episodes"]
        videos = self.videos if self.video or self.html else 0
        with self.pool(console) as pool:
            play = partial(play, pool=pool)
            with closing(play(videos=videos)) as played:
                outcomes = wait_for(played, episodes, self.until, console)
            failures = replay_failures(play, outcomes, episodes) if self.html else []
        result: dict[str, Any] = summarise(outcomes) | about | nodes_of(pool) | provenance.record()
        if starts is not None:
            result |= {"starts": {"file": str(self.starts), "sha256": starts.sha256}}
        if self.until is not None:
            result |= {"until": self.until, "success_interval_95": confidence_sequence(*counts(outcomes))}
        directory = self.out or Path(self.run)
        write_json(directory / "evaluation.json", result)
        if videos:
            write_videos(outcomes, directory, fps)
        if self.html:
            write_evaluation_page(directory, outcomes, failures, result, fps)
        low, high = result["success_interval_95"]
        console.print(
            f"{self.run}: {result['successes']} of {result['episodes']} episodes succeed: "
            f"{result['success_rate']:.0%} (95 % interval {low:.0%} to {high:.0%})"
            + (f"; {result['restarts']} begun anew, as their workers were lost" if result["restarts"] else "")
        )

    def _policy(self) -> LoadedPolicy:
        """Return the policy to try.

        Raises:
            PixelrlError: there is none, or options that do not go with one that is served elsewhere.
        """
        from pixelrl.export.loaded_policy import load_policy

        if is_url(self.run):
            chosen = self.step is not None or self.select != "last"
            return load_from_server(self.run, self.token_file, self.out, chosen=chosen)
        run = Path(self.run)
        loaded = load_policy(run, select_step(run, self.select, self.step), acting=self.acting)
        rule = {} if self.select == "last" else {"selected_by": self.select}
        return replace(loaded, origin={**loaded.origin, **rule})

    def _initial_states(self) -> InitialStates | None:
        """Return the initial states of `--starts`.

        Raises:
            PixelrlError: no such file there, or options that contradict it.
        """
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
        from pixelrl.launch.environment import environment_for, warn_about_drawing
        from pixelrl.simulation.envs.make import make_env, modules_of
        from pixelrl.simulation.evaluation.fitted_policy import fitted_policy
        from pixelrl.simulation.evaluation.rollout import rollout

        loaded = self._policy()
        known = replace(loaded, env_args=starts.env_args) if starts else loaded
        sources = {camera: str(name) for camera, name in key_values("--camera-sources", self.camera_sources).items()}
        options = key_values("--env-options", self.env_options)
        env_args = environment_for(known, self.env, options, sources, self.drawing)
        warn_about_drawing(loaded, env_args, console)
        make = partial(make_env, env_args, allow_import=(*self.allow_import, *modules_of(self.env)))
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
) -> list[Outcome]:
    """Play the first failures again for their videos, if they have none: the same seeds give the same episodes."""
    failed = [outcome for outcome in outcomes if not outcome.success][:FAILURES]
    unseen = [outcome.index for outcome in failed if outcome.frames is None]
    replayed = {outcome.index: outcome for outcome in play(videos=episodes, only=unseen)} if unseen else {}
    return [replayed.get(outcome.index, outcome) for outcome in failed]


def write_videos(outcomes: Sequence[Outcome], directory: Path, fps: float) -> None:
    """Write a video of each episode that has frames, one of them all, and a sheet of pictures, failures first."""
    from pixelrl.launch.reports.evaluation_page import video_path
    from pixelrl.runtime.video import Row, contact_sheet, mosaic, write_video

    seen = [(outcome, outcome.frames) for outcome in outcomes if outcome.frames is not None]
    rows = []
    for outcome, frames in seen:
        word = "success" if outcome.success else "failure"
        write_video(video_path(directory, outcome), frames, fps)
        rows.append(Row(f"episode {outcome.index} · {word} · {outcome.length} steps", frames, outcome.success))
    write_video(directory / "evaluation.mp4", mosaic([frames for _, frames in seen]), fps)
    rows.sort(key=lambda row: bool(row.ok))
    count = sum(outcome.success for outcome, _ in seen)
    contact_sheet(directory / "evaluation.png", rows, title=f"{count} of {len(seen)} episodes succeed")

"""Collect a data set with a scripted policy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from pixelrl.datasets.writer import write_episodes
from pixelrl.episode import Episode
from pixelrl.errors import PixelrlError
from pixelrl.files import write_json
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.simulation.collect import collect as episodes_of
from pixelrl.simulation.environment import default_env_args, make_env


def collect(
    task: str,
    part: str,
    out: Path,
    *,
    episodes: int,
    seed: int,
    workers: int,
    size: int | None = None,
    distractor: bool = False,
    compress: bool = False,
    console: Console,
) -> dict[str, Any]:
    """Write `episodes` scripted episodes to the HDF5 file `out`, and `OUT.collection.json` beside it.

    Raises:
        PixelrlError: an unknown task or part, or a file that exists.
    """
    if out.exists():
        raise PixelrlError(f"{out}: exists already; choose another --out, or remove it")
    provenance = Provenance(seed=seed)
    env_args = default_env_args(task, size=size, **({"distractor": True} if distractor else {}))
    env = make_env(env_args)
    dims = env.action_dims
    env.close()
    tally = {"episodes": 0, "successes": 0, "held_at_start": 0, "rewarded": 0, "whole_task": 0}
    with progress_bar(console) as bar:
        job = bar.add_task("collect", total=episodes, note=part)

        def counted() -> Iterator[Episode]:
            for episode in episodes_of(env_args, part, episodes=episodes, seed=seed, workers=workers):
                tally["episodes"] += 1
                held, rewarded = bool(episode.notes["held_at_start"]), bool(episode.rewards.any())
                tally["successes"] += bool(episode.notes["success"])
                tally["held_at_start"] += held
                tally["rewarded"] += rewarded
                tally["whole_task"] += rewarded and not held
                bar.update(job, advance=1, note=f"{part}: {tally['successes']} of {tally['episodes']} succeed")
                yield episode

        transitions = write_episodes(out, counted(), env_args=env_args, action_dims=dims, compress=compress)
    result = {"file": out.name, "task": task, "part": part, **tally, "transitions": transitions, "env_args": env_args}
    result |= provenance.record()
    write_json(out.with_suffix(".collection.json"), result)
    console.print(f"{out}: {tally['episodes']} episodes, {transitions} transitions, {tally['successes']} successes")
    return result

"""Collect a data set with a scripted policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console

from pixelrl.datasets.hdf5.access import parts_folder
from pixelrl.datasets.hdf5.writer import EpisodeWriter, remove_merged
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.tasks.scripted.collect import collect as episodes_of
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.workers.ray import RayPool


def collect(
    task: str,
    part: str,
    out: Path,
    *,
    episodes: int,
    seed: int,
    workers: int,
    size: int | None = None,
    drawing: str | None = None,
    distractor: bool = False,
    compress: bool = False,
    cluster: RayPool | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write `episodes` scripted episodes to the HDF5 file `out`, and `OUT.collection.json` beside it.

    After an interruption it goes on behind the episodes that `OUT.parts` holds; the file becomes the same.

    Raises:
        PixelrlError: an unknown task or part, a file that exists, or an unfinished one of another collection.
    """
    remove_merged(out)
    if out.exists():
        raise PixelrlError(f"{out}: exists already; choose another --out, or remove it")
    provenance = Provenance(seed=seed)
    env_args = default_env_args(task, size=size, drawing=drawing, **({"distractor": True} if distractor else {}))
    env = make_robosuite_env(env_args)
    dims = env.action_dims
    env.close()
    tally = dict.fromkeys(("episodes", "successes", "held_at_start", "rewarded", "whole_task"), 0)
    writer = EpisodeWriter(
        out, env_args=env_args, action_dims=dims, compress=compress, resume="pixelrl collect"
    )
    with progress_bar(console) as bar, writer:
        _check_kept(parts_folder(out), writer.kept, part, seed, episodes)
        for notes, rewards in writer.kept:
            _count(tally, notes, rewards)
        start = writer.count
        if start:
            console.print(f"{parts_folder(out)}: goes on behind the {start} episodes that it holds")
        options: dict[str, Any] = {"episodes": episodes, "seed": seed, "workers": workers, "start": start}
        options["pool"] = cluster
        job = bar.add_task("collect", total=episodes, completed=start, note=part)
        try:
            for episode in episodes_of(env_args, part, **options):
                writer.add(episode)
                _count(tally, episode.notes, episode.rewards)
                bar.update(job, advance=1, note=f"{part}: {tally['successes']} of {tally['episodes']} succeed")
        except BaseException:
            console.print(f"{parts_folder(out)}: holds {writer.count} episodes; the same command goes on with it")
            raise
    transitions = writer.transitions
    result = {"file": out.name, "task": task, "part": part, **tally, "transitions": transitions, "env_args": env_args}
    result |= {"resumed_behind": start, **nodes_of(cluster), **provenance.record()}
    write_json(out.with_suffix(".collection.json"), result)
    console.print(f"{out}: {tally['episodes']} episodes, {transitions} transitions, {tally['successes']} successes")
    return result


def _check_kept(
    parts: Path, kept: Sequence[tuple[Mapping[str, Any], NDArray[Any]]], part: str, seed: int, episodes: int
) -> None:
    """Raise a `PixelrlError` unless the episodes that an interrupted collection left are the first of this one."""
    for index, (notes, _) in enumerate(kept):
        for name, expected in {"part": part, "seed": derive(seed, part, index)}.items():
            if notes.get(name) != expected:
                message = f"episode {index} is of {name} {notes.get(name)}; the one to be collected, of {expected}"
                raise PixelrlError(f"{parts}: {message}: give the interrupted collection's options, or remove it")
    if len(kept) > episodes:
        raise PixelrlError(f"{parts}: holds {len(kept)} episodes already; expected at most --episodes {episodes}")


def _count(tally: dict[str, int], notes: Mapping[str, Any], rewards: NDArray[Any]) -> None:
    """Count an episode."""
    tally["episodes"] += 1
    tally["rewarded"] += bool(rewards.any())
    for tallied, note in (("successes", "success"), ("held_at_start",) * 2, ("whole_task",) * 2):
        tally[tallied] += bool(notes[note])

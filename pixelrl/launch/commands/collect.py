"""Collect a data set with a scripted policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pixelrl.datasets.hdf5.access import json_attribute, open_file
from pixelrl.datasets.hdf5.writer import EpisodeWriter, unfinished_path
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.tasks.scripted.collect import collect as episodes_of
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.evaluation.ray_engine import Cluster


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
    cluster: Cluster | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write `episodes` scripted episodes to the HDF5 file `out`, and `OUT.collection.json` beside it.

    After an interruption it goes on behind the episodes that `OUT.unfinished.hdf5` holds; the file becomes the same.

    Raises:
        PixelrlError: an unknown task or part, a file that exists, or an unfinished one of another collection.
    """
    if out.exists():
        raise PixelrlError(f"{out}: exists already; choose another --out, or remove it")
    provenance = Provenance(seed=seed)
    env_args = default_env_args(task, size=size, drawing=drawing, **({"distractor": True} if distractor else {}))
    env = make_robosuite_env(env_args)
    dims = env.action_dims
    env.close()
    tally = dict.fromkeys(("episodes", "successes", "held_at_start", "rewarded", "whole_task"), 0)
    before = _recorded(unfinished_path(out), part, seed, episodes)
    for notes, rewards in before:
        _count(tally, notes, rewards)
    options: dict[str, Any] = {"episodes": episodes, "seed": seed, "workers": workers, "start": len(before)}
    options["team"] = None if cluster is None else cluster.in_order
    if before:
        console.print(f"{unfinished_path(out)}: goes on behind the {len(before)} episodes that it holds")
    with (
        progress_bar(console) as bar,
        EpisodeWriter(out, env_args=env_args, action_dims=dims, compress=compress, resume=True) as writer,
    ):
        job = bar.add_task("collect", total=episodes, completed=len(before), note=part)
        try:
            for episode in episodes_of(env_args, part, **options):
                writer.add(episode)
                _count(tally, episode.notes, episode.rewards)
                bar.update(job, advance=1, note=f"{part}: {tally['successes']} of {tally['episodes']} succeed")
        except BaseException:
            console.print(f"{unfinished_path(out)}: holds {writer.count} episodes; the same command goes on with it")
            raise
    transitions = writer.transitions
    result = {"file": out.name, "task": task, "part": part, **tally, "transitions": transitions, "env_args": env_args}
    result |= {"resumed_behind": len(before), **nodes_of(cluster), **provenance.record()}
    write_json(out.with_suffix(".collection.json"), result)
    console.print(f"{out}: {tally['episodes']} episodes, {transitions} transitions, {tally['successes']} successes")
    return result


def _recorded(path: Path, part: str, seed: int, episodes: int) -> list[tuple[Mapping[str, Any], NDArray[np.float32]]]:
    """Return the notes and rewards of the episodes that an interrupted collection left, if there was one.

    Raises:
        PixelrlError: it was a collection of something else.
    """
    if not path.exists():
        return []
    with open_file(path) as file:
        demos = [file["data"][f"demo_{index}"] for index in range(len(file["data"]))]
        held = [(json_attribute(demo, "notes", {}), demo["rewards"][()]) for demo in demos]
    for index, (notes, _) in enumerate(held):
        came = {name: notes.get(name) for name in ("part", "seed")}
        for name, expected in {"part": part, "seed": derive(seed, part, index)}.items():
            if came[name] != expected:
                message = f"episode {index} is of {name} {came[name]}; the one to be collected, of {expected}"
                raise PixelrlError(f"{path}: {message}: give the interrupted collection's options, or remove the file")
    if len(held) > episodes:
        raise PixelrlError(f"{path}: holds {len(held)} episodes already; expected at most --episodes {episodes}")
    return held


def _count(tally: dict[str, int], notes: Mapping[str, Any], rewards: NDArray[np.float32]) -> None:
    """Count an episode."""
    tally["episodes"] += 1
    tally["rewarded"] += bool(rewards.any())
    for tallied, note in (("successes", "success"), ("held_at_start",) * 2, ("whole_task",) * 2):
        tally[tallied] += bool(notes[note])

"""Draw the pictures that raw robosuite and robomimic files lack."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pixelrl.runtime.env_args import drawing_of
from pixelrl.runtime.actions import ActionDim
from pixelrl.datasets.hdf5.access import parts_folder
from pixelrl.simulation.playback.raw_hdf5 import RawFile, read_raw_file, read_raw_episode, render_raw_episodes
from pixelrl.datasets.hdf5.writer import EpisodeWriter, remove_merged
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance
from pixelrl.simulation.envs.controllers import translated
from pixelrl.simulation.envs.robosuite_env import make_robosuite_env
from pixelrl.simulation.workers.pool import WorkerPool
from pixelrl.simulation.workers.ray import RayPool

FAR = 0.01
"""A replay whose end effector strays farther than this is worth a warning. [m]"""

WORST = 5
"""How many of the demos that stray most are listed."""


def render(
    raw: Path,
    out: Path,
    *,
    cameras: Sequence[str],
    size: tuple[int, int],
    drawing: str | None = None,
    demos: int | None = None,
    workers: int = 2,
    replay: bool = True,
    compress: bool = False,
    cluster: RayPool | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write the episodes of a raw file with pictures to `out`, and `OUT.render.json` beside it; return the latter.

    What an interrupted run has finished is kept in `OUT.parts`, and the same command goes on with it. Every frame is a function of the raw file and the options: the number of workers changes nothing.

    Raises:
        PixelrlError: a file that cannot be rendered, one that exists, or an unfinished one of another command.
    """
    remove_merged(out)
    if out.exists():
        raise PixelrlError(f"{out}: exists already; choose another --out, or remove it")
    if (demos is not None and demos < 1) or min(size) < 1 or not cameras:
        raise PixelrlError(f"--demos {demos}, --size {size}, --cameras {cameras}: expected one or more of each")
    provenance, file = Provenance(), read_raw_file(raw)
    names = file.demos[:demos]
    env_args = _with_cameras(translated(file.env_args), cameras, size)
    env_args["drawing"] = drawing or drawing_of(env_args)
    scene_args = env_args if replay else _without_controllers(env_args)
    dims = _action_dims(scene_args) if replay else tuple(ActionDim(name=f"action_{i}") for i in range(file.action_dim))
    writer = EpisodeWriter(
        out,
        env_args=env_args,
        action_dims=dims,
        compress=compress,
        masks=_masks(file, names),
        resume="pixelrl render",
    )
    with progress_bar(console) as bar, writer:
        done = [notes.get("render", {}) for notes, _ in writer.kept]
        _check_kept(parts_folder(out), done, file, names, replay)
        rest = ((name, read_raw_episode(file, name)) for name in names[len(done) :])
        pool = cluster or WorkerPool(workers)
        job = bar.add_task("render", total=len(names), completed=len(done), note="")
        try:
            for episode in render_raw_episodes(scene_args, rest, replay=replay, pool=pool, source=raw):
                writer.add(episode)
                done.append(episode.notes["render"])
                bar.update(job, advance=1, note=f"{sum(demo['success'] for demo in done)} succeed")
        except BaseException:
            if writer.count:
                console.print(f"{parts_folder(out)}: holds {writer.count} episodes; the same command goes on with it")
            raise
    overall = _overall(done) if replay else None
    result = {"file": out.name, "source": str(raw), "transitions": writer.transitions, "replay": overall}
    result |= {"demos": done, "env_args": env_args, **nodes_of(cluster), **provenance.record()}
    write_json(out.with_suffix(".render.json"), result)
    _report(out, result, console)
    return result


def _with_cameras(env_args: Mapping[str, Any], cameras: Sequence[str], size: tuple[int, int]) -> dict[str, Any]:
    """Return the environment of the recording with these cameras."""
    kept = {key: value for key, value in env_args["env_kwargs"].items() if not key.startswith("camera_")}
    view = {"camera_names": list(cameras), "camera_heights": size[0], "camera_widths": size[1]}
    shown = {"use_camera_obs": True, "has_offscreen_renderer": True, "has_renderer": False}
    return {**env_args, "type": env_args.get("type", 1), "env_kwargs": {**kept, **view, **shown}}


def _without_controllers(env_args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment with the robots' default controllers, for states that are only looked at."""
    options = {key: value for key, value in env_args["env_kwargs"].items() if key != "controller_configs"}
    return {**env_args, "env_kwargs": options}


def _action_dims(env_args: Mapping[str, Any]) -> tuple[ActionDim, ...]:
    """Return what the actions mean, and find out whether the environment can be made before workers try."""
    env = make_robosuite_env(env_args)
    try:
        return env.action_dims
    finally:
        env.close()


def _check_kept(
    parts: Path, kept: Sequence[Mapping[str, Any]], file: RawFile, names: Sequence[str], replay: bool
) -> None:
    """Raise a `PixelrlError` unless what an interrupted run noted on its demos is of these demos, so rendered."""
    for note, name in zip(kept, [*names, *[None] * len(kept)], strict=False):
        same = name is not None and note.get("digest") == read_raw_episode(file, name).digest()
        if not same or ("qpos_max" in note) != replay:
            raise PixelrlError(f"{parts}: was begun from other data or with other options; remove it to begin anew")


def _masks(file: RawFile, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the file's filters in terms of the demos' new names."""
    now = {name: f"demo_{index}" for index, name in enumerate(names)}
    return {mask: [now[name] for name in chosen if name in now] for mask, chosen in file.masks.items()}


def _overall(demos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how far the replays of all demos stray; means are over instants."""
    instants = sum(demo["instants"] for demo in demos)
    result: dict[str, Any] = {
        "instants": instants,
        "exact": sum(demo["exact"] for demo in demos),
        "far": [demo["source"] for demo in demos if demo["eef_max"] > FAR],
    }
    for key in ("qpos", "eef"):
        result[f"{key}_max"] = max(demo[f"{key}_max"] for demo in demos)
        result[f"{key}_mean"] = sum(demo[f"{key}_mean"] * demo["instants"] for demo in demos) / max(instants, 1)
    return result


def _report(out: Path, result: Mapping[str, Any], console: Console) -> None:
    """Print what was made, and how far the replays stray."""
    demos, replay = result["demos"], result["replay"]
    successes = sum(demo["success"] for demo in demos)
    console.print(f"{out}: {len(demos)} episodes, {result['transitions']} transitions, {successes} successes")
    if replay is None:
        return
    table = Table("demo", "steps", "success", "qpos max", "mean", "eef max (mm)", "mean")
    table.title = "Replayed actions: distance to the recorded states"
    worst = sorted((demo for demo in demos if not demo["exact"]), key=lambda demo: -demo["eef_max"])[:WORST]
    for demo in worst:
        table.add_row(demo["source"], str(demo["steps"]), "yes" if demo["success"] else "no", *_distances(demo))
    table.add_row("all", str(result["transitions"]), str(successes), *_distances(replay))
    console.print(table)
    console.print(f"{replay['exact']} of {len(demos)} replays meet every recorded state exactly")
    if replay["far"]:
        console.print(
            f"warning: in {len(replay['far'])} of {len(demos)} demos the end effector strays more than "
            f"{1000 * FAR:.0f} mm when the actions are played here. The pictures are those of the recorded states; but "
            "the actions do not do here what they did there (another version, other controllers?).",
            style="bold yellow",
        )


def _distances(replay: Mapping[str, Any]) -> tuple[str, ...]:
    hands = (f"{1000 * replay[f'eef_{key}']:.3g}" for key in ("max", "mean"))
    return (f"{replay['qpos_max']:.3g}", f"{replay['qpos_mean']:.3g}", *hands)

"""`pixelrl render`: the pictures that raw robosuite and robomimic files lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console, progress_bar, table_of
from pixelrl.launch.options import Drawing, WorkerOptions, nodes_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.env_args import drawing_of
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console

    from pixelrl.runtime.actions import ActionDim
    from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv
    from pixelrl.simulation.playback.raw_hdf5 import RawFile

FAR = 0.01
"""A replay whose end effector strays farther than this is worth a warning. [m]"""

WORST = 5
"""How many of the demos that stray most are listed."""


@dataclass(frozen=True, kw_only=True)
class Render(WorkerOptions):
    """Draw the pictures that a raw robosuite or robomimic file lacks, and tell how far its actions stray when replayed.

    Every recorded state is put back into the recorded scene and looked at. After an interruption the same command goes
    on. Recordings of robosuite 1.4 come out in the words of 1.5.
    """

    raw: Positional[Path]
    """HDF5 file with states, actions and model_file; pictures in it are ignored"""
    out: Path
    """HDF5 file to write, in robomimic's format"""
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand")
    """to draw; the names are those of the scene"""
    size: tuple[int, int] = (84, 84)
    """height and width of the pictures [px]"""
    drawing: Drawing | None = None
    """stock (as robosuite draws) or fast (simple shapes, flat colours, no shadows); default: what the file names, else
    stock"""
    env: str | None = None
    """the recorded task, where the file does not name it as it is known here: TASK, or MODULE:TASK, where importing the
    module registers the task with robosuite"""
    allow_import: tuple[str, ...] = ()
    """modules that may be imported to register the recorded task; that of --env always may"""
    count: Annotated[int | None, arg(aliases=("--demos",))] = None
    """only the first so many"""
    replay: bool = True
    """play the actions too. Without, a controller that this robosuite lacks does no harm, but nothing is known of the
    state after the last action, which is dropped"""
    compress: bool = False
    """gzip the pictures, one frame a chunk"""

    def __call__(self) -> None:
        """Write the episodes with pictures to `OUT`, and `OUT.render.json` beside it.

        What an interrupted run has finished is kept in `OUT.parts`, and the same command goes on with it. Every frame
        is a function of the raw file and the options: the number of workers changes nothing.

        Raises:
            PixelrlError: a file that cannot be rendered, one that exists, or an unfinished one of another command.
        """
        from pixelrl.datasets.hdf5.access import parts_folder
        from pixelrl.datasets.hdf5.writer import EpisodeWriter, remove_merged
        from pixelrl.simulation.envs.make import modules_of
        from pixelrl.simulation.envs.robosuite_env import make_robosuite_env
        from pixelrl.simulation.playback.raw_hdf5 import read_raw_episode, read_raw_file, render_raw_episodes

        remove_merged(self.out)
        self._check_options()
        provenance, console, parts = Provenance(), plain_console(), parts_folder(self.out)
        file = read_raw_file(self.raw)
        names = file.demos[: self.count]
        env_args, scene_args = self._env_args(file)
        make = partial(make_robosuite_env, scene_args, (*self.allow_import, *modules_of(self.env)))
        dims = action_dims(make) if self.replay else unnamed_dims(file.action_dim)
        writer = EpisodeWriter(
            self.out,
            env_args=env_args,
            action_dims=dims,
            compress=self.compress,
            masks=renamed_masks(file, names),
            resume="pixelrl render",
        )
        with self.pool(console) as pool, progress_bar(console) as bar, writer:
            done = [notes.get("render", {}) for notes, _ in writer.kept]
            self._check_kept(parts, done, file, names)
            rest = ((name, read_raw_episode(file, name)) for name in names[len(done) :])
            job = bar.add_task("render", total=len(names), completed=len(done), note="")
            try:
                for episode in render_raw_episodes(make, rest, replay=self.replay, pool=pool, source=self.raw):
                    writer.add(episode)
                    done.append(episode.notes["render"])
                    bar.update(job, advance=1, note=f"{sum(demo['success'] for demo in done)} succeed")
            except BaseException:
                if writer.count:
                    console.print(f"{parts}: holds {writer.count} episodes; the same command goes on with it")
                raise
        result: dict[str, Any] = {"file": self.out.name, "source": str(self.raw), "transitions": writer.transitions}
        result |= {"replay": replay_summary(done) if self.replay else None, "demos": done, "env_args": env_args}
        write_json(self.out.with_suffix(".render.json"), result | nodes_of(pool) | provenance.record())
        print_replays(self.out, result, console)

    def _check_options(self) -> None:
        """Raise if nothing can be rendered as asked."""
        if self.out.exists():
            raise PixelrlError(f"{self.out}: exists already; choose another --out, or remove it")
        if (self.count is not None and self.count < 1) or min(self.size) < 1 or not self.cameras:
            raise PixelrlError(
                f"--count {self.count}, --size {self.size}, --cameras {self.cameras}: expected one or more of each"
            )

    def _env_args(self, file: RawFile) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the environment of the recording with these cameras, to be written, and the one to be made.

        Without a replay the latter has the robots' default controllers.
        """
        from pixelrl.simulation.envs.controllers import translated

        name = {} if self.env is None else {"env_name": self.env.rpartition(":")[2]}
        recorded = translated({**file.env_args, **name})
        options = {key: value for key, value in recorded["env_kwargs"].items() if not key.startswith("camera_")}
        options |= {"camera_names": list(self.cameras), "camera_heights": self.size[0], "camera_widths": self.size[1]}
        options |= {"use_camera_obs": True, "has_offscreen_renderer": True, "has_renderer": False}
        env_args = {**recorded, "type": recorded.get("type", 1), "env_kwargs": options}
        env_args["drawing"] = self.drawing or drawing_of(env_args)
        if self.replay:
            return env_args, env_args
        default = {key: value for key, value in options.items() if key != "controller_configs"}
        return env_args, {**env_args, "env_kwargs": default}

    def _check_kept(self, parts: Path, kept: Sequence[Mapping[str, Any]], file: RawFile, names: Sequence[str]) -> None:
        """Raise unless what an interrupted run noted on its demos is of these demos, so rendered."""
        from pixelrl.simulation.playback.raw_hdf5 import read_raw_episode

        for note, name in zip(kept, [*names, *[None] * len(kept)], strict=False):
            same = name is not None and note.get("digest") == read_raw_episode(file, name).digest()
            if not same or ("qpos_max" in note) != self.replay:
                raise PixelrlError(f"{parts}: was begun from other data or with other options; remove it to begin anew")


def action_dims(make: Callable[[], RobosuiteEnv]) -> tuple[ActionDim, ...]:
    """Return what the actions mean, and try whether the environment can be made before workers do."""
    with closing(make()) as env:
        return env.action_dims


def renamed_masks(file: RawFile, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the file's filters in terms of the demos' new names."""
    now = {name: f"demo_{index}" for index, name in enumerate(names)}
    return {mask: [now[name] for name in chosen if name in now] for mask, chosen in file.masks.items()}


def replay_summary(demos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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


def print_replays(out: Path, result: Mapping[str, Any], console: Console) -> None:
    """Print what was made, and how far the replays stray."""
    demos, replay = result["demos"], result["replay"]
    successes = sum(demo["success"] for demo in demos)
    console.print(f"{out}: {len(demos)} episodes, {result['transitions']} transitions, {successes} successes")
    if replay is None:
        return
    table = table_of("demo", "steps", "success", "qpos max", "mean", "eef max (mm)", "mean")
    table.title = "Replayed actions: distance to the recorded states"
    worst = sorted((demo for demo in demos if not demo["exact"]), key=lambda demo: -demo["eef_max"])[:WORST]
    for demo in worst:
        table.add_row(demo["source"], str(demo["steps"]), "yes" if demo["success"] else "no", *distances(demo))
    table.add_row("all", str(result["transitions"]), str(successes), *distances(replay))
    console.print(table)
    console.print(f"{replay['exact']} of {len(demos)} replays meet every recorded state exactly")
    if replay["far"]:
        console.print(
            f"warning: in {len(replay['far'])} of {len(demos)} demos the end effector strays more than "
            f"{1000 * FAR:.0f} mm when the actions are played here. The pictures are those of the recorded states; but "
            "the actions do not do here what they did there (another version, other controllers?).",
            style="bold yellow",
        )


def distances(replay: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the distances of a replay as text."""
    hands = (f"{1000 * replay[f'eef_{key}']:.3g}" for key in ("max", "mean"))
    return (f"{replay['qpos_max']:.3g}", f"{replay['qpos_mean']:.3g}", *hands)

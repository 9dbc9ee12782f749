"""`pixelrl collect`: a data set, recorded with a scripted policy."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from pixelrl.launch.console import plain_console, progress_bar
from pixelrl.launch.options import Drawing, WorkerOptions, nodes_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.runtime.seeding import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Collect(WorkerOptions):
    """Collect a data set with a scripted, noisy policy; the file depends on the seed, not on the workers."""

    task: Positional[str]
    """pick-place-tray, drawer-grasp, drawer-blocked-drawer, or drawer-blocked-object"""
    part: Positional[str]
    """prior (the first half of the task, many fail, no reward), task (the second half, which starts where the first
    ends: with the cube in the gripper, or the drawer open), or oracle (the whole task, without noise)"""
    out: Path
    """HDF5 file to write, in robomimic's format"""
    episodes: int = 300
    """how many"""
    seed: int = 0
    """of starts and noise"""
    size: tuple[int, int] | None = None
    """height and width of the pictures [px]; default: the task's own"""
    drawing: Drawing | None = None
    """fast (simple shapes, flat colours, no shadows) or stock (as robosuite draws); default: fast"""
    distractor: bool = False
    """put a second, distracting cube on the table"""
    compress: bool = False
    """gzip the pictures, one frame a chunk"""

    def __call__(self) -> None:
        """Write the HDF5 file, and `OUT.collection.json` beside it.

        After an interruption it goes on behind the episodes that `OUT.parts` holds; the file becomes the same.

        Raises:
            PixelrlError: an unknown task or part, a file that exists, or an unfinished one of another collection.
        """
        from pixelrl.datasets.hdf5.access import parts_folder
        from pixelrl.datasets.hdf5.writer import EpisodeWriter, remove_merged
        from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
        from pixelrl.simulation.tasks.scripted.collect import collect, scripts

        if self.episodes < 1:
            raise PixelrlError(f"--episodes is {self.episodes}; it must be at least 1")
        remove_merged(self.out)
        if self.out.exists():
            raise PixelrlError(f"{self.out}: exists already; choose another --out, or remove it")
        scripts(TASK_NAMES.get(self.task, self.task))  # before an environment is made
        provenance, console, parts = Provenance(seed=self.seed), plain_console(), parts_folder(self.out)
        options: dict[str, Any] = {"distractor": True} if self.distractor else {}
        if self.size is not None:
            if min(self.size) < 1:
                raise PixelrlError(f"--size {self.size}: expected a height and a width of at least 1")
            options |= {"camera_heights": self.size[0], "camera_widths": self.size[1]}
        env_args = default_env_args(self.task, drawing=self.drawing, **options)
        with closing(make_robosuite_env(env_args)) as env:
            dims = env.action_dims
        counts = dict.fromkeys(("episodes", "successes", "held_at_start", "rewarded", "whole_task"), 0)
        resume = f"pixelrl collect {self.task} {self.part} --out {self.out}"
        writer = EpisodeWriter(self.out, env_args=env_args, action_dims=dims, compress=self.compress, resume=resume)
        with self.pool(console) as pool, progress_bar(console) as bar, writer:
            self._check_kept(parts, writer.kept)
            for notes, rewards in writer.kept:
                count_episode(counts, notes, rewards)
            start = writer.count
            if start:
                console.print(f"{parts}: goes on behind the {start} episodes that it holds")
            job = bar.add_task("collect", total=self.episodes, completed=start, note=self.part)
            wanted = {"episodes": self.episodes, "seed": self.seed, "start": start}
            try:
                for episode in collect(env_args, self.part, **wanted, pool=pool):
                    writer.add(episode)
                    count_episode(counts, episode.notes, episode.rewards)
                    note = f"{self.part}: {counts['successes']} of {counts['episodes']} succeed"
                    bar.update(job, advance=1, note=note)
            except BaseException:
                if writer.count:
                    console.print(f"{parts}: holds {writer.count} episodes; the same command goes on with it")
                raise
        result = {"file": self.out.name, "task": self.task, "part": self.part, **counts}
        result |= {"transitions": writer.transitions, "env_args": env_args, "resumed_behind": start}
        write_json(record_of(self.out), result | nodes_of(pool) | provenance.record())
        console.print(
            f"{self.out}: {counts['episodes']} episodes, {writer.transitions} transitions, "
            f"{counts['successes']} successes"
        )

    def _check_kept(self, parts: Path, kept: Sequence[tuple[Mapping[str, Any], "NDArray[Any]"]]) -> None:
        """Raise unless the episodes that an interrupted collection left are the first of this one."""
        for index, (notes, _) in enumerate(kept):
            for name, expected in {"part": self.part, "seed": derive(self.seed, self.part, index)}.items():
                if notes.get(name) != expected:
                    message = f"episode {index} is of {name} {notes.get(name)}; the one to be collected, of {expected}"
                    raise PixelrlError(f"{parts}: {message}: give the interrupted collection's options, or remove it")
        if len(kept) > self.episodes:
            raise PixelrlError(
                f"{parts}: holds {len(kept)} episodes already; expected at most --episodes {self.episodes}"
            )


def record_of(path: Path) -> Path:
    """Return where the record of a collection is, which is written when its file is whole."""
    return path.with_suffix(".collection.json")


def forget_unrecorded(path: Path) -> None:
    """Remove a file that is whole, but whose record was cut off; the same seed makes the same file."""
    if not record_of(path).exists():
        path.unlink(missing_ok=True)


def count_episode(counts: dict[str, int], notes: Mapping[str, Any], rewards: "NDArray[Any]") -> None:
    """Count an episode."""
    counts["episodes"] += 1
    counts["rewarded"] += bool(rewards.any())
    for count, note in (("successes", "success"), ("held_at_start",) * 2, ("whole_task",) * 2):
        counts[count] += bool(notes[note])

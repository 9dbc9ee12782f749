"""`pixelrl distill`: a smaller policy that does what a trained one does."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from tyro.conf import Positional

from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Source
from pixelrl.launch.commands.train import Training, train
from pixelrl.launch.console import plain_console
from pixelrl.launch.options import worker_count
from pixelrl.launch.recipe_options import choose_parts, take_options
from pixelrl.launch.recipes import quick_cog
from pixelrl.launch.recipes.students import STUDENTS
from pixelrl.launch.torchrun import joined, require_one_rank
from pixelrl.launch.train_options import parse_options
from pixelrl.launch.training_data import sources_of
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Networks
from pixelrl.runtime.distributed import Distributed
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive
from pixelrl.training.resume import find_previous_run, initial_record
from pixelrl.training.run_directory import Run, pick_device, read_networks, read_run

DAGGER_SHARE = 0.25
"""What the student's own frames get of each batch, where the teacher's data had shares."""


@dataclass(frozen=True, kw_only=True)
class Distill(Training):
    """Train a student that imitates a run's policy, on the teacher's data: recorded frames, shifted at random.

    The result is an ordinary run: `evaluate`, `export` and `serve` take it. --recipe small|narrow|same chooses what the
    student is (small: a small encoder and a narrow actor); the options of that recipe follow, made of its teacher's.
    --images KEY ... leaves cameras away; --weight-bits 8 learns weights of few values (arXiv 1802.05668).
    """

    run: Positional[Path]
    """directory of the teacher's training run"""
    step: int | None = None
    """be taught by the snapshot of this step, not by the last checkpoint"""
    data: tuple[Path, ...] = ()
    """HDF5 files, or globs of them, to learn on; default: the teacher's own, sampled by their rules"""
    dagger: int = 0
    """episodes to be played by a first student (OUT/first, of half the steps), in which the teacher says what it would
    have done (DAgger, arXiv 1011.0686); the student then learns anew on these frames, too"""
    workers: int | None = None
    """simulator processes for --dagger; default: one a core"""
    allow_import: tuple[str, ...] = ()
    """modules that may be imported to register the environment for --dagger"""

    def __call__(self) -> None:
        """Play the episodes of --dagger if they are not there yet, and train.

        Raises:
            PixelrlError: not a run, its data are gone or others, or as `train`.
        """
        with joined(self.device) as (distributed, device):
            console = plain_console(quiet=not distributed.is_main)
            if self.dagger:
                require_one_rank(distributed, "--dagger")
                self._play(pick_device(device), distributed, console)
            train(self, pick_device(device), distributed, console)

    @cached_property
    def teacher(self) -> tuple[Run, Networks, int]:
        """The teacher's run, its networks, and the step that they are from."""
        return read_networks(self.run, self.step)

    @property
    def taught_by(self) -> Mapping[str, Any]:
        """What to write of the teacher."""
        found = initial_record(self.run, self.step, "all")
        body = {"run": found["run"], "step": self.teacher[2], "sha256": found["sha256"]}
        return body | ({"dagger": self.dagger} if self.dagger else {})

    @property
    def played(self) -> Path:
        """Where the episodes of --dagger are."""
        return self.out / f"dagger{self.dagger}.hdf5"

    def sources(self) -> list[Source]:
        """Return the teacher's sources, or --data, and what the first student saw."""
        run, _, _ = self.teacher
        found = [Source(name="task", files=self.data)] if self.data else sources_of(run)
        for path in (path for source in found for path in source.paths() if not path.is_file()):
            raise PixelrlError(f"{path}: the teacher was trained on it and it is gone; name recorded data with --data")
        if not self.dagger:
            return found
        total = sum(source.share or 0 for source in found)
        share = DAGGER_SHARE / (1 - DAGGER_SHARE) * total or None
        return [*found, Source(name="dagger", files=(self.played,), reward_scale=0.0, share=share)]

    def load(self, device: torch.device, distributed: Distributed, console: Console) -> Mixture:
        """Read the data as the teacher sees them.

        Raises:
            PixelrlError: they are not what the teacher was made for, or an option would show it other ones.
        """
        run, _, _ = self.teacher
        for name in ("proprio", "history", "chunk"):
            if (mine := getattr(self.recipe, name)) != (theirs := getattr(run.recipe, name)):
                raise PixelrlError(f"--{name} {mine}: the teacher's is {theirs}, and a student's must be the same")
        for source in () if self.data or self.recipe.seed == run.recipe.seed else sources_of(run):
            if source.fraction < 1 or source.held_out or source.corrupt:
                what = f"the teacher's data are a part of source {source.name}, drawn by its seed"
                raise PixelrlError(f"--seed {self.recipe.seed}: {what}; give --seed {run.recipe.seed}, or --data")
        mixture = self.read(replace(self.recipe, images=run.recipe.images), device, distributed, console)
        for name in ("images", "proprio", "action", "history", "chunk"):
            theirs, ours = getattr(run.spec, name), getattr(mixture.spec, name)
            if theirs != ours:
                raise PixelrlError(f"{self.run}: the teacher's {name} are {theirs}; those of the data are {ours}")
        return mixture

    def learner(self, mixture: Mixture, device: torch.device, distributed: Distributed) -> Learner:
        """Return a fresh student, which sees all or some of the cameras, beside its teacher.

        Raises:
            PixelrlError: a camera that the teacher has not.
        """
        cameras = mixture.spec.images
        for key in self.recipe.images or ():
            if key not in cameras:
                raise PixelrlError(f"--images {key}: the teacher has no such camera, but {', '.join(cameras)}")
        seen = {key: cameras[key] for key in self.recipe.images or cameras}
        return Learner(self.recipe, replace(mixture.spec, images=seen), device, distributed, self.teacher[1])

    def _play(self, device: torch.device, distributed: Distributed, console: Console) -> None:
        """Train a first student and let it play, unless that was done before."""
        from pixelrl.datasets.hdf5.writer import EpisodeWriter
        from pixelrl.export.loaded_policy import load_policy
        from pixelrl.simulation.evaluation.rollout import evaluate

        if self.dagger < 1 or self.teacher[0].actions != "unit":
            raise PixelrlError(f"--dagger {self.dagger}: expected 1 or more episodes, and data of --actions unit")
        find_previous_run(self.out, self.recipe, resume=self.resume, teacher=self.taught_by)
        half = replace(self.recipe, steps=max(1, self.recipe.steps // 2))
        first = replace(self, recipe=half, out=self.out / "first", dagger=0)
        find_previous_run(first.out, half, resume=self.resume, teacher=first.taught_by)
        if self.played.is_file():
            return
        train(first, device, distributed, console)
        cameras = {key: shape[1:] for key, shape in self.teacher[0].spec.images.items()}  # also those left away
        policy, seed = replace(load_policy(first.out), pictures=cameras), derive(self.recipe.seed, "dagger")
        options: dict[str, Any] = {"workers": worker_count(self.workers), "allow_import": self.allow_import}
        outcomes = evaluate(policy, episodes=self.dagger, seed=seed, keep=True, **options)
        console.print(f"{first.out}: {sum(each.success for each in outcomes)} of {self.dagger} episodes succeed")
        with EpisodeWriter(self.played, env_args=policy.env_args, action_dims=policy.action) as writer:
            for outcome in outcomes:
                assert outcome.episode is not None
                writer.add(outcome.episode)


def distill_command(arguments: list[str]) -> None:
    """Run `pixelrl distill` with these arguments: the teacher's run, and options.

    Raises:
        PixelrlError: not a run, or an unknown recipe or encoder.
    """
    directory = next(iter(arguments), "")
    chosen, words = take_options(arguments, "recipe")
    name = chosen.get("recipe", "small")
    if name not in STUDENTS:
        raise PixelrlError(f"--recipe: there is no student {name!r}, but: {', '.join(STUDENTS)}")
    known = bool(directory) and not directory.startswith("-")
    run = read_run(Path(directory)) if known else None
    recipe, words = choose_parts(STUDENTS[name](run.recipe if run else quick_cog()), words)
    actions: Any = run.actions if run else "unit"
    default = Distill(recipe=recipe, run=tyro.MISSING, out=tyro.MISSING, actions=actions)
    parse_options(default, words, "pixelrl distill", Distill.__doc__)()

"""Go on with a run: find it, refuse what would make it another one, and read its checkpoint."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training import checkpoint
from pixelrl.training.configuration import to_json
from pixelrl.training.run_directory import Run, checkpoint_path, read_run


def find_previous_run(
    out: Path, recipe: Recipe, *, resume: bool, teacher: Mapping[str, Any] = MappingProxyType({})
) -> Run | None:
    """Return the run to go on with, if there is one; what was trained is never overwritten unasked.

    Raises:
        PixelrlError: the directory holds a run and `resume` was not given, or its recipe or teacher is another one.
    """
    if not checkpoint_path(out).exists():
        return None  # with --resume too: a job that is started again and again begins like this
    if not resume:
        raise PixelrlError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
    previous = read_run(out)
    for field in fields(recipe):
        if field.name != "steps" and getattr(previous.recipe, field.name) != getattr(recipe, field.name):
            old, new = (to_json(getattr(each, field.name)) for each in (previous.recipe, recipe))
            raise PixelrlError(
                f"{out}: was trained with {field.name} = {old}, not {new}; --resume changes only --steps"
            )
    old, new = ({key: each.get(key) for key in ("sha256", "dagger")} for each in (previous.teacher, teacher))
    if old != new:
        raise PixelrlError(f"{out}: was taught by {dict(previous.teacher)}, not by {dict(teacher)}")
    return previous


def resume_run(out: Path, previous: Run, run: Run, learner: Learner) -> float:
    """Read the previous run's checkpoint into the learner, and return the seconds that it had taken.

    Raises:
        PixelrlError: the previous run was on other data, or has done more steps than are asked for.
    """
    if (previous.fingerprint, previous.actions) != (run.fingerprint, run.actions):
        raise PixelrlError(f"{out}: was trained on other data ({previous.fingerprint}), not these ({run.fingerprint})")
    for name in dict.fromkeys([*run.sources, *previous.sources]):
        old, new = previous.sources.get(name, {}), run.sources.get(name, {})
        for key in dict.fromkeys([*new, *old]):
            if old.get(key) != new.get(key):
                raise PixelrlError(
                    f"{out}: was trained with source {name}: {key} = {old.get(key)}, not {new.get(key)}; "
                    "--resume changes only --steps"
                )
    seconds = checkpoint.load(checkpoint_path(out), learner)
    if run.recipe.steps < learner.step:
        raise PixelrlError(f"{out}: has done {learner.step} steps already; --steps {run.recipe.steps} would undo some")
    return seconds

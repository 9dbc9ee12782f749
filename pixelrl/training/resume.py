"""Go on with a run, or from one: find it, refuse what would make it another one, and read its networks."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionRange
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import sha256_of
from pixelrl.training import checkpoint
from pixelrl.training.configuration import to_json
from pixelrl.training.run_directory import Run, checkpoint_path, read_networks, read_run

InitialPart = Literal["all", "critic"]
"""What a run takes of another one's networks."""

FOREIGN = {
    "policy.json": "an exported policy",
    "meta/info.json": "LeRobot's data",
    "data/main_data.hdf5": "Minari's data",
}
"""What no run is written into: a file in it, and what that makes of the directory."""


def find_previous_run(
    out: Path,
    recipe: Recipe,
    *,
    resume: bool,
    teacher: Mapping[str, Any] = MappingProxyType({}),
    initial: Mapping[str, Any] = MappingProxyType({}),
) -> Run | None:
    """Return the run to go on with, if there is one; what was trained is never overwritten unasked.

    Raises:
        PixelrlError: the directory holds a run and `resume` was not given, or its recipe or teacher is another one, or
            what it started from.
    """
    for name, what in FOREIGN.items():
        if (out / name).exists():
            raise PixelrlError(f"{out}: holds {what} ({name}); choose another --out")
    whole = checkpoint_path(out).exists()
    if not whole and not any((out / "snapshots").glob("*.safetensors")):
        return None  # with --resume too: a job that is started again and again begins like this
    if not resume:
        raise PixelrlError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
    previous = read_run(out)
    for field in fields(recipe):
        if field.name != "steps" and getattr(previous.recipe, field.name) != getattr(recipe, field.name):
            old, new = (to_json(getattr(each, field.name)) for each in (previous.recipe, recipe))
            name, old, new = first_difference(field.name, old, new)
            raise PixelrlError(f"{out}: was trained with {name} = {old}, not {new}; --resume changes only --steps")
    old, new = ({key: each.get(key) for key in ("sha256", "dagger")} for each in (previous.teacher, teacher))
    if old != new:
        raise PixelrlError(f"{out}: was taught by {dict(previous.teacher)}, not by {dict(teacher)}")
    old, new = ({key: each.get(key) for key in ("sha256", "part")} for each in (previous.initial, initial))
    if old != new:
        raise PixelrlError(
            f"{out}: started from {dict(previous.initial) or 'nothing'}, not {dict(initial) or 'nothing'}"
        )
    return previous if whole else None  # it had come as far as a snapshot


def first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """Return where two configurations, as JSON values, first differ, and what each has there."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(place): value for place, value in enumerate(each)} for each in (old, new))
    if isinstance(old, dict) and isinstance(new, dict) and old.get("is") == new.get("is") and old.keys() == new.keys():
        key = next(key for key in old if old[key] != new[key])
        return first_difference(f"{name}.{key}", old[key], new[key])
    return name, _in_short(old), _in_short(new)


def _in_short(value: Any) -> Any:
    """Return the names of parts of a recipe in the place of all that they hold, and other values as they are."""
    parts = value if isinstance(value, list) else [value]
    named = parts and all(isinstance(part, dict) and "is" in part for part in parts)
    return " + ".join(part["is"] for part in parts) if named else value


def initial_record(directory: Path, step: int | None, part: InitialPart) -> dict[str, Any]:
    """Return what a run's configuration tells of the run that it starts from.

    Raises:
        PixelrlError: no such run, or no such snapshot.
    """
    read_run(directory)
    path = checkpoint_path(directory, step)
    if not path.is_file():
        raise PixelrlError(f"{path}: there is no such checkpoint; --snapshot-every keeps snapshots of more steps")
    return {"run": str(directory.resolve()), "step": step, "sha256": sha256_of(path), "part": part}


def initial_of(going_on: Path | None, directory: Path | None, step: int | None, part: InitialPart) -> Mapping[str, Any]:
    """Return what a run's configuration tells of the run that it starts from; one to go on with has told it already.

    Args:
        going_on: directory of the run to go on with, if there is one there.
        directory: the run that options name; None: none. What it holds by now does not matter to a run that began
            with it.
        step: as options say, like the next.
        part: see above.

    Raises:
        PixelrlError: as `initial_record`, of a run that is not the one that was begun with.
    """
    known: Mapping[str, Any] = {}
    if going_on is not None and (going_on / "config.json").is_file():
        known = read_run(going_on).initial
    words = {} if directory is None else {"run": str(directory.resolve()), "step": step, "part": part}
    if known and words.items() <= known.items():
        return known
    return {} if directory is None else initial_record(directory, step, part)


SAME = ("form", "layer_norm", "layer_norm_place", "feature_norm")
"""What of a recipe decides what the weights of critics mean, beside their shapes."""


def start_from(learner: Learner, actions: ActionRange, initial: Mapping[str, Any]) -> None:
    """Give a fresh learner's networks the weights of another run, see `initial_record`; of its critics alone if asked.

    Raises:
        PixelrlError: it is gone or has changed, or has networks of other shapes, or whose numbers mean something else.
    """
    directory, step, part = Path(initial["run"]), initial["step"], initial["part"]
    path = checkpoint_path(directory, step)
    if not path.is_file() or sha256_of(path) != initial["sha256"]:
        what = "is gone or has changed since this run began from it, which has kept no checkpoint of its own yet"
        raise PixelrlError(f"{path}: {what}; bring it back (SHA-256 {initial['sha256']}), or choose another --out")
    run, networks, _ = read_networks(directory, step)
    names = SAME if part == "critic" else (*SAME, "policy")
    same = {name: (getattr(run.recipe, name), getattr(learner.recipe, name)) for name in names}
    same |= {name: ([*getattr(run.spec, name)], [*getattr(learner.spec, name)]) for name in ("images", "proprio")}
    for name, (its, ours) in (same | {"actions": (run.actions, actions)}).items():
        if its != ours:
            raise PixelrlError(f"--initial {directory}: its {name} is {its}, here it is {ours}; expected the same")
    for number, (one, two) in enumerate(zip_longest(run.spec.action, learner.spec.action)):
        if one is None or two is None or not one.means(two):
            whence = ", which --actions min-max takes from the data" if actions == "min-max" else ""
            raise PixelrlError(
                f"--initial {directory}: its action {number} is {one or 'missing'}, here it is {two or 'missing'}; "
                f"expected the same, and the same range{whence}"
            )
    mine, theirs = learner.networks.state_dict(), networks.state_dict()
    parts = ("critic.", "target.") if part == "critic" else ("",)
    for key in dict.fromkeys([*mine, *theirs]):
        if key.startswith(parts):
            shapes = [list(each[key].shape) if key in each else None for each in (theirs, mine)]
            if shapes[0] != shapes[1]:
                raise PixelrlError(
                    f"--initial {directory}: its {key} has shape {shapes[0]}, this recipe's {shapes[1]}; it must have "
                    "the same networks" + " (--initial-part critic: the same critics)" * (part == "all")
                )
            mine[key].copy_(theirs[key])


def resume_run(out: Path, previous: Run, run: Run, learner: Learner) -> float:
    """Read the previous run's checkpoint into the learner, and return the seconds that it had taken.

    Raises:
        PixelrlError: the previous run was on other data, or has done more steps than are asked for.
    """
    if (previous.fingerprint, previous.actions) != (run.fingerprint, run.actions):
        raise PixelrlError(f"{out}: was trained on other data ({previous.fingerprint}), not these ({run.fingerprint})")
    for what in ("images", "proprio"):
        old, new = (list(getattr(each.spec, what)) for each in (previous, run))
        if old != new:
            raise PixelrlError(
                f"{out}: was trained on {what} {', '.join(old)}, not {', '.join(new)}; --resume goes on alike"
            )
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

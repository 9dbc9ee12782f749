"""The cells of a sweep: one perturbation at one level each, all played from the same starts."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pixelrl.export.loaded_policy import LoadedPolicy
from pixelrl.launch.console import progress_bar
from pixelrl.launch.reports.sweep_page import UNPERTURBED, view_path
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import atomic_path
from pixelrl.runtime.interfaces import Policy
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.evaluation.perturbations import Perturbation, make_perturbed
from pixelrl.simulation.evaluation.rollout import AnyEnv, rollout
from pixelrl.simulation.evaluation.scene_perturbations import KINDS
from pixelrl.simulation.evaluation.statistics import holm, mcnemar, verdict_on, wilson
from pixelrl.simulation.workers.pool import Pool


def choose_kinds(names: Sequence[str]) -> list[type[Perturbation]]:
    """Return the perturbations of these names, or all."""
    known = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in known:
            raise PixelrlError(f"--only {name}: there is no such perturbation, but: {', '.join(known)}")
    return [known[name] for name in names] or list(KINDS)


def check_levels(kinds: Sequence[type[Perturbation]], levels: Sequence[float]) -> None:
    """Raise a `PixelrlError` unless `--levels` are of one perturbation, which can have them, and different in names."""
    if levels and len(kinds) != 1:
        raise PixelrlError(f"--levels are of one perturbation; name it, say --only {kinds[0].name}")
    kind, keys = kinds[0], [key_of(kinds[0](level=level)) for level in levels]
    right = f"{'whole ' if kind.whole else ''}numbers of at least {kind.lowest:g}"
    right += f" and at most {kind.highest:g}" if math.isfinite(kind.highest) else ""
    for level, key in zip(levels, keys, strict=True):
        can_be = math.isfinite(level) and kind.lowest <= level <= kind.highest
        if not can_be or (kind.whole and level % 1):
            raise PixelrlError(f"--levels {level:g}: expected {right} ({kind.name}: {kind.unit})")
        if keys.count(key) > 1:
            raise PixelrlError(f"--levels {level:g}: {key} is there twice; expected different ones, also by six digits")


def key_of(cell: Perturbation | None) -> str:
    """Return the name of a cell, also in file names."""
    return UNPERTURBED if cell is None else f"{cell.name}_{cell.level:g}"


def read_cells(path: Path, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cells that a `sweep.json` holds; none if it is not there.

    Raises:
        PixelrlError: not a sweep, or one of another policy, environment, seed or number of episodes.
    """
    if not path.exists():
        return {}
    try:
        previous = json.loads(path.read_text())
        cells, theirs = {**previous["cells"]}, dict(previous["asked"])
    except (ValueError, KeyError, TypeError) as error:
        raise PixelrlError(f"{path}: not a sweep that `pixelrl sweep` wrote ({error!r})") from error
    ours = json.loads(json.dumps(asked))
    if different := [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]:
        what = {"sha256": "policy", "env_args": "environment"}.get(different[0], different[0])
        raise PixelrlError(f"{path}: holds a sweep with another {what}; choose another --out, or move it away")
    return cells


def play_cell(
    cell: Perturbation | None,
    policy: Policy,
    loaded: LoadedPolicy,
    env_args: Mapping[str, Any],
    allow_import: Collection[str],
    directory: Path,
    console: Console,
    *,
    episodes: int,
    seed: int,
    pool: Pool,
) -> dict[str, Any]:
    """Play the episodes of one cell, write the first picture of the first, and return who succeeded."""
    make = partial(make_perturbed, env_args, () if cell is None else (cell,), allow_import)
    successes = [False] * episodes
    play = partial(rollout, policy, make, history=loaded.history, pool=pool)
    with progress_bar(console) as bar, closing(play(episodes=episodes, seed=seed)) as played:
        job = bar.add_task(key_of(cell), total=episodes, note="")
        for outcome in played:
            successes[outcome.index] = outcome.success
            bar.update(job, advance=1, note=f"{sum(successes)} succeed")
    if loaded.pictures:
        picture = first_picture(make, seed, next(iter(loaded.pictures)))
        with atomic_path(view_path(directory, key_of(cell))) as temporary:
            Image.fromarray(picture).save(temporary)
    if cell is None:
        return {"outcomes": successes}
    return {"perturbation": cell.name, "unit": cell.unit, "level": cell.level, "outcomes": successes}


def first_picture(make: Callable[[], AnyEnv], seed: int, camera: str) -> NDArray[np.uint8]:
    """Return the picture that the first episode of an evaluation begins with, `[H, W, 3]`."""
    with closing(make()) as env:
        sensors, _ = env.reset(seed=derive(seed, "evaluate", 0))
        return np.array(sensors[camera])


def compare_cells(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cells with rates, intervals, and tests against the unperturbed one, adjusted for their number."""
    base = cells[UNPERTURBED]["outcomes"]
    tests = {key: mcnemar(cell["outcomes"], base) for key, cell in cells.items() if key != UNPERTURBED}
    adjusted = dict(zip(tests, holm([test["p"] for test in tests.values()]), strict=True))
    found: dict[str, Any] = {}
    for key, cell in cells.items():
        outcomes, successes = cell["outcomes"], sum(cell["outcomes"])
        found[key] = {
            **cell,
            "episodes": len(outcomes),
            "successes": successes,
            "success_rate": successes / len(outcomes),
            "success_interval_95": wilson(successes, len(outcomes)),
        }
        if key in tests:
            verdict = verdict_on(successes - sum(base), adjusted[key])
            found[key] |= {"against_unperturbed": tests[key], "p_adjusted": adjusted[key], "verdict": verdict}
    return found

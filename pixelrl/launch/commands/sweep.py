"""How robust a policy is: its success as a function of what differs from the world that it knows."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pixelrl.export.loaded_policy import LoadedPolicy, load_policy
from pixelrl.launch.console import progress_bar
from pixelrl.launch.engine import nodes_of
from pixelrl.launch.loaded_policy import environment_for
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.reports.sweep_page import draw_sweep, print_sweep, view_path, write_sweep_page
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import atomic_path, write_json
from pixelrl.runtime.interfaces import Policy
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.make import make_env
from pixelrl.simulation.evaluation.perturbations import (
    ActionDelay,
    Blur,
    ControlNoise,
    DroppedFrames,
    Perturbation,
    PictureNoise,
    make_perturbed,
)
from pixelrl.simulation.evaluation.rollout import AnyEnv, rollout
from pixelrl.simulation.evaluation.scene_perturbations import (
    Brightness,
    CameraMoved,
    CameraTurned,
    Clutter,
    Distractor,
    LightTurned,
    ObjectColour,
    SceneryColour,
    Texture,
)
from pixelrl.simulation.evaluation.statistics import holm, mcnemar, verdict_on, wilson
from pixelrl.simulation.workers.ray import RayPool

KINDS: tuple[type[Perturbation], ...] = (
    CameraMoved,
    CameraTurned,
    Brightness,
    LightTurned,
    ObjectColour,
    SceneryColour,
    Texture,
    Clutter,
    Distractor,
    Blur,
    PictureNoise,
    DroppedFrames,
    ActionDelay,
    ControlNoise,
)


def sweep(
    directory: Path,
    *,
    only: Sequence[str] = (),
    levels: Sequence[float] = (),
    episodes: int,
    seed: int,
    workers: int,
    step: int | None = None,
    env: str | None = None,
    out: Path | None = None,
    cluster: RayPool | None = None,
    console: Console,
) -> dict[str, Any]:
    """Try a policy under each perturbation at each level, from the same starts; write `sweep.json`, `.png`, `.html`.

    Cells that `sweep.json` holds already are kept, so an interrupted sweep goes on, and a finished one can grow.

    Raises:
        PixelrlError: no such perturbation, one that the environment cannot have, or another policy's `sweep.json`.
    """
    provenance = Provenance(seed=seed)
    kinds = chosen(only)
    if levels and len(kinds) != 1:
        raise PixelrlError(f"--levels are of one perturbation; name it, say --only {kinds[0].name}")
    loaded = load_policy(directory, step)
    env_args = environment_for(loaded, env)
    home = directory if out is None else out
    with closing(make_env(env_args)) as opened:
        policy = loaded.in_units_of(opened.action_dims)
        lacks = {kind.name: lack for kind in kinds if (lack := kind(level=0).lack(opened)) is not None}
    for name, lack in lacks.items():
        if only:
            raise PixelrlError(f"--only {name}: {env_args['env_name']} cannot have it; it takes {lack}")
        console.print(f"{name}: left out; it takes {lack}")
    cells = [kind(level=level) for kind in kinds if kind.name not in lacks for level in levels or kind.levels]
    asked = {"sha256": loaded.origin["sha256"], "env_args": env_args, "episodes": episodes, "seed": seed}
    done = finished(home / "sweep.json", asked)
    for cell in (None, *cells):
        if key_of(cell) in done:
            continue
        options: dict[str, Any] = {"episodes": episodes, "seed": seed, "workers": workers, "cluster": cluster}
        done[key_of(cell)] = tried(cell, loaded, policy, env_args, home=home, console=console, **options)
        result = {"asked": asked, "policy": loaded.origin, "left_out": lacks} | judged(done)
        result |= nodes_of(cluster) | provenance.record()
        write_json(home / "sweep.json", result)
    result = json.loads((home / "sweep.json").read_text())
    draw_sweep(home / "sweep.png", result)
    write_sweep_page(home, result)
    print_sweep(result, console)
    return dict(result)


def chosen(names: Sequence[str]) -> list[type[Perturbation]]:
    """Return the kinds of these names, or all.

    Raises:
        PixelrlError: there is no such perturbation.
    """
    known = {kind.name: kind for kind in KINDS}
    for name in names:
        if name not in known:
            raise PixelrlError(f"--only {name}: there is no such perturbation, but: {', '.join(known)}")
    return [known[name] for name in names] or list(KINDS)


def key_of(cell: Perturbation | None) -> str:
    """Return the name of a cell, also in file names."""
    return "unperturbed" if cell is None else f"{cell.name}_{cell.level:g}"


def finished(path: Path, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cells that a file holds; none if it is not there.

    Raises:
        PixelrlError: not a sweep, or one of another policy, environment, seed or number of episodes.
    """
    if not path.exists():
        return {}
    try:
        before = json.loads(path.read_text())
        cells, theirs = {**before["cells"]}, dict(before["asked"])
    except (ValueError, KeyError, TypeError) as error:
        raise PixelrlError(f"{path}: not a sweep that `pixelrl sweep` wrote ({error!r})") from error
    mine = json.loads(json.dumps(asked))
    if different := [key for key in mine if theirs.get(key) != mine[key]]:
        what = {"sha256": "policy", "env_args": "environment"}.get(different[0], different[0])
        raise PixelrlError(f"{path}: holds a sweep with another {what}; choose another --out, or move it away")
    return cells


def tried(
    cell: Perturbation | None,
    loaded: LoadedPolicy,
    policy: Policy,
    env_args: Mapping[str, Any],
    *,
    episodes: int,
    seed: int,
    workers: int,
    home: Path,
    cluster: RayPool | None,
    console: Console,
) -> dict[str, Any]:
    """Play the episodes of one cell, keep the first picture of the first, and return who succeeded."""
    make = partial(make_perturbed, env_args, () if cell is None else (cell,))
    options: dict[str, Any] = {"episodes": episodes, "seed": seed, "workers": workers, "history": loaded.history}
    options["pool"] = cluster
    successes = [False] * episodes
    with progress_bar(console) as bar, closing(rollout(policy, make, **options)) as played:
        job = bar.add_task(key_of(cell), total=episodes, note="")
        for outcome in played:
            successes[outcome.index] = outcome.success
            bar.update(job, advance=1, note=f"{sum(successes)} succeed")
    if loaded.pictures:
        seen = first_sight(make, seed, next(iter(loaded.pictures)))
        with atomic_path(view_path(home, key_of(cell))) as temporary:
            Image.fromarray(seen).save(temporary)
    if cell is None:
        return {"outcomes": successes}
    return {"perturbation": cell.name, "unit": cell.unit, "level": cell.level, "outcomes": successes}


def first_sight(make: Callable[[], AnyEnv], seed: int, camera: str) -> NDArray[np.uint8]:
    """Return the picture that the first episode of an evaluation begins with, `[H, W, 3]`."""
    with closing(make()) as env:
        sensors, _ = env.reset(seed=derive(seed, "evaluate", 0))
        return np.array(sensors[camera])


def judged(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cells with rates, intervals, and tests against the unperturbed one, adjusted for their number."""
    base = cells[key_of(None)]["outcomes"]
    tests = {key: mcnemar(cell["outcomes"], base) for key, cell in cells.items() if key != key_of(None)}
    adjusted = dict(zip(tests, holm([test["p"] for test in tests.values()]), strict=True))
    found: dict[str, Any] = {}
    for key, cell in cells.items():
        outcomes = cell["outcomes"]
        successes = sum(outcomes)
        found[key] = {
            **cell,
            "episodes": len(outcomes),
            "successes": successes,
            "success_rate": successes / len(outcomes),
            "success_interval_95": wilson(successes, len(outcomes)),
        }
        if key in tests:
            p = adjusted[key]
            verdict = verdict_on(successes - sum(base), p)
            found[key] |= {"against_unperturbed": tests[key], "p_adjusted": p, "verdict": verdict}
    return {"cells": found}

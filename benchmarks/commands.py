"""`pixelrl bench KIND`: measure, keep a ledger, and tell what has become slower."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from benchmarks.ledger import compare as compare_ledgers
from benchmarks.ledger import read_ledger, write_ledger
from benchmarks.race import Clock
from pixelrl.launch.provenance import Provenance, cores

Out = Annotated[Path, arg(metavar="PATH")]


def bench_command(arguments: list[str]) -> None:
    """Run `pixelrl bench` with these arguments."""
    kinds: dict[str, Callable[..., None]] = {
        "learner": learner,
        "data": data,
        "simulation": simulation,
        "compare": compare,
    }
    tyro.extras.subcommand_cli_from_dict(kinds, prog="pixelrl bench", args=arguments, description=__doc__)


def learner(
    cases: Positional[tuple[str, ...]] = (),
    /,
    recipe: str | None = None,
    encoder: str | None = None,
    size: int = 48,
    frames: int = 1,
    batch_size: int | None = None,
    device: str = "auto",
    clock: Literal["auto", "cpu", "wall"] = "auto",
    threads: int | None = None,
    rounds: int = 7,
    turn_seconds: float = 1.0,
    robomimic_turns: int = 1,
    skip: tuple[str, ...] = (),
    compiled: bool = False,
    out: Out = Path("bench_learner.json"),
    compare: Path | None = None,
    tolerance: float = 0.25,
    quick: bool = False,
) -> None:
    """Measure updates: beside their floor, their naive form, and robomimic's CQL; random pictures, no data read.

    pixelrl: as `train` does by default; eager: --capture none; on CUDA also taped, graph and compiled, each as
    --capture has it.
    floor: the same convolutions and matrix products, forward and backward, and nothing else (on CUDA: as a graph);
    modules: the same, called one by one, with linear layers by torch's own kernels. tiled: the observation repeated and
    encoded for every sampled action.
    robomimic: its CQL, losses compared first on the same weights and actions (fixed: without its learned weight).
    Contenders take turns, each in its own process; figures are medians, and ratios those of each round's ratio.
    Ratios are costs: less is better.

    Args:
        cases: quick (quick_cog_dr3, 48 x 48), cog (cog_dr3, 48 x 48), impala (the same with IMPALA-small, 64 x 64, 3
            frames), robomimic (its nets, ResNet-18, 84 x 84, batch 16, 10 actions of each kind); default: all.
        recipe: measure this recipe instead, with the options up to --batch-size.
        encoder: its encoder; default: the recipe's.
        size: height and width of its pictures [px].
        frames: how many are stacked.
        batch_size: its batch; default: the recipe's.
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, ...
        clock: what ratios are taken of; auto: cpu seconds on the CPU, wall seconds on a GPU.
        threads: of each contender on the CPU; default: one a core.
        rounds: turns of each contender.
        turn_seconds: how long a turn lasts at least.
        robomimic_turns: turns of robomimic's, which are one update of some 20 CPU seconds each.
        skip: contenders to leave out: floor, modules, tiled, robomimic, "robomimic fixed", "with diagnostics", ...
        compiled: let it take part on the CPU, too: it wants a C++ compiler and a minute.
        out: ledger to write.
        compare: ledger to compare with; ratios that have grown beyond the tolerance end the command with 1.
        tolerance: by how much a ratio may grow; 0.25: by a quarter.
        quick: tiny networks and a moment of each, to see that it works; the figures mean nothing.
    """
    import torch

    from benchmarks.cases import chosen_cases, shrunk
    from benchmarks.learner import bench_learner
    from pixelrl.training.run_directory import pick_device

    provenance = Provenance(seed=0)
    before = None if compare is None else read_ledger(compare)  # a wrong one is told now, and it may be `out` itself
    where = pick_device(device)
    used: Clock = clock if clock != "auto" else "wall" if where.type == "cuda" else "cpu"
    chosen = chosen_cases(cases, recipe, size=size, frames=frames, encoder=encoder, batch_size=batch_size)
    if quick:
        chosen = {name: shrunk(case) for name, case in chosen.items()}
        rounds, turn_seconds, threads = 1, 0.01, 1
    threads = threads or cores()
    console = Console()
    records = bench_learner(
        chosen,
        device=where,
        clock=used,
        threads=threads,
        rounds=rounds,
        turn_seconds=turn_seconds,
        robomimic_turns=robomimic_turns,
        skip=skip,
        compiled=compiled,
        console=console,
    )
    settings = {"device": where.type, "threads": threads, "rounds": rounds, "turn_seconds": turn_seconds}
    settings |= {"torch": str(torch.__version__), "quick": quick}
    finish("learner", used, records, settings, out, before, tolerance, provenance, console)


def data(
    demos: int = 40,
    steps: int = 100,
    size: int = 84,
    cameras: int = 2,
    batch_size: int = 256,
    places: tuple[str, ...] = (),
    opening: int = 0,
    clock: Clock = "wall",
    rounds: int = 7,
    turn_seconds: float = 1.0,
    skip: tuple[str, ...] = (),
    out: Out = Path("bench_data.json"),
    compare: Path | None = None,
    tolerance: float = 0.25,
    quick: bool = False,
) -> None:
    """Measure loading: every place for frames, beside robomimic's loader and a bare copy of the same bytes.

    A batch holds obs and next_obs of all cameras. The file is made anew, as robomimic writes it, and deleted.
    Contenders take turns, each in its own process; peaks are above what libraries take. Ratios are costs.

    Args:
        demos: demos of the file.
        steps: transitions of each demo.
        size: height and width of the pictures [px].
        cameras: how many.
        batch_size: transitions a batch.
        places: places for frames; default: all there are.
        opening: measure something else, namely a cache of so many transitions beside one of a hundredth: the seconds
            until it is open, and its batches.
        clock: what ratios are taken of.
        rounds: turns of each contender.
        turn_seconds: how long a turn lasts at least.
        skip: contenders to leave out: "robomimic all", "robomimic low_dim", ...
        out: ledger to write.
        compare: ledger to compare with; ratios that have grown beyond the tolerance end the command with 1.
        tolerance: by how much a ratio may grow; 0.25: by a quarter.
        quick: a tiny file and a moment of each, to see that it works; the figures mean nothing.
    """
    from benchmarks.data import Frames, bench_data, chosen_places
    from benchmarks.opening import bench_opening

    provenance = Provenance(seed=0)
    before = None if compare is None else read_ledger(compare)
    frames = Frames(demos=demos, steps=steps, size=size, cameras=cameras, batch_size=batch_size)
    if quick:
        frames = replace(frames, demos=2, steps=5, size=16, batch_size=4)
        batch_size, rounds, turn_seconds = 4, 1, 0.01
    console = Console()
    if opening:
        records = bench_opening(
            opening, batch_size=batch_size, clock=clock, rounds=rounds, turn_seconds=turn_seconds, console=console
        )
    else:
        records = bench_data(
            frames,
            chosen_places(places),
            clock=clock,
            rounds=rounds,
            turn_seconds=turn_seconds,
            skip=skip,
            console=console,
        )
    settings = {"rounds": rounds, "turn_seconds": turn_seconds, "quick": quick}
    finish("opening" if opening else "data", clock, records, settings, out, before, tolerance, provenance, console)


def simulation(
    tasks: Positional[tuple[str, ...]] = (),
    /,
    size: int = 48,
    workers: int = 2,
    picture: Path | None = None,
    clock: Clock = "cpu",
    rounds: int = 7,
    turn_seconds: float = 1.0,
    out: Out = Path("bench_simulation.json"),
    compare: Path | None = None,
    tolerance: float = 0.25,
    quick: bool = False,
) -> None:
    """Measure control steps: pixelrl's beside stock robosuite's, same task, control rate and camera; and by workers.

    robosuite: the task as robosuite.make brings it, with robosuite's drawing and observations. Actions are random;
    resets count only in rollouts. Contenders take turns, each in its own process; figures are medians, ratios costs.

    Args:
        tasks: names of ours or of robosuite's; default: our four and Lift.
        size: height and width of the pictures [px].
        workers: rollouts by so many workers are compared with rollouts by one, by the wall.
        picture: PNG file to write: the drawings stock and fast of each task, and their difference.
        clock: what ratios are taken of.
        rounds: turns of each contender.
        turn_seconds: how long a turn lasts at least.
        out: ledger to write.
        compare: ledger to compare with; ratios that have grown beyond the tolerance end the command with 1.
        tolerance: by how much a ratio may grow; 0.25: by a quarter.
        quick: a few steps of each, to see that it works; the figures mean nothing.
    """
    from benchmarks.simulation import Scene, bench_simulation, chosen_tasks

    provenance = Provenance(seed=0)
    before = None if compare is None else read_ledger(compare)
    if quick:
        rounds, turn_seconds = 1, 0.01
    scenes = [Scene(task=task, size=size, steps=4 if quick else 40) for task in chosen_tasks(tasks)]
    console = Console()
    records = bench_simulation(
        scenes,
        clock=clock,
        rounds=rounds,
        turn_seconds=turn_seconds,
        workers=workers,
        picture=picture,
        console=console,
    )
    settings = {"rounds": rounds, "turn_seconds": turn_seconds, "workers": workers, "quick": quick}
    finish("simulation", clock, records, settings, out, before, tolerance, provenance, console)


def compare(new: Positional[Path], old: Positional[Path], /, tolerance: float = 0.25) -> None:
    """Compare two ledgers, ratio by ratio; ends with 1 if one has grown beyond the tolerance.

    Args:
        new: the later one.
        old: the earlier one.
        tolerance: by how much a ratio may grow; 0.25: by a quarter.
    """
    compare_ledgers(read_ledger(new), read_ledger(old), tolerance, Console())


def finish(
    kind: str,
    clock: Clock,
    records: dict[str, Any],
    settings: dict[str, Any],
    out: Path,
    before: dict[str, Any] | None,
    tolerance: float,
    provenance: Provenance,
    console: Console,
) -> None:
    """Write the ledger, and compare it with another one if asked for."""
    ledger = {"bench": kind, "clock": clock, "settings": settings, "cases": records, **provenance.record()}
    write_ledger(out, ledger)
    console.print(f"{out}: ledger")
    if before is not None:
        compare_ledgers(ledger, before, tolerance, console)

"""`pixelrl`: one command with verbs. `pixelrl VERB --help` tells its options; `--debug` shows where an error arose."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import tyro
from rich.console import Console
from tyro.conf import Positional

from pixelrl.launch.arguments import Out, counted
from pixelrl.launch.commands.verbs_data import collect, convert, inspect, render, starts
from pixelrl.launch.commands.verbs_policy import compare, evaluate, export, sweep
from pixelrl.launch.console import plain_console
from pixelrl.runtime.errors import PixelrlError


def demo(
    out: Out = Path("demo"),
    seed: int = 0,
    workers: int | None = None,
    distractor: bool = False,
    task: str = "pick-place-tray",
    recipes: tuple[str, ...] = ("quick_bc", "quick_cog", "quick_cog_dr3"),
    steps: int | None = None,
    curve: int = 0,
) -> None:
    """Run the whole job: collect, train BC, COG and COG + DR3, evaluate, film, export, prove.

    Every stage is kept: after an interruption the same command goes on.

    Args:
        out: directory for everything.
        seed: of all randomness.
        workers: simulator processes; default: one a core.
        distractor: the harder version: a second cube on the table, which half of the prior picks go for.
        task: pick-place-tray, drawer-grasp, drawer-blocked-drawer, or drawer-blocked-object.
        recipes: what to train, the baseline first; the last one is filmed and exported.
        steps: gradient steps of each; default: the recipe's own.
        curve: also try a snapshot every so many steps, for a learning curve.
    """
    from pixelrl.launch.commands.demo import demo as run
    from pixelrl.launch.commands.demo import plan_for

    plan = plan_for(task, distractor=distractor, recipes=recipes, steps=steps, curve=curve)
    run(out, seed=seed, workers=counted(workers), console=plain_console(), plan=plan)


def train(recipe: Positional[str], /) -> None:
    """Train a recipe on data; `pixelrl train --help` lists the recipes, `pixelrl train RECIPE --help` its options."""


def bench(kind: Positional[str], /) -> None:
    """Measure learner, data or simulation; compare ledgers. `pixelrl bench KIND --help` tells the options."""


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb
    for verb in (demo, collect, render, inspect, convert, train, starts, evaluate, sweep, compare, export, bench)
}


def main() -> None:
    """Run the command; exit with 0 only on success, with one clear line on bad input."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # before anything imports MuJoCo; the user's choice stands
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler would tell of its own doings
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        if arguments[:1] == ["train"]:
            from pixelrl.launch.commands.train import train_command

            train_command(arguments[1:])
        elif arguments[:1] == ["bench"]:
            from benchmarks.commands import bench_command

            bench_command(arguments[1:])
        else:
            tyro.extras.subcommand_cli_from_dict(VERBS, prog="pixelrl", args=arguments, description=__doc__)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except Exception as error:
        if debug:
            raise
        fail(explain(error), 1)


def explain(error: Exception) -> str:
    """Return one line about what went wrong; of an error that nobody foresaw, how to learn more."""
    if isinstance(error, PixelrlError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)"


def fail(message: str, code: int) -> NoReturn:
    """Print a message and leave."""
    Console(stderr=True).print(
        f"pixelrl: {message}", style="bold red", highlight=False, soft_wrap=True, markup=False, emoji=False
    )
    sys.exit(code)


if __name__ == "__main__":
    main()

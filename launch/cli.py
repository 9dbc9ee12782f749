"""`pixelrl`: one command with verbs. `pixelrl VERB --help` tells its options; `--debug` shows where an error arose."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from pixelrl.errors import PixelrlError
from pixelrl.launch.provenance import cores

Out = Annotated[Path, arg(metavar="PATH")]


def counted(workers: int | None) -> int:
    """Return how many workers to use: as many as cores unless told otherwise."""
    if workers is not None and workers < 1:
        raise PixelrlError(f"--workers is {workers}; it must be at least 1")
    return cores() if workers is None else workers


def demo(out: Out = Path("demo"), seed: int = 0, workers: int | None = None, distractor: bool = False) -> None:
    """Run the whole job on a tray task: collect, train BC, COG and COG + DR3, evaluate, film, export, prove.

    Every stage is kept: after an interruption the same command goes on.

    Args:
        out: directory for everything.
        seed: of all randomness.
        workers: simulator processes; default: one a core.
        distractor: the harder version: a second cube on the table, which half of the prior picks go for.
    """
    from pixelrl.launch.demo import Plan
    from pixelrl.launch.demo import demo as run

    plan = Plan(distractor=True, prior=1000, task=400) if distractor else Plan()
    run(out, seed=seed, workers=counted(workers), console=Console(), plan=plan)


def collect(
    task: Positional[str],
    part: Positional[str],
    /,
    out: Out,
    episodes: int = 300,
    seed: int = 0,
    workers: int | None = None,
    size: int | None = None,
    distractor: bool = False,
    compress: bool = False,
) -> None:
    """Collect a data set with a scripted, noisy policy; the file depends on the seed, not on the workers.

    Args:
        task: pick-place-tray
        part: prior (picks, many fail, no reward), task (places, starting with the cube in the gripper), or oracle.
        out: HDF5 file to write, in robomimic's format.
        episodes: how many.
        seed: of starts and noise.
        workers: simulator processes; default: one a core.
        size: height and width of the pictures [px]; default: the task's own.
        distractor: put a second, distracting cube on the table.
        compress: gzip the pictures, one frame a chunk.
    """
    from pixelrl.launch.collect import collect as run

    run(
        task,
        part,
        out,
        episodes=episodes,
        seed=seed,
        workers=counted(workers),
        size=size,
        distractor=distractor,
        compress=compress,
        console=Console(),
    )


def render(
    raw: Positional[Path],
    /,
    out: Out,
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand"),
    size: tuple[int, int] = (84, 84),
    demos: int | None = None,
    workers: int | None = None,
    replay: bool = True,
    compress: bool = False,
) -> None:
    """Draw the pictures that a raw robosuite or robomimic file lacks, and tell how far its actions stray when replayed.

    Every recorded state is put back into the recorded scene and looked at. After an interruption the same command goes
    on. Recordings of robosuite 1.4 come out in the words of 1.5.

    Args:
        raw: HDF5 file with states, actions and model_file; pictures in it are ignored.
        out: HDF5 file to write, in robomimic's format.
        cameras: to draw; the names are those of the scene.
        size: height and width of the pictures [px].
        demos: only the first so many.
        workers: simulator processes; default: one a core.
        replay: play the actions too. Without, a controller that this robosuite lacks does no harm, but nothing is
            known of the state after the last action, which is dropped.
        compress: gzip the pictures, one frame a chunk.
    """
    from pixelrl.launch.render import render as run

    run(
        raw,
        out,
        cameras=cameras,
        size=size,
        demos=demos,
        workers=counted(workers),
        replay=replay,
        compress=compress,
        console=Console(),
    )


def inspect(files: Positional[tuple[Path, ...]], /, sheet: bool = True) -> None:
    """Tell what is in data sets: demos, lengths, shapes, action ranges, returns, success, and what is wrong.

    Args:
        files: robomimic HDF5 files.
        sheet: write a contact sheet, FILE.inspection.png, beside each file.
    """
    from pixelrl.launch.inspection import inspect as run

    run(files, sheet=sheet, console=Console())


def evaluate(
    run: Positional[Path],
    /,
    episodes: int = 100,
    seed: int = 0,
    workers: int | None = None,
    video: bool = False,
    films: int = 8,
    step: int | None = None,
    env: str | None = None,
    out: Path | None = None,
) -> None:
    """Roll a policy out in simulation: success rate with its 95 % Wilson interval, return, length, every episode.

    Args:
        run: directory of a training run, or of an exported policy.
        episodes: how many; episode i starts alike for every policy.
        seed: of the starts.
        workers: simulator processes; default: one a core.
        video: film the first episodes, and lay them out on one sheet of pictures.
        films: how many to film with --video.
        step: use the snapshot of this step, not the last checkpoint.
        env: environment to use, say pick-place-tray or Lift; default: the one that the data came from.
        out: where to write evaluation.json and films; default: the policy's directory.
    """
    from pixelrl.launch.evaluate import evaluate as go

    films = films if video else 0
    go(
        run,
        episodes=episodes,
        seed=seed,
        workers=counted(workers),
        films=films,
        step=step,
        env=env,
        out=out,
        console=Console(),
    )


def export(
    run: Positional[Path],
    /,
    out: Out,
    step: int | None = None,
    camera_size: tuple[int, int] | None = None,
    data: tuple[Path, ...] = (),
) -> None:
    """Export a run as one directory for a robot, and prove that it acts as the checkpoint does.

    Args:
        run: directory of a training run.
        out: directory to write: policy.onnx, policy.json (the contract), export.json.
        step: use the snapshot of this step, not the last checkpoint.
        camera_size: height and width of the robot's pictures [px]; default: those of the data.
        data: recorded data to prove it on; default: those it was trained on.
    """
    from pixelrl.launch.export import export as go

    go(run, out, step=step, camera_size=camera_size, data=data, console=Console())


def train(recipe: Positional[str], /) -> None:
    """Train a recipe on data; `pixelrl train --help` lists the recipes, `pixelrl train RECIPE --help` its options."""


VERBS: dict[str, Callable[..., Any]] = {
    verb.__name__: verb for verb in (demo, collect, render, inspect, train, evaluate, export)
}


def main() -> None:
    """Run the command; exit with 0 only on success, with one clear line on bad input."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # before anything imports MuJoCo; the user's choice stands
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        if arguments[:1] == ["train"]:
            from pixelrl.launch.options import train_command

            train_command(arguments[1:])
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
    Console(stderr=True).print(f"pixelrl: {message}", style="bold red", highlight=False, soft_wrap=True, markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()

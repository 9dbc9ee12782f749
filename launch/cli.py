"""`pixelrl`: one command with verbs. `pixelrl VERB --help` tells its options; `--debug` shows where an error arose."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from rich.console import Console
from tyro.conf import Positional, arg

from pixelrl.errors import PixelrlError
from pixelrl.launch.cluster import Engine, cluster_for
from pixelrl.launch.provenance import cores

Out = Annotated[Path, arg(metavar="PATH")]
Drawing = Literal["stock", "fast"]


def counted(workers: int | None) -> int:
    """Return how many workers to use: as many as cores unless told otherwise."""
    if workers is not None and workers < 1:
        raise PixelrlError(f"--workers is {workers}; it must be at least 1")
    return cores() if workers is None else workers


def pairs(option: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary; values are read as JSON, or else as text."""
    result: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise PixelrlError(f"{option}: {word!r} is not KEY=VALUE")
        try:
            result[key] = json.loads(value)
        except ValueError:
            result[key] = value
    return result


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
    drawing: Drawing | None = None,
    distractor: bool = False,
    compress: bool = False,
    engine: Engine = "local",
    ray_address: str = "auto",
) -> None:
    """Collect a data set with a scripted, noisy policy; the file depends on the seed, not on the workers.

    Args:
        task: pick-place-tray, drawer-grasp, drawer-blocked-drawer, or drawer-blocked-object.
        part: prior (the first half of the task, many fail, no reward), task (the second half, which starts where the
            first ends: with the cube in the gripper, or the drawer open), or oracle (the whole task, without noise).
        out: HDF5 file to write, in robomimic's format.
        episodes: how many.
        seed: of starts and noise.
        workers: simulator processes; default: one a core.
        size: height and width of the pictures [px]; default: the task's own.
        drawing: fast (simple shapes, flat colours, no shadows) or stock (as robosuite draws); default: fast.
        distractor: put a second, distracting cube on the table.
        compress: gzip the pictures, one frame a chunk.
        engine: ray: on a Ray cluster, by default on all of its CPUs; takes pip install '.[ray]' on every node.
        ray_address: HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine.
    """
    from pixelrl.launch.collect import collect as run

    with cluster_for(engine, ray_address, workers, console := Console()) as cluster:
        run(
            task,
            part,
            out,
            episodes=episodes,
            seed=seed,
            workers=counted(workers),
            size=size,
            drawing=drawing,
            distractor=distractor,
            compress=compress,
            cluster=cluster,
            console=console,
        )


def render(
    raw: Positional[Path],
    /,
    out: Out,
    cameras: tuple[str, ...] = ("agentview", "robot0_eye_in_hand"),
    size: tuple[int, int] = (84, 84),
    drawing: Drawing | None = None,
    demos: int | None = None,
    workers: int | None = None,
    replay: bool = True,
    compress: bool = False,
    engine: Engine = "local",
    ray_address: str = "auto",
) -> None:
    """Draw the pictures that a raw robosuite or robomimic file lacks, and tell how far its actions stray when replayed.

    Every recorded state is put back into the recorded scene and looked at. After an interruption the same command goes
    on. Recordings of robosuite 1.4 come out in the words of 1.5.

    Args:
        raw: HDF5 file with states, actions and model_file; pictures in it are ignored.
        out: HDF5 file to write, in robomimic's format.
        cameras: to draw; the names are those of the scene.
        size: height and width of the pictures [px].
        drawing: stock (as robosuite draws) or fast (simple shapes, flat colours, no shadows); default: what the file
            names, else stock.
        demos: only the first so many.
        workers: simulator processes; default: one a core.
        replay: play the actions too. Without, a controller that this robosuite lacks does no harm, but nothing is
            known of the state after the last action, which is dropped.
        compress: gzip the pictures, one frame a chunk.
        engine: ray: on a Ray cluster, by default on all of its CPUs; takes pip install '.[ray]' on every node.
        ray_address: HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine.
    """
    from pixelrl.launch.render import render as run

    with cluster_for(engine, ray_address, workers, console := Console()) as cluster:
        run(
            raw,
            out,
            cameras=cameras,
            size=size,
            drawing=drawing,
            demos=demos,
            workers=counted(workers),
            replay=replay,
            compress=compress,
            cluster=cluster,
            console=console,
        )


def inspect(
    files: Positional[tuple[Path, ...]] = (),
    /,
    task: tuple[Path, ...] = (),
    prior: tuple[Path, ...] = (),
    reference: Path | None = None,
    return_range: tuple[float, float] | None = None,
    sample: int | None = None,
    actions: Literal["unit", "min-max"] = "unit",
    json: bool = False,
    html: bool = False,
    sheet: bool = True,
) -> None:
    """Tell what is in data sets and what is wrong with them; with --task and --prior also whether they fit together.

    Errors: training may not start, and the exit code is 1. Warnings: it may, and what comes out may be spoilt.

    Args:
        files: robomimic HDF5 files, each looked at by itself (and searched for copies of the others' demos).
        task: files as `train --task` takes them; with --prior they are compared with each other.
        prior: files as `train --prior` takes them.
        reference: a file, say of an expert, that trajectory quality (TQ) and coverage (SACo) are relative to.
        return_range: mean returns of a random policy and of an expert, for TQ.
        sample: look at the pictures of so many demos of each file, evenly spaced; default: of all, up to 4 GiB of
            pictures a file. Numbers are always read from all demos.
        actions: min-max: they are to be normalised, so a range beyond [-1, 1] is no error.
        json: print JSON on the standard output and nothing else.
        html: write FILE.inspection.html, one page with figures and contact sheets, beside the first file.
        sheet: write a contact sheet, FILE.inspection.png, beside each file.
    """
    from pixelrl.launch.inspection import inspect as run

    run(
        files,
        task=task,
        prior=prior,
        reference=reference,
        return_range=return_range,
        sample=sample,
        actions=actions,
        as_json=json,
        html=html,
        sheet=sheet,
        console=Console(),
    )


def evaluate(
    run: Positional[Path],
    /,
    episodes: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    video: bool = False,
    films: int = 8,
    step: int | None = None,
    env: str | None = None,
    env_options: tuple[str, ...] = (),
    camera_sources: tuple[str, ...] = (),
    starts: Path | None = None,
    time_limit: float = 60.0,
    drawing: Drawing | None = None,
    until: float | None = None,
    out: Path | None = None,
    html: bool = False,
    engine: Engine = "local",
    ray_address: str = "auto",
) -> None:
    """Roll a policy out in simulation: success rate with its 95 % Wilson interval, return, length, every episode.

    Args:
        run: directory of a training run, or of an exported policy.
        episodes: how many; episode i starts alike for every policy; default: 100, or all of --starts.
        seed: of the starts; default: 0.
        workers: simulator processes; default: one a core. One that dies or hangs is replaced, its episode begun anew.
        video: film the first episodes, and lay them out on one sheet of pictures.
        films: how many to film with --video.
        step: use the snapshot of this step, not the last checkpoint.
        env: environment to use, say pick-place-tray, drawer-grasp or Lift, or gym:ID or gym:MODULE:ID, where importing
            the module registers the id; default: the one that the data came from.
        env_options: of the environment, say distractor=true, or obs_type=pixels for gymnasium.make.
        camera_sources: where a Gymnasium environment has the policy's pictures, say agentview=pixels; render: what it
            draws for people; default: they have the same names.
        starts: a bank of starts that `pixelrl starts` made; it names the environment, too.
        time_limit: seconds that a step or a reset may take before its worker counts as hung.
        drawing: stock (as robosuite draws) or fast (simple shapes, flat colours); default: as the data were drawn.
        until: stop as soon as it is clear, with 95 % confidence, whether the success rate is above or below this.
        out: where to write evaluation.json and films; default: the policy's directory.
        html: film, and write evaluation.html: one page with the films, Q along each of them where the policy has
            critics, the failures with the moment they went wrong, and every episode.
        engine: ray: on a Ray cluster, by default on all of its CPUs; takes pip install '.[ray]' on every node.
        ray_address: HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine.
    """
    from pixelrl.launch.evaluate import evaluate as go

    sources = {camera: str(source) for camera, source in pairs("--camera-sources", camera_sources).items()}
    with cluster_for(engine, ray_address, workers, console := Console()) as cluster:
        go(
            run,
            episodes=episodes,
            seed=seed,
            workers=counted(workers),
            films=films if video or html else 0,
            step=step,
            env=env,
            drawing=drawing,
            env_options=pairs("--env-options", env_options),
            camera_sources=sources,
            starts=starts,
            time_limit=time_limit,
            until=until,
            out=out,
            html=html,
            cluster=cluster,
            console=console,
        )


def sweep(
    run: Positional[Path],
    /,
    only: tuple[str, ...] = (),
    levels: tuple[float, ...] = (),
    episodes: int = 50,
    seed: int = 0,
    workers: int | None = None,
    step: int | None = None,
    env: str | None = None,
    out: Annotated[Path | None, arg(metavar="PATH")] = None,
    engine: Engine = "local",
    ray_address: str = "auto",
) -> None:
    """Tell how robust a policy is: its success as a function of what differs, each from the same starts.

    Camera, light, colours, texture, clutter, a distractor, blur, noise, dropped frames, delay and noise of the actions.
    After an interruption the same command goes on; cells that are done are kept.

    Args:
        run: directory of a training run, or of an exported policy.
        only: perturbations to try, say camera-moved light; default: all that the environment allows.
        levels: of a single perturbation, instead of its usual ones.
        episodes: of each cell.
        seed: of the starts.
        workers: simulator processes; default: one a core.
        step: use the snapshot of this step, not the last checkpoint.
        env: environment to use; default: the one that the data came from.
        out: directory for sweep.json, sweep.png, sweep.html; default: the policy's directory.
        engine: ray: on a Ray cluster, by default on all of its CPUs; takes pip install '.[ray]' on every node.
        ray_address: HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine.
    """
    from pixelrl.launch.sweep import sweep as go

    with cluster_for(engine, ray_address, workers, console := Console()) as cluster:
        go(
            run,
            only=only,
            levels=levels,
            episodes=episodes,
            seed=seed,
            workers=counted(workers),
            step=step,
            env=env,
            out=out,
            cluster=cluster,
            console=console,
        )


def starts(
    task: Positional[str],
    /,
    out: Out,
    episodes: int = 100,
    seed: int = 0,
    workers: int | None = None,
    env_options: tuple[str, ...] = (),
    engine: Engine = "local",
    ray_address: str = "auto",
) -> None:
    """Make a bank of starts that any policy can be tried on: `pixelrl evaluate RUN --starts OUT`.

    Each start is the simulator's whole state. The same seed gives the starts that `evaluate --seed` has; in a file they
    stay what they are even where another version of the task would place things otherwise.

    Args:
        task: name of a task, say pick-place-tray or Lift, or a data set, for the environment that it names.
        out: HDF5 file to write.
        episodes: how many.
        seed: of the starts.
        workers: simulator processes; default: one a core.
        env_options: of the environment, say distractor=true.
        engine: ray: on a Ray cluster, by default on all of its CPUs; takes pip install '.[ray]' on every node.
        ray_address: HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine.
    """
    from pixelrl.launch.starts import starts as go

    options = pairs("--env-options", env_options)
    with cluster_for(engine, ray_address, workers, console := Console()) as cluster:
        asked = partial(go, episodes=episodes, seed=seed, workers=counted(workers), options=options)
        asked(task, out, cluster=cluster, console=console)


def compare(
    methods: Positional[tuple[str, ...]],
    /,
    alpha: float = 0.05,
    out: Annotated[Path | None, arg(metavar="FILE")] = None,
) -> None:
    """Tell whether the first policy is better or worse than each of the others, by how much, and how sure that is.

    One run each: the exact McNemar test on the same starts, which judges these two policies, and not their recipes.
    Several runs of each recipe: interquartile means over runs with stratified bootstrap intervals (arXiv 2108.13264).
    p values are adjusted for the number of comparisons.

    Args:
        methods: two or more: directories with an evaluation.json, or quoted globs of them, such as 'runs/cog_seed*'.
        alpha: how often a verdict may be wrong where there is no difference.
        out: JSON file to write.
    """
    from pixelrl.launch.compare import compare as run

    run(methods, alpha=alpha, out=out, console=Console())


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


def convert(
    source: Annotated[Positional[Path], arg(metavar="FROM")],
    target: Annotated[Positional[Path], arg(metavar="TO")],
    /,
    from_format: Literal["hdf5", "lerobot", "minari", "cog"] | None = None,
    to_format: Literal["hdf5", "lerobot", "minari"] | None = None,
    images: Literal["png", "video"] = "png",
    compress: bool = False,
    fps: float | None = None,
    task: str | None = None,
    last_step: Literal["drop", "repeat"] = "drop",
) -> None:
    """Convert a data set to another format, read it back, and compare every array by its hash.

    FROM is COG's .npy buffer, robomimic's .hdf5, a LeRobotDataset v3.0 or a Minari data set, with pictures; TO is any
    of them but COG's. TO appears when it is whole; TO.convert.json says what arrived and what was left behind.

    Args:
        source: NAME.npy, NAME.hdf5, or a folder of LeRobot's or Minari's.
        target: NAME.hdf5 is HDF5, NAME-v0 (a folder) Minari's, any other folder LeRobot's.
        from_format: default: guessed from FROM.
        to_format: default: guessed from TO.
        images: for LeRobot: png is exact; video is H.264, small and lossy.
        compress: for HDF5: gzip the pictures, one frame a chunk.
        fps: for LeRobot: how often the robot acted [Hz]; default: what the data say.
        task: for LeRobot: what the robot was told to do; default: what the data say.
        last_step: from LeRobot, which keeps no picture after the last step: drop the step, or repeat its own picture.
    """
    from pixelrl.launch.convert import Options
    from pixelrl.launch.convert import convert as go

    options = Options(images=images, compress=compress, fps=fps, task=task, last_step=last_step)
    go(source, target, source_format=from_format, target_format=to_format, options=options, console=Console())


def train(recipe: Positional[str], /) -> None:
    """Train a recipe on data; `pixelrl train --help` lists the recipes, `pixelrl train RECIPE --help` its options."""


def bench(kind: Positional[str], /) -> None:
    """Measure: learner (updates), data (loading), simulation (steps); compare ledgers.

    `pixelrl bench KIND --help` tells the options.
    """


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
            from pixelrl.launch.options import train_command

            train_command(arguments[1:])
        elif arguments[:1] == ["bench"]:
            from pixelrl.launch.bench import bench_command

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

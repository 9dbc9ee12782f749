"""The verbs that make, look at and change data: what `pixelrl VERB` takes, and nothing else."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console
from pixelrl.launch.engine import Engine, cluster_for
from pixelrl.launch.options import Drawing, key_values, worker_count


def collect(
    task: Positional[str],
    part: Positional[str],
    /,
    out: Path,
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
    from pixelrl.launch.commands.collect import collect as run

    with cluster_for(engine, ray_address, workers, console := plain_console()) as cluster:
        run(
            task,
            part,
            out,
            episodes=episodes,
            seed=seed,
            workers=worker_count(workers),
            size=size,
            drawing=drawing,
            distractor=distractor,
            compress=compress,
            cluster=cluster,
            console=console,
        )


def starts(
    task: Positional[str],
    /,
    out: Path,
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
    from pixelrl.launch.commands.starts import starts as go

    options = key_values("--env-options", env_options)
    with cluster_for(engine, ray_address, workers, console := plain_console()) as cluster:
        asked = partial(go, episodes=episodes, seed=seed, workers=worker_count(workers), options=options)
        asked(task, out, cluster=cluster, console=console)


def render(
    raw: Positional[Path],
    /,
    out: Path,
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
    from pixelrl.launch.commands.render import render as run

    with cluster_for(engine, ray_address, workers, console := plain_console()) as cluster:
        run(
            raw,
            out,
            cameras=cameras,
            size=size,
            drawing=drawing,
            demos=demos,
            workers=worker_count(workers),
            replay=replay,
            compress=compress,
            cluster=cluster,
            console=console,
        )

"""The verbs for policies: what `pixelrl VERB` takes, and nothing else."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console
from pixelrl.launch.engine import Engine, cluster_for
from pixelrl.launch.options import Drawing, key_values, worker_count


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
    from pixelrl.launch.commands.evaluate import evaluate as go

    sources = {camera: str(source) for camera, source in key_values("--camera-sources", camera_sources).items()}
    with cluster_for(engine, ray_address, workers, console := plain_console()) as cluster:
        go(
            run,
            episodes=episodes,
            seed=seed,
            workers=worker_count(workers),
            films=films if video or html else 0,
            step=step,
            env=env,
            drawing=drawing,
            env_options=key_values("--env-options", env_options),
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
    from pixelrl.launch.commands.sweep import sweep as go

    with cluster_for(engine, ray_address, workers, console := plain_console()) as cluster:
        go(
            run,
            only=only,
            levels=levels,
            episodes=episodes,
            seed=seed,
            workers=worker_count(workers),
            step=step,
            env=env,
            out=out,
            cluster=cluster,
            console=console,
        )

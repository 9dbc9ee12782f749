"""`pixelrl demo`: the whole job, from nothing to an artefact that a robot can run."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Suppress


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How large a demo is.

    Attributes:
        prior: episodes of prior data to collect: the first part of the task, which many fail.
        task: episodes of task data: the second part.
        episodes: how many to evaluate each policy with.
        videos: how many of them to film.
        curve_episodes: how many to try each snapshot with; their starts are used for nothing else.
    """

    prior: int
    task: int
    episodes: int = 100
    videos: int = 8
    curve_episodes: int = 50


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run the whole job: collect, train BC, COG and COG + DR3, evaluate, film, export, prove.

    Every stage is kept: after an interruption the same command goes on.
    """

    out: Path = Path("demo")
    """directory for everything"""
    seed: int = 0
    """of all randomness"""
    workers: int | None = None
    """simulator processes; default: one a core"""
    distractor: bool = False
    """the harder version: a second cube on the table, which half of the prior picks go for"""
    task: str = "pick-place-tray"
    """pick-place-tray, drawer-grasp, drawer-blocked-drawer, or drawer-blocked-object"""
    recipes: tuple[str, ...] = ("quick_bc", "quick_cog", "quick_cog_dr3")
    """what to train, the baseline first; the last one is filmed and exported"""
    steps: int | None = None
    """gradient steps of each; default: the recipe's own"""
    curve: int = 0
    """also try a snapshot every so many steps, for a learning curve"""
    size: Suppress[DemoSize | None] = None
    """how large it is; default: what the task wants, at two cores and twelve minutes for the first one"""

    def __call__(self) -> None:
        """Run all stages that are not done yet; write `summary.json` and `summary.png`, and print what came out.

        Raises:
            PixelrlError: no such task or recipe, or `out` holds a demo of another seed, size, recipe or version.
        """
        from pixelrl.launch.demo_stages import run_demo

        run_demo(self)

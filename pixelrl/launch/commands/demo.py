"""`pixelrl demo`: the whole job, from nothing to an artefact that a robot can run, in stages.

The result of each stage is a file, and what is there is not done again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from tyro.conf import Suppress, arg

from pixelrl.launch.commands.collect import Collect, forget_unrecorded, record_of
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.commands.export import Export
from pixelrl.launch.console import plain_console
from pixelrl.launch.options import worker_count
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.extras import require_extras
from pixelrl.runtime.files import exclusive_directory, write_json
from pixelrl.runtime.seeding import derive
from pixelrl.version import __version__

if TYPE_CHECKING:
    from pixelrl.learning.recipe import Recipe

EVALUATED = ("episodes", "successes", "success_rate", "success_interval_95")
"""What the summary repeats of an evaluation."""


USUAL = ("quick_bc", "quick_cog", "quick_cog_dr3")
WITH_DISTRACTOR = ("quick_bc", "quick_cog_dr3", "quick_fql")
"""What is trained unless it is said; one Gaussian would aim between two cubes."""


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How large a demo is.

    Attributes:
        prior: episodes of prior data to collect: the first part of the task, which many fail.
        task: episodes of task data: the second part.
        episodes: how many to evaluate each policy with.
        videos: how many of them to keep videos of.
        curve_episodes: how many to try each snapshot with; their starts are used for nothing else.
    """

    prior: int
    task: int
    episodes: int = 100
    videos: int = 8
    curve_episodes: int = 50


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run the whole job: collect, train BC, COG and COG + DR3, evaluate, write videos, export, prove.

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
    env: Annotated[str, arg(aliases=("--task",))] = "pick-place-tray"
    """pick-place-tray, drawer-grasp, drawer-blocked-drawer, or drawer-blocked-object"""
    recipes: tuple[str, ...] = ()
    """what to train, the baseline first; the last one is shown in videos and exported; default: quick_bc quick_cog
    quick_cog_dr3, and with --distractor quick_bc quick_cog_dr3 quick_fql, whose policy can hold two modes"""
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
        require_extras("sim", "export")
        options = replace(self, recipes=self.recipes or (WITH_DISTRACTOR if self.distractor else USUAL))
        size = check(options)
        stages = Stages(options=options, size=size, workers=worker_count(self.workers), console=plain_console())
        with exclusive_directory(self.out):
            stages.run()


def check(options: Demo) -> DemoSize:
    """Return the demo's size, as its task wants it unless it is given."""
    from pixelrl.launch.recipes import require_recipe

    if options.env not in TASK_NAMES:
        raise PixelrlError(f"--env: there is no task {options.env!r}, but: {', '.join(TASK_NAMES)}")
    for name in options.recipes:
        require_recipe(name, "--recipes: ")
    if options.curve < 0 or (options.steps is not None and options.steps < 1):
        raise PixelrlError("expected --steps 1 at least and --curve 0 at least")
    if options.distractor and options.env != Demo.env:
        raise PixelrlError(f"--distractor: only {Demo.env} has one")
    usual = {"prior": 600, "task": 300} if options.env == Demo.env else {"prior": 1000, "task": 500}
    if options.distractor:
        usual = {"prior": 1000, "task": 400}
    return options.size or DemoSize(**usual)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The stages of one demo."""

    options: Demo
    size: DemoSize
    workers: int
    console: Console

    def run(self) -> None:
        """Run all stages that are not done yet; write `summary.json` and `summary.png`, and print what came out."""
        from pixelrl.launch.reports.demo_summary import draw_summary, print_summary
        from pixelrl.simulation.evaluation.statistics import mcnemar

        provenance, out, recipes = Provenance(seed=self.options.seed), self.options.out, self.options.recipes
        plan = self.write_plan()
        data = {part: self.collect(part) for part in ("prior", "task")}
        self.train()
        results = {name: self.evaluate_run(name) for name in recipes}
        curves = {name: self.evaluate_snapshots(name) for name in recipes} if self.options.curve else {}
        results["export"] = self.evaluate_export(recipes[-1])
        outcomes = {name: result.pop("outcomes") for name, result in results.items()}
        for name, result in results.items():
            result["against_baseline"] = mcnemar(outcomes[name], outcomes[recipes[0]])
        pairs = zip(outcomes["export"], outcomes[recipes[-1]], strict=True)
        results["export"]["episodes_that_end_otherwise"] = [i for i, (one, two) in enumerate(pairs) if one != two]
        summary = {"plan": plan, "data": data, "policies": results, "curves": curves, **provenance.record()}
        write_json(out / "summary.json", summary)
        draw_summary(out / "summary.png", summary, {name: self.run_directory(name) for name in recipes})
        print_summary(out, summary, self.console)

    def write_plan(self) -> dict[str, Any]:
        """Write and return what this demo is; its recipes are written in full, and returned by name."""
        from pixelrl.training.configuration import to_json

        options = self.options
        plan = {"env": options.env, "distractor": options.distractor, "recipes": options.recipes}
        plan |= {"steps": options.steps, "curve": options.curve, **asdict(self.size)}
        recipes = {name: self.recipe(name) for name in options.recipes}
        whole = {"seed": options.seed, "version": __version__, **plan, "recipes": to_json(recipes)}
        path, whole = options.out / "plan.json", json.loads(json.dumps(whole))
        if not path.exists():
            write_json(path, whole)
        previous = json.loads(path.read_text())
        if different := [key for key in whole if previous.get(key) != whole[key]]:
            raise PixelrlError(f"{options.out}: holds a demo with another {different[0]}; choose another --out")
        return plan

    def stage(self, title: str, result: Path, work: Callable[[], Any]) -> dict[str, Any]:
        """Do the work unless its result is there from an earlier run, and return the result."""
        if result.exists():
            self.console.print(f"{title}: done before ({result})", style="dim")
        else:
            self.console.rule(title, align="left")
            work()
        found: dict[str, Any] = json.loads(result.read_text())
        return found

    def collect(self, part: str) -> dict[str, Any]:
        """Collect one part of the data."""
        path, options = self.data(part), self.options
        forget_unrecorded(path)
        work = Collect(
            task=options.env,
            part=part,
            out=path,
            episodes=getattr(self.size, part),
            seed=options.seed,
            workers=self.workers,
            distractor=options.distractor,
        )
        result = self.stage(f"collect {part}", record_of(path), work)
        kept = ("episodes", "successes", "held_at_start", "rewarded", "whole_task", "seconds")
        return {key: result[key] for key in kept}

    def train(self) -> None:
        """Train what is not trained yet side by side, one more than there are workers, lest a core be left idle."""
        from pixelrl.launch.parallel_runs import TrainingJob, run_trainings

        common = [f"--{part}={self.data(part)}" for part in ("task", "prior")]
        common += [f"--seed={self.options.seed}", f"--snapshot-every={self.options.curve}"]
        trainings = []
        for name in reversed(self.options.recipes):  # the baseline, the shortest, comes last
            steps, out = self.recipe(name).steps, self.run_directory(name)
            if not (out / "training.json").exists():
                words = (*common, f"--steps={steps}")
                trainings.append(TrainingJob(recipe=name, title=name, options=words, out=out, steps=steps))
        if trainings:
            self.console.rule("train", align="left")
            workers = self.workers + (len(trainings) > self.workers)
            run_trainings(trainings, workers=workers, console=self.console)

    def evaluate_run(self, name: str) -> dict[str, Any]:
        """Evaluate a recipe's policy, and return its successes beside what was measured in training."""
        from pixelrl.launch.reports.demo_summary import last_figures

        run = self.run_directory(name)
        training = json.loads((run / "training.json").read_text())
        figures = {key: training[key] for key in ("training_seconds", "steps")} | {"measured": last_figures(run)}
        return self.evaluate(run, self.size.videos if name == self.options.recipes[-1] else 0) | figures

    def evaluate_snapshots(self, name: str) -> list[dict[str, Any]]:
        """Evaluate a recipe's snapshots, on starts that no final policy is tried on."""
        run, every = self.run_directory(name), self.options.curve
        points = []
        for step in range(every, self.recipe(name).steps + 1, every):
            where = {"step": step, "out": run / "curve" / str(step)}
            result = self.evaluation_of(run, "curve", episodes=self.size.curve_episodes, **where)
            points.append({"step": step} | {key: result[key] for key in EVALUATED})
        return points

    def evaluate_export(self, name: str) -> dict[str, Any]:
        """Export one run, and evaluate the artefact as the robot would run it."""
        artefact = self.options.out / "export"
        export = Export(run=self.run_directory(name), out=artefact)
        proof = self.stage(f"export {name}", artefact / "export.json", export)
        return self.evaluate(artefact, videos=0) | {"parity": proof["parity"]}

    def evaluate(self, policy: Path, videos: int) -> dict[str, Any]:
        """Evaluate a policy on this demo's own starts, which nothing else uses, and return the figures that matter."""
        result = self.evaluation_of(policy, "evaluation", episodes=self.size.episodes, video=videos > 0, videos=videos)
        figures = {key: result[key] for key in (*EVALUATED, "mean_length", "seconds")}
        return figures | {"outcomes": [each["success"] for each in result["outcomes"]]}

    def evaluation_of(self, policy: Path, starts: str, **options: Any) -> dict[str, Any]:
        """Evaluate a policy, or a run's snapshot, on the demo's starts of that name, and return all of the result."""
        seed = derive(self.options.seed, "demo", starts)
        work = Evaluate(run=policy, seed=seed, workers=self.workers, **options)
        title = f"evaluate {policy.name}" + (f" at step {options['step']}" if "step" in options else "")
        return self.stage(title, options.get("out", policy) / "evaluation.json", work)

    def recipe(self, name: str) -> "Recipe":
        """Return a recipe with the demo's seed and steps."""
        from pixelrl.launch.recipes import RECIPES

        recipe = replace(RECIPES[name](), seed=self.options.seed)
        return recipe if self.options.steps is None else replace(recipe, steps=self.options.steps)

    def run_directory(self, name: str) -> Path:
        """Return the directory of a recipe's run."""
        return self.options.out / "runs" / name

    def data(self, part: str) -> Path:
        """Return the file of a part of the data."""
        return self.options.out / "data" / f"{part}.hdf5"

"""The whole job, from nothing to an artefact that a robot can run, in stages that are each kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

import pixelrl
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.learning.recipe import to_json
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import write_json
from pixelrl.launch.commands.collect import collect
from pixelrl.launch.commands.evaluate import evaluate
from pixelrl.launch.commands.export import export
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.recipes import RECIPES
from pixelrl.launch.reports.demo_summary import draw, last_figures, tell
from pixelrl.launch.parallel_runs import Training, run_trainings
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.evaluation.statistics import mcnemar


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the demo is and how large, fixed beforehand; the defaults fit two cores and twelve minutes.

    Attributes:
        env: one of our tasks.
        distractor: a second cube lies on the table, and half of the picks go for it.
        prior: episodes of prior data to collect: the first part of the task, which many fail.
        task: episodes of task data: the second part.
        recipes: what to train; the first one is the baseline, the last one is filmed and exported.
        steps: gradient steps of each; None: the recipe's own.
        episodes: how many to evaluate each policy with.
        films: how many of them to film.
        curve: try a snapshot of each policy every so many steps; 0: only the last one.
        curve_episodes: how many to try it with; their starts are used for nothing else.
    """

    env: str = "pick-place-tray"
    distractor: bool = False
    prior: int = 600
    task: int = 300
    recipes: tuple[str, ...] = ("quick_bc", "quick_cog", "quick_cog_dr3")
    steps: int | None = None
    episodes: int = 100
    films: int = 8
    curve: int = 0
    curve_episodes: int = 50


def plan_for(
    env: str,
    *,
    distractor: bool = False,
    recipes: Sequence[str] = Plan.recipes,
    steps: int | None = None,
    curve: int = 0,
) -> Plan:
    """Return the plan for a task, with as much data as it wants.

    Raises:
        PixelrlError: there is no such task or recipe, or an option does not fit it.
    """
    if env not in TASK_NAMES:
        raise PixelrlError(f"--task: there is no task {env!r}, but: {', '.join(TASK_NAMES)}")
    if unknown := [name for name in recipes if name not in RECIPES]:
        raise PixelrlError(f"--recipes: there is no recipe {unknown[0]!r}, but: {', '.join(RECIPES)}")
    if not recipes or curve < 0 or (steps is not None and steps < 1):
        raise PixelrlError("--recipes wants one at least, --steps 1 at least, and --curve 0 at least")
    plan = Plan(env=env, distractor=distractor, recipes=tuple(recipes), steps=steps, curve=curve)
    if env != Plan.env:
        if distractor:
            raise PixelrlError(f"--distractor: only {Plan.env} has one")
        return replace(plan, prior=1000, task=500)
    return replace(plan, prior=1000, task=400) if distractor else plan


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One demo: where it is, how large, and who watches."""

    out: Path
    plan: Plan
    seed: int
    workers: int
    console: Console

    def run(self) -> dict[str, Any]:
        """Run all stages that are not done yet; write `summary.json` and `summary.png`, and tell what came out."""
        provenance = Provenance(seed=self.seed)
        self.claim()
        data = {part: self.collected(part) for part in ("prior", "task")}
        self.train()
        results = {name: self.judged(name) for name in self.plan.recipes}
        best = self.plan.recipes[-1]
        curves = {name: self.curve(name) for name in self.plan.recipes} if self.plan.curve else {}
        results["export"] = self.exported(best)
        outcomes = {name: result.pop("outcomes") for name, result in results.items()}
        for name, result in results.items():
            result["against_baseline"] = mcnemar(outcomes[name], outcomes[self.plan.recipes[0]])
        differing = [
            i for i, pair in enumerate(zip(outcomes["export"], outcomes[best], strict=True)) if len({*pair}) > 1
        ]
        results["export"]["episodes_that_end_otherwise"] = differing
        summary = {
            "plan": asdict(self.plan),
            "data": data,
            "policies": results,
            "curves": curves,
            **provenance.record(),
        }
        write_json(self.out / "summary.json", summary)
        draw(self.out / "summary.png", summary, {name: self.run_of(name) for name in self.plan.recipes})
        tell(self.out, summary, self.console)
        return summary

    def claim(self) -> None:
        """Make the directory ours.

        Raises:
            PixelrlError: it holds a demo of another seed, size, recipe or version.
        """
        recipes = {name: self.recipe(name) for name in self.plan.recipes}
        mine = {"seed": self.seed, "version": pixelrl.__version__, **asdict(self.plan), "recipes": to_json(recipes)}
        path, mine = self.out / "plan.json", json.loads(json.dumps(mine))
        if not path.exists():
            write_json(path, mine)
            return
        theirs = json.loads(path.read_text())
        if different := [key for key in mine if theirs.get(key) != mine[key]]:
            raise PixelrlError(f"{self.out}: holds a demo with another {different[0]}; choose another --out")

    def stage(self, title: str, result: Path, work: Callable[[], Any]) -> dict[str, Any]:
        """Do the work unless its result is there from an earlier run, and return the result."""
        if result.exists():
            self.console.print(f"[dim]{title}: done before ({result})[/dim]")
        else:
            self.console.rule(title, align="left")
            work()
        found: dict[str, Any] = json.loads(result.read_text())
        return found

    def collected(self, part: str) -> dict[str, Any]:
        """Collect one part of the data."""
        path, plan = self.data(part), self.plan
        record = path.with_suffix(".collection.json")
        if not record.exists():
            path.unlink(missing_ok=True)  # whole, but its record was cut off; the same seed makes the same file
        options: dict[str, Any] = {"episodes": getattr(plan, part), "seed": self.seed, "workers": self.workers}
        options |= {"distractor": plan.distractor, "console": self.console}
        result = self.stage(f"collect {part}", record, lambda: collect(plan.env, part, path, **options))
        return {
            key: result[key] for key in ("episodes", "successes", "held_at_start", "rewarded", "whole_task", "seconds")
        }

    def train(self) -> None:
        """Train the recipes that are not trained yet, side by side."""
        common = [f"--{part}={self.data(part)}" for part in ("task", "prior")]
        common += [f"--seed={self.seed}", f"--snapshot-every={self.plan.curve}"]
        trainings = [
            Training(
                recipe=name,
                title=name,
                options=(*common, f"--steps={self.recipe(name).steps}"),
                out=self.run_of(name),
                steps=self.recipe(name).steps,
            )
            for name in reversed(self.plan.recipes)  # the baseline, the shortest, comes last
            if not (self.run_of(name) / "training.json").exists()
        ]
        if trainings:
            self.console.rule("train", align="left")
            run_trainings(trainings, workers=self.workers, console=self.console)

    def judged(self, name: str) -> dict[str, Any]:
        """Evaluate a recipe's policy, and return its successes beside what was measured in training."""
        run = self.run_of(name)
        training = json.loads((run / "training.json").read_text())
        figures = {
            "training_seconds": training["training_seconds"],
            "steps": training["steps"],
            "measured": last_figures(run),
        }
        return self.tried(run, self.plan.films if name == self.plan.recipes[-1] else 0) | figures

    def curve(self, name: str) -> list[dict[str, Any]]:
        """Evaluate a recipe's snapshots, on starts that no final policy is tried on."""
        run, plan = self.run_of(name), self.plan
        steps = range(plan.curve, self.recipe(name).steps + 1, plan.curve)
        tried = {
            step: self.evaluated(run, "curve", plan.curve_episodes, step=step, out=run / "curve" / str(step))
            for step in steps
        }
        kept = ("episodes", "successes", "success_rate", "success_interval_95")
        return [{"step": step} | {key: result[key] for key in kept} for step, result in tried.items()]

    def exported(self, name: str) -> dict[str, Any]:
        """Export one run, and evaluate the artefact as the robot would run it."""
        run, artefact = self.run_of(name), self.out / "export"
        proof = self.stage(
            f"export {name}", artefact / "export.json", lambda: export(run, artefact, console=self.console)
        )
        return self.tried(artefact, 0) | {"parity": proof["parity"]}

    def tried(self, policy: Path, films: int) -> dict[str, Any]:
        """Evaluate a policy on this demo's own starts, which nothing else uses, and return the figures that matter."""
        result = self.evaluated(policy, "evaluation", self.plan.episodes, films=films)
        kept = ("episodes", "successes", "success_rate", "success_interval_95", "mean_length", "seconds")
        return {key: result[key] for key in kept} | {"outcomes": [each["success"] for each in result["outcomes"]]}

    def evaluated(
        self,
        policy: Path,
        starts: str,
        episodes: int,
        *,
        films: int = 0,
        step: int | None = None,
        out: Path | None = None,
    ) -> dict[str, Any]:
        """Evaluate a policy, or a run's snapshot, on the demo's starts of that name, and return all of the result."""
        title = f"evaluate {policy.name}" + ("" if step is None else f" at step {step}")
        seed = derive(self.seed, "demo", starts)
        options: dict[str, Any] = {"episodes": episodes, "seed": seed, "workers": self.workers, "films": films}
        work = partial(evaluate, policy, **options, step=step, out=out, console=self.console)
        return self.stage(title, (out or policy) / "evaluation.json", work)

    def recipe(self, name: str) -> Any:
        """Return a recipe with the demo's seed and steps."""
        recipe = replace(RECIPES[name](), seed=self.seed)
        return recipe if self.plan.steps is None else replace(recipe, steps=self.plan.steps)

    def run_of(self, name: str) -> Path:
        """Return the directory of a recipe's run."""
        return self.out / "runs" / name

    def data(self, part: str) -> Path:
        """Return the file of a part of the data."""
        return self.out / "data" / f"{part}.hdf5"


def demo(out: Path, *, seed: int, workers: int, console: Console, plan: Plan | None = None) -> dict[str, Any]:
    """Collect, train, evaluate, film, export and prove; return the summary.

    Raises:
        PixelrlError: `out` holds a demo of another seed, size, recipe or version.
    """
    return Demo(out=out, plan=plan or Plan(), seed=seed, workers=workers, console=console).run()

"""The whole job, from nothing to an artefact that a robot can run, in stages that are each kept."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pixelrl.errors import PixelrlError
from pixelrl.files import write_json
from pixelrl.launch.collect import collect
from pixelrl.launch.evaluate import evaluate
from pixelrl.launch.export import export
from pixelrl.launch.provenance import Provenance
from pixelrl.launch.recipes import RECIPES
from pixelrl.launch.train import train

TASK = "pick-place-tray"
MEASURED = {
    "phi.phi'": "features/dot",
    "cosine": "features/cosine",
    "|phi|": "features/norm",
    "srank": "features/srank",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the demo is; the defaults fit two cores and twelve minutes.

    Attributes:
        prior: episodes of prior data to collect: picks, many of which fail.
        task: episodes of task data: places that start with the cube in the gripper.
        recipes: what to train; the last one is filmed and exported.
        steps: gradient steps of each; None: the recipe's own.
        episodes: how many to evaluate each policy with.
        films: how many of them to film.
    """

    prior: int = 600
    task: int = 300
    recipes: tuple[str, ...] = ("quick_bc", "quick_cog", "quick_cog_dr3")
    steps: int | None = None
    episodes: int = 100
    films: int = 8


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One demo: where it is, how large, and who watches."""

    out: Path
    plan: Plan
    seed: int
    workers: int
    console: Console

    def run(self) -> dict[str, Any]:
        """Run all stages that are not done yet, and write and print `summary.json`."""
        provenance = Provenance(seed=self.seed)
        self.claim()
        data = {
            part: self.collected(part, count) for part, count in (("prior", self.plan.prior), ("task", self.plan.task))
        }
        policies = {name: self.learned(name) for name in self.plan.recipes}
        policies["export"] = self.exported(self.plan.recipes[-1])
        summary = {"data": data, "policies": policies, **provenance.record()}
        write_json(self.out / "summary.json", summary)
        self.tell(summary)
        return summary

    def claim(self) -> None:
        """Make the directory ours.

        Raises:
            PixelrlError: it holds a demo of another seed or size.
        """
        path, mine = self.out / "plan.json", json.loads(json.dumps({"seed": self.seed, **asdict(self.plan)}))
        if not path.exists():
            write_json(path, mine)
        elif (theirs := json.loads(path.read_text())) != mine:
            raise PixelrlError(f"{self.out}: holds a demo of {theirs}, not of {mine}; choose another --out")

    def stage(self, title: str, result: Path, work: Callable[[], Any]) -> dict[str, Any]:
        """Do the work unless its result is there from an earlier run, and return the result."""
        if result.exists():
            self.console.print(f"[dim]{title}: done before ({result})[/dim]")
        else:
            self.console.rule(f"{title}", align="left")
            work()
        found: dict[str, Any] = json.loads(result.read_text())
        return found

    def collected(self, part: str, episodes: int) -> dict[str, Any]:
        """Collect one part of the data."""
        path = self.data(part)
        options: dict[str, Any] = {"episodes": episodes, "seed": self.seed, "workers": self.workers}
        record = path.with_suffix(".collection.json")
        return self.stage(f"collect {part}", record, lambda: collect(TASK, part, path, **options, console=self.console))

    def learned(self, name: str) -> dict[str, Any]:
        """Train and evaluate one recipe."""
        run, plan = self.out / "runs" / name, self.plan
        recipe = replace(RECIPES[name](), seed=self.seed)
        if plan.steps is not None:
            recipe = replace(recipe, steps=plan.steps)
        task, prior = [self.data("task")], [self.data("prior")]
        training = self.stage(
            f"train {name}",
            run / "training.json",
            lambda: train(recipe, task, prior, run, resume=True, console=self.console),
        )
        films = plan.films if name == plan.recipes[-1] else 0
        figures = {"training_seconds": training["seconds"], "steps": training["steps"], "features": features(run)}
        return self.tried(run, films) | figures

    def exported(self, name: str) -> dict[str, Any]:
        """Export one run, and evaluate the artefact as the robot would run it."""
        run, artefact = self.out / "runs" / name, self.out / "export"
        proof = self.stage(
            f"export {name}", artefact / "export.json", lambda: export(run, artefact, console=self.console)
        )
        return self.tried(artefact, 0) | {"proof": proof["parity"]}

    def tried(self, policy: Path, films: int) -> dict[str, Any]:
        """Evaluate a policy, and return the figures that matter."""
        options: dict[str, Any] = {"episodes": self.plan.episodes, "seed": self.seed, "workers": self.workers}
        result = self.stage(
            f"evaluate {policy.name}",
            policy / "evaluation.json",
            lambda: evaluate(policy, **options, films=films, console=self.console),
        )
        kept = ("episodes", "successes", "success_rate", "success_interval_95", "mean_length")
        return {key: result[key] for key in kept} | {"evaluation_seconds": result["seconds"]}

    def data(self, part: str) -> Path:
        """Return the file of a part of the data."""
        return self.out / "data" / f"{part}.hdf5"

    def tell(self, summary: dict[str, Any]) -> None:
        """Print the table, and where to look."""
        table = Table(title=f"{TASK}, whole task: {self.plan.episodes} starts on the table, which no demonstration has")
        for heading in ("policy", "successes", "95 % interval", "steps to the goal or 40", "training", *MEASURED):
            table.add_column(heading, justify="left" if heading == "policy" else "right")
        for name, row in summary["policies"].items():
            low, high = row["success_interval_95"]
            seconds = f"{row['training_seconds']:.0f} s" if "training_seconds" in row else ""
            measured = [f"{row['features'][key]:.3g}" if row.get("features") else "" for key in MEASURED]
            successes = f"{row['successes']} of {row['episodes']}"
            table.add_row(name, successes, f"{low:.0%} to {high:.0%}", f"{row['mean_length']:.1f}", seconds, *measured)
        self.console.print(table)
        best = self.out / "runs" / self.plan.recipes[-1]
        self.console.print(f"look at   {best / 'evaluation.mp4'} and {best / 'evaluation.png'}")
        proof = summary["policies"]["export"]["proof"]["data"]
        proved = f"acts as the checkpoint to {proof['normalised']:.1e} on {proof['frames']} recorded frames"
        self.console.print(f"robot     {self.out / 'export'}: {proved}")
        self.console.print(f"all       {self.out / 'summary.json'}, {summary['seconds']:.0f} s")


def features(run: Path) -> dict[str, float]:
    """Return what DR3 is about, as last measured in training; empty for a recipe without a critic."""
    with (run / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {label: float(last[name]) for label, name in MEASURED.items() if last.get(name)}


def demo(out: Path, *, seed: int, workers: int, console: Console, plan: Plan | None = None) -> dict[str, Any]:
    """Collect, train, evaluate, film, export and prove; return the summary.

    Raises:
        PixelrlError: `out` holds a demo of another seed or size.
    """
    return Demo(out=out, plan=plan or Plan(), seed=seed, workers=workers, console=console).run()

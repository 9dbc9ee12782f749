"""What a demo tells in the end: two tables, a figure, and where to look."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from pixelrl.launch.reports.axes import log_axis
from pixelrl.runtime.files import atomic_path
from pixelrl.training.metrics_log import read_figures, rows_of

MEASURED = {
    "phi.phi'": "features/dot",
    "cosine": "features/cosine",
    "|phi|": "features/norm",
    "srank": "features/srank",
    "Q": "q/data",
    "CQL gap": "q/cql_gap",
}
LAST = 10
"""How many of the last measurements are averaged: each is of one batch."""


def last_figures(run: Path) -> dict[str, float]:
    """Return what DR3 is about, averaged over the last measurements; empty for a recipe without a critic."""
    rows = rows_of(run / "metrics.csv")[-LAST:]
    found = {label: [float(row[name]) for row in rows if row.get(name)] for label, name in MEASURED.items()}
    return {label: sum(values) / len(values) for label, values in found.items() if values}


def print_summary(out: Path, summary: Mapping[str, Any], console: Console) -> None:
    """Print what the data hold, how each policy does, what the features are like, and where to look."""
    policies, plan = summary["policies"], summary["plan"]
    prior, task = summary["data"]["prior"], summary["data"]["task"]
    whole = prior["whole_task"] + task["whole_task"]
    console.rule("what came out", align="left")
    held = f"{task['held_at_start']} start with the cube in the gripper, " if task["held_at_start"] else ""
    console.print(
        f"Data: {prior['episodes']} episodes of the first part ({prior['successes']} succeed, {prior['rewarded']} are "
        f"rewarded), {task['episodes']} of the second ({held}{task['rewarded']} are rewarded). "
        f"Demonstrations of the whole task: {whole}."
    )
    success = Table(title=f"{plan['env']}, the whole task: {plan['episodes']} starts, the same for all")
    for heading in ("policy", "successes", "95 % interval", f"against {plan['recipes'][0]}", "steps", "trained"):
        success.add_column(heading, justify="left" if heading == "policy" else "right")
    for name, row in policies.items():
        low, high = row["success_interval_95"]
        pair = row["against_baseline"]
        against = "" if name == plan["recipes"][0] else f"+{pair['won']} -{pair['lost']}, p {pair['p']:.0e}"
        trained = f"{row['training_seconds']:.0f} s" if "training_seconds" in row else ""
        interval = f"{low:.0%} to {high:.0%}"
        success.add_row(name, str(row["successes"]), interval, against, f"{row['mean_length']:.1f}", trained)
    console.print(success)
    features = Table(title="Inside the critics, at the end")
    for heading in ("policy", *MEASURED):
        features.add_column(heading, justify="left" if heading == "policy" else "right")
    for name, row in policies.items():
        if row.get("measured"):
            features.add_row(name, *(f"{row['measured'][label]:.3g}" for label in MEASURED))
    console.print(features)
    best, export = out / "runs" / plan["recipes"][-1], policies["export"]
    proof, differing = export["parity"]["data"], export["episodes_that_end_otherwise"]
    console.print(
        f"Export: {out / 'export'} acts as the checkpoint to {proof['normalised']:.1e} on {proof['frames']} recorded "
        f"frames; {len(differing)} of {export['episodes']} episodes end otherwise."
    )
    console.print(f"Look at: {best / 'evaluation.mp4'}, {best / 'evaluation.png'}, {out / 'summary.png'}")
    console.print(f"All figures: {out / 'summary.json'} ({summary['seconds']:.0f} s)")


def draw_summary(path: Path, summary: Mapping[str, Any], runs: Mapping[str, Path]) -> None:
    """Draw success with its intervals, and Q and phi.phi' (and success, if known) over training, as one PNG."""
    curves = summary["curves"]
    figure = Figure(figsize=(16 if curves else 12, 3.6), layout="constrained")
    success, *others = figure.subplots(1, 4 if curves else 3)
    value, features = others[-2:]
    colours = dict(zip(runs, ("#8a8d91", "#2b6cb0", "#1e8a4e", "#b7791f"), strict=False))
    for name in runs:
        row = summary["policies"][name]
        rate, (low, high) = row["success_rate"], row["success_interval_95"]
        success.bar(name, rate, color=colours[name], yerr=[[rate - low], [high - rate]], capsize=6)
        inside = {"y": 0.03, "color": "white"} if rate > 0.2 else {"y": high + 0.03, "color": "black"}
        success.text(x=name, s=f"{row['successes']}/{row['episodes']}", ha="center", weight="bold", **inside)
    success.set(title="success, with 95 % interval", ylim=(0, 1))
    for name, points in curves.items():
        steps, rates = [point["step"] for point in points], [point["success_rate"] for point in points]
        low, high = zip(*(point["success_interval_95"] for point in points), strict=True)
        others[0].plot(steps, rates, color=colours[name], marker="o", label=name)
        others[0].fill_between(steps, low, high, color=colours[name], alpha=0.15, linewidth=0)
    if curves:
        others[0].set(title=f"success on {points[0]['episodes']} other starts", xlabel="gradient steps", ylim=(0, 1))
        others[0].legend(frameon=False)
    for axis, metric, title in (
        (value, "q/data", "Q of the data"),
        (features, "features/dot", "phi(s, a) . phi(s', a')"),
    ):
        for name, run in runs.items():
            if known := read_figures(run / "metrics.csv").get(metric):
                axis.plot([*known], [*known.values()], color=colours[name], label=name)
        axis.set(title=title, xlabel="gradient steps")
        axis.legend(frameon=False)
    log_axis(features)
    for axis in (success, *others):
        axis.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)

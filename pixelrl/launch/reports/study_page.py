"""What a study shows: tables on the console, figures, and one page that stands alone."""

import io
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console

from pixelrl.launch.console import table_of
from pixelrl.launch.reports.axes import log_axis, plain, small_plots
from pixelrl.launch.reports.pages import write_page
from pixelrl.runtime.files import atomic_path
from pixelrl.simulation.evaluation.significance import performance_profile

ARMS = ("arm", "n", "late success", "95 % interval (t)", "sd", "middle half", "at steps")
SECONDARY = ("comparison", "n", "all steps", "95 % interval", "last step", "95 % interval")
COMPARISONS = ("comparison", "n", "difference", "95 % interval", "95 % (t)", "p", "p (Holm)", "P(better)", "verdict")

WIDTH = 34
"""Letters that a small plot's title has room for."""


def arm_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of the arms."""
    rows: list[tuple[str, ...]] = []
    for each in result["arms"].values():
        if each["mean"] is None:
            rows.append((each["label"], "0", "", "", "", "", ""))
            continue
        curve = ", ".join(f"{100 * point['mean']:.0f}" for point in each["by_step"].values())
        spread = "" if each["sd"] is None else f"{100 * each['sd']:.0f}"
        interval, middle = between(within_rates(each["interval_95"])), f"{100 * each['iqm']:.0f}"
        rows.append((each["label"], str(each["n"]), f"{100 * each['mean']:.1f} %", interval, spread, middle, curve))
    return rows


def comparison_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of the comparisons."""
    rows: list[tuple[str, ...]] = []
    for each in result["comparisons"]:
        name = each["name"]
        if each["difference"] is None:
            rows.append((name, "0", "", "", "", "", "", "", each["words"][0]))
            continue
        values = ("" if each[key] is None else f"{each[key]:.2g}" for key in ("p", "p_adjusted", "improvement"))
        by, word = f"{100 * each['difference']:+.1f}", ", ".join(each["words"])
        intervals = between(each["interval_95"]), between(each["t_interval_95"])
        rows.append((name, str(each["n"]), by, *intervals, *values, word))
    return rows


def within_rates(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return what of an interval is a rate: Student's, of few, goes beyond."""
    return None if interval is None else (max(interval[0], 0.0), min(interval[1], 1.0))


def secondary_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of the same comparisons by other outcomes."""
    rows: list[tuple[str, ...]] = []
    for each in result["comparisons"]:
        if each["difference"] is not None:
            others = [each[key] for key in ("all_steps", "last_step")]
            values = [(f"{100 * other['difference']:+.1f}", between(other["interval_95"])) for other in others]
            rows.append((each["name"], str(each["n"]), *values[0], *values[1]))
    return rows


def between(interval: tuple[float, float] | None) -> str:
    """Return an interval in points."""
    return "" if interval is None else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f}"


def print_study(result: Mapping[str, Any], console: Console) -> None:
    """Print both tables, what failed, and the sentences."""
    console.print(f"{result['question']} ({result['done']} of {result['planned']} runs)", soft_wrap=True)
    narrow = (0, 1, 2, 3, 6, 8)  # what fits 80 columns; the page has the rest
    comparisons = [[row[column] for column in narrow] for row in (COMPARISONS, *comparison_rows(result))]
    for head, *rows in ([ARMS, *arm_rows(result)], comparisons) if result["episodes"] else ():
        table = table_of(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for each in result["failed"]:
        console.print(f"replicate {each['replicate']}, {each['arm']}: {each['failed']}; counts as 0", soft_wrap=True)
    for each in result["comparisons"]:
        console.print(each["sentence"], soft_wrap=True)
    for claim in result["claims"]:
        console.print(claim, soft_wrap=True)


def write_study(directory: Path, result: Mapping[str, Any], text: str, provenance: Mapping[str, Any]) -> None:
    """Write `study.html` and its figures as PNGs, atomically."""
    figures = {"probe": draw_probe(result)} if any(result["probe"].values()) else {}
    if result["episodes"]:
        figures |= {
            "curves": draw_curves(result),
            "differences": draw_differences(result),
            "mechanism": draw_mechanism(result),
            "profile": draw_profile(result),
        }
    pictures = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        pictures[name] = buffer.getvalue()
        with atomic_path(directory / f"{name}.png") as temporary:
            temporary.write_bytes(pictures[name])
    write_page(
        directory / "study.html",
        "study.html.j2",
        title=f"Study {result['study']}",
        result=result,
        text=text,
        provenance=provenance,
        pictures=pictures,
        arms=(ARMS, arm_rows(result)),
        comparisons=(COMPARISONS, comparison_rows(result)),
        secondary=(SECONDARY, secondary_rows(result)),
        replicates=replicate_rows(result),
    )


def replicate_rows(result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the outcome of every run: a column an arm, a row a replicate."""
    known = sorted({replicate for each in result["arms"].values() for replicate in each["outcomes"]})
    rows: list[tuple[str, ...]] = []
    for replicate in known:
        values = [each["outcomes"].get(replicate) for each in result["arms"].values()]
        rows.append((str(replicate), *("" if value is None else f"{100 * value:.0f}" for value in values)))
    return ("replicate", *result["arms"]), rows


def colours(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a colour for each arm."""
    return {name: colormaps["tab10"](index % 10) for index, name in enumerate(result["arms"])}


def draw_curves(result: Mapping[str, Any]) -> Figure:
    """Draw success against steps: the mean with its band, and each replicate thin; a plot an arm."""
    arms = {name: each for name, each in result["arms"].items() if each["by_step"] and not each["stopped"]}
    drawn, axes = small_plots(len(arms), 0.2, sharey=True)
    for axis, (name, each) in zip(axes, arms.items(), strict=False):
        colour = colours(result)[name]
        for curve in each["curves"].values():
            axis.plot(list(curve), list(curve.values()), color=colour, linewidth=0.7, alpha=0.5)
        steps, points = list(each["by_step"]), list(each["by_step"].values())
        if each["n"] > 1:
            low, high = zip(*(point["interval_95"] for point in points), strict=True)
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(steps, [point["mean"] for point in points], color=colour, linewidth=2.2, marker="o", markersize=3)
        axis.axvspan(min(result["late"]), max(result["late"]), color="#8a8d91", alpha=0.12, linewidth=0)
        axis.set_ylim(-0.03, 1.03)
        plain(axis, fill(f"{each['label']} (n = {each['n']})", WIDTH), "step", "success")
    return drawn


def draw_differences(result: Mapping[str, Any]) -> Figure:
    """Draw the forest: paired differences with 95 % intervals, confirmatory above, each replicate as a dot."""
    asked = [each for each in result["comparisons"][::-1] if each["difference"] is not None]  # the first is highest
    asked.sort(key=lambda each: each["confirmatory"])
    drawn = Figure(figsize=(7.5, 0.5 * max(1, len(asked)) + 1.3), layout="constrained")
    axis = drawn.subplots()
    axis.axvline(0, color="#8a8d91", linewidth=1)
    axis.axvspan(-100 * result["margin"], 100 * result["margin"], color="#8a8d91", alpha=0.12, linewidth=0)
    for height, each in enumerate(asked):
        colour = "#1d4f8c" if each["confirmatory"] else "#8a8d91"
        dots = [100 * difference for difference in each["differences"].values()]
        axis.plot(dots, np.full(len(dots), height - 0.22), ".", color=colour, alpha=0.6, markersize=5)
        if each["interval_95"] is not None:
            axis.plot([100 * end for end in each["interval_95"]], [height, height], color=colour, linewidth=2)
        axis.plot(100 * each["difference"], height, "o", color=colour, markersize=6)
    labels = [each["name"] + ("" if each["confirmatory"] else " (exploratory)") for each in asked]
    axis.set_yticks(range(len(asked)), labels, size=8)
    axis.set_ylim(-0.6, len(asked) - 0.4)
    plain(axis, "Paired differences of success, late if no steps are named; grey: the margin", "points", "")
    return drawn


def draw_mechanism(result: Mapping[str, Any]) -> Figure:
    """Draw late success against what the probe measured at the last step, a dot a run."""
    figures = {name: each for name, each in result["mechanism"].items() if each["dots"]}
    drawn = Figure(figsize=(3.0 * max(1, len(figures)) + 0.3, 2.9), layout="constrained")
    axes = drawn.subplots(1, max(1, len(figures)), squeeze=False, sharey=True).ravel()
    for axis, (name, each) in zip(axes, figures.items(), strict=False):
        for dot in each["dots"]:
            axis.plot(dot["value"], dot["outcome"], "o", color=colours(result)[dot["arm"]], markersize=4, alpha=0.8)
        whole, within = ("-" if each[key] is None else f"{each[key]:.2f}" for key in ("rho", "within"))
        plain(axis, f"rho {whole}; within arms {within}", name, "late success")
        axis.set_ylim(-0.03, 1.03)
    if not figures:
        axes[0].set_axis_off()
    return drawn


def draw_probe(result: Mapping[str, Any]) -> Figure:
    """Draw what the probe measured against steps: each arm's mean and band over replicates; products on a log axis."""
    figures = {name: each for name, each in result["probe"].items() if each}
    drawn, axes = small_plots(len(figures), 0.6, sharey=False)
    for axis, (name, arms) in zip(axes, figures.items(), strict=False):
        for arm, points in arms.items():
            colour, steps = colours(result)[arm], list(points)
            bands = [(step, *each["interval_95"]) for step, each in points.items() if each["interval_95"]]
            if bands:
                axis.fill_between(*zip(*bands, strict=True), color=colour, alpha=0.15, linewidth=0)
            means = [each["mean"] for each in points.values()]
            axis.plot(steps, means, color=colour, label=result["arms"][arm]["label"], linewidth=1.5)
        if "dot" in name and all(each["mean"] > 0 for points in arms.values() for each in points.values()):
            log_axis(axis)
        plain(axis, name, "step", "")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return drawn


def draw_profile(result: Mapping[str, Any]) -> Figure:
    """Draw which part of an arm's runs reaches which late success."""
    drawn = Figure(figsize=(6.0, 2.9), layout="constrained")
    axis, thresholds = drawn.subplots(), np.linspace(0, 1, 101)
    for name, each in result["arms"].items():
        if each["outcomes"]:
            profile = performance_profile(list(each["outcomes"].values()), thresholds)
            axis.step(thresholds, profile, color=colours(result)[name], label=each["label"], where="post")
    axis.legend(fontsize=7, frameon=False)
    plain(axis, "Performance profiles", "late success of at least", "share of runs")
    return drawn

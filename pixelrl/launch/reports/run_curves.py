"""Curves of several trainings as inline SVG: one line a method, with a band over its runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT, LEFT, FOOT = 330, 150, 46, 18
"""Of the drawing, and of the margins for numbers [px]."""

COLOURS = ("#2f6fb0", "#c4572a", "#2f8f5b", "#8a5fb5", "#b08a1e", "#c0437d", "#3d9aa6", "#6d6d6d")
"""Of methods, in their order; they begin anew after the last one."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One figure of one method over its runs.

    Attributes:
        colour: of the line.
        steps: float `[N]`, rising.
        mean, low, high: float `[N]`, over the runs that have the step; NaN where none has.
    """

    colour: str
    steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def over_runs(runs: Sequence[Mapping[int, float]], colour: str) -> Curve | None:
    """Return the curve of runs, each step -> value; None: no run has a finite value."""
    steps = sorted({step for run in runs for step, value in run.items() if math.isfinite(value)})
    if not steps:
        return None
    values = [[run[step] for run in runs if math.isfinite(run.get(step, math.nan))] for step in steps]
    mean, low, high = (np.array([reduce(each) for each in values]) for reduce in (np.mean, np.min, np.max))
    return Curve(colour=colour, steps=np.array(steps, np.float64), mean=mean, low=low, high=high)


def draw_curves(curves: Sequence[Curve], limits: tuple[float, float] | None = None) -> Markup:
    """Draw curves of one figure above each other, between their extremes unless `limits` are given.

    The axis is logarithmic where values are positive and far apart.
    """
    found = min(float(each.low.min()) for each in curves), max(float(each.high.max()) for each in curves)
    low, high = limits or found
    last = max(float(each.steps[-1]) for each in curves) or 1.0
    logarithmic = low > 0 and high / low > 50
    bottom, top = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    span = top - bottom or 1.0

    def place(steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[str]:
        heights = np.log10(values) if logarithmic else values
        x = LEFT + steps / last * (WIDTH - LEFT - 4)
        y = HEIGHT - 3 - (heights - bottom) / span * (HEIGHT - 14)
        return [f"{one:.1f},{other:.1f}" for one, other in zip(x, y, strict=True)]

    drawn = []
    for each in curves:
        band = [*place(each.steps, each.high), *reversed(place(each.steps, each.low))]
        if (each.high > each.low).any():
            drawn.append(f"<polygon fill='{each.colour}' fill-opacity=.15 points='{' '.join(band)}' />")
        line = place(each.steps, each.mean)
        drawn.append(f"<polyline fill=none stroke-width=1.6 stroke='{each.colour}' points='{' '.join(line)}' />")
        if len(line) == 1:
            x, y = line[0].split(",")
            drawn.append(f"<circle cx={x} cy={y} r=2.5 fill='{each.colour}' />")
    scale = " (log)" if logarithmic else ""
    texts = f"<text x=0 y=12>{high:.3g}</text><text x=0 y={HEIGHT - 2}>{low:.3g}{scale}</text>"
    axis = f"<line class=a x1={LEFT} y1={HEIGHT} x2={WIDTH} y2={HEIGHT} />"
    foot = f"<text x={LEFT} y={HEIGHT + FOOT - 3}>0</text>"
    foot += f"<text x={WIDTH} y={HEIGHT + FOOT - 3} text-anchor=end>{last:,.0f} steps</text>"
    size = f"width={WIDTH} height={HEIGHT + FOOT} viewBox='0 0 {WIDTH} {HEIGHT + FOOT}'"
    return Markup(f"<svg role=img {size}>{axis}{''.join(drawn)}{texts}{foot}</svg>")


def legend(names: Sequence[str]) -> Markup:
    """Return the names of methods, each with its colour."""
    dots = (f"<span style='color:{colour_of(place)}'>&#9632;</span> {escape(name)}" for place, name in enumerate(names))
    return Markup(" &ensp; ".join(dots))


def colour_of(place: int) -> str:
    """Return the colour of a method."""
    return COLOURS[place % len(COLOURS)]

"""What the figures of several reports have in common: small plots side by side, their words, logarithmic axes."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


def plain(axis: Axes, title: str, x: str, y: str) -> None:
    """Give a plot its words."""
    axis.set_title(title, size=10, weight="bold")
    axis.set_xlabel(x, size=9)
    axis.set_ylabel(y, size=9)
    axis.spines[["top", "right"]].set_visible(False)


def small_plots(count: int, beside: float, *, sharey: bool) -> tuple[Figure, Any]:
    """Return a figure of so many small plots, four a row and `beside` [in] higher than these, and their axes."""
    columns = min(4, max(1, count))
    rows = max(1, -(-count // columns))
    drawn = Figure(figsize=(3.0 * columns + 0.3, 2.5 * rows + beside), layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for axis in axes:
        axis.locator_params(axis="x", nbins=5)
    for axis in axes[count:]:
        axis.set_axis_off()
    return drawn, axes


def log_axis(axis: Axes) -> None:
    """Make y logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())

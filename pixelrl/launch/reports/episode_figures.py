"""Pictures of what happened in an episode: Q along its frames, and failures with the moment they went wrong."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from pixelrl.runtime.video import MARK, Row, contact_sheet
from pixelrl.simulation.evaluation.failures import ValueFall, lowest, steepest_fall
from pixelrl.simulation.evaluation.rollout import Outcome

FRAMES = 9
WIDTH, PLOT = 10.0, 1.7
"""Of an episode's figure, and the height of its plot [inch]; its frames are square."""


def draw_episode(outcome: Outcome) -> bytes:
    """Return a PNG with an episode's frames and, below them at the same steps, Q if critics were asked.

    The steepest fall of a failure is marked.

    Raises:
        ValueError: the episode has no frames.
    """
    if outcome.frames is None:
        raise ValueError(f"episode {outcome.index} has no frames")
    last = len(outcome.frames) - 1
    apart = last / (FRAMES - 1)
    square = WIDTH / FRAMES
    plot = 0.0 if outcome.values is None else PLOT
    figure = Figure(figsize=(WIDTH, square + plot), dpi=110)
    below = plot / figure.get_figheight()
    strip = figure.add_axes((0, below, 1, 1 - below))
    for place in np.linspace(0, last, FRAMES):
        step = round(place)
        edges = (place - 0.49 * apart, place + 0.49 * apart)
        strip.imshow(outcome.frames[step], extent=(*edges, 0, 1), aspect="auto")
        outline = [withStroke(linewidth=2, foreground="#26282e")]
        strip.text(edges[0] + 0.05 * apart, 0.04, str(step), color="white", size=9, path_effects=outline)
    strip.set(xlim=(-apart / 2, last + apart / 2), ylim=(0, 1))
    strip.set_axis_off()
    if outcome.values is not None:
        _plot_values(figure, outcome.values, outcome.success, below, strip.get_xlim())
    written = BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _plot_values(
    figure: Figure, values: NDArray[np.float32], success: bool, top: float, limits: tuple[float, float]
) -> None:
    """Plot Q below the frames: the lowest critic as a line, up to the highest as a band."""
    steps, low = np.arange(len(values)), lowest(values)
    axis = figure.add_axes((0, 0.3 * top, 1, 0.65 * top))
    axis.fill_between(steps, low, values.max(axis=1), color="#2b6cb0", alpha=0.2, linewidth=0)
    axis.plot(steps, low, color="#2b6cb0", linewidth=1.6)
    fall = None if success else steepest_fall(values)
    if fall is not None:
        axis.axvspan(fall.start, fall.end, color=np.divide(MARK, 255), alpha=0.45, linewidth=0)
    axis.set(xlim=limits)
    axis.margins(y=0.12)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", direction="in", pad=-4, length=0, labelsize=8)
    for label in axis.get_yticklabels():
        label.set_horizontalalignment("left")
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="y", color="#dcdfe3", linewidth=0.6)
    axis.set_axisbelow(True)
    said = f"Q of the policy's action: the lowest of {values.shape[1]} critics, up to the highest; by step"
    figure.text(0.01, 0.02, said, size=8, color="#5d6570")


def write_failures(path: Path, failures: Sequence[Outcome], title: str) -> None:
    """Write a contact sheet of failed episodes that have frames, each around the moment it went wrong, atomically."""
    contact_sheet(path, [_failure(outcome) for outcome in failures], title=title, columns=FRAMES)


def _failure(outcome: Outcome) -> Row:
    """Return a failure's row: its start, the moment with the steps before and after, its end."""
    assert outcome.frames is not None
    name, last = f"episode {outcome.index}", outcome.length
    fall = None if outcome.values is None else steepest_fall(outcome.values)
    if fall is None:
        known = "no critic to ask" if outcome.values is None else "Q never fell"
        return Row(f"{name} · failure · {last} steps · {known}", outcome.frames, False)
    caption = (
        f"{name} · failure · Q fell from {fall.before:z.2f} to {fall.after:z.2f} in steps {fall.start} to {fall.end}"
    )
    return Row(caption, outcome.frames, False, steps=around(fall, last), marked=range(fall.start, fall.end + 1))


def around(fall: ValueFall, last: int) -> list[int]:
    """Return the steps to look at: start, two before the fall, the fall itself, two after it, end; each once."""
    wanted = (0, fall.start - 4, fall.start - 2, *range(fall.start, fall.end + 1), fall.end + 2, last)
    return sorted({min(max(step, 0), last) for step in wanted})

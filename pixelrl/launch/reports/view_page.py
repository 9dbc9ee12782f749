"""Recorded episodes as one HTML page: pictures, actions and rewards along them, and what a run's critics estimate.

One scrolls through an episode: each picture stands above the numbers of its step.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pixelrl.datasets.hdf5.reader import Demo
from pixelrl.launch.reports.pages import write_page
from pixelrl.launch.reports.run_curves import colour_of, legend
from pixelrl.runtime.actions import ActionDim

SHOWN, HEIGHT, CURVE, CELL = 120, 96, 70, 480
"""How many pictures of an episode stand side by side at most; how high they and the curves are, and how wide a picture
is at most [px]: JPEG bears 65,500 in all."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Where the steps of an episode stand, from left to right.

    Attributes:
        frames: the frames that are shown, `[F]`, evenly spaced.
        cell: the width of a picture [px].
    """

    frames: NDArray[np.int64]
    cell: int

    @property
    def width(self) -> int:
        """Return the width of all pictures [px]."""
        return len(self.frames) * self.cell

    def place(self, step: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return where steps stand [px]: under the middle of their pictures."""
        pitch = (len(self.frames) - 1) / max(1, int(self.frames[-1]))  # cells a step
        return np.asarray((step * pitch + 0.5) * self.cell, np.float64)


def axis_of(demo: Demo) -> Axis:
    """Return the axis of an episode, whose cells hold the pictures of each of its cameras."""
    shapes = [values.shape for values in demo.sensors.values() if values.dtype == np.uint8]
    cell = min(CELL, max([24, *(width * HEIGHT // height for _, height, width, _ in shapes)]))
    count = min(SHOWN, len(demo.actions) + 1)
    return Axis(frames=np.linspace(0, len(demo.actions), count).round().astype(np.int64), cell=cell)


def write_view_page(
    path: Path,
    file: Path,
    demos: Sequence[Demo],
    dims: Sequence[ActionDim],
    estimates: Mapping[str, Mapping[str, NDArray[np.float32]]],
    record: Mapping[str, Any],
) -> None:
    """Write a page on demos of a file, atomically.

    `estimates`: demo -> what a run's critics estimate of each of its steps, by name, `[N]`; empty without a run.
    """
    columns = [columns_of(demo, estimates.get(demo.name, {})) for demo in demos]
    names = {name: None for one in columns for name in one}
    spans = {name: span_of([each for one in columns for each in one.get(name, [])]) for name in names}
    write_page(
        path,
        "view.html.j2",
        title=f"Episodes of {file.name}",
        legend=legend([dim.name for dim in dims]),
        demos=[page_of(demo, axis_of(demo), one, spans) for demo, one in zip(demos, columns, strict=True)],
        record=record,
    )


def columns_of(demo: Demo, estimates: Mapping[str, NDArray[np.float32]]) -> dict[str, list[NDArray[np.float32]]]:
    """Return the numbers that are drawn along an episode, a column each, by name."""
    vectors = {key: [*values.T] for key, values in demo.sensors.items() if values.dtype != np.uint8}
    known = {key: [values] for key, values in estimates.items()}
    return {"actions": [*demo.actions.T], "reward": [demo.rewards], **known, **vectors}


def page_of(
    demo: Demo,
    axis: Axis,
    columns: Mapping[str, Sequence[NDArray[np.float32]]],
    spans: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return what the page says of an episode; `spans`: what the heights of its curves stand for, as in all others."""
    return {
        "name": demo.name,
        "steps": len(demo.actions),
        "shown": len(axis.frames),
        "width": axis.width,
        "rewards": float(demo.rewards.sum()),
        "ends": int(demo.dones.sum()),
        "ruler": ruler(axis),
        "strips": [(key, strip(values, axis)) for key, values in demo.sensors.items() if values.dtype == np.uint8],
        "figures": [(name, *spans[name], along(each, axis, spans[name])) for name, each in columns.items()],
    }


def strip(pictures: NDArray[np.uint8], axis: Axis) -> bytes:
    """Return the pictures `[N, H, W, C]` of an episode side by side, each in the middle of its cell, as JPEG."""
    sheet = Image.new("RGB", (axis.width, HEIGHT))
    _, height, width, _ = pictures.shape
    scale = min(HEIGHT / height, axis.cell / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (axis.cell - size[0]) // 2, (HEIGHT - size[1]) // 2
    for place, picture in enumerate(pictures[axis.frames]):
        three = picture[..., :3] if picture.shape[-1] >= 3 else np.repeat(picture[..., :1], 3, axis=-1)
        small = Image.fromarray(three).resize(size, Image.Resampling.BILINEAR)
        sheet.paste(small, (place * axis.cell + left, top))
    written = io.BytesIO()
    sheet.save(written, "JPEG", quality=88)
    return written.getvalue()


def span_of(columns: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the lowest and the highest finite number of columns; zeros if there is none."""
    every = np.concatenate(columns)
    every = every[np.isfinite(every)]
    return (float(every.min()), float(every.max())) if len(every) else (0.0, 0.0)


def along(columns: Sequence[NDArray[np.float32]], axis: Axis, span: tuple[float, float]) -> Markup:
    """Draw columns of numbers, one of each step, under the pictures, from the lowest of a span to its highest."""
    (low, high), drawn = span, list[str]()
    x = axis.place(np.arange(len(columns[0])))
    for place, column in enumerate(columns):
        y = CURVE - 4 - (column - low) / ((high - low) or 1.0) * (CURVE - 8)
        points = [f"{one:.1f},{other:.1f}" for one, other in zip(x, y, strict=True) if np.isfinite(other)]
        line = " ".join(points * 2 if len(points) == 1 else points)  # a single one is a dot, by the round end
        style = f"fill=none stroke-width=1.6 stroke-linecap=round stroke='{colour_of(place)}'"
        drawn.append(f"<polyline {style} points='{line}' />")
    frame = f"<line class=a x1=0 y1={CURVE} x2={axis.width} y2={CURVE} />"
    return Markup(f"<svg role=img width={axis.width} height={CURVE + 1}>{frame}{''.join(drawn)}</svg>")


def ruler(axis: Axis) -> Markup:
    """Draw the numbers of the steps, so many that they do not touch."""
    chosen = axis.frames[:: max(1, -(-48 // axis.cell))]
    places = zip(chosen, axis.place(chosen), strict=True)
    texts = "".join(f"<text x={x:.1f} y=12 text-anchor=middle>{step}</text>" for step, x in places)
    return Markup(f"<svg role=img width={axis.width} height=16>{texts}</svg>")

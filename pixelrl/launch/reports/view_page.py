"""Recorded episodes as one HTML page: pictures, actions and rewards along them, and what a run's critics think."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from pixelrl.datasets.hdf5.reader import Demo
from pixelrl.launch.reports.pages import write_page
from pixelrl.launch.reports.run_curves import colour_of, draw_curves, legend, over_runs
from pixelrl.runtime.actions import ActionDim

SHOWN, HEIGHT = 12, 96
"""How many pictures of an episode stand side by side, evenly spaced, and how high they are [px]."""


def write_view_page(
    path: Path,
    file: Path,
    demos: Sequence[Demo],
    dims: Sequence[ActionDim],
    estimates: Mapping[str, Mapping[str, NDArray[np.float32]]],
    record: Mapping[str, Any],
) -> None:
    """Write the page, atomically.

    Args:
        path: of the page.
        file: that the demos come from.
        demos: what to show.
        dims: of the actions.
        estimates: demo -> what a run's critics estimate of each of its steps, by name, `[N]`; empty without a run.
        record: where the page comes from; see `Provenance`.
    """
    write_page(
        path,
        "view.html.j2",
        title=f"Episodes of {file.name}",
        legend=legend([dim.name for dim in dims]),
        demos=[
            {
                "name": demo.name,
                "steps": len(demo.actions),
                "rewards": float(demo.rewards.sum()),
                "ends": int(demo.dones.sum()),
                "strips": [(key, strip(values)) for key, values in demo.sensors.items() if values.dtype == np.uint8],
                "figures": figures_of(demo, estimates.get(demo.name, {})),
            }
            for demo in demos
        ],
        record=record,
    )


def strip(pictures: NDArray[np.uint8]) -> bytes:
    """Return pictures `[F, H, W, C]` of a whole episode side by side, as PNG."""
    chosen = pictures[np.linspace(0, len(pictures) - 1, min(SHOWN, len(pictures))).round().astype(int)]
    three = chosen[..., :3] if chosen.shape[-1] >= 3 else np.repeat(chosen[..., :1], 3, axis=-1)
    row = Image.fromarray(np.concatenate([*three], axis=1))
    size = (row.width * HEIGHT // row.height, HEIGHT)
    written = io.BytesIO()
    row.resize(size, Image.Resampling.NEAREST).save(written, "PNG")
    return written.getvalue()


def figures_of(demo: Demo, estimates: Mapping[str, NDArray[np.float32]]) -> list[tuple[str, Markup]]:
    """Return what is drawn along an episode: actions, rewards, and what critics estimate."""
    figures = [("actions", along([*demo.actions.T])), ("reward", along([demo.rewards]))]
    return figures + [(name, along([values])) for name, values in estimates.items()]


def along(columns: Sequence[NDArray[np.float32]]) -> Markup:
    """Draw numbers against the step."""
    curves = [
        over_runs([dict(enumerate(map(float, column), 1))], colour_of(place)) for place, column in enumerate(columns)
    ]
    return draw_curves([curve for curve in curves if curve is not None])

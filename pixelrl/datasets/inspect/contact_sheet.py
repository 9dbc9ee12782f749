"""Rows for a contact sheet: what demos from all over a file look like."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect import structure
from pixelrl.datasets.inspect.demo_summary import notes_of
from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.inspect.outline import DAMAGE, read_structure
from pixelrl.datasets.hdf5.reader import sensor
from pixelrl.runtime.video import Row

SHOWN = 8
"""CameraSummary of a strip."""


def contact_rows(path: Path, demos: int = 6) -> list[Row]:
    """Return a row for each of some demos, evenly spaced, their cameras side by side.

    Demos that cannot be read are left out. Only the `SHOWN` frames that a strip shows are read; at all other steps the
    first one stands in.

    Raises:
        DataError: the file cannot be read.
    """
    outline = read_structure(path)
    occurrences = [*structure.structure(outline), *structure.dtypes(outline), *structure.lengths(outline)]
    names = spaced(structure.sound(outline, occurrences), demos)
    rows = []
    with open_file(path) as file:
        for name in names if outline.cameras else ():
            with suppress(*DAMAGE):  # the report tells of it
                rows.append(_row(file["data"][name], name, outline.cameras))
    return rows


def spaced(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` names, evenly spaced."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in places]


def _row(demo: h5py.Group, name: str, cameras: Sequence[str]) -> Row:
    """Return the row of a demo."""
    rewards = demo["rewards"][()]
    ok = notes_of(demo).get("success", True if (rewards > 0).any() else None)
    held, last = sensor(demo, cameras[0])
    count = len(held) + (last is not None)
    shown = np.unique(np.linspace(0, count - 1, SHOWN).round().astype(int)).tolist()
    pictures = {step: _picture(demo, cameras, step) for step in shown}
    frames = [pictures.get(step, pictures[0]) for step in range(count)]
    return Row(
        f"{name} · {len(rewards)} steps · return {rewards.sum():g}", frames, ok if isinstance(ok, bool) else None
    )


def _picture(demo: h5py.Group, cameras: Sequence[str], step: int) -> NDArray[np.uint8]:
    """Return what the cameras show at a step, side by side; those of another height than the first are left out."""
    seen: list[NDArray[Any]] = []
    for key in cameras:
        held, last = sensor(demo, key)
        frame = held[step] if step < len(held) or last is None else last[-1]
        seen.append(frame[..., :3] if frame.shape[-1] > 1 else np.repeat(frame, 3, axis=-1))
    return np.concatenate([frame for frame in seen if len(frame) == len(seen[0])], axis=1)

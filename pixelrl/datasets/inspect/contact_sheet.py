"""Pictures for a contact sheet: what demos from all over a file look like."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.hdf5.reader import sensor
from pixelrl.datasets.inspect.demo_summary import column, notes_of
from pixelrl.datasets.inspect.file_inspection import evenly_spaced
from pixelrl.datasets.inspect.file_structure import DAMAGE, Selection, read_structure
from pixelrl.datasets.inspect.structure_checks import check_demos, readable_demos
from pixelrl.runtime.video import Row

SHOWN = 8
"""Pictures of a strip."""


def contact_rows(path: Path, demos: int = 6) -> list[Row]:
    """Return a row for each of some demos, evenly spaced, with their cameras side by side.

    Demos that cannot be read are left out. Only the frames that a strip shows are read; the first one stands in at all
    other steps.

    Raises:
        DataError: the file cannot be read.
    """
    structure = read_structure(path, Selection(required=()))
    names = evenly_spaced(readable_demos(structure, check_demos(structure)), demos)
    rows = []
    with open_file(path) as file:
        for name in names if structure.cameras else ():
            with suppress(*DAMAGE):  # the report tells of it
                rows.append(_row(file["data"][name], name, structure.cameras))
    return rows


def _row(demo: h5py.Group, name: str, cameras: Iterable[str]) -> Row:
    """Read the pictures of a demo."""
    rewards = column(demo, "rewards")
    success = notes_of(demo).get("success", True if (rewards > 0).any() else None)
    held, last = sensor(demo, next(iter(cameras)))
    last_step = len(held) - (last is None)
    steps = np.unique(np.linspace(0, last_step, SHOWN).round().astype(int)).tolist()
    pictures = {step: _picture(demo, cameras, step) for step in steps}
    frames = [pictures.get(step, pictures[0]) for step in range(last_step + 1)]
    caption = f"{name} · {len(rewards)} steps · return {rewards.sum():g}"
    return Row(caption, frames, success if isinstance(success, bool) else None, steps)


def _picture(demo: h5py.Group, cameras: Iterable[str], step: int) -> NDArray[np.uint8]:
    """Return what the cameras show at a step, side by side; those of another height than the first are left out."""
    seen: list[NDArray[Any]] = []
    for key in cameras:
        held, last = sensor(demo, key)
        frame = held[step] if step < len(held) or last is None else last[-1]
        seen.append(frame[..., :3] if frame.shape[-1] > 1 else np.repeat(frame, 3, axis=-1))
    return np.concatenate([frame for frame in seen if len(frame) == len(seen[0])], axis=1)

"""LIBERO's HDF5: robomimic's without `next_obs`, and as a rule upside down.

`/data` has the attributes `macros_image_convention` (robosuite's macro: "opengl" leaves pictures bottom up, "opencv"
does not), `problem_info` (JSON with `language_instruction`) and `bddl_file_name`; cameras are `obs/agentview_rgb` and
`obs/eye_in_hand_rgb`; the last step alone has reward and done 1.
https://github.com/Lifelong-Robot-Learning/LIBERO/blob/master/scripts/create_dataset.py
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.robomimic import read_robomimic
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import child, has, json_attribute, open_file
from pixelrl.runtime.errors import DataError

CONVENTION, PROBLEM = "macros_image_convention", "problem_info"


def is_libero(path: Path) -> bool:
    """Tell whether a file is LIBERO's, by the mark of how its pictures lie."""
    with open_file(path) as file:
        return has(file, "data") and CONVENTION in child(file, "data").attrs


def read_libero(path: Path, dropped: DroppedFields, options: FormatOptions | None = None) -> DatasetStream:
    """Open a file as `read_robomimic` does, its pictures upright; `dropped` fills while the episodes are read.

    Raises:
        DataError: what `read_robomimic` raises, or another convention of pictures.
    """
    with open_file(path) as file:
        data = child(file, "data")
        convention, task = data.attrs.get(CONVENTION), json_attribute(data, PROBLEM, {}).get("language_instruction")
    if convention not in ("opengl", "opencv"):
        raise DataError(f"{path}: {CONVENTION} is {str(convention)[:40]!r}; expected 'opengl' or 'opencv'")
    stream = read_robomimic(path, dropped, options)
    for name in (CONVENTION, PROBLEM):
        dropped.pop(f"/data's {name}", None)
    notes = {"task": " ".join(map(str, task)) if isinstance(task, list) else str(task)} if task else {}

    def episodes() -> Iterator[Episode]:
        for episode in stream.episodes():
            sensors = dict(episode.sensors)
            for key, frames in sensors.items():
                if frames.ndim == 4 and convention == "opengl":
                    sensors[key] = np.ascontiguousarray(frames[:, ::-1])
            yield replace(episode, sensors=sensors, notes={**episode.notes, **notes})

    return replace(stream, episodes=episodes)

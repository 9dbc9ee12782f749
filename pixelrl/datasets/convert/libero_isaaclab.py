"""Two formats of HDF5 that are robomimic's with less.

LIBERO's lacks `next_obs`, and its pictures are as a rule upside down. `/data` has the attributes
`macros_image_convention` (robosuite's macro: "opengl" leaves pictures bottom up, "opencv" does not), `problem_info`
(JSON with `language_instruction`) and `bddl_file_name`; cameras are `obs/agentview_rgb` and `obs/eye_in_hand_rgb`; the
last step alone has reward and done 1.
https://github.com/Lifelong-Robot-Learning/LIBERO/blob/master/scripts/create_dataset.py

IsaacLab's lacks rewards, dones and `next_obs`, and has its states in groups.

    /data/demo_0  attributes num_samples, seed, success
        actions [N, A], processed_actions, initial_state/..., states/articulation/robot/joint_position ..., obs/KEY

`obs` may hold groups; its pictures are bytes [N, H, W, C] where the camera's term does not normalise them.
https://github.com/isaac-sim/IsaacLab, source/isaaclab/isaaclab/utils/datasets/hdf5_dataset_file_handler.py and
envs/mdp/recorders/recorders.py
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.robomimic import read_robomimic
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import child, has, json_attribute, open_file
from pixelrl.datasets.hdf5.reader import demo_names
from pixelrl.runtime.errors import DataError

CONVENTION, PROBLEM = "macros_image_convention", "problem_info"


def is_libero(path: Path) -> bool:
    """Tell whether a file is LIBERO's, by the mark of how its pictures lie."""
    with open_file(path) as file:
        return has(file, "data") and CONVENTION in child(file, "data").attrs


def read_libero(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
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


def is_isaaclab(path: Path) -> bool:
    """Tell whether a file is IsaacLab's: its states lie in groups."""
    with open_file(path) as file:
        if not has(file, "data"):
            return False
        data = child(file, "data")
        demos = [child(data, name) for name in demo_names(file)]
        held = (child(demo, name) for demo in demos for name in ("initial_state", "states") if has(demo, name))
        return isinstance(next(held, None), h5py.Group)

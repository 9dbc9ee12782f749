"""Recorded episodes as a recording for the viewer of https://rerun.io, which plays them and scrubs through them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rerun
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.reader import Demo
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.files import atomic_path


def write_rerun(
    path: Path,
    file: Path,
    demos: Sequence[Demo],
    dims: Sequence[ActionDim],
    estimates: Mapping[str, Mapping[str, NDArray[np.float32]]],
    record: Mapping[str, Any],
) -> None:
    """Write the recording, atomically; see `write_view_page` for what it is made of.

    Each demo is a branch of its own, along the timeline `step`: pictures, vectors, action, reward, and what critics
    think. The frame after the last action is its last step.
    """
    with atomic_path(path) as unfinished:
        recording = rerun.RecordingStream("pixelrl_view")
        recording.save(unfinished)
        recording.send_recording_name(file.name)
        recording.log("about", rerun.TextDocument(json.dumps(record, indent=2)), static=True)
        for demo in demos:
            curves = {"action": demo.actions, "reward": demo.rewards[:, None]}
            curves |= {name: values[:, None] for name, values in estimates.get(demo.name, {}).items()}
            curves |= {key: values for key, values in demo.sensors.items() if values.dtype != np.uint8}
            names = rerun.SeriesLines(names=[dim.name for dim in dims])
            recording.log([demo.name, "action"], names, static=True)
            for step in range(len(demo.actions) + 1):
                recording.set_time("step", sequence=step)
                for key, values in demo.sensors.items():
                    if values.dtype == np.uint8:
                        picture = values[step] if values.shape[-1] != 1 else values[step, ..., 0]
                        recording.log([demo.name, key], rerun.Image(picture))
                for key, values in curves.items():
                    if step < len(values):
                        recording.log([demo.name, key], rerun.Scalars(values[step].astype(np.float64)))
        recording.flush()
        recording.disconnect()

"""IsaacLab's HDF5: robomimic's without rewards, dones and `next_obs`, its states in groups.

    /data/demo_0  attributes num_samples, seed, success
        actions [N, A], processed_actions, initial_state/..., states/articulation/robot/joint_position ..., obs/KEY

`obs` may hold groups; its pictures are bytes [N, H, W, C] where the camera's term does not normalise them.
https://github.com/isaac-sim/IsaacLab, source/isaaclab/isaaclab/utils/datasets/hdf5_dataset_file_handler.py and
envs/mdp/recorders/recorders.py
"""

from pathlib import Path

import h5py

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.robomimic import demo_names, read_robomimic
from pixelrl.datasets.hdf5.access import child, has, open_file


def is_isaaclab(path: Path) -> bool:
    """Tell whether a file is IsaacLab's: its states lie in groups."""
    with open_file(path) as file:
        if not has(file, "data"):
            return False
        data = child(file, "data")
        demo = child(data, demo_names(data)[0])
        held = [child(demo, name) for name in ("initial_state", "states") if has(demo, name)]
        return any(isinstance(item, h5py.Group) for item in held)


def read_isaaclab(path: Path, dropped: DroppedFields, options: FormatOptions | None = None) -> DatasetStream:
    """Open a file as `read_robomimic` does; the attribute `success` stands for rewards and dones that are missing.

    Raises:
        DataError: what `read_robomimic` raises.
    """
    return read_robomimic(path, dropped, options, paid_by="success")

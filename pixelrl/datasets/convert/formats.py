"""The formats of data sets: how each is seen, read and written. A new one is a file with a reader, and a line here."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pixelrl.datasets.convert import (
    aloha,
    cog,
    lerobot_reader,
    lerobot_writer,
    libero_isaaclab,
    mcap_reader,
    minari,
    ogbench,
    replay_buffer,
    robomimic,
)
from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions
from pixelrl.datasets.convert.lerobot_info import EXTRAS_PATH, INFO_PATH
from pixelrl.runtime.errors import DataError, PixelrlError


def _is_hdf5(path: Path) -> bool:
    return path.suffix in (".hdf5", ".h5")


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a format is read and written.

    Attributes:
        seen: tell whether something that exists is of this format.
        read: open a data set: a stream whose episodes may still lack the frame after their last action.
        write: write a data set, and return the names of the arrays that lose something; None: it is only read.
        fit: return what of a data set the format can hold, and count the rest as dropped.
        check: raise if other programs would not read what we read.
        extras: what else is in a data set, for the way back.
    """

    title: str
    seen: Callable[[Path], bool]
    read: Callable[[Path, DroppedFields, FormatOptions], DatasetStream]
    write: Callable[[Path, DatasetStream, FormatOptions], frozenset[str]] | None = None
    fit: Callable[[DatasetStream, DroppedFields], DatasetStream] = lambda stream, dropped: stream
    check: Callable[[Path], None] | None = None
    extras: str = ""


FORMATS: dict[str, Format] = {
    "cog": Format(title="COG's .npy", seen=lambda path: path.suffix == ".npy", read=cog.read_cog),
    "lerobot": Format(
        title="LeRobotDataset",
        seen=lambda path: (path / INFO_PATH).is_file(),
        read=lerobot_reader.read_lerobot,
        write=lerobot_writer.write_lerobot,
        fit=lerobot_writer.fit_lerobot,
        extras=f"{EXTRAS_PATH} keeps what LeRobot has no room for: last frames, states, notes, masks",
    ),
    "minari": Format(
        title="Minari's HDF5",
        seen=lambda path: (path / minari.METADATA).is_file(),
        read=minari.read_minari,
        write=minari.write_minari,
        extras="states, notes, attributes and masks lie under 'pixelrl', where Minari does not look",
    ),
    "zarr": Format(
        title="a replay buffer in Zarr (diffusion_policy, UMI)",
        seen=replay_buffer.is_replay_buffer,
        read=replay_buffer.read_replay_buffer,
    ),
    "ogbench": Format(title="OGBench's .npz", seen=lambda path: path.suffix == ".npz", read=ogbench.read_ogbench),
    "mcap": Format(title="MCAP of `pixelrl serve`", seen=mcap_reader.is_mcap, read=mcap_reader.read_mcap),
    "aloha": Format(
        title="ALOHA's HDF5",
        seen=lambda path: (path.is_dir() or _is_hdf5(path)) and aloha.is_aloha(path),
        read=aloha.read_aloha,
    ),
    "libero": Format(
        title="LIBERO's HDF5",
        seen=lambda path: _is_hdf5(path) and libero_isaaclab.is_libero(path),
        read=libero_isaaclab.read_libero,
    ),
    "isaaclab": Format(
        title="IsaacLab's HDF5",
        seen=lambda path: _is_hdf5(path) and libero_isaaclab.is_isaaclab(path),
        read=partial(robomimic.read_robomimic, paid_by="success"),  # which stands for rewards and dones
    ),
    "hdf5": Format(
        title="robomimic's HDF5",
        seen=_is_hdf5,
        read=robomimic.read_robomimic,
        write=robomimic.write_robomimic,
        check=robomimic.check_views,
    ),
}
"""In the order in which they are looked for."""


def guess_source(path: Path) -> str:
    """Tell the format of what is there.

    Raises:
        DataError: nothing is there, or an HDF5 file that cannot be read.
        PixelrlError: something else is there.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    for name, each in FORMATS.items():
        if each.seen(path):
            return name
    raise PixelrlError(
        f"{path}: an unknown format; expected .npy (COG), .npz (OGBench), .zarr, .hdf5, .mcap, a folder with "
        f"{INFO_PATH} (LeRobot), {minari.METADATA} (Minari) or episode_0.hdf5 (ALOHA), or say it with --from "
        f"{'|'.join(FORMATS)}"
    )


def guess_target(path: Path) -> str:
    """Tell the format that a name asks for: a file is HDF5, `NAME-v0` Minari's, and any other folder LeRobot's."""
    if _is_hdf5(path):
        return "hdf5"
    if re.fullmatch(r".*-v\d+", path.name):
        return "minari"
    if not path.suffix:
        return "lerobot"
    raise PixelrlError(f"{path}: an unknown format; expected NAME.hdf5, NAME-v0 (Minari) or NAME (LeRobot)")

"""A data set to LeRobot's format (v3.0) and back, with proof that what arrived is what was sent."""

import importlib.util
import tempfile
from pathlib import Path

import tyro
from dots import collect

from pixelrl.datasets.convert.conversion import convert_dataset


def main(recorded: int = 10) -> None:
    """Convert there and back; the command line does the same: `pixelrl convert task.hdf5 lerobot`."""
    if importlib.util.find_spec("pyarrow") is None:
        print("skipped: LeRobot's format needs pyarrow: pip install 'pixelrl[lerobot]'")
        return
    folder = Path(tempfile.mkdtemp(prefix="pixelrl-"))
    task = collect(folder / "task.hdf5", "task", recorded)
    for source, target, formats in (
        (task, folder / "lerobot", ("hdf5", "lerobot")),
        (folder / "lerobot", folder / "back.hdf5", ("lerobot", "hdf5")),
    ):
        report = convert_dataset(source, target, *formats)
        same = [array["name"] for array in report["arrays"] if array["arrived"]]
        print(f"{target}: {report['episodes']} episodes; arrived as sent: {', '.join(same)}")


if __name__ == "__main__":
    tyro.cli(main)

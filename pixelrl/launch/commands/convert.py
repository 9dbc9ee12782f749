"""`pixelrl convert`: a data set in another format, proved by hash to hold what was sent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from pixelrl.launch.console import named_progress, plain_console, table_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.files import write_json

if TYPE_CHECKING:
    from rich.console import Console

FormatName = Literal["cog", "lerobot", "minari", "zarr", "ogbench", "mcap", "aloha", "libero", "isaaclab", "hdf5"]
"""The formats that are read; `datasets.convert.formats` has them."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Convert a data set to another format, read it back, and compare every array by its hash.

    FROM is COG's .npy buffer, OGBench's .npz, a .zarr of diffusion_policy or UMI, robomimic's .hdf5, LIBERO's,
    IsaacLab's or ALOHA's, a LeRobotDataset, a Minari data set, or an .mcap of `pixelrl serve --record`, with pictures;
    TO is HDF5, LeRobotDataset v3.0 or Minari's. TO appears when it is whole; TO.convert.json says what arrived and what
    was left behind.
    """

    source: Annotated[Positional[Path], arg(metavar="FROM")]
    """a file, or the folder of a data set"""
    target: Annotated[Positional[Path], arg(metavar="TO")]
    """NAME.hdf5 is HDF5, NAME-v0 (a folder) Minari's, any other folder LeRobot's"""
    from_format: Annotated[FormatName | None, arg(name="from", aliases=("--from-format",))] = None
    """default: seen in FROM"""
    to_format: Annotated[Literal["hdf5", "lerobot", "minari"] | None, arg(name="to", aliases=("--to-format",))] = None
    """default: guessed from TO"""
    pictures: Literal["png", "video"] = "png"
    """for LeRobot: png is exact; video is H.264, small and lossy"""
    compress: bool = False
    """for HDF5: gzip the pictures, one frame a chunk"""
    fps: float | None = None
    """how often the robot acted [Hz]; default: what the data say"""
    instruction: str | None = None
    """for LeRobot: what the robot was told to do; default: what the data say"""
    last_step: Literal["keep", "repeat", "drop"] = "keep"
    """where no picture was recorded after the last step: keep repeats its own where the step is paid or done, and drops
    the step elsewhere (a time-out); repeat and drop do so always"""
    leave_out: tuple[str, ...] = ()
    """demos of an HDF5 file that do not come along, say damaged ones: demo_5 demo_8"""
    action_names: tuple[str, ...] = ()
    """what the numbers of an action are, one name each: dx dy dz drx dry drz are steps [m, rad], x y z rx ry rz
    positions, gripper a gripper; a robot's guard needs it, see docs/robot.md; default: what the data say"""
    keys: tuple[str, ...] = ()
    """the sensors that come along; default: all"""
    rename: tuple[str, ...] = ()
    """OLD=NEW ...: other names for sensors, say agentview_rgb=agentview_image"""
    bgr: bool = False
    """pictures are blue, green, red: turn them"""
    reward: str = "recorded"
    """last:K pays 1 at the last K steps; success or success:ATTR at the last step of demos with that attribute;
    labels:FILE.json what it says of demo_0, ...: a number for the last step, or a list of one a step; anything else is
    the name of the array to read"""
    dones: Literal["recorded", "last"] = "recorded"
    """last: every episode ends truly with its last step"""
    reward_shift: float = 0.0
    """is added to every reward, after --reward"""

    def __call__(self) -> None:
        """Write TO and, beside it, TO.convert.json; print what arrived and what did not.

        Raises:
            PixelrlError: a format that cannot be guessed, a target that exists, an option that is missing.
            DataError: data that do not fit, or that did not arrive as they were sent.
        """
        from pixelrl.datasets.convert.conversion import convert_dataset
        from pixelrl.datasets.convert.dataset_stream import FormatOptions
        from pixelrl.datasets.convert.formats import FORMATS, guess_source, guess_target
        from pixelrl.datasets.hdf5.keys import parse_renames

        provenance, console = Provenance(), plain_console()
        given, wanted = self.from_format or guess_source(self.source), self.to_format or guess_target(self.target)
        for path, kind, told in ((self.source, given, self.from_format), (self.target, wanted, self.to_format)):
            how = "" if told else " (guessed)"
            console.print(f"{path}: {FORMATS[kind].title}{how}", highlight=False, soft_wrap=True)
        alike = {field.name for field in fields(FormatOptions)} - {"task", "rename"}
        said = {name: getattr(self, name) for name in alike}
        options = FormatOptions(task=self.instruction, rename=parse_renames(self.rename), **said)
        with named_progress(console, self.source.name) as tell:
            result = convert_dataset(self.source, self.target, given, wanted, options=options, progress=tell)
        name = self.target.stem if wanted == "hdf5" else self.target.name
        write_json(self.target.with_name(f"{name}.convert.json"), result | provenance.record())
        print_conversion(result, console)


def print_conversion(result: dict[str, Any], console: Console) -> None:
    """Print what arrived and what did not."""
    table = table_of("array", "type and shape", "SHA-256", "read back")
    for array in result["arrays"]:
        verdict = "the same" if array["sha256"] == array["arrived"] else ""
        if "mean_difference" in array:
            verdict = f"differs by {array['mean_difference']:.2f} of 255 on average"
        table.add_row(array["name"], array["kind"], array["sha256"][:16], verdict)
    console.print(table)
    for item in result["dropped"]:
        console.print(f"not as it was: {item['what']} ({item['episodes']} episodes)", highlight=False, soft_wrap=True)
    rewards = result["rewards"]
    ruled = f", {rewards['ruled']:g} by --reward" if rewards["ruled"] != rewards["recorded"] else ""
    gone = f", {rewards['dropped']:g} left behind with last steps" if rewards["dropped"] else ""
    sums = f"{rewards['recorded']:g} in the source{ruled}{gone}, {rewards['written']:g} written"
    console.print(f"sum of rewards: {sums}", highlight=False, soft_wrap=True)
    beside = f"; {result['beside']}" if "beside" in result else ""
    console.print(f"{result['to']['path']}: {result['episodes']} episodes{beside}", highlight=False, soft_wrap=True)

"""`pixelrl convert` as a user types it."""

import json
from pathlib import Path

import h5py
import pytest

from pixelrl.datasets.hdf5.reader import read_contents
from pixelrl.launch.commands.convert import Convert
from pixelrl.runtime.errors import PixelrlError
from tests import Pixelrl
from tests.buffers import trajectory, write_buffer
from tests.datasets.convert.recordings import write_libero
from tests.dots import write_dots


def test_the_report_says_what_arrived(tmp_path: Path) -> None:
    source = write_dots(tmp_path / "in.hdf5", "task", 3)
    Convert(source=source, target=tmp_path / "new/out.hdf5", compress=True)()
    said = json.loads((tmp_path / "new/out.convert.json").read_text())
    assert {"command", "version", "commit", "seconds", "machine"} <= set(said)
    assert (said["episodes"], said["dropped"]) == (3, [])
    assert said["from"] == {"path": str(source), "format": "robomimic's HDF5"}
    kinds = {array["name"]: array["kind"] for array in said["arrays"]}
    assert kinds["sensors/agentview_image"] == "uint8 [N+1, 24, 24, 3]" and kinds["actions"] == "float32 [N, 2]"
    with h5py.File(tmp_path / "new/out.hdf5") as held:
        assert held["data/demo_0/frames/agentview_image"].compression == "gzip"


def test_demos_stay_behind_and_what_the_data_do_not_say_is_told(tmp_path: Path, pixelrl: Pixelrl) -> None:
    source, target = write_dots(tmp_path / "in.hdf5", "task", 4), tmp_path / "out.hdf5"
    with h5py.File(source, "r+") as file:
        del file["data/demo_1/actions"]
        del file["data"].attrs["env_args"]
    Convert(source=source, target=target, leave_out=("demo_1",), action_names=("dx", "dy"), fps=12.0)()
    contents = read_contents(target)
    assert len(contents.demos) == 3 and contents.env_args["control_freq"] == 12.0
    assert [dim.name for dim in contents.action] == ["dx", "dy"]
    for words, message in (
        (("--leave-out", "demo_7"), "no 'demo_7' to leave out; expected one of its 4 demos"),
        (("--leave-out", "demo_0", "demo_1", "demo_2", "demo_3"), "--leave-out leaves no demo"),
        (("--leave-out", "demo_1", "--action-names", "dx"), "--action-names: dx; expected 2 names"),
        (("--leave-out", "demo_1", "--fps", "0"), "--fps: 0.0; expected a number of actions a second"),
        ((), "actions' in it; it holds"),
        ((), "; --leave-out demo_1 leaves it out, `pixelrl inspect` tells which others have a fault"),
        (("--keys", "agentview"), "no 'agentview'; --keys takes some of agentview_image, "),
    ):
        code, said = pixelrl("convert", source, tmp_path / "new.hdf5", *words)
        assert code == 1 and message in said and not (tmp_path / "new.hdf5").exists()
    buffer = write_buffer(tmp_path / "prior.npy", [trajectory(5, seed=1)])
    with pytest.raises(PixelrlError, match=r"--leave-out: .*prior\.npy is COG's \.npy; expected one HDF5 file"):
        Convert(source=buffer, target=tmp_path / "new.hdf5", leave_out=("demo_0",))()


def test_the_command_converts_a_buffer_of_cog(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = write_buffer(tmp_path / "prior.npy", [trajectory(5, seed=1), trajectory(3, seed=2)])
    code, printed = pixelrl("convert", path, tmp_path / "prior.hdf5")
    assert code == 0 and "prior.npy: COG's .npy (guessed)" in printed
    assert "2 episodes" in printed and printed.count("the same") == 11
    contents = read_contents(tmp_path / "prior.hdf5")
    assert contents.demos == {"demo_0": 5, "demo_1": 3}
    assert (contents.pictures, contents.vectors) == ({"image": (12, 12, 3)}, {"state": 10})
    assert [dim.name for dim in contents.action][-2:] == ["gripper", "neutral"]


def test_options_of_keys_and_rewards_are_typed_as_the_docs_say(tmp_path: Path, pixelrl: Pixelrl) -> None:
    source, target = write_libero(tmp_path / "a.hdf5"), tmp_path / "out.hdf5"
    words = ["--from", "libero", "--to", "hdf5", "--keys", "agentview_rgb", "ee_pos", "--reward", "last:2"]
    words += ["--rename", "agentview_rgb=agentview_image", "ee_pos=robot0_eef_pos", "--dones", "last"]
    code, printed = pixelrl("convert", source, target, *words)
    assert code == 0 and "sum of rewards: 2 in the source, 4 by --reward, 4 written" in printed
    assert "not as it was: the picture after the last step" in printed
    contents = read_contents(target)
    assert list(contents.pictures) == ["agentview_image"] and list(contents.vectors) == ["robot0_eef_pos"]
    code, printed = pixelrl("convert", source, tmp_path / "b.hdf5", "--from-format", "hdf5")
    assert code == 0 and f"{source}: robomimic's HDF5" in printed


def test_paths_are_text(tmp_path: Path, pixelrl: Pixelrl) -> None:
    folder = tmp_path / "x[/y] [bold]"
    folder.mkdir(parents=True)
    source, target = write_dots(folder / "in[red].hdf5", "task", 2), folder / "out[1].hdf5"
    code, printed = pixelrl("convert", source, target)
    assert code == 0 and f"{source}: robomimic's HDF5" in printed and f"{target}: 2 episodes" in printed
    assert (folder / "out[1].convert.json").is_file()

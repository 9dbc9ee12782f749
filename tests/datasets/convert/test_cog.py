"""COG's buffers: what roboverse saves becomes episodes, and what does not fit is named."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert.cog import read_cog
from pixelrl.datasets.convert.dataset_stream import DroppedFields
from pixelrl.runtime.errors import DataError
from tests.buffers import trajectory, write_buffer


def test_a_buffer_becomes_episodes(tmp_path: Path) -> None:
    data = [trajectory(4, seed=1), trajectory(3, seed=2)]
    dropped: DroppedFields = Counter()
    stream = read_cog(write_buffer(tmp_path / "a.npy", data), dropped)
    episodes = list(stream.episodes())
    assert (stream.count, len(episodes), dropped) == (2, 2, Counter())
    for episode, source in zip(episodes, data, strict=True):
        instants = [*source["observations"], source["next_observations"][-1]]
        for key in ("image", "state", "object_position", "object_orientation"):
            expected = np.stack([instant[key] for instant in instants])
            np.testing.assert_array_equal(episode.sensors[key], expected, strict=True)
        np.testing.assert_array_equal(episode.actions, np.stack(source["actions"]), strict=True)
        assert episode.rewards.tolist() == source["rewards"]
        assert not episode.dones.any() and episode.dones.dtype == bool
        assert episode.states is None
    assert episodes[0].notes == {
        "agent_infos": {"place_attempted": [False, False, True, True], "done": [False] * 4},
        "env_infos": {"grasp_success": [False, True, True, True], "distance": [0.5, 0.25, 0.5 / 3, 0.125]},
    }


def test_the_eight_numbers_of_an_action_are_named(tmp_path: Path) -> None:
    dims = read_cog(write_buffer(tmp_path / "a.npy", [trajectory(2)]), Counter()).action_dims
    assert [dim.name for dim in dims] == ["dx", "dy", "dz", "drx", "dry", "drz", "gripper", "neutral"]
    assert (dims[0].high, dims[0].unit) == (0.2, "m")  # roboverse's xyz_action_scale
    assert dims[3].high == pytest.approx(20 * math.pi / 180) and dims[3].unit == "rad"  # abc_action_scale
    short = trajectory(2)
    short["actions"] = [action[:4] for action in short["actions"]]
    dims = read_cog(write_buffer(tmp_path / "b.npy", [short]), Counter()).action_dims
    assert [dim.name for dim in dims] == ["action_0", "action_1", "action_2", "action_3"]


@pytest.mark.parametrize(
    "shape",
    [
        lambda image: image.astype(np.float32) / 255,
        lambda image: (image.astype(np.float32) / 255).ravel(),
        lambda image: image.ravel(),
        lambda image: np.moveaxis(image, 2, 0),
        lambda image: np.moveaxis(image, 2, 0) / 255,
    ],
    ids=["floats", "flat floats", "flat bytes", "channels first", "floats, channels first"],
)
def test_pictures_come_upright_as_bytes(tmp_path: Path, shape: Callable[[Any], Any]) -> None:
    data = trajectory(3)
    pictures = [instant["image"] for instant in (*data["observations"], data["next_observations"][-1])]
    for instant in (*data["observations"], *data["next_observations"]):
        instant["image"] = shape(instant["image"])
    dropped: DroppedFields = Counter()
    (episode,) = read_cog(write_buffer(tmp_path / "a.npy", [data]), dropped).episodes()
    np.testing.assert_array_equal(episode.sensors["image"], np.stack(pictures), strict=True)
    assert not dropped


def test_what_is_left_behind_is_said(tmp_path: Path) -> None:
    data = trajectory(3)
    data["next_observations"][0]["state"] = np.zeros(10)
    data["terminals"][-1] = True
    data["agent_infos"] = [{"note": "text"}] * 3
    data["goals"] = [1, 2, 3]
    for instant in (*data["observations"], *data["next_observations"]):
        instant["image"] = instant["image"] / 256
    dropped: DroppedFields = Counter()
    read = read_cog(write_buffer(tmp_path / "a.npy", [data, trajectory(2)]), dropped)
    (first, _) = read.episodes()
    assert dropped == {
        "next_observations' state, which is not that of the next observation": 1,
        "terminals (COG's tasks do not end)": 1,
        "agent_infos, note": 1,
        "goals": 1,
        "what float pictures hold beyond bytes": 1,
    }
    assert not first.dones.any()


def broken(change: Callable[[dict[str, Any]], Any]) -> list[Any]:
    data = trajectory(3)
    change(data)
    return [data]


def pictured(image: Any) -> list[Any]:
    """Return a trajectory that shows one and the same picture."""
    return broken(lambda d: [each.update(image=image) for each in (*d["observations"], *d["next_observations"])])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([[1, 2]], r"trajectory 0: holds 'list'; expected observations, actions"),
        ([{"obs": []}], r"trajectory 0: holds 'obs'; expected observations, actions"),
        (broken(lambda d: d.update(rewards=[1.0])), r"trajectory 0, rewards: 1 items beside 3 actions; expected 3"),
        (broken(lambda d: d.update(actions=[])), r"actions: list; expected a list of one item a step"),
        (broken(lambda d: d.update(rewards=[10**400, 1, 2])), r"rewards: expected one number a step"),
        (broken(lambda d: d["observations"][0].update({7: 1.0})), r"no 'image' in the first"),
        (broken(lambda d: d.update({(1,): [1]})), r"holds 'dict'; expected observations, actions"),
        (broken(lambda d: d.update(rewards=["a", 1, 2])), r"rewards: expected one number a step"),
        (
            broken(lambda d: d["actions"].__setitem__(1, np.zeros(7))),
            r"actions: float64 \(7,\), float64 \(8,\); expected one array of numbers a step",
        ),
        (broken(lambda d: d.update(actions=[[[1.0]]] * 3)), r"actions: expected one array of numbers a step"),
        (broken(lambda d: d["observations"][0].pop("image")), r"no 'image' in the first"),
        (broken(lambda d: d["observations"][1].pop("image")), r"observations, image: missing at some step"),
        (broken(lambda d: d["observations"][1].update(state=np.zeros(9))), r"state: float64 \(10,\), float64 \(9,\)"),
        (
            broken(lambda d: d["observations"][1].update(state=[[0.0]] * 10)),
            r"state: missing at some step, or no array",
        ),
        (broken(lambda d: d["observations"][0].update({"../x": 1.0})), r"a key '../x'; expected letters"),
        (pictured(np.zeros(10)), r"image: 10 numbers; expected those of a square picture"),
        (pictured(np.zeros((4, 4, 2), np.uint8)), r"image: shape \(4, 4, 2\); expected \(H, W, 3\)"),
        (pictured(np.full((4, 4, 3), 2.0)), r"image: floats from 2 to 2; expected them in \[0, 1\]"),
        (pictured(np.full((4, 4, 3), np.nan)), r"image: floats from nan to nan"),
        (pictured(np.zeros((4, 4, 3), int)), r"image: type int64; expected uint8"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, data: list[Any], why: str) -> None:
    path = write_buffer(tmp_path / "a.npy", data)
    with pytest.raises(DataError, match=why) as caught:
        list(read_cog(path, Counter()).episodes())
    assert str(caught.value).startswith(str(path))


def test_an_empty_buffer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trajectories; expected one or more"):
        read_cog(write_buffer(tmp_path / "a.npy", []), Counter())


def test_the_same_picture_over_and_over_does_not_fill_the_disk(tmp_path: Path) -> None:
    """A file of 170 KB that stands for 2 GB of pictures."""
    small = trajectory(1, size=64)
    for key in small:
        small[key] = small[key] * 500
    path = write_buffer(tmp_path / "a.npy", [small] * 300)
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match="unpacks to more than 4 times its size"):
        list(read_cog(path, Counter()).episodes())

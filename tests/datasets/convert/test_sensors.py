"""What others keep of their sensors: each comes along as pixelrl learns from it, or is refused in a line."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pixelrl.datasets.convert.dataset_stream import DroppedFields, FormatOptions
from pixelrl.datasets.convert.robomimic import read_robomimic
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError
from tests.datasets.convert import recordings
from tests.datasets.convert.recordings import STEPS

SMOOTH = recordings.pictures(9, STEPS + 1)
"""Pictures that JPEG hardly changes, `[N, 24, 16, 3]`."""


def coded(frames: Any, kind: str) -> list[bytes]:
    """Return pictures `[N, H, W]` or `[N, H, W, 3]` as JPEG or PNG."""
    result = []
    for frame in frames:
        Image.fromarray(frame).save(held := io.BytesIO(), format=kind, **({"quality": 95} if kind == "JPEG" else {}))
        result.append(held.getvalue())
    return result


def write(path: Path, key: str, rows: Any, *, next_obs: bool = True, plain: bool = True, **create: Any) -> Path:
    """Write a demo of four steps with a sensor of five rows, and a plain camera beside it."""
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"], demo["rewards"], demo["dones"] = np.zeros((STEPS, 2)), np.zeros(STEPS), np.zeros(STEPS)
        for group, part in (("obs", slice(0, STEPS)), ("next_obs", slice(1, STEPS + 1))):
            if group == "obs" or next_obs:
                if plain:
                    demo[f"{group}/front"] = np.zeros((STEPS, 8, 8, 3), np.uint8)
                if "dtype" in create and h5py.check_vlen_dtype(create["dtype"]):
                    held = demo.create_dataset(f"{group}/{key}", (STEPS,), **create)
                    for index, row in enumerate(rows[part]):
                        held[index] = row
                else:
                    demo.create_dataset(f"{group}/{key}", data=rows[part], **create)
    return path


def read(path: Path, **options: Any) -> Episode:
    return next(iter(read_robomimic(path, DroppedFields(), FormatOptions(**options)).episodes()))


def padded(pictures: list[bytes]) -> Any:
    width = max(map(len, pictures)) + 7
    return np.stack([np.frombuffer(picture.ljust(width, b"\0"), np.uint8) for picture in pictures])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("home", ["vlen", "fixed", "void", "padded"])
@pytest.mark.parametrize("next_obs", [True, False])
def test_coded_pictures_are_decoded(tmp_path: Path, kind: str, home: str, next_obs: bool) -> None:
    pictures = coded(SMOOTH, kind)
    rows: Any = {
        "vlen": [np.frombuffer(picture, np.uint8) for picture in pictures],
        "fixed": np.array(pictures),
        "void": np.array(pictures).astype(f"V{max(map(len, pictures))}"),
        "padded": padded(pictures),
    }[home]
    create = {"dtype": h5py.vlen_dtype(np.uint8)} if home == "vlen" else {}
    path = write(tmp_path / "a.hdf5", "wrist", rows, next_obs=next_obs, plain=False, **create)
    came = read(path).sensors["wrist"]
    expected = SMOOTH[: STEPS + next_obs]
    assert came.dtype == np.uint8 and came.shape == expected.shape
    assert np.abs(came.astype(int) - expected).max() <= (0 if kind == "PNG" else 12)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.arange(5 * 8 * 8, dtype=np.uint8).reshape(5, 8, 8), np.arange(320, dtype=np.uint8).reshape(5, 8, 8, 1)),
        (np.linspace(0, 1, 5), np.linspace(0, 1, 5)[:, None]),
        (np.arange(5), np.arange(5, dtype=np.float32)[:, None]),
        (np.arange(10).reshape(5, 2), np.arange(10, dtype=np.float32).reshape(5, 2)),
        (np.arange(5) > 2, (np.arange(5) > 2).astype(np.float32)[:, None]),
        (np.arange(5) + 1_750_000_001, (np.arange(5) + 1_750_000_001.0)[:, None]),
        (np.full((5, 8, 8, 3), 200, np.float32), np.full((5, 8, 8, 3), 200, np.uint8)),
        (np.ones((5, 8, 8, 1), np.float32) / 3, np.ones((5, 8, 8, 1), np.float32) / 3),  # depth
        (np.ones((5, 4, 4)) / 3, np.ones((5, 4, 4)) / 3),  # poses
    ],
)
def test_odd_shapes_and_types_are_made_ordinary(tmp_path: Path, rows: Any, expected: Any) -> None:
    came = read(write(tmp_path / "a.hdf5", "odd", rows)).sensors["odd"]
    assert (came.dtype, came.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(came, expected)


def test_pictures_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    floats = write(tmp_path / "a.hdf5", "odd", np.linspace(0, 1, 5 * 8 * 8 * 3).reshape(5, 8, 8, 3))
    with pytest.raises(DataError, match=r"demo_0/obs/odd: float64 pictures from 0 to 1; expected uint8 \(multiply by"):
        read(floats)
    assert list(read(floats, keys=("front",)).sensors) == ["front"]
    with pytest.raises(DataError, match="channels come first: transpose"):
        read(write(tmp_path / "b.hdf5", "odd", np.zeros((5, 3, 8, 9), np.uint8)))
    pictures = coded(SMOOTH, "PNG")
    pictures[2] = pictures[2][:60]
    with pytest.raises(DataError, match=r"obs/odd\[2\]: a damaged picture"):
        read(write(tmp_path / "c.hdf5", "odd", padded(pictures)))
    pictures[2] = b""
    with pytest.raises(DataError, match=r"obs/odd\[2\]: a damaged picture \(no format that is known\)"):
        read(write(tmp_path / "e.hdf5", "odd", padded(pictures)))
    pictures[2] = coded(np.zeros((1, 5, 5, 3), np.uint8), "PNG")[0]
    with pytest.raises(DataError, match=r"obs/odd\[2\]: a picture RGB 5 x 5; expected RGB 24 x 16"):
        read(write(tmp_path / "d.hdf5", "odd", padded(pictures)))


def test_one_picture_that_stands_for_many_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A picture of 48 MB that takes 47 KB, 4 times."""
    picture = coded(np.zeros((1, 4000, 4000, 3), np.uint8), "PNG")[0]
    path = write(tmp_path / "a.hdf5", "odd", np.array([picture] * 5), next_obs=False, compression="gzip")
    with h5py.File(path, "a") as file:
        file["other"] = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8)
    assert path.stat().st_size < 90_000
    with pytest.raises(DataError, match="unpacks to more than 2200 times its size"):
        read(path)


def test_groups_and_missing_rewards_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((STEPS, 2))
        demo["obs/cameras/front"] = np.zeros((STEPS, 8, 8, 3), np.uint8)
        demo["progress"] = np.arange(4.0)[:, None]
    dropped = DroppedFields()
    held = next(iter(read_robomimic(tmp_path / "a.hdf5", dropped).episodes()))
    assert list(held.sensors) == ["cameras.front"] and not held.rewards.any() and not held.dones.any()
    assert sorted(what.split(",")[0] for what in dropped) == ["dones", "progress", "rewards"]
    assert read(tmp_path / "a.hdf5", reward="progress").rewards.ravel().tolist() == [0, 1, 2, 3]
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0/obs/cameras/self"] = file["data/demo_0/obs"]  # a group that holds itself
    with pytest.raises(DataError, match="no 'nothing' in it"):
        read(tmp_path / "a.hdf5", reward="nothing")

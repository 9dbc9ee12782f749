"""HDF5 with clear errors: what is not as it should be is named, before anything is allocated or followed."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixelrl.datasets.hdf5.access import child, dataset, flags, has, json_attribute, members, open_file, text_array
from pixelrl.runtime.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Any:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        yield file


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2**60, 3), "chunks": (1, 3)}, r"/x: uint8, shape \(1152921504606846976, 3\), chunks .*: more than"),
        ({"shape": (2**40,)}, r"/x: uint8, shape \(1099511627776,\): more than the file can hold"),
        ({"shape": (2**40, 3), "chunks": (1, 3), "compression": "gzip"}, r"more than the file can hold"),
        ({"shape": (9,), "maxshape": (None,), "chunks": (2**30,)}, r"chunks \(1073741824,\): more than the file"),
        ({"shape": (3,), "dtype": "S5"}, r"/x: expected an array of numbers, came \|S5 \(3,\)"),
        ({"shape": (3,), "dtype": "c8"}, r"/x: expected an array of numbers, came complex64 \(3,\)"),
        ({"shape": ()}, r"/x: expected an array of numbers, came uint8 \(\)"),
    ],
)
def test_what_cannot_be_an_array_in_this_file_is_refused(file: h5py.File, options: Any, message: str) -> None:
    file.create_dataset("x", **{"dtype": "u1", **options})
    with pytest.raises(DataError, match=message):
        dataset(file, "x")


def test_what_can_be_is_not(file: h5py.File) -> None:
    file.create_dataset(
        "packed", data=np.zeros((4000, 84, 84, 3), np.uint8), chunks=(50, 84, 84, 3), compression="gzip"
    )
    file.create_dataset("short", data=np.arange(3), maxshape=(None,), chunks=(1000,))
    file.create_dataset("unwritten", (1000,), "f8")
    file.flush()
    assert file["packed"].id.get_storage_size() < file["packed"].size / 500
    for name in file:
        assert dataset(file, name).shape == file[name].shape


def test_a_filter_that_is_not_installed_is_named(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((4,)), plist)
    with pytest.raises(DataError, match=r"/x: packed with the filter 'number 32099', which is not installed"):
        dataset(file, "x")


def test_links_are_neither_followed_nor_looked_through(file: h5py.File, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it waits for ever
    file["out"] = h5py.ExternalLink(str(tmp_path / "pipe"), "/x")
    assert has(file, "out")
    with pytest.raises(DataError, match=r"/out: a link; expected the data themselves"):
        child(file, "out")
    with pytest.raises(DataError, match=r"pipe: not a file; expected HDF5"), open_file(tmp_path / "pipe"):
        pass


def test_names_that_would_break_a_line_are_refused(file: h5py.File) -> None:
    file.create_group("a\nb")
    with pytest.raises(DataError, match=r"holds something named 'a\\nb'; expected printable names"):
        members(file)
    file["x"] = [1]
    with pytest.raises(DataError, match=r"/x: expected a group, came int64 \(1,\)"):
        members(file["x"])


def test_texts(file: h5py.File) -> None:
    file["fixed"] = np.array([b"demo_0", b"demo_\xff"])
    file["free"] = ["demo_0", "demo_1"]
    file["table"] = np.array([[b"demo_0"]])
    file["numbers"] = [1]
    assert text_array(file, "fixed") == ["demo_0", "demo_\ufffd"]
    assert text_array(file, "free") == ["demo_0", "demo_1"]
    for name in ("table", "numbers"):
        with pytest.raises(DataError, match=rf"/{name}: expected an array of texts, came"):
            text_array(file, name)


def test_flags_are_zero_or_one() -> None:
    assert flags(np.array([0.0, 1.0, 1.0]), "x").tolist() == [False, True, True]
    for bad in (np.nan, 0.5, -1, 255):
        with pytest.raises(DataError, match=rf"x\[1\] is {bad}; expected 0 or 1"):
            flags(np.array([0, bad]), "x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"a": NaN}', "not JSON .NaN is not a finite number"),
        ('{"a": 1e999}', "not JSON .1e999 is not a finite number"),
        ("[" * 10**5, "is not JSON .maximum recursion depth"),
        (b"\xff", "is not JSON"),
        (np.arange(3), "is not JSON"),
        (h5py.Empty("f4"), "is not JSON"),
        ("[]", "expected an object"),
    ],
)
def test_json_that_is_none(file: h5py.File, value: Any, message: str) -> None:
    file.attrs.create("x", value, dtype=None if not isinstance(value, str) else h5py.string_dtype())
    with pytest.raises(DataError, match=message):
        json_attribute(file, "x", {})


def test_damage_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    for error in (KeyError("two\nlines"), RuntimeError("caf\u00e9"), OverflowError("x")):
        with h5py.File(path, "w"):
            pass
        with (
            pytest.raises(DataError, match=r"a\.hdf5: not an HDF5 file, or a damaged one \(") as caught,
            open_file(path),
        ):
            raise error
        assert str(caught.value).isprintable()


def test_files_are_named_whatever_their_name(tmp_path: Path) -> None:
    path = tmp_path / "caf\u00e9 \\x41.hdf5"
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with open_file(path) as file, pytest.raises(DataError) as caught:
        dataset(file, "x")
    assert str(caught.value) == f"{path}/x: expected an array of numbers, came int64 ()"


def test_many_may_read_and_nobody_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w"), pytest.raises(DataError, match="another process is writing it"), open_file(path):
        pass
    with open_file(path), open_file(path), pytest.raises(BlockingIOError), h5py.File(path, "a"):
        pass
    with h5py.File(path, "a"):
        pass


def test_a_chunk_may_be_longer_than_what_was_recorded(file: h5py.File) -> None:
    file.create_dataset(
        "x", data=np.ones((6, 48, 48, 3), np.uint8), maxshape=(None, 48, 48, 3), chunks=(2000, 48, 48, 3)
    )
    file.flush()
    assert dataset(file, "x").shape == (6, 48, 48, 3)

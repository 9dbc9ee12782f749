"""Object arrays without unpickling: plain data come back, and nothing that a hostile file says is ever done."""

import builtins
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert.numpy_pickle import load_object_array, read_plain_data
from pixelrl.runtime.errors import DataError


def save(path: Path, items: list[Any], protocol: int | None = None) -> Path:
    """Save as `np.save` does, or with another of pickle's protocols."""
    held = np.empty(len(items), dtype=object)
    held[:] = items
    if protocol is None:
        np.save(path, held, allow_pickle=True)
        return path
    return save_program(path, pickle.dumps(held, protocol=protocol), len(items))


def save_program(path: Path, program: bytes, count: int = 1) -> Path:
    """Save any bytes where a pickle should be."""
    with path.open("wb") as file:
        header: Any = np.lib.format.write_array_header_1_0
        header(file, {"descr": "|O", "fortran_order": False, "shape": (count,)})
        file.write(program)
    return path


def plain(value: Any) -> Any:
    """Return data with lists in the place of object arrays."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.dtype == object else value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(plain(item) for item in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
def test_plain_data_come_back(tmp_path: Path, protocol: int | None) -> None:
    numbers = {
        kind: np.arange(6).reshape(2, 3).astype(kind)
        for kind in ("uint8", "int8", "int64", ">u2", "float16", "float32", ">f8", "bool")
    }
    inner = np.empty(2, dtype=object)
    inner[:] = [{"a": 1}, [2.5]]
    rest = {"nothing": None, "yes": True, "text": "é", "raw": b"\x00\xff", "deep": [(1, -70000, 2**40), {}, [], ()]}
    scalars = {"float": np.float64(0.1), "int": np.uint8(200), "truth": np.bool_(True)}
    turned = {"columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "empty": np.zeros((0, 3))}
    item = {**numbers, **rest, **scalars, "inner": inner}
    if protocol != 2:  # there numpy writes empty bytes as a call, which no recording needs
        item |= turned
    (came,) = load_object_array(save(tmp_path / "a.npy", [item], protocol))
    assert list(came) == list(item)
    for key, value in item.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            native = value.astype(value.dtype.newbyteorder("="))
            np.testing.assert_array_equal(np.asarray(came[key]), native, strict=True)
    assert {key: plain(came[key]) for key in (*rest, *scalars)} == {**rest, **scalars}
    assert plain(came["inner"]) == [{"a": 1}, [2.5]]


def test_what_is_shared_stays_shared(tmp_path: Path) -> None:
    picture = np.zeros((48, 48, 3), np.uint8)
    first, second = read_plain_data(save(tmp_path / "a.npy", [picture, picture]))
    assert first is second


def name(module: str, held: str) -> bytes:
    return f"c{module}\n{held}\n".encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def dtype(code: str, state: bytes | None = None) -> bytes:
    flags = number(63 if code == "O8" else 0)
    told = group(number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), flags) if state is None else state
    return name("numpy", "dtype") + group(text(code), b"\x89", b"\x88") + b"R" + told + b"b"


NEW = (
    name("numpy.core.multiarray", "_reconstruct") + group(name("numpy", "ndarray"), group(number(0)), raw(b"b")) + b"R"
)


def array(shape: list[int], kind: bytes, data: bytes) -> bytes:
    return NEW + group(number(1), group(*map(number, shape)), kind, b"\x89", data) + b"b"


def whole(item: bytes) -> bytes:
    """Return the program of an object array that holds one item."""
    return b"\x80\x02" + array([1], dtype("O8"), b"]" + item + b"a") + b"."


def test_programs_made_by_hand_are_read_as_numpy_means_them(tmp_path: Path) -> None:
    """Or the attacks below would prove nothing."""
    path = save_program(tmp_path / "a.npy", whole(array([2, 1], dtype("u1"), raw(b"\x01\x02"))))
    assert np.load(path, allow_pickle=True)[0].tolist() == [[1], [2]]
    assert load_object_array(path)[0].tolist() == [[1], [2]]


class Evil:
    """What pickle would call when it is loaded."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (builtins.eval, ("open('{}', 'w')",), "eval"),
        (builtins.exec, ("open('{}', 'w')",), "exec"),
        (builtins.getattr, ("{}", "upper"), "getattr"),
        (np.load, ("{}",), "load"),
        (np.memmap, ("{}", "u1", "w+", 0, 10**6), "memmap"),
        (np.ndarray, ((10**12,),), "not callable"),
        (np.save, ("{}", 1), "save"),
        (bytearray, (10**12,), "bytearray"),
    ],
)
def test_nothing_is_called(
    tmp_path: Path, call: Callable[..., Any], arguments: tuple[Any, ...], named: str, protocol: int
) -> None:
    marker = tmp_path / "marker.npy"
    told = tuple(word.format(marker) if isinstance(word, str) else word for word in arguments)
    path = save(tmp_path / "a.npy", [{"image": Evil(call, *told)}], protocol)
    with pytest.raises(DataError, match=named) as caught:
        load_object_array(path)
    assert not marker.exists()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


NAMED = name("numpy", "ndarray")
TYPE = name("numpy", "dtype")
CYCLE = b"]q\x00h\x00a"
HUGE = struct.pack("<Q", 2**62)
WITHOUT = "without the numbers or objects of its shape"
ATTACKS = {
    "setting attributes of what is named": (NAMED + b"}(" + text("x") + number(1) + b"ub", "attribute"),
    "setting attributes of a type": (TYPE + b"}(" + text("value") + number(1) + b"ub", "argument"),
    "code of what is named": (
        name("_codecs", "encode") + group(b"N", b"}(" + text("__code__") + number(1) + b"u") + b"b",
        "__code__ must be set to a code object",
    ),
    "an array of more than there is": (array([2**30], dtype("u1"), raw(b"abc")), WITHOUT),
    "sides that overflow when multiplied": (array([2**30] * 3, dtype("u1"), raw(b"abc")), WITHOUT),
    "a side beyond all arrays": (array([2**70, 0], dtype("u1"), raw(b"")), ""),
    "negative sides": (array([-1, -3], dtype("u1"), raw(b"abc")), WITHOUT),
    "more dimensions than numpy has": (array([1] * 99, dtype("u1"), raw(b"a")), ""),
    "pointers in place of objects": (array([1], dtype("O8"), raw(b"\x01" * 8)), WITHOUT),
    "fewer objects than the shape": (array([9], dtype("O8"), b"](" + b"N" * 8 + b"e"), WITHOUT),
    "truth values that are none": (array([1], dtype("b1"), raw(b"\x07")), "truth values"),
    "void types": (array([1], dtype("V8"), raw(b"\x01" * 8)), "a type 'V8'"),
    "types of any size": (dtype("S99999999999"), "a type 'S9999"),
    "a type with fields": (dtype("u1", group(number(3), text("|"), b"N", group(), b"}", *[number(1)] * 3)), "numpy"),
    "a type with a list that is none": (TYPE + group(b"]") + b"R", "a type"),
    "a type that was never made": (array([1], TYPE + b")\x81", raw(b"a")), "no attribute 'value'"),
    "an array built otherwise": (array([1], dtype("u1"), raw(b"a")) + group(number(1)) + b"b", "as numpy writes none"),
    "another array than numpy begins with": (
        name("numpy.core.multiarray", "_reconstruct") + group(NAMED, group(number(2**40)), raw(b"b")) + b"R",
        "does not begin as numpy's do",
    ),
    "a scalar of another size": (
        name("numpy.core.multiarray", "scalar") + group(dtype("f8"), raw(b"abc")) + b"R",
        "3 bytes for a number of 8",
    ),
    "a scalar that is an object": (
        name("numpy.core.multiarray", "scalar") + group(dtype("O8"), raw(b"\x01" * 8)) + b"R",
        "a number as numpy writes none",
    ),
    "bytes beyond the end": (b"\x8e" + HUGE, ""),
    "text beyond the end": (b"\x8d" + HUGE, ""),
    "a frame beyond the end": (b"\x95" + HUGE, ""),
    "a memo that was never filled": (b"j" + struct.pack("<I", 2**31), ""),
    "an extension code": (b"\x82\x01", "unregistered extension code 1"),
    "a persistent id": (b"Pname\n", "persistent"),
    "a persistent id from the stack": (text("name") + b"Q", "persistent"),
    "an instance": (b"(ios\nsystem\n", "names 'os.system'"),
    "an object": (b"(" + name("os", "system") + text("true") + b"o", "names 'os.system'"),
    "a new object": (name("builtins", "bytearray") + b")\x81", "names 'builtins.bytearray'"),
    "a name from the stack": (text("os") + text("system") + b"\x93", "names 'os.system'"),
    "a name within what is known": (text("numpy") + text("ndarray.tofile") + b"\x93", "names 'numpy.ndarray.tofile'"),
    "a name that is a number": (number(1) + number(2) + b"\x93", ""),
    "out-of-band buffers": (b"\x97", ""),
    "a call of what is no name": (b"]" + b")R", "not callable"),
    "an argument that contains itself": (NAMED + CYCLE + b"R", ""),
    "an unknown protocol": (b"\x80\x09", "protocol"),
    "an empty stack": (b"(a", ""),
    "an unknown instruction": (b"\xff", "invalid load key"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_end_in_one_clear_line(tmp_path: Path, attack: str) -> None:
    program, why = ATTACKS[attack]
    path = save_program(tmp_path / "a.npy", whole(program))
    try:
        read_plain_data(path)
    except MemoryError:
        assert not why  # what asks for too much is tried in a process of its own
    except DataError as error:
        assert why in str(error) and "expected arrays, lists, dicts" in str(error) and "\n" not in str(error)
    else:
        raise AssertionError("it was read")


NESTED_KEY = b"}(" + b")" + b"\x85" * 500_000 + b"Nu"
BOMBS = {
    "huge bytes": (b"\x8e" + struct.pack("<Q", 2**40), "expected|unpacks"),
    "a huge memo": (b"Nr" + struct.pack("<I", 2**31) + b"0", "expected|unpacks"),
    "many lists": (b"(" + b"]" * 5_000_000 + b"l", "unpacks to more than its size explains"),
    "a deep key, which exhausts the stack": (NESTED_KEY, "more time or memory"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_do_not_go_off_here(tmp_path: Path, bomb: str) -> None:
    program, why = BOMBS[bomb]
    path = save_program(tmp_path / "a.npy", whole(program))
    with pytest.raises(DataError, match=why) as caught:
        load_object_array(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"a\.npy: float64 \(2, 3\); expected an object array"):
        load_object_array(path)
    save(path, [{"a": 1}])
    whole_file = path.read_bytes()
    for bad, why in (
        (b"", r"no \.npy file"),
        (b"not numpy at all", r"no \.npy file"),
        (whole_file[:40], r"no \.npy file"),
        (whole_file[:-9], "expected arrays, lists, dicts"),
        (whole_file.replace(b"(1,)", b"(2,)"), "its header promises 2 objects"),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=why):
            read_plain_data(path)
    with pytest.raises(DataError, match="no such file"):
        load_object_array(tmp_path / "none.npy")


@pytest.mark.parametrize("times", [60, pytest.param(250, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused_never_more(tmp_path: Path, times: int) -> None:
    """Bytes flipped, cut out and doubled at random, and every one ends in data or in a `DataError`."""
    random = np.random.default_rng(0)
    item = {"image": np.arange(27, dtype=np.uint8).reshape(3, 3, 3), "state": [0.5, 1, None], "ok": np.float64(2)}
    good = save(tmp_path / "a.npy", [item, item, {"b": (b"raw", "text")}]).read_bytes()
    path, refused = tmp_path / "b.npy", 0
    for _ in range(times):
        bad = bytearray(good)
        begin = int(random.integers(len(bad)))
        match random.integers(3):
            case 0:
                for place in random.integers(len(bad), size=random.integers(1, 5)):
                    bad[place] = random.integers(256)
            case 1:
                del bad[begin : begin + int(random.integers(1, 30))]
            case _:
                bad[begin:begin] = bad[begin : begin + int(random.integers(1, 30))]
        path.write_bytes(bytes(bad))
        try:
            read_plain_data(path)
        except (DataError, MemoryError):
            refused += 1
    assert times / 3 < refused < times

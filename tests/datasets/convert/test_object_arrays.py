"""Object arrays without unpickling: plain data come back, and nothing that a hostile file says is ever done."""

import builtins
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixelrl.datasets.convert.object_arrays import Array, load_object_array
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
    """Return data as they were before they were saved."""
    if isinstance(value, Array):
        return value.value if isinstance(value.value, np.ndarray) else [plain(item) for item in value.value or ()]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return bytes(value) if isinstance(value, memoryview) else value


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
            np.testing.assert_array_equal(plain(came[key]).reshape(value.shape), value, strict=True)
    assert {key: plain(came[key]) for key in (*rest, *scalars)} == {**rest, **scalars}
    assert plain(came["inner"]) == [{"a": 1}, [2.5]]


def test_what_is_shared_stays_shared_and_arrays_are_not_copied(tmp_path: Path) -> None:
    picture = np.zeros((48, 48, 3), np.uint8)
    first, second = load_object_array(save(tmp_path / "a.npy", [picture, picture]))
    assert first is second
    assert not first.value.flags.owndata and not first.value.flags.writeable


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = save(tmp_path / "a.npy", [np.zeros(3 << 20, np.uint8), 1])
    load_object_array(path, lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[-1] == (size, size) and len(told) > 1


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
    assert load_object_array(path)[0].value.tolist() == [[1], [2]]


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
        (np.ndarray, ((10**12,),), "a call of ndarray"),
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
CYCLE = b"]q\x00h\x00a"
HUGE = struct.pack("<Q", 2**62)
BEYOND = "bytes promised where"
ATTACKS = {
    "setting attributes of what is named": (NAMED + b"}(" + text("x") + number(1) + b"ub", "a state"),
    "slots of what is named": (NAMED + group(b"N", b"}(" + text("__code__") + number(1) + b"u") + b"b", "a state"),
    "an array of more than there is": (array([2**30], dtype("u1"), raw(b"abc")), "1073741824 numbers"),
    "sides that overflow when multiplied": (array([2**30] * 3, dtype("u1"), raw(b"abc")), "without the 12379"),
    "a side beyond all arrays": (array([2**33, 0], dtype("u1"), raw(b"")), "impossible"),
    "negative sides": (array([-1, -3], dtype("u1"), raw(b"abc")), "impossible"),
    "more dimensions than numpy has": (array([1] * 40, dtype("u1"), raw(b"a")), "40 dimensions"),
    "pointers in place of objects": (array([1], dtype("O8"), raw(b"\x01" * 8)), "the 1 objects"),
    "fewer objects than the shape": (array([9], dtype("O8"), b"](" + b"N" * 8 + b"e"), "the 9 objects"),
    "void types": (array([1], dtype("V8"), raw(b"\x01" * 8)), "a call of dtype"),
    "types of any size": (dtype("S99999999999"), "a call of dtype"),
    "a type with fields": (dtype("u1", group(number(3), text("|"), b"N", group(), b"}", *[number(1)] * 3)), "a state"),
    "an array of an untold type": (array([1], dtype("u1", b"")[:-1], raw(b"a")), "a state"),
    "an array built twice": (array([1], dtype("u1"), raw(b"a")) + group(number(1)) + b"b", "a state"),
    "a scalar of another size": (
        name("numpy.core.multiarray", "scalar") + group(dtype("f8"), raw(b"abc")) + b"R",
        "3 bytes for a number of 8",
    ),
    "text that is none": (b"X\x03\0\0\0\xed\xa0\x80", "UnicodeDecodeError"),
    "bytes beyond the end": (b"\x8e" + HUGE, BEYOND),
    "text beyond the end": (b"\x8d" + HUGE, BEYOND),
    "a frame beyond the end": (b"\x95" + HUGE, "a frame of"),
    "an endless integer": (b"\x8b" + struct.pack("<I", 2**31 - 1), "LONG4"),
    "a long integer": (b"\x8a\xff" + b"\x7f" * 255, "an integer of 255 bytes"),
    "a memo that was never filled": (b"j" + struct.pack("<I", 2**31), "KeyError"),
    "an extension code": (b"\x82\x01", "EXT1"),
    "a two-byte extension code": (b"\x83\x01\x01", "EXT2"),
    "a four-byte extension code": (b"\x84\x01\x01\x01\x01", "EXT4"),
    "a persistent id": (b"Pname\n", "PERSID"),
    "a persistent id from the stack": (text("name") + b"Q", "BINPERSID"),
    "an instance": (b"(ios\nsystem\n", "INST"),
    "an object": (b"(" + NAMED + b"o", "OBJ"),
    "a new object": (NAMED + b")\x81", "NEWOBJ"),
    "a new object with keywords": (NAMED + b")}\x92", "NEWOBJ_EX"),
    "a name from the stack": (text("os") + text("system") + b"\x93", "names 'os.system'"),
    "a name without an end": (b"c" + b"a" * 500, "a name without an end"),
    "a name that is a number": (number(1) + number(2) + b"\x93", "a name that is no text"),
    "out-of-band buffers": (b"\x97", "NEXT_BUFFER"),
    "a set": (b"\x8f", "EMPTY_SET"),
    "the text protocol": (b"I01\n", "instruction INT"),
    "a key that is no text": (b"}(" + number(1) + b"Nu", "keys that are no text"),
    "a deep tuple as a key": (b"}(" + b")" + b"\x85" * 50_000 + b"Nu", "keys that are no text"),
    "an odd number of items": (b"}(" + text("a") + b"u", "no dict"),
    "items of no list": (b"N" + b"Na", "no list"),
    "a call of what is no name": (b"]" + b")R", "a call of a value"),
    "an argument that contains itself": (NAMED + CYCLE + b"R", "a call of ndarray"),
    "an unknown protocol": (b"\x80\x09", "protocol 9"),
    "an empty stack": (b"(a", "IndexError"),
    "an unknown instruction": (b"\xff", "0xff"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_end_in_one_clear_line(tmp_path: Path, attack: str) -> None:
    program, why = ATTACKS[attack]
    path = save_program(tmp_path / "a.npy", whole(program))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"a\.npy: byte [0-9]+: .*{why}.*; expected arrays, lists, dicts"):
        load_object_array(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_depth_and_cycles_are_harmless(tmp_path: Path) -> None:
    for item in (b"]" * 50_000 + b"a" * 49_999, b")" + b"\x85" * 50_000, CYCLE):
        (came,) = load_object_array(save_program(tmp_path / "a.npy", whole(item)))
        assert isinstance(came, list | tuple)


TRUTHS = NEW + group(number(1), group(number(10_000)), dtype("b1"), b"\x89", b"h\x01") + b"b"
ENCODED = name("_codecs", "encode") + b"h\x01" + text("latin1") + b"\x86R"


@pytest.mark.parametrize(
    ("bomb", "why"),
    [
        (b"(" + b"]" * 400_000 + b"l", "more structure than data"),
        (text("a" * 10_000) + b"q\x01(" + ENCODED * 50 + b"l", "unpacks to more"),
        (raw(b"\x01" * 10_000) + b"q\x01(" + TRUTHS * 50 + b"l", "unpacks to more"),
    ],
    ids=["lists", "text", "truths"],
)
def test_bombs_do_not_go_off(tmp_path: Path, bomb: bytes, why: str) -> None:
    path = save_program(tmp_path / "a.npy", whole(bomb))
    with pytest.raises(DataError, match=why):
        load_object_array(path)


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"'<f8', .*'shape': \(2, 3\), }; expected an object array"):
        load_object_array(path)
    save(path, [{"a": 1}])
    whole_file = path.read_bytes()
    for bad, why in (
        (b"", "an empty file"),
        (b"not numpy at all", "no header of .npy"),
        (whole_file[:40], "expected an object array"),
        (whole_file[:-9], "damaged or cut short"),
        (whole_file.replace(b"(1,)", b"(2,)"), "its header promises 2 objects"),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=why):
            load_object_array(path)
    with pytest.raises(DataError, match="no such file"):
        load_object_array(tmp_path / "none.npy")


def test_a_damaged_file_is_read_or_refused_never_more(tmp_path: Path) -> None:
    """Bytes flipped, cut out and doubled at random, and every one ends in data or in a `DataError`."""
    random = np.random.default_rng(0)
    item = {"image": np.arange(27, dtype=np.uint8).reshape(3, 3, 3), "state": [0.5, 1, None], "ok": np.float64(2)}
    good = save(tmp_path / "a.npy", [item, item, {"b": (b"raw", "text")}]).read_bytes()
    path, refused = tmp_path / "b.npy", 0
    for _ in range(600):
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
            load_object_array(path)
        except DataError:
            refused += 1
    assert 200 < refused < 600

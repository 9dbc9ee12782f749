"""Good data sets of others made bad: each is read correctly, or ends in one clear error, in little memory and time."""

import io
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.opcode import Opcode

from pixelrl.datasets.convert.dataset_stream import DroppedFields, FormatOptions
from pixelrl.datasets.convert.formats import FORMATS, guess_source
from pixelrl.datasets.convert.mcap_layout import HEAD, records
from pixelrl.datasets.convert.rules import RewardSums, apply_rules
from pixelrl.runtime.errors import PixelrlError
from tests.datasets.convert.recordings import RECORDINGS
from tests.datasets.test_fuzz import BYTES, CHANGES, DTYPES, SETTINGS, Reader, change, damage_bytes, serve

HDF5 = [name for name in RECORDINGS if name.startswith(("hdf5", "libero", "isaaclab", "aloha"))]


def outcome_of(path: Path, kind: str) -> str:
    """Read a data set of a format, as it is seen and as it is told; return "loaded" or the error's message."""
    options, outcome = FormatOptions(), "loaded"
    try:
        for name in {guess_source(path), kind}:
            source = FORMATS[name].read(path, DroppedFields(), options)
            stream = apply_rules(source, options, path, DroppedFields(), RewardSums())
            for episode in stream.episodes():
                steps = len(episode)
                assert episode.actions.ndim == 2 and episode.actions.dtype.kind == "f"
                assert episode.rewards.shape == episode.dones.shape == (steps,) and episode.dones.dtype == bool
                assert all(len(values) == steps + 1 for values in episode.sensors.values())
                assert any(values.ndim == 4 and values.dtype == np.uint8 for values in episode.sensors.values())
                json.dumps([dict(episode.notes), dict(episode.attributes)], allow_nan=False)
            json.dumps(stream.env_args, allow_nan=False)
    except PixelrlError as error:
        outcome = str(error)
        assert str(path.parent) in outcome and outcome.isprintable(), ascii(outcome)
    return outcome


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader("tests.datasets.convert.test_fuzz_readers")
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    return {name: write(folder) for name, write in RECORDINGS.items()}


def spoilt(good: Path, choice: float = 0) -> tuple[Path, Path]:
    """Return a copy in a folder of its own, and one of its files, which is to be spoilt."""
    folder = good.parent / "spoilt"
    folder.mkdir(exist_ok=True)
    path = folder / good.name
    if not good.is_dir():
        return (copied := Path(shutil.copy(good, path))), copied
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(good, path)
    files = sorted(each for each in path.rglob("*") if each.is_file() and each.stat().st_size)
    return path, files[int(choice * (len(files) - 1))]


@pytest.mark.parametrize("kind", RECORDINGS)
def test_good_data_sets_are_loaded(reader: Reader, good: dict[str, Path], kind: str) -> None:
    assert reader(good[kind], inspect=kind.split()[0]) == "loaded"


@pytest.mark.parametrize("kind", HDF5)
def test_changed_structure(reader: Reader, good: dict[str, Path], kind: str) -> None:
    @settings(SETTINGS, max_examples=40)
    @given(index=st.integers(0, 60), how=st.sampled_from([*CHANGES, *DTYPES]))
    def try_it(index: int, how: str) -> None:
        path, _ = spoilt(good[kind])
        change(path, index, how)
        assert not (outcome := reader(path, inspect=kind.split()[0])).startswith("!"), outcome

    try_it()


@pytest.mark.parametrize("kind", RECORDINGS)
def test_damaged_bytes(reader: Reader, good: dict[str, Path], kind: str) -> None:
    @settings(SETTINGS, max_examples=30)
    @given(
        st.floats(0, 1), st.sampled_from(BYTES), st.floats(0, 1), st.sampled_from([1, 8, 64, 1024]), st.integers(0, 9)
    )
    def try_it(choice: float, how: str, place: float, length: int, seed: int) -> None:
        path, file = spoilt(good[kind], choice)
        damage_bytes(file, how, place, length, seed)
        assert not (outcome := reader(path, inspect=kind.split()[0])).startswith("!"), outcome

    try_it()


def resealed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change what the chunks of MCAP hold; their lengths and checksums are right again."""
    raw, out, end = path.read_bytes(), path.read_bytes()[:8], 8
    with path.open("rb") as file:
        for kind, start, length in records(file, len(raw)):
            body = raw[start : start + length]
            if kind == Opcode.CHUNK:
                data = change(body[40:])
                body = body[:16] + struct.pack("<QIIQ", len(data), zlib.crc32(data), 0, len(data)) + data
            out += HEAD.pack(kind, len(body)) + body
            end = start + length
    path.write_bytes(out + raw[end:])
    return path


def test_damaged_messages_under_a_right_checksum(reader: Reader, good: dict[str, Path]) -> None:
    path, _ = spoilt(good["mcap"])
    assert reader(resealed(path, lambda data: data), inspect="mcap") == "loaded"

    @settings(SETTINGS, max_examples=60)
    @given(st.sampled_from(BYTES), st.floats(0, 1), st.sampled_from([1, 4, 8, 64, 1024]), st.integers(0, 9))
    def try_it(how: str, place: float, length: int, seed: int) -> None:
        path, _ = spoilt(good["mcap"])

        def damage(data: bytes) -> bytes:
            held = path.with_name("chunk")
            held.write_bytes(data)
            damage_bytes(held, how, place, length, seed)
            return held.read_bytes()

        resealed(path, damage)
        assert not (outcome := reader(path, inspect="mcap")).startswith("!"), outcome

    try_it()


BOMBS: dict[str, tuple[bytes, bytes]] = {
    "depth": (b'"ended": "reset by the peer"', b'"ended": ' + b"[" * 10**6),
    "many items": (b'"vectors": {"joints": [1.0', b'"vectors": {"joints": [1.0' + b", 1.0" * 10**7),
    "huge number": (b'"joints": [1.0', b'"joints": [' + b"1" * 4000),
    "huge step": (b'"step": 2, "infer', b'"step": ' + b"9" * 4000 + b', "infer'),
    "infinity": (b'"joints": [1.0', b'"joints": [1e999'),
    "text": (b'"joints": [1.0', b'"joints": ["one"'),
    "no vectors": (b'"vectors": {', b'"vector": {'),
    "truth": (b'"episode": 0, "step": 1, "infer', b'"episode": false, "step": 1, "infer'),
    "no picture": (b'"data": "', b'"date": "'),
    "no base64": (b'"data": "iVB', b'"data": "!!!'),
    "other topic": (b"/camera/camera", b"/camera/kamera"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_messages_under_a_right_checksum(reader: Reader, good: dict[str, Path], name: str) -> None:
    old, new = BOMBS[name]

    def change(data: bytes) -> bytes:
        found, begin = data.find(old), 0
        if found < 0:
            return data
        for _, start, length in records(io.BytesIO(data), len(data), begin=0):
            if start <= found < start + length:
                begin = start
                size = length + len(new) - len(old)
        inner = data[:found] + new + data[found + len(old) :]
        return inner[: begin - 8] + struct.pack("<Q", size) + inner[begin:]

    path, _ = spoilt(good["mcap"])
    assert old in path.read_bytes()
    outcome = reader(resealed(path, change), inspect="mcap")
    assert "spoilt" in outcome and not outcome.startswith("!"), outcome


@pytest.mark.parametrize("length", [2**20, 2**34, 2**63, 2**64 - 1])
def test_lengths_of_mcap_are_not_believed(reader: Reader, good: dict[str, Path], length: int) -> None:
    for within in (False, True):
        path, _ = spoilt(good["mcap"])
        raw = bytearray(path.read_bytes())
        with path.open("rb") as file:
            start = [start for kind, start, _ in records(file, len(raw)) if kind == Opcode.CHUNK][1]
        place = start + 32 if within else start - 8
        raw[place : place + 8] = struct.pack("<Q", length)
        path.write_bytes(raw)
        outcome = reader(path, inspect="mcap")
        assert not outcome.startswith("!"), outcome


if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve(outcome_of)

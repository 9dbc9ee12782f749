"""Good data sets of others made bad: each is read correctly, or ends in one clear error, in little memory and time."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrl.datasets.convert.dataset_stream import DroppedFields, FormatOptions
from pixelrl.datasets.convert.formats import FORMATS, guess_source
from pixelrl.datasets.convert.rules import RewardSums, apply_rules
from pixelrl.runtime.errors import PixelrlError
from tests.datasets.convert.recordings import RECORDINGS
from tests.datasets.test_fuzz import BYTES, CHANGES, DTYPES, SETTINGS, Reader, change, damage_bytes, serve

HDF5 = [name for name in RECORDINGS if name.startswith(("hdf5", "libero", "isaaclab", "aloha"))]


def judge(path: Path, kind: str) -> str:
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


if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve(judge)

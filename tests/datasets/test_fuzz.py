"""Good files made bad in hundreds of ways: each is read correctly, or ends in one clear error.

Whatever reads them runs in a process of its own, with little memory and little time: a hang, a crash of the HDF5
library, an exception of any other kind and a picture that the file cannot hold are all told apart there.

`python -m tests.datasets.test_fuzz 600 7` goes on for 600 seconds with the seed 7.
"""

import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.hdf5.reader import read_contents, read_demos
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.datasets.inspect.inspector import inspect_files
from pixelrl.runtime.errors import PixelrlError
from tests import ROOT
from tests.dots import ACTION, ENV_ARGS, dot_episodes, write_plainly

SECONDS, PATIENCE = 5.0, 60
"""Of the processor and of the clock: other work may keep it waiting."""
MEMORY, GROWTH = 2**30, 2**28
"""What a reader may ask for, and what it may use [bytes]."""
SETTINGS = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def write_good(folder: Path) -> dict[str, Path]:
    """Write good files of several kinds: two as we do, and one as robomimic does, in chunks of several pictures."""
    good = {name: folder / f"{name}.hdf5" for name in ("ours", "packed", "plain")}
    for name in ("ours", "packed"):
        episodes = dot_episodes("task", 3, size=12)
        write_episodes(good[name], episodes, env_args=ENV_ARGS, action_dims=ACTION, compress=name == "packed")
    write_plainly(good["plain"], dot_episodes("task", 3, size=12), compression="gzip", shuffle=True)
    for name, path in good.items():
        with h5py.File(path, "a") as file:
            if name == "plain":
                file["data"].attrs["env_args"] = json.dumps(ENV_ARGS)
            file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    return good


# --- what is done to the bytes


def damage_bytes(path: Path, how: str, place: float, length: int, seed: int) -> None:
    """Change bytes, `place` of the way through the file."""
    raw = bytearray(path.read_bytes())
    chance = random.Random(seed)
    start = min(int(place * len(raw)), len(raw) - 1)
    stop = min(start + length, len(raw))
    if how == "flip":
        for _ in range(1 + length % 8):
            raw[min(start + chance.randrange(length), len(raw) - 1)] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del raw[start:]
    elif how == "remove":
        del raw[start:stop]
    elif how == "zero":
        raw[start:stop] = bytes(stop - start)
    elif how == "noise":
        raw[start:stop] = chance.randbytes(stop - start)
    elif how == "ones":
        raw[start:stop] = b"\xff" * (stop - start)
    elif how == "copy":
        source = chance.randrange(len(raw))
        block = raw[source : source + stop - start]
        raw[start : start + len(block)] = block
    elif how == "number":
        raw[start : start + 8] = chance.choice([0, 1, 2**31, 2**32 - 1, 2**60, 2**64 - 1, start]).to_bytes(8, "little")
    path.write_bytes(raw)


BYTES = ("flip", "cut", "remove", "zero", "noise", "ones", "copy", "number")


# --- what is done to the structure


def put(file: h5py.File, place: str, value: Any = None, **options: Any) -> None:
    """Replace an item by a dataset."""
    with suppress(KeyError):
        del file[place]
    file.create_dataset(place, data=value, **options)


def shape_of(file: h5py.File, place: str) -> tuple[int, ...]:
    """Return the shape of a dataset, some shape of anything else."""
    item = file[place]
    return item.shape if isinstance(item, h5py.Dataset) and item.shape else (4, 2)


def packed_with_something_else(file: h5py.File, place: str) -> None:
    """Store a dataset with a filter that nobody has."""
    shape = shape_of(file, place)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(shape)
    plist.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    del file[place]
    made = h5py.h5d.create(file.id, place.encode(), h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple(shape), plist)
    made.write_direct_chunk((0,) * len(shape), b"packed", 0)


def virtual(file: h5py.File, place: str, source: str, target: str) -> None:
    """Replace an item by a virtual dataset."""
    shape = shape_of(file, place)
    layout = h5py.VirtualLayout(shape, np.uint8)
    layout[:] = h5py.VirtualSource(source, target, shape, np.uint8)
    del file[place]
    file.create_virtual_dataset(place, layout)


def declare(file: h5py.File, place: str, rows: int, **options: Any) -> None:
    """Replace a dataset by one of very many rows, of which none is written."""
    shape = (rows, *shape_of(file, place)[1:])
    dtype = file[place].dtype if isinstance(file[place], h5py.Dataset) else np.dtype("u1")
    put(file, place, None, shape=shape, dtype=dtype, **options)


DTYPES: Mapping[str, Callable[[tuple[int, ...]], Any]] = {
    "float16": lambda shape: np.ones(shape, np.float16),
    "float64": lambda shape: np.full(shape, 0.5),
    "long double": lambda shape: np.ones(shape, np.longdouble),
    "big-endian": lambda shape: np.ones(shape, ">f4"),
    "complex": lambda shape: np.ones(shape, complex),
    "bytes": lambda shape: np.ones(shape, np.uint8),
    "words": lambda shape: np.ones(shape, np.uint16),
    "signed": lambda shape: np.full(shape, -1, np.int64),
    "text": lambda shape: np.full(shape, b"one"),
    "compound": lambda shape: np.zeros(shape, [("a", "f4"), ("b", "i8")]),
    "opaque": lambda shape: np.full(shape, np.void(b"12345678")),
    "truth": lambda shape: np.ones(shape, bool),
    "nan": lambda shape: np.full(shape, np.nan, np.float32),
    "infinite": lambda shape: np.full(shape, -np.inf),
    "huge": lambda shape: np.full(shape, 1e300),
    "seven": lambda shape: np.full(shape, 7),
    "array type": lambda shape: np.zeros(shape, "(2,)f4"),
}

HOSTILE: Mapping[str, Any] = {
    "text": "seven",
    "number": 7,
    "negative": -1,
    "huge": 2**63 - 1,
    "nan": np.nan,
    "array": np.arange(5),
    "nothing": h5py.Empty("f4"),
    "bytes": b"\xff\xfe",
    "json null": "null",
    "json list": "[1, [2]]",
    "json text": '"a"',
    "json nan": '{"env_name": NaN, "env_kwargs": {"controller_configs": {"output_max": [Infinity]}}}',
    "json endless number": '{"env_name": 1e999}',
    "json deep": "[" * 100_000,
    "json deep object": '{"a":' * 30_000 + "1" + "}" * 30_000,
    "json dims": '[{"name": "x", "low": NaN}, {"name": 7}]',
    "json odd dims": '[{"name": "x", "low": "a", "high": null}, {"name": ["x"], "unit": {}}]',
    "json upside down": '[{"name": "x", "low": 1, "high": -1}, {"name": "y"}]',
    "json odd arms": '{"env_kwargs": {"controller_configs": {"body_parts": [1], "type": [], "output_max": "abc"}}}',
    "json odd kwargs": '{"env_name": ["Lift"], "env_kwargs": [], "type": {}}',
    "lines": '{"env_name": "a\\nb\\u0000\\ud800"}',
    "long": "x" * 60_000,
}

MASKS: Mapping[str, Any] = {
    "path": np.array([b"../../etc/passwd", b"demo_0"]),
    "bytes": np.array([b"\xff\xfe\x01"]),
    "numbers": np.arange(3),
    "table": np.array([[b"demo_0"], [b"demo_1"]]),
    "scalar": b"demo_0",
    "twice": np.array([b"demo_0", b"demo_0"]),
    "none": np.array([], "S1"),
}

CHANGES: Mapping[str, Callable[[h5py.File, str, Path], Any]] = {
    "drop": lambda file, place, _: file.pop(place),
    "rename": lambda file, place, _: file.move(place, place + "_"),
    "rename badly": lambda file, place, _: file.move(place, place + "\n\udcff"),
    "twin": lambda file, place, _: file[place].file.__setitem__(place + "9", file[place]),
    "many twins": lambda file, place, _: [file.__setitem__(f"{place}{n}", file[place]) for n in range(10, 400)],
    "soft link": lambda file, place, _: [file.pop(place), file.__setitem__(place, h5py.SoftLink("/data"))],
    "dangling link": lambda file, place, _: [file.pop(place), file.__setitem__(place, h5py.SoftLink("/gone"))],
    "link to itself": lambda file, place, _: [file.pop(place), file.__setitem__(place, h5py.SoftLink(f"/{place}"))],
    "link to a pipe": lambda file, place, home: [
        file.pop(place),
        file.__setitem__(place, h5py.ExternalLink(str(home / "pipe"), "/data")),
    ],
    "link to a good file": lambda file, place, home: [
        file.pop(place),
        file.__setitem__(place, h5py.ExternalLink(str(home / "plain.hdf5"), f"/{place}")),
    ],
    "circle": lambda file, place, _: [file.pop(place), file.__setitem__(place, file["/"])],
    "group": lambda file, place, _: [file.pop(place), file.create_group(place)],
    "group of itself": lambda file, place, _: [file.pop(place), file.__setitem__(f"{place}/{place}", file["data"])],
    "type": lambda file, place, _: [file.pop(place), file.__setitem__(place, np.dtype("f4"))],
    "scalar": lambda file, place, _: put(file, place, 1.0),
    "null": lambda file, place, _: put(file, place, h5py.Empty("f4")),
    "texts": lambda file, place, _: put(file, place, ["a", "bc"], dtype=h5py.string_dtype()),
    "ragged": lambda file, place, _: put(file, place, None, shape=shape_of(file, place), dtype=h5py.vlen_dtype("f4")),
    "references": lambda file, place, _: put(file, place, None, shape=shape_of(file, place), dtype=h5py.ref_dtype),
    "enum": lambda file, place, _: put(
        file, place, None, shape=shape_of(file, place), dtype=h5py.enum_dtype({"a": 0, "b": 3}, basetype="u1")
    ),
    "a row less": lambda file, place, _: put(file, place, np.zeros((shape_of(file, place)[0] - 1,), "f4")),
    "a row more": lambda file, place, _: put(
        file, place, np.zeros((shape_of(file, place)[0] + 1, *shape_of(file, place)[1:]), "u1")
    ),
    "no rows": lambda file, place, _: put(file, place, np.zeros((0, *shape_of(file, place)[1:]), "u1")),
    "no columns": lambda file, place, _: put(file, place, np.zeros((*shape_of(file, place)[:-1], 0), "f4")),
    "another axis": lambda file, place, _: put(file, place, np.zeros((*shape_of(file, place), 2), "f4")),
    "turned": lambda file, place, _: put(file, place, np.zeros(shape_of(file, place)[::-1], "u1")),
    "endless": lambda file, place, _: declare(file, place, 2**60, chunks=True),
    "endless and packed": lambda file, place, _: declare(file, place, 2**50, chunks=True, compression="gzip"),
    "endless in one piece": lambda file, place, _: declare(file, place, 2**44),
    "too large": lambda file, place, _: declare(file, place, 2**24, chunks=True, compression="gzip"),
    "never written": lambda file, place, _: declare(file, place, shape_of(file, place)[0]),
    "giant chunk": lambda file, place, _: put(
        file, place, None, shape=(4, 2), maxshape=(None, None), chunks=(2**15, 2**15), dtype="u1", fillvalue=1
    ),
    "outside": lambda file, place, home: put(
        file, place, None, shape=shape_of(file, place), dtype="u1", external=[(str(home / "secret"), 0, 10**6)]
    ),
    "elsewhere": lambda file, place, home: virtual(file, place, str(home / "plain.hdf5"), f"/{place}"),
    "elsewhere by pattern": lambda file, place, _: virtual(file, place, "%b.hdf5", "/data/%b"),
    "of itself": lambda file, place, _: virtual(file, place, ".", f"/{place}"),
    "of nothing": lambda file, place, _: virtual(file, place, ".", "/gone"),
    "unknown filter": lambda file, place, _: packed_with_something_else(file, place),
}


def places(file: h5py.File) -> list[str]:
    """Return everything in a file but its root, in an order that is always the same."""
    found: list[str] = []
    file.visit(found.append)
    return sorted(found)


def change(path: Path, index: int, how: str) -> None:
    """Change the item of this number, or nothing where HDF5 itself will not do it."""
    with h5py.File(path, "a") as file:
        held = places(file)
        place = held[index % len(held)]
        with suppress(ValueError, TypeError, KeyError, RuntimeError, OSError):
            if how in DTYPES:
                put(file, place, DTYPES[how](shape_of(file, place)))
            elif how in MASKS:
                put(file, "mask/train", MASKS[how])
            else:
                CHANGES[how](file, place, path.parent)


def say(path: Path, index: int, name: str, what: str) -> None:
    """Give an item an attribute."""
    with h5py.File(path, "a") as file:
        held = places(file)
        with suppress(ValueError, TypeError, RuntimeError, OSError):
            file[held[index % len(held)]].attrs[name] = HOSTILE[what]


# --- who reads it


def outcome_of(path: Path, inspect: bool) -> str:
    """Read a file in every way; return "loaded" or the error's message, and raise if it is anything else."""
    outcome = "loaded"
    for mask in (None, "train"):
        try:
            contents = read_contents(path, mask=mask)
            for demo in read_demos(contents):
                steps = contents.demos[demo.name]
                assert demo.actions.shape == (steps, len(contents.action)) and np.isfinite(demo.actions).all()
                assert demo.rewards.shape == demo.dones.shape == (steps,) and np.isfinite(demo.rewards).all()
                for key, shape in contents.pictures.items():
                    assert demo.sensors[key].shape == (steps + 1, *shape) and demo.sensors[key].dtype == np.uint8
                for key, size in contents.vectors.items():
                    assert demo.sensors[key].shape == (steps + 1, size) and np.isfinite(demo.sensors[key]).all()
            json.dumps(contents.env_args, allow_nan=False)
            source = Source(name="task", files=(path,), mask=mask)
            mixture = load_dataset([source], batch_size=8, seed=0, gamma=0.9, n_step=2, ends="goal")
            batch = mixture.batch(3)
            assert bool((batch.action.abs() <= 1).all()) and np.isfinite(mixture.spec.proprio_mean).all()
        except PixelrlError as error:
            outcome = str(error)
            assert str(path) in outcome and outcome.isprintable(), ascii(outcome)
    if inspect:
        report = inspect_files([(path, "data")]).reports[0]
        json.dumps(asdict(report))
        assert all(finding.message.isprintable() for finding in report.issues), report.issues
    return outcome


def serve(outcome_of: Callable[[Path, Any], str] = outcome_of) -> None:
    """Judge the files whose names come in, with little memory and little time for each."""
    warnings.simplefilter("ignore")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for line in sys.stdin:
        path, how = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(PATIENCE)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            answer = {"outcome": outcome_of(Path(path), how)}
        except BaseException as error:
            answer = {"raised": f"{type(error).__name__}: {error}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > GROWTH:
            answer = {"raised": f"memory grew by {grown} bytes; {answer}"}
        print(json.dumps(answer), flush=True)


class Reader:
    """A process that reads files; a new one takes the place of one that died."""

    def __init__(self, module: str = "tests.datasets.test_fuzz") -> None:
        self._process: subprocess.Popen[str] | None = None
        self._module = module

    def __call__(self, path: Path, *, inspect: bool | str = False) -> str:
        """Return what came of a file: "loaded", a clear error, or what must not be, beginning with a "!"."""
        if self._process is None:
            paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            words = [sys.executable, "-m", self._module, "serve"]  # beside this file lies an `inspect`
            environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(words, text=True, env=environment, **pipes)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), inspect]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            number = -self._process.wait()
            self._process = None
            hung = number in (signal.SIGPROF, signal.SIGALRM)
            return "! it hung" if hung else f"! it died of {signal.Signals(number).name}"
        answer: dict[str, str] = json.loads(line)
        return answer["outcome"] if "outcome" in answer else f"! {answer['raised']}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("good")
    os.mkfifo(folder / "pipe")
    return write_good(folder)


def spoilt(good: Path) -> Path:
    """Return a copy, to be spoilt, beside a good file."""
    return Path(shutil.copy(good, good.with_name("spoilt.hdf5")))


KINDS = st.sampled_from(["ours", "packed", "plain"])


def test_good_files_are_loaded(reader: Reader, good: dict[str, Path]) -> None:
    assert [reader(path, inspect=True) for path in good.values()] == ["loaded"] * 3


@pytest.mark.parametrize("how", [*CHANGES, *DTYPES])
def test_inspect_survives_a_demo_that_is_something_else(reader: Reader, good: dict[str, Path], how: str) -> None:
    if how == "many twins":
        pytest.skip("four hundred demos take longer than this allows")
    path = spoilt(good["ours"])
    change(path, 1, how)
    assert not (outcome := reader(path, inspect=True)).startswith("!"), outcome


@pytest.mark.parametrize("how", [*CHANGES, *DTYPES, *MASKS])
def test_changed_structure(reader: Reader, good: dict[str, Path], how: str) -> None:
    @settings(SETTINGS, max_examples=4)
    @given(kind=KINDS, index=st.integers(0, 60))
    def try_it(kind: str, index: int) -> None:
        path = spoilt(good[kind])
        change(path, index, how)
        assert not (outcome := reader(path)).startswith("!"), outcome

    try_it()


@settings(SETTINGS, max_examples=80)
@given(
    kind=KINDS,
    index=st.integers(0, 60),
    name=st.sampled_from(["num_samples", "env_args", "action_dims", "notes", "unfinished", "total"]),
    what=st.sampled_from(list(HOSTILE)),
)
def test_hostile_attributes(reader: Reader, good: dict[str, Path], kind: str, index: int, name: str, what: str) -> None:
    path = spoilt(good[kind])
    say(path, index, name, what)
    assert not (outcome := reader(path)).startswith("!"), outcome


@settings(SETTINGS, max_examples=200)
@given(
    kind=KINDS,
    how=st.sampled_from(BYTES),
    place=st.floats(0, 1),
    length=st.integers(1, 600),
    seed=st.integers(0, 10**6),
)
def test_damaged_bytes(
    reader: Reader, good: dict[str, Path], kind: str, how: str, place: float, length: int, seed: int
) -> None:
    path = spoilt(good[kind])
    damage_bytes(path, how, place, length, seed)
    assert not (outcome := reader(path)).startswith("!"), outcome


def test_a_spoilt_heap_does_not_hold_up_the_library_for_ever(reader: Reader, good: dict[str, Path]) -> None:
    path = spoilt(good["ours"])
    raw = path.read_bytes()
    heaps = [found.start() for found in re.finditer(b"GCOL", raw)]
    assert heaps
    for heap, block in itertools.product(heaps, (bytes(4064), b"\xff" * 4064)):
        path.write_bytes(raw[: heap + 32] + block + raw[heap + 4096 :])
        assert (outcome := reader(path)) == "loaded" or f"the global heap at byte {heap} holds an object" in outcome
    assert "the global heap" in outcome


def spoil(path: Path, chance: random.Random) -> list[Any]:
    """Spoil a file in one way, or in several, and return which."""
    done: list[Any] = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        way = chance.choice(["bytes", "bytes", "change", "say"]) if not done or done[-1][0] != "bytes" else "bytes"
        arguments: tuple[Any, ...]
        if way == "bytes":
            arguments = chance.choice(BYTES), chance.random(), chance.randrange(1, 600), chance.randrange(10**6)
            damage_bytes(path, *arguments)
        elif way == "change":
            arguments = chance.randrange(60), chance.choice([*CHANGES, *DTYPES, *MASKS])
            change(path, *arguments)
        else:
            names = ["num_samples", "env_args", "action_dims", "notes", "unfinished"]
            arguments = chance.randrange(60), chance.choice(names), chance.choice(list(HOSTILE))
            say(path, *arguments)
        done.append([way, *arguments])
    return done


def main(seconds: float, seed: int) -> None:
    """Go on for some time; keep every file that was not read as it should be, and say how many there were."""
    chance, reader, counts = random.Random(seed), Reader(), {"loaded": 0, "error": 0, "bad": 0}
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    os.mkfifo(folder / "pipe")
    good = write_good(folder)
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > end:
            break
        kind = chance.choice(list(good))
        path = spoilt(good[kind])
        done = spoil(path, chance)
        outcome = reader(path, inspect=True)
        counts["loaded" if outcome == "loaded" else "bad" if outcome.startswith("!") else "error"] += 1
        if outcome.startswith("!"):
            kept = shutil.copy(path, folder / f"bad_{number}.hdf5")
            print(kept, kind, done, outcome, flush=True)
    print(seed, counts, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        main(float(sys.argv[1]), int(sys.argv[2]))

"""The cache: built once, and never trusted unless it is whole and its file is the one that it was built from."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer import recorded_file as copying
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.recorded_file import ARRAY, RecordedFile, open_recorded_file
from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.hdf5.file_objects import CheckedFile
from pixelrl.datasets.hdf5.reader import Selection
from pixelrl.runtime.child_process import start_as_child
from pixelrl.runtime.errors import DataError
from tests.dots import CAMERA, write_dots

Reads = list[str]
ALL = Selection()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_dots(tmp_path / "a.h5", "task", 5)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Return a list to which every opening of an HDF5 file adds its name."""
    opened: Reads = []
    plain = h5py.File.__init__

    def noted(self: h5py.File, name: object, *args: object, **options: object) -> None:
        if isinstance(name, str | Path | CheckedFile):  # else a handle of one that is open already
            opened.append(Path(str(name)).name)
        plain(self, name, *args, **options)

    monkeypatch.setattr(h5py.File, "__init__", noted)
    return opened


def mixture(path: Path, memory: str = "cache", cache_dir: Path | None = None, **source: object) -> Mixture:
    sources = [Source(name="task", files=(path,), **source)]  # type: ignore[arg-type]
    return load_dataset(sources, batch_size=64, seed=0, gamma=0.9, memory=memory, cache_dir=cache_dir)  # type: ignore[arg-type]


def like_the_file(found: Mixture, path: Path) -> bool:
    """Tell whether a mixture gives what the file holds."""
    told, plain = found.batch(3), mixture(path, "ram").batch(3)
    return torch.equal(told.obs.images[CAMERA], plain.obs.images[CAMERA]) and torch.equal(told.action, plain.action)


def units(path: Path) -> list[Path]:
    return sorted(index.parent for index in path.parent.glob(f"{path.name}.frames/*/index.json"))


def test_a_cache_stands_for_its_file_whole_or_in_part(path: Path, reads: Reads) -> None:
    built = mixture(path)
    assert reads and like_the_file(built, path)
    assert len(units(path)) == 2  # the camera, and the numbers
    reads.clear()
    again = mixture(path)
    assert reads == [], "an opened cache needs nothing of the HDF5 file"
    assert again.spec == built.spec and again.env_args == built.env_args
    assert again.table.fingerprint() == built.table.fingerprint() == mixture(path, "ram").table.fingerprint()
    reads.clear()
    few = mixture(path, fraction=0.4)
    assert reads == []
    assert few.table.fingerprint() == mixture(path, "ram", fraction=0.4).table.fingerprint()
    assert not list(path.parent.glob("*.frames/.*.tmp"))


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def changed_behind_its_times(path: Path) -> None:
    """Change one pixel, and set the time of change back."""
    status = path.stat()
    with h5py.File(path, "r+") as file:
        file[f"data/demo_2/frames/{CAMERA}"][1, 2, 3] += 1
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def longer(path: Path) -> None:
    write_dots(path, "task", 6)


def camera(path: Path) -> Path:
    return next(unit for unit in units(path) if unit.name.startswith("pictures-"))


def keep(path: Path, workers: int = 1, progress: Callable[[int], None] = lambda copied: None) -> RecordedFile:
    """Keep the camera's pictures of a file."""
    file = open_recorded_file(path, ALL)
    lacking = file.not_kept()
    assert lacking is not None
    file.keep_pictures(lacking, workers, progress)
    return file


def cut(path: Path) -> None:
    os.truncate(camera(path) / "pictures.bin", 1000)


def overwritten(path: Path) -> None:
    with (camera(path) / "pictures.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"stranger")


def without_index(path: Path) -> None:
    (camera(path) / "index.json").unlink()


def with_half_an_index(path: Path) -> None:
    text = (camera(path) / "index.json").read_text()
    (camera(path) / "index.json").write_text(text[: len(text) // 2])


def of_another_version(path: Path) -> None:
    index = json.loads((camera(path) / "index.json").read_text())
    (camera(path) / "index.json").write_text(json.dumps(index | {"format": 0}))


def of_another_file(path: Path) -> None:
    other = write_dots(path.parent / "other.h5", "prior", 5)
    mixture(other)
    shutil.rmtree(f"{path}.frames")
    shutil.copytree(f"{other}.frames", f"{path}.frames")


def that_came_with_the_data(path: Path) -> None:
    """Put another cache in its place as an archive does, with sizes and times of its choice, and an index that fits."""
    unit = camera(path)
    index = json.loads((unit / "index.json").read_text())
    pictures = unit / "pictures.bin"
    data, times = pictures.read_bytes(), pictures.stat()
    pictures.unlink()
    pictures.write_bytes(bytes(len(data)))
    os.utime(pictures, ns=(times.st_atime_ns, times.st_mtime_ns))
    index["files"]["pictures.bin"][0] = pictures.stat().st_size
    (unit / "index.json").write_text(json.dumps(index))


def with_other_notes(path: Path) -> None:
    notes = json.loads((camera(path) / "notes.json").read_text())
    notes["demos"]["demo_0"] += 1
    (camera(path) / "notes.json").write_text(json.dumps(notes))


@pytest.mark.parametrize(
    "harm",
    [
        changed_behind_its_times,
        longer,
        cut,
        overwritten,
        without_index,
        with_half_an_index,
        of_another_version,
        of_another_file,
        that_came_with_the_data,
        with_other_notes,
    ],
)
def test_a_changed_or_damaged_or_foreign_cache_is_built_anew(
    path: Path, harm: Callable[[Path], None], reads: Reads
) -> None:
    mixture(path)
    harm(path)
    reads.clear()
    assert like_the_file(mixture(path), path) and reads
    reads.clear()
    mixture(path)
    assert reads == [], "built anew only once"


def test_a_file_that_was_only_touched_keeps_its_cache(
    path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture(path)
    touched(path)
    reads.clear()
    mixture(path)
    assert reads == []
    monkeypatch.setattr("pixelrl.datasets.buffer.cache.hashlib.file_digest", None)  # not needed any more
    mixture(path)
    assert reads == []


def test_interrupted_build_leaves_nothing_that_is_trusted(path: Path) -> None:
    calls = []

    def interrupted(copied: int) -> None:
        calls.append(copied)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(path, progress=interrupted)
    assert calls and open_recorded_file(path, ALL).kept_pictures(CAMERA) is None
    mixture(path)
    unit = camera(path)
    leftover = unit.with_name(f".{unit.name}.dead.tmp")
    leftover.mkdir()  # what a kill leaves
    shutil.rmtree(unit)
    assert like_the_file(mixture(path), path)
    assert not leftover.exists()


def test_file_that_changes_while_it_is_read_is_not_kept(path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.h5: changed while it was read"):
        keep(path, progress=lambda copied: touched(path))
    assert units(path) == []


def test_several_processes_copy_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ONE_PROCESS", 1)
    monkeypatch.setattr(copying, "DEMOS_A_TASK", 1)
    counted: list[int] = []
    file = keep(path, workers=2, progress=counted.append)
    assert len(counted) == 5 and sum(counted) == file.contents.frames
    assert like_the_file(mixture(path), path)


def test_links_in_the_place_of_a_cache_are_not_written_through(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("years of work")
    folder = path.with_name("a.h5.frames")
    folder.symlink_to(precious)
    with pytest.raises(DataError, match=r"a\.h5\.frames is a link, through which nothing is written; --cache-dir"):
        mixture(path)
    folder.unlink()
    folder.mkdir()
    (folder / ".lock").symlink_to(precious / "thesis")
    with pytest.raises(DataError, match=r"a\.h5\.frames: cannot be written \(Too many levels of symbolic links\)"):
        mixture(path)
    assert [file.read_text() for file in precious.iterdir()] == ["years of work"]


def test_disk_that_keeps_no_time_of_change_is_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.utime
    monkeypatch.setattr(os, "utime", lambda place, ns: plain(place))  # both times become the same, or nearly so
    monkeypatch.setattr("pixelrl.datasets.buffer.cache._stamp", lambda _: {"size": 1, "mtime_ns": 5, "ctime_ns": 5})
    with pytest.raises(
        DataError, match=r"frames: cannot be written \(its disk does not tell when files were changed\)"
    ):
        mixture(path)


def test_disk_without_locks_is_read_and_cached(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    expected = mixture(path, "ram").table.fingerprint()
    monkeypatch.setattr("fcntl.flock", none)
    for memory in ("ram", "cache", "file", "cache"):
        assert mixture(path, memory).table.fingerprint() == expected


def test_file_that_changes_while_it_is_in_use_stops_the_run(path: Path) -> None:
    found = mixture(path, "file")
    found.batch(0)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\.h5: "):
        for step in range(20):
            found.batch(step)
    path.write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"a\.h5: "):
        found.batch(0)


def copier(told: Any) -> None:
    start_as_child()
    told.send(os.getpid())
    threading.Event().wait()


def parent_of_a_copier(told: Any) -> None:
    child = get_context("spawn").Process(target=copier, args=(told,))
    child.start()
    child.join()


def test_mapped_cache_that_is_cut_short_while_in_use_stops_the_run(path: Path) -> None:
    found = mixture(path)
    assert found.plan.mapped
    os.truncate(camera(path) / ARRAY, 10)
    with pytest.raises(DataError, match="a cache of pictures was cut short while it was in use; start again"):
        found.batch(0)


def test_copiers_end_with_a_parent_that_was_killed() -> None:
    spawn = get_context("spawn")
    hear, tell = spawn.Pipe(duplex=False)
    parent = spawn.Process(target=parent_of_a_copier, args=(tell,))
    parent.start()
    tell.close()
    assert hear.recv() != parent.pid
    parent.kill()
    assert hear.poll(60)
    with pytest.raises(EOFError):  # nobody holds the other end any more
        hear.recv()


def build(path: Path, started: Any) -> None:
    started.set()
    mixture(path)


def test_two_processes_that_build_the_same_cache_wait_for_each_other(path: Path) -> None:
    spawn = get_context("spawn")
    started = spawn.Event()
    other = spawn.Process(target=build, args=(path, started))
    other.start()
    assert started.wait(120)
    mixture(path)
    other.join()
    assert other.exitcode == 0
    assert like_the_file(mixture(path), path) and len(units(path)) == 2


def test_threads_build_it_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = copying._copy

    def copy(*task: object) -> None:
        made.append(1)
        plain(*task)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_copy", copy)
    together = threading.Barrier(4)  # all find it missing before one begins

    def keep_at_once() -> None:
        file = open_recorded_file(path, ALL)
        lacking = file.not_kept()
        assert lacking is not None
        together.wait()
        file.keep_pictures(lacking, 1, lambda copied: None)

    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(keep_at_once) for _ in range(4)]:
            each.result()
    assert made == [1]


def test_files_of_one_name_do_not_share_a_folder(path: Path, tmp_path: Path) -> None:
    other = write_dots(tmp_path / "deeper" / "a.h5", "prior", 5)
    caches = tmp_path / "caches"
    for file in (path, other, path):
        assert like_the_file(mixture(file, cache_dir=caches), file)
    assert len(list(caches.iterdir())) == 2 and not list(tmp_path.glob("*.frames"))


def test_a_place_that_cannot_be_written_to_is_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"--memory cache: .*blocked cannot be written to; --cache-dir names another"):
        mixture(path, cache_dir=blocked)
    monkeypatch.setattr("pixelrl.datasets.buffer.frames.ram_room", lambda: 1000)
    found = mixture(path, "auto", cache_dir=blocked)
    plan = found.plan
    assert plan.place == "file" and "slow, since" in plan.reason and "--cache-dir" in plan.reason
    assert like_the_file(found, path)
    assert mixture(path, "auto").plan.place == "cache"

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_copy", full)
    with pytest.raises(DataError, match=r"frames: cannot be written \(No space left on device\); --cache-dir names"):
        mixture(path, cache_dir=tmp_path / "elsewhere")


def test_several_files_and_cameras_are_found_among_their_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        write_dots(tmp_path / f"{index}.h5", "task", 3, seed=index)
        with h5py.File(tmp_path / f"{index}.h5", "r+") as file:
            for demo in file["data"].values():
                demo["frames/wrist/image"] = 255 - demo[f"frames/{CAMERA}"][:, ::2]
                file.move(f"{demo.name}/frames/wrist/image", f"{demo.name}/frames/wrist_image")
                del demo["frames/wrist"]
    plain = mixture(tmp_path / "*.h5", "ram")
    assert len(plain.spec.images) == 2
    cached = mixture(tmp_path / "*.h5")
    assert cached.plan.mapped
    monkeypatch.setattr("pixelrl.datasets.buffer.frames.ram_room", lambda: 1)
    unmapped = mixture(tmp_path / "*.h5")
    assert not unmapped.plan.mapped
    for step in range(3):
        for key, expected in plain.batch(step).next_obs.images.items():
            for found in (cached, unmapped):
                np.testing.assert_array_equal(found.batch(step).next_obs.images[key], expected)

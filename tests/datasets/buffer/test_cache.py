"""The cache: built once, and never trusted unless it is whole and its file is the one that it was built from."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer import recorded_file as recording_module
from pixelrl.datasets.buffer.cache import Cache
from pixelrl.datasets.hdf5.file_objects import CheckedFile
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.recorded_file import Request, keep_pictures, kept_pictures, open_recorded_file
from pixelrl.datasets.hdf5.reader import read_contents
from pixelrl.datasets.buffer.sources import Source
from tests.dots import CAMERA, write_dots
from pixelrl.runtime.errors import DataError

Reads = list[str]
ALL = Request(mask=None, images=None, proprio=None)


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
    return next(unit for unit in units(path) if unit.name.startswith(CAMERA))


def cut(path: Path) -> None:
    os.truncate(camera(path) / "pictures.npy", 1000)


def overwritten(path: Path) -> None:
    with (camera(path) / "pictures.npy").open("r+b") as file:
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


def of_another_shape(path: Path) -> None:
    pictures = np.load(camera(path) / "pictures.npy")
    np.save(camera(path) / "pictures.npy", pictures.transpose(0, 2, 3, 1))
    status = (camera(path) / "pictures.npy").stat()
    index = json.loads((camera(path) / "index.json").read_text())
    index["arrays"]["pictures.npy"] = [status.st_size, status.st_mtime_ns]
    (camera(path) / "index.json").write_text(json.dumps(index))


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
        of_another_shape,
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


def test_an_interrupted_build_leaves_nothing_that_is_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = read_contents(path), []

    def interrupted(copied: int) -> None:
        calls.append(copied)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_pictures(whole, Cache(path), CAMERA, workers=1, progress=interrupted)
    assert calls and kept_pictures(open_recorded_file(path, ALL), CAMERA) is None
    leftover = path.with_name("a.h5.frames") / f".{recording_module._camera(CAMERA)}.dead.tmp"
    leftover.mkdir()  # what a kill leaves
    assert like_the_file(mixture(path), path)
    assert not leftover.exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(path: Path) -> None:
    whole = read_contents(path)
    with pytest.raises(DataError, match=r"a\.h5: changed while it was read"):
        keep_pictures(whole, Cache(path), CAMERA, workers=1, progress=lambda copied: touched(path))
    assert units(path) == []


def test_several_processes_copy_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "ALONE", 1)
    monkeypatch.setattr(recording_module, "DEMOS", 1)
    counted: list[int] = []
    unit = keep_pictures(read_contents(path), Cache(path), CAMERA, workers=2, progress=counted.append)
    assert len(counted) == 5 and sum(counted) == unit.arrays["pictures"].shape[0]
    assert like_the_file(mixture(path), path)


def copier(told: Any) -> None:
    recording_module._follow_the_parent()
    told.send(os.getpid())
    threading.Event().wait()


def employer(told: Any) -> None:
    child = get_context("spawn").Process(target=copier, args=(told,))
    child.start()
    child.join()


def test_copiers_end_with_a_parent_that_was_killed() -> None:
    spawn = get_context("spawn")
    hear, tell = spawn.Pipe(duplex=False)
    parent = spawn.Process(target=employer, args=(tell,))
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
    plain = recording_module._copy

    def copy(*task: object) -> None:
        made.append(1)
        plain(*task)  # type: ignore[arg-type]

    monkeypatch.setattr(recording_module, "_copy", copy)
    whole = read_contents(path)
    threads = [
        threading.Thread(target=keep_pictures, args=(whole, Cache(path), CAMERA), kwargs={"workers": 1})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
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
    monkeypatch.setattr("pixelrl.datasets.buffer.frame_storage.ram_room", lambda: 1000)
    found = mixture(path, "auto", cache_dir=blocked)
    plan = found.plan
    assert plan.place == "file" and "slow, since" in plan.reason and "--cache-dir" in plan.reason
    assert like_the_file(found, path)
    assert mixture(path, "auto").plan.place == "cache"

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording_module, "_copy", full)
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
    monkeypatch.setattr("pixelrl.datasets.buffer.frame_storage.ram_room", lambda: 1)
    unmapped = mixture(tmp_path / "*.h5")
    assert not unmapped.plan.mapped
    for step in range(3):
        for key, expected in plain.batch(step).next_obs.images.items():
            for found in (cached, unmapped):
                np.testing.assert_array_equal(found.batch(step).next_obs.images[key], expected)

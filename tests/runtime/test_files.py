"""Files are whole or absent."""

import errno
import json
import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.files import atomic_path, atomic_tree, exclusive_directory, file_lock, write_json


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.bin"
    for text in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".bin"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "model.bin"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for write in (atomic_path, atomic_tree):
        with pytest.raises(OSError, match=r"No space left on device: '.*/result\.json'"), write(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("half")
    with pytest.raises(FileNotFoundError, match="other"), atomic_path(path):
        (tmp_path / "other").read_text()
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"task": "Plateau · é", "interval": [0.1, 0.9]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"task": "Plateau · é", "interval": [0.1, 0.9]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "parent/data-v0"
    with pytest.raises(KeyboardInterrupt), atomic_tree(target) as temporary:
        (temporary / "meta").mkdir(parents=True)
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []
    with atomic_tree(target) as temporary:
        assert temporary.name == "data-v0"
        (temporary / "meta").mkdir(parents=True)
        (temporary / "meta/info.json").write_text("{}")
        (temporary.parent / "leftover").write_text("")
        assert not target.exists()
    assert list(target.parent.iterdir()) == [target]
    assert (target / "meta/info.json").read_text() == "{}"
    with pytest.raises(FileExistsError), atomic_tree(target):
        pass


def test_exclusive_directory_belongs_to_one_process(tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "a"
    second = (
        "import sys, pathlib; from pixelrl.runtime.files import exclusive_directory\n"
        "with exclusive_directory(pathlib.Path(sys.argv[1])): print('mine')"
    )

    def run_second() -> "subprocess.CompletedProcess[str]":
        return subprocess.run([sys.executable, "-c", second, directory], capture_output=True, text=True)

    with exclusive_directory(directory):
        with pytest.raises(PixelrlError, match="a: another process is at work in it"), exclusive_directory(directory):
            pass
        assert "runs/a: another process is at work in it; choose another --out" in run_second().stderr
        (directory / "result").write_text("kept")
    assert [path.name for path in directory.iterdir()] == ["result"]
    (directory / ".lock").touch()  # as a process that was killed leaves it
    assert run_second().stdout == "mine\n"


def test_exclusive_directory_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive_directory(tmp_path / "runs" / "a"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_exclusive_directory_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), exclusive_directory(tmp_path / "a"):
        pass
    assert (tmp_path / "precious").read_text() == "data"


def die_with_half_of(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_leftovers_of_a_killed_process_go_with_the_next_write_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    path = tmp_path / "model[1].bin"
    process = get_context("spawn").Process(target=die_with_half_of, args=(path,))
    process.start()
    process.join()
    (leftover,) = tmp_path.iterdir()
    with atomic_path(path) as living:
        assert not leftover.exists()
        living.write_text("first")
        with atomic_path(path) as temporary:
            temporary.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_lock_excludes_others_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="link"), file_lock(tmp_path / "link"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
    with file_lock(tmp_path / "lock") as held, pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
        pass
    assert held


def test_disk_without_locks_hinders_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    path = tmp_path / "model.bin"
    with file_lock(tmp_path / "lock") as held, atomic_path(path) as first:
        first.write_text("first")
        with atomic_path(path) as second:
            second.write_text("second")
        assert first.read_text() == "first", "nobody knows whether its process is alive"
    assert not held and path.read_text() == "first"

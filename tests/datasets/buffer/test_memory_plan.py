"""The memory plan: the first place where the frames fit, and budgets as the system tells them."""

import re
import resource
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from pixelrl.datasets.buffer.memory_plan import (
    cgroup_room,
    choose_place,
    disk_obstacle,
    gpu_room,
    process_room,
    ram_room,
)
from pixelrl.runtime.errors import DataError

GB = 10**9


def no_obstacle() -> str | None:
    return None


@pytest.mark.parametrize(
    ("size", "gpu", "ram", "obstacle", "place", "mapped"),
    [
        (5, 8, 4, None, "gpu", False),
        (5, 0, 5, None, "ram", True),
        (5, 4, 6, None, "ram", True),
        (5, 4, 4, None, "cache", False),
        (5, 4, 4, "the disk is full", "file", False),
    ],
)
def test_frames_go_to_the_fastest_place_where_they_fit(
    size: int, gpu: int, ram: int, obstacle: str | None, place: str, mapped: bool
) -> None:
    plan = choose_place("auto", size * GB, gpu=gpu * GB, ram=ram * GB, obstacle=lambda: obstacle)
    assert (plan.place, plan.mapped) == (place, mapped)
    assert plan.reason.startswith(f"{size}.0 GB of frames") and f"RAM {ram}.0 GB" in plan.reason
    assert ("slow, since the disk is full: --cache-dir" in plan.reason) == (obstacle is not None)


def test_processes_that_hold_a_copy_each_share_the_room() -> None:
    for copies, place in ((2, "ram"), (3, "cache")):
        plan = choose_place("auto", 5 * GB, gpu=0, ram=10 * GB, obstacle=no_obstacle, copies=copies)
        assert plan.place == place and plan.mapped


@pytest.mark.parametrize("memory", ["gpu", "ram", "cache", "file"])
def test_a_place_that_is_asked_for_is_taken(memory: str) -> None:
    plan = choose_place(memory, 5, gpu=1, ram=1, obstacle=no_obstacle)  # type: ignore[arg-type]
    words = {"gpu": "on the GPU", "ram": "in RAM", "cache": "in a cache on disk", "file": "in the HDF5 files"}
    assert plan.place == memory and words[memory] in plan.reason
    if memory == "cache":
        with pytest.raises(DataError, match=r"--memory cache: no disk; --cache-dir names another place"):
            choose_place("cache", 5, gpu=1, ram=1, obstacle=lambda: "no disk")


def folder(path: Path, **files: object) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / re.sub("__", ".", name)).write_text(f"{text}\n")


def test_the_narrowest_control_group_counts_and_pages_of_files_are_free(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/user/job\n")
    stat = "anon 100\ninactive_file 30\nactive_file 20\nshmem 7"
    folder(tmp_path / "new/user/job", memory__max="max", memory__current=900, memory__stat=stat)
    folder(tmp_path / "new/user", memory__max=1000, memory__current=600, memory__stat=stat)
    folder(tmp_path / "new", memory__max=5000, memory__current=600, memory__stat=stat)
    assert cgroup_room(tmp_path / "new", tmp_path / "own") == 1000 - 600 + 50
    (tmp_path / "own").write_text("12:cpu:/x\n4:memory:/docker/abc\n0::/\n")
    stat = "total_inactive_file 30\ntotal_active_file 20\ninactive_file 1"
    # within a container its own group is the root, and the path that the kernel tells is not to be seen
    folder(
        tmp_path / "old/memory",
        memory__limit_in_bytes=800,
        memory__usage_in_bytes=300,
        memory__stat=stat,
    )
    assert cgroup_room(tmp_path / "old", tmp_path / "own") == 800 - 300 + 50
    folder(tmp_path / "old/memory", memory__limit_in_bytes=9223372036854771712)
    assert cgroup_room(tmp_path / "old", tmp_path / "own") is None
    assert cgroup_room(tmp_path / "old", tmp_path / "nothing") is None


def test_room_is_a_part_of_what_the_machine_has_left() -> None:
    assert 0 < ram_room() <= psutil.virtual_memory().total * 0.8


def test_limits_of_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    used = SimpleNamespace(vms=900 * 1024, data=300 * 1024)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: used)
    assert process_room() is None
    limits[resource.RLIMIT_DATA] = 1000 * 1024
    assert process_room() == 700 * 1024
    limits[resource.RLIMIT_AS] = 1000 * 1024
    assert process_room() == 100 * 1024


def test_a_disk_that_is_too_small_is_named(tmp_path: Path) -> None:
    assert disk_obstacle(tmp_path, 0) is None
    assert re.search(r"a cache takes 1\.0 EB and the disk of .* has .* left", disk_obstacle(tmp_path, 10**18) or "")


def test_only_cuda_has_room_of_its_own() -> None:
    assert gpu_room(torch.device("cpu")) == 0


def test_gpu_keeps_room_for_what_a_step_computes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 80 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    device, large = torch.device("cuda"), 256 * 240 * 320
    assert gpu_room(device) == gpu_room(device, 256 * 48 * 48) == int(0.8 * free)
    assert gpu_room(device, large // 4) == free - 5_000 * large // 4
    assert gpu_room(device, large) == 0


@pytest.mark.cuda
def test_a_gpus_room_leaves_some_to_the_networks() -> None:
    free, _ = torch.cuda.mem_get_info()
    assert 0 <= gpu_room(torch.device("cuda")) < 0.81 * free

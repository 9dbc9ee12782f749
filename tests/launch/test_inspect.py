"""`pixelrl inspect` as a user types it."""

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import h5py
import pytest
from rich.console import Console

import pixelrl.datasets.inspect.crash_probe as probe
import pixelrl.launch.commands.inspect as inspection
from pixelrl.datasets.inspect.crash_probe import crashing_files
from pixelrl.datasets.inspect.inspector import inspect_files
from pixelrl.launch.reports.inspection_page import bars, counts, curve, heat
from pixelrl.launch.train_options import parse
from pixelrl.runtime.errors import PixelrlError
from tests import Streams
from tests.arm import FRONT, write_arm
from tests.dots import CAMERA, write_dots


@pytest.fixture
def inspect(pixelrl_streams: Streams) -> Streams:
    """Run `pixelrl inspect` with these words, and return its exit code and what it printed on either stream."""
    return partial(pixelrl_streams, "inspect")


def test_what_a_person_reads(tmp_path: Path) -> None:
    text = StringIO()
    whole = inspect_files([(write_dots(tmp_path / "a.h5", "prior", 5), "data")])
    inspection.print_report(whole.reports[0], Console(file=text, width=150, markup=False))
    for words in (
        CAMERA,
        "(24, 24, 3)",
        "uint8",
        'part: "prior" (5)',
        "warning rewards: never positive",
        "(SACo) 1.000",
    ):
        assert words in text.getvalue()
    assert "pictures of 5 of 5 demos, 65" in text.getvalue()
    assert inspection.verdict(whole, "cog") == "training may start with cog: 0 errors, 1 warning, 0 notes"


def test_task_and_prior_that_fit(tmp_path: Path, inspect: Streams) -> None:
    task, prior = (
        write_dots(tmp_path / "task.h5", "task", 6, size=32),
        write_dots(tmp_path / "prior.h5", "prior", 6, size=32),
    )
    code, out, _ = inspect("--task", task, "--prior", prior)
    assert code == 0 and "training may start with quick_cog_dr3: 0 errors, 0 warnings, 0 notes" in out
    told = json.loads((tmp_path / "prior.inspection.json").read_text())
    assert (told["demos"], told["role"], told["issues"]) == (6, "prior", [])
    assert told["command"][:2] == ["pixelrl", "inspect"]
    assert (tmp_path / "task.inspection.png").stat().st_size > 0


def test_task_and_prior_that_do_not_fit(tmp_path: Path, inspect: Streams) -> None:
    task, prior = write_dots(tmp_path / "task.h5", "task", 6), write_arm(tmp_path / "prior.h5")
    code, out, err = inspect("--task", task, "--prior", prior, "--no-sheet")
    assert code == 1
    (line,) = err.strip().splitlines()
    assert line.startswith("pixelrl: training may not start with quick_cog_dr3 (") and "prior.h5: obs/" in line
    assert f"error {prior}: actions: 4 dimensions; expected 2, as in {task}" in out
    assert not (tmp_path / "task.inspection.png").exists()
    code, out, _ = inspect(task, prior)
    assert code == 0  # each by itself is good


def test_training_may_start_means_that_it_does(tmp_path: Path, inspect: Streams) -> None:
    task, prior = (
        write_dots(tmp_path / "task.h5", "task", 6, size=32),
        write_dots(tmp_path / "prior.h5", "prior", 6, size=32),
    )
    with h5py.File(task, "a") as file:
        for demo in file["data"].values():
            demo["rewards"][...] = demo["rewards"][()] - 1  # costs
    files = ("--task", str(task), "--prior", str(prior))
    code, out, err = inspect(*files, "--no-sheet")
    assert code == 1 and "the rewards of the task are costs" in err and "--reward-shift 10 makes" in err
    assert "task: 6 demos" in out and "observations that are learned from: agentview_image, robot0_eef_pos" in out
    with pytest.raises(PixelrlError, match="the rewards of the task are costs"):
        parse("quick_cog_dr3", [*files, "--out", str(tmp_path / "run")])()
    code, out, _ = inspect(*files, "--no-sheet", "--recipe", "quick_cog_dr3 --reward-shift 10")
    assert code == 0 and "training may start" in out
    code, _, err = inspect(*files, "--no-sheet", "--recipe", "slow_cog")
    assert code == 1 and "--recipe slow_cog: there is no recipe 'slow_cog'; there are quick_cog_dr3" in err


def test_options_of_the_recipe_are_those_of_training(tmp_path: Path, inspect: Streams) -> None:
    task = write_dots(tmp_path / "task.h5", "task", 6, size=32)
    with h5py.File(task, "a") as file:
        for demo in file["data"].values():
            demo["actions"][...] = demo["actions"][()] * 30
    look = ("--task", task, "--no-sheet", "--recipe")
    code, out, _ = inspect(*look, "quick_bc --actions min-max")
    assert code == 0 and "training may start with quick_bc --actions min-max" in out
    code, _, err = inspect(*look, "quick_bc --actions unit", "--actions", "min-max")
    assert code == 1 and "--actions min-max normalises them" in err
    code, _, err = inspect(*look, "quick_bc --prior none.hdf5")
    assert (
        code == 1 and "--prior none.hdf5 is not a part of it; expected `pixelrl inspect --prior none.hdf5 ...`" in err
    )


def test_pictures_that_are_too_small_for_the_encoder_are_told(tmp_path: Path, inspect: Streams) -> None:
    task = write_dots(tmp_path / "task.h5", "task", 6, size=16)
    code, _, err = inspect("--task", task, "--no-sheet")
    assert code == 1 and f"{CAMERA}: 16 x 16 pixels do not fit SmallCNN" in err
    code, out, _ = inspect("--task", task, "--no-sheet", "--recipe", "cog")
    assert code == 0 and "training may start with cog" in out


def test_file_that_is_not_there_is_one_line_and_leaves_nothing(tmp_path: Path, inspect: Streams) -> None:
    code, out, err = inspect(tmp_path / "gone.hdf5", "--html")
    assert (code, out) == (1, "") and err.split("pixelrl: ")[1].startswith(
        f"{tmp_path}/gone.hdf5: no such file; expected"
    )
    assert not [*tmp_path.iterdir()]


def test_unrewarded_task_is_refused_for_a_critic_and_not_for_imitation(tmp_path: Path, inspect: Streams) -> None:
    prior = write_dots(tmp_path / "prior.h5", "prior", 6, size=32)
    code, _, err = inspect("--task", prior, "--no-sheet")
    assert code == 1 and "no transition of the task data has a reward" in err
    code, out, _ = inspect("--task", prior, "--no-sheet", "--recipe", "quick_bc")
    assert code == 0 and "training may start" in out


def test_demos_that_a_mask_leaves_out_do_not_matter(tmp_path: Path, inspect: Streams) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 6, size=32)
    with h5py.File(path, "a") as file:
        file["data/demo_3/actions"][0] = float("nan")
        file["mask/good"] = [f"demo_{number}".encode() for number in range(6) if number != 3]
    assert inspect("--task", path)[0] == 1
    code, out, error = inspect("--task", path, "--recipe", "quick_cog_dr3 --task-mask good")
    assert (code, error) == (0, "")
    assert "task: 5 demos" in out


def test_json_and_nothing_else(tmp_path: Path, inspect: Streams) -> None:
    path = write_arm(tmp_path / "a.h5")
    code, out, _ = inspect(path, "--json")
    told = json.loads(out)
    assert (code, told["fit"], told["reports"][0]["demos"], told["between"]) == (0, True, 8, [])
    assert told["reports"][0]["coverage"]["saco"] == 1.0
    with h5py.File(path, "a") as file:
        file["data/demo_2/actions"][3, 1] = 9.0
    code, out, err = inspect(path, "--json", "--no-sheet")
    told = json.loads(out)
    assert (code, told["fit"]) == (1, False)
    (issue,) = told["reports"][0]["issues"]
    assert (issue["level"], issue["check"], issue["demo"], issue["index"]) == (
        "error", "action-range", "demo_2", 3,
    )  # fmt: skip
    assert "(1 error, 0 warnings, 0 notes)" in err


class Reader(HTMLParser):
    """Gathers the tags that are open, and everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_page_that_needs_nothing_else(tmp_path: Path, inspect: Streams) -> None:
    path = write_arm(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file[f"data/demo_4/obs/{FRONT}"][6] = 0
        file["data"].attrs["env_args"] = json.dumps({"env_name": "<script>alert(1)</script>"})
    code, out, _ = inspect(path, write_arm(tmp_path / "b.h5", seed=1), "--html", "--no-sheet")
    assert code == 0 and f"{tmp_path}/a.inspection.html" in out
    page = (tmp_path / "a.inspection.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and "script" not in reader.tags and "link" not in reader.tags
    assert len(reader.fetched) == 2 and all(value.startswith("data:image/png;base64,") for value in reader.fetched)
    assert base64.b64decode(reader.fetched[0].partition(",")[2]).startswith(b"\x89PNG")
    assert not re.search(r"url\(|@import|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 2 * (4 + 4)  # of each file: lengths, returns, coverage, map, and four actions
    assert f"/data/demo_4/obs/{FRONT}[6]" in page and "&lt;script&gt;" in page
    assert not (tmp_path / "a.inspection.png").exists()


def test_a_page_on_a_file_that_cannot_be_read(tmp_path: Path, inspect: Streams) -> None:
    (tmp_path / "a.h5").write_text("hello")
    code, _, err = inspect(tmp_path / "a.h5", "--html")
    assert code == 1 and err.count("a.h5") == 1
    assert "not an HDF5 file" in (tmp_path / "a.inspection.html").read_text()
    assert not (tmp_path / "a.inspection.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no files to look at"),
        (("a.h5", "--sample", "0"), "--sample is 0"),
        (("a.h5", "--return-range", "1", "1"), "--return-range is (1.0, 1.0)"),
        (("a.h5", "--reference", "gone.h5"), "gone.h5: no such file"),
    ],
)
def test_options_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inspect: Streams, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_arm(tmp_path / "a.h5")
    code, _, err = inspect(*words)
    assert code == 1 and said in err


def test_a_folder_where_nobody_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inspect: Streams) -> None:
    def refuse(*words: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(inspection, "write_json", refuse)
    code, out, _ = inspect(write_arm(tmp_path / "a.h5"))
    assert code == 0 and "nothing written beside it (Permission denied); --out" in out


def test_figures() -> None:
    assert bars([0, 5, 10], "-1", "1").count("class=b") == 2  # nothing is drawn for none
    assert counts([3, 3, 5]).count("class=b") == 2 and ">3<" in counts([3, 3, 5]) and ">5<" in counts([3, 3, 5])
    assert counts([2.0]).count("class=b") == 1
    assert counts([0.1, 0.2, 7.3]).count("class=b") == 2
    assert "points='0.0,96.0 240.0,49.0'" in curve([(0, 0), (10, 5)])
    assert heat([[0, 1], [4, 0]]).count("fill-opacity") == 2


def probe_with(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the probe's child do this instead of opening files."""

    def run(module: str, *paths: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)

    monkeypatch.setattr(probe, "run_module", run)


def test_a_file_that_crashes_the_library_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inspect: Streams
) -> None:
    good, other = write_arm(tmp_path / "a.h5"), write_dots(tmp_path / "b.h5", "task", 2)
    assert crashing_files([good, other]) == {}
    code = "import os, sys\nfor i, path in enumerate(sys.argv[1:]): print(i, flush=True); 'b.h5' in path and os.abort()"
    probe_with(monkeypatch, code)
    assert crashing_files([good, other, good]) == {other: "badly damaged: the HDF5 library crashes on it (SIGABRT)"}
    code, _, err = inspect(other, "--no-sheet")
    assert code == 1 and f"{other}: badly damaged" in err


ENDLESS = f"""
import {probe.__name__} as probe
def visit(path):
    open(f"{{path}}.pid", "w").write(str(__import__("os").getpid()))
    while "b.h5" in path.name:
        pass
probe.visit, probe.SECONDS = visit, 1
probe.main()
"""


def test_a_file_that_the_library_does_not_come_back_from_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe_with(monkeypatch, ENDLESS)
    good, other = tmp_path / "a.h5", tmp_path / "b.h5"
    found = crashing_files([good, other, good])
    assert found == {other: f"badly damaged: the HDF5 library takes more than {probe.SECONDS} s on it (SIGXCPU)"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_the_probe_dies_with_its_parent(tmp_path: Path) -> None:
    endless = ENDLESS.replace("SECONDS = visit, 1", "SECONDS = visit, 1000")
    code = f"import sys, subprocess; subprocess.run([sys.executable, '-c', {endless!r}, sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b.h5")]) as parent:
        child = int(wait_for(lambda: (tmp_path / "b.h5.pid").read_text()))
        parent.kill()
    wait_for(lambda: "" if is_running(child) else "gone")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(look: Callable[[], str]) -> str:
    """Return what is seen as soon as something is."""
    for _ in range(1200):
        with suppress(FileNotFoundError):
            if seen := look():
                return seen
        time.sleep(0.05)
    raise AssertionError("nothing happened within a minute")


def test_a_zeroed_heap_is_an_issue_and_no_endless_loop(tmp_path: Path, inspect: Streams) -> None:
    path = write_dots(tmp_path / "a.h5", "task", 3)
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL\1\0\0\0") + 16
    raw[heap : heap + 2000] = bytes(2000)
    path.write_bytes(raw)
    code, _, err = inspect(path, "--no-sheet")
    assert code == 1 and "the global heap at byte" in err


def test_paths_are_text(tmp_path: Path, inspect: Streams) -> None:
    folder = tmp_path / "x[/y] [bold]"
    folder.mkdir(parents=True)
    path = write_dots(folder / "a[red].h5", "prior", 3)
    code, out, _ = inspect(path, "--html")
    assert code == 0
    for line in (f"{path} ", f"{path.with_suffix('.inspection.png')}: contact sheet", "a[red].inspection.html"):
        assert line in out.replace("\n", " ")
    code, _, err = inspect(folder / "gone.h5")
    assert code == 1 and str(folder / "gone.h5") in err

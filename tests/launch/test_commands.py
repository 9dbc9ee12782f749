"""What all commands have in common, as a user types them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pixelrl.version import __version__
from tests import Pixelrl
from tests.dots import SMALL


def test_paths_with_markup_are_printed_as_they_are(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    run, artefact = tmp_path / "runs [bold] :smile:" / "a", tmp_path / "artefacts [red]x[/red] [/y]" / "a"
    command = ["train", "quick_bc", "--task", dots[0], "--out", run, *SMALL, "--steps", 2]
    code, said = pixelrl(*command, "--resume")
    assert code == 0 and f"{run}: nothing to go on with; beginning" in said
    code, said = pixelrl("export", run, "--out", artefact)
    assert code == 0 and f"{artefact}: acts as {run} at step 2" in said
    code, said = pixelrl(*command)
    assert code == 1 and f"{run}: holds a run already" in said


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str) -> None:
    command = [sys.executable, "-m", "pixelrl.launch.cli", "starts", "--help"]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout and process.stderr
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_unexpected_error_shows_its_traceback_only_with_debug(
    dots: tuple[Path, Path], pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("pixelrl.launch.commands.inspect.Inspect.__call__", broken)
    code, said = pixelrl("inspect", dots[0])
    assert code == 1 and "unexpected KeyError: 'surprise' (--debug shows where)" in said and "Traceback" not in said
    with pytest.raises(KeyError, match="surprise"):
        pixelrl("inspect", dots[0], "--debug")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("evaluate", "nowhere"), "nowhere: not a run"),
        (("evaluate", "nowhere", "--video", "--videos", "0"), "--videos is 0; it must be at least 1"),
        (("sweep", "nowhere", "--token-file", "t"), "--token-file goes with ws://HOST:PORT; nowhere is none"),
        (("export", "nowhere", "--out", "x"), "nowhere: not a run"),
        (("collect", "pick-place-trya", "prior", "--out", "x.hdf5"), "pick-place-tray"),
        (("collect", "mimicgen:Stack_D0", "prior", "--out", "x.hdf5"), "only, not for mimicgen:Stack_D0"),
        (("collect", "pick-place-tray", "prayer", "--out", "x.hdf5", "--episodes", "1"), "prior"),
        (("collect", "pick-place-tray", "prior", "--out", "x", "--episodes", "-1"), "--episodes is -1; it must be"),
        (("inspect", "nothing.hdf5"), "nothing.hdf5"),
        (("train", "quick_bc", "--task", "nothing.hdf5", "--out", "x"), "nothing.hdf5"),
        (("train", "quick_bc", "--task", "a.h5", "--out", "x", "--seed", "-1"), "seed is -1; it must be at least 0"),
        (("evaluate", "nowhere", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("sweep", "nowhere", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("probe", "nowhere", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("starts", "Lift", "--out", "x", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("collect", "pick-place-tray", "prior", "--out", "x", "--seed", "-1"), "--seed is -1; it must be at least 0"),
        (("demo", "--out", "x", "--seed", "-1"), "--seed is -1; it must be at least 0"),
    ],
)
def test_bad_input_gets_one_clear_line(
    words: tuple[str, ...], expected: str, tmp_path: Path, pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = pixelrl(*words)
    assert code == 1 and expected in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["evaluate run --episods", "collect pick-place-tray prior --out x --episods", "sweep run --episods"]
)
def test_hint_names_options_of_the_command_at_hand(words: str, pixelrl: Pixelrl) -> None:
    code, said = pixelrl(*words.split(), 3)
    assert code == 2 and "Unrecognized options: --episods" in said
    _, hints = said.split("Perhaps you meant:")
    assert "--episodes" in hints and f"run pixelrl {words.split()[0]} --help" in hints
    assert hints.count("pixelrl ") == 1


def test_version_is_told(pixelrl: Pixelrl) -> None:
    assert pixelrl("--version") == (0, f"pixelrl {__version__}")


def test_names_of_files_that_are_no_text_stop_nothing(
    dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.hdf5"))
    shutil.copy(dots[0], path)
    assert pixelrl("inspect", path, "--html")[0] == 0
    assert pixelrl("view", path, "--out", tmp_path / "view.html")[0] == 0
    assert pixelrl("convert", path, path.with_suffix(".out.hdf5"))[0] == 0
    report = json.loads(path.with_suffix(".inspection.json").read_text(encoding="utf-8"))
    assert report["path"] == str(path)


def test_a_page_that_cannot_be_written_keeps_no_verdict_back(
    dots: tuple[Path, Path], pixelrl: Pixelrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "page")

    monkeypatch.setattr("pixelrl.launch.reports.inspection_page.write_inspection_page", refuse)
    code, said = pixelrl("inspect", dots[0], "--html")
    assert code == 0 and "nothing written beside it (Read-only file system); --out DIRECTORY takes" in said
    assert "training may start" in said


def test_inspect_writes_where_it_is_told(dots: tuple[Path, Path], tmp_path: Path, pixelrl: Pixelrl) -> None:
    out = tmp_path / "new" / "reports"
    code, said = pixelrl("inspect", *dots, "--out", out, "--html")
    assert code == 0, said
    endings = ("json", "png", "html")
    expected = {f"{name}.inspection.{ending}" for name in ("task", "prior") for ending in endings} - {
        "prior.inspection.html"
    }
    assert {path.name for path in out.iterdir()} == expected
    assert not list(tmp_path.glob("*.inspection.*"))
    twin = tmp_path / "copy" / dots[0].name
    twin.parent.mkdir()
    shutil.copy(dots[0], twin)
    assert pixelrl("inspect", "--task", dots[0], "--prior", dots[0], "--out", out)[0] in (0, 1)  # one file, twice
    code, said = pixelrl("inspect", dots[0], twin, "--out", out)
    assert code == 1 and "task.inspection.json; inspect them apart" in said
    shutil.copy(dots[0], other := dots[0].with_suffix(".h5"))
    code, said = pixelrl("inspect", dots[0], other)
    assert code == 1 and "task.inspection.json; inspect them apart" in said

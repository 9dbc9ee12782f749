"""Comparing ledgers tells what has become slower."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import main, read_ledger
from benchmarks.ledger import command_line
from pixelrl.runtime.errors import PixelrlError


def write_ledger(path: Path, clock: str = "cpu", **ratios: float) -> Path:
    ledger: dict[str, Any] = {"bench": "learner", "clock": clock, "machine": "m", "cases": {"cog": {"ratios": ratios}}}
    path.write_text(json.dumps(ledger))
    return path


def test_ratio_that_grows_beyond_the_tolerance_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    main(write_ledger(old, a=1.0, b=0.5, gone=1.0), write_ledger(new, a=1.2, b=0.1))
    assert "+20%" in capsys.readouterr().out
    with pytest.raises(PixelrlError, match="cog: a has grown by 30%; --tolerance allows 25%"):
        main(write_ledger(old, a=1.0, b=0.1), write_ledger(new, a=1.3, b=0.1))
    with pytest.raises(PixelrlError, match=r"no ratio in common.*cog"):
        main(write_ledger(old, b=1.0), write_ledger(new, a=1.0))
    with pytest.raises(PixelrlError, match=r"clock is 'wall'.*'cpu'"):
        main(write_ledger(old, "wall", a=1.0), write_ledger(new, a=1.0))


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("{", "is no JSON"), ("{}", "has no bench")])
def test_file_that_is_no_ledger_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "ledger.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PixelrlError, match=f"ledger.json: .*{message}|{message}"):
        read_ledger(path)


def test_command_line_ends_with_an_error_in_one_line(tmp_path: Path) -> None:
    new, old = write_ledger(tmp_path / "new.json", a=2.0), write_ledger(tmp_path / "old.json", a=1.0)
    command_line(main, [str(old), str(new), "--tolerance", "1.5"])
    with pytest.raises(SystemExit, match="benchmarks: cog: a has grown by 100%; --tolerance allows 25%"):
        command_line(main, [str(old), str(new)])

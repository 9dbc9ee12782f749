"""Contenders take turns in processes of their own; a ratio is taken within each round."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ledger import case_record
from benchmarks.turns import UNMEASURED, Contender, Options, Result, Work, take_turns
from pixelrl.runtime.errors import PixelrlError

MIB = 1024**2


def spin(seconds: float, mib: int, noted: str = "") -> Work:
    """Hold some memory, and compute for so long."""
    held = np.ones(mib * MIB, dtype=np.uint8)

    def unit() -> None:
        end = time.process_time() + seconds
        while time.process_time() < end:
            held[0] += 1
        if noted:
            with Path(noted).open("a") as file:
                file.write(f"{seconds} ")

    return Work(unit=unit, facts={"mib": mib})


def fail(message: str) -> Work:
    """Fail as a contender may."""
    raise PixelrlError(message)


def test_turns_alternate_and_each_has_its_own_time_and_memory(tmp_path: Path) -> None:
    notes = str(tmp_path / "notes")
    contenders = {
        "small": Contender(make=spin, arguments=(0.002, 1, notes), rehearsal=(0.0, 1)),
        "large": Contender(make=spin, arguments=(0.06, 64, notes), rehearsal=(0.0, 1)),
    }
    results = take_turns("test", contenders, Options(rounds=3, turn_seconds=0.05, skip=("absent",)))
    small, large = results["small"], results["large"]
    assert small.seconds("cpu") == pytest.approx(0.002, abs=0.002)
    assert large.seconds("cpu") == pytest.approx(0.06, abs=0.02)
    assert small.seconds("wall") >= 0.002 and len(small.turns) == len(large.turns) == 3
    held, peak = large.facts["held_mib"], large.facts["peak_mib"]
    assert 0 <= small.facts["held_mib"] < 8 and 60 < held <= peak + 1 and peak < 80
    assert large.facts["mib"] == 64 and small.facts["gpu_peak_mib"] is None
    units = small.facts["units_per_turn"]
    assert units > 1 and large.facts["units_per_turn"] == 1  # so only the small one takes some unmeasured in each turn
    turn = ["0.002"] * (UNMEASURED + units) + ["0.06"]
    assert Path(notes).read_text().split() == [*["0.002"] * 2, *["0.06"] * 2, *turn * 3]


def result(*seconds: float) -> Result:
    """Return a result with these turns by the wall; the processor takes twice as long."""
    return Result(turns=[{"wall": wall, "cpu": 2 * wall} for wall in seconds], facts={})


def test_a_ratio_is_taken_within_each_round() -> None:
    quiet_then_busy, twice = result(1, 1, 5, 9, 9), result(2, 2, 10, 18, 27)
    results = {"one": quiet_then_busy, "other": twice}
    record = case_record(results, {"other / one": ("other", "one"), "third / one": ("third", "one")}, "wall")
    assert record["ratios"] == {"other / one": 2}
    assert record["spread"] == {"other / one": [2, 2]}
    assert record["contenders"]["other"]["cpu_seconds"] == 20 and record["contenders"]["other"]["turns"] == 5


def test_a_contender_that_fails_is_named() -> None:
    with pytest.raises(PixelrlError, match="hasty: no such thing"):
        contender = Contender(make=fail, arguments=("no such thing",), rehearsal=("no such thing",))
        take_turns("test", {"hasty": contender}, Options(rounds=1, turn_seconds=0))

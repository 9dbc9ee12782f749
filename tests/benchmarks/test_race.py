"""The bench: contenders take turns in processes of their own, and a ledger tells what has become slower."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.ledger import case_record, compare, read_ledger
from benchmarks.race import AGAIN, Contender, Result, Work, race
from pixelrl.runtime.errors import PixelrlError

Pixelrl = Callable[..., tuple[int, str]]
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


def no_progress(text: str) -> None:
    """Show nothing."""


def test_turns_alternate_and_each_has_its_own_time_and_memory(tmp_path: Path) -> None:
    notes = str(tmp_path / "notes")
    contenders = {
        "small": Contender(make=spin, arguments=(0.002, 1, notes), rehearsal=(0.0, 1)),
        "large": Contender(make=spin, arguments=(0.01, 64, notes), rehearsal=(0.0, 1), turns=2, warm=0),
    }
    results = race(contenders, rounds=3, turn_seconds=0.05, progress=no_progress)
    small, large = results["small"], results["large"]
    assert small.cpu == pytest.approx(0.002, abs=0.002) and large.cpu == pytest.approx(0.01, abs=0.005)
    assert small.seconds("wall") >= 0.002 and (len(small.turns), len(large.turns)) == (3, 2)
    assert 0 <= small.held_mib < 8 and 60 < large.held_mib <= large.peak_mib < 80
    assert large.facts == {"mib": 64} and small.gpu_peak_mib is None
    assert small.units > 1 and large.units == 1  # so only the small one takes some unmeasured in each turn
    warm, turn = ["0.002"] * 2, ["0.002"] * (AGAIN + small.units)
    assert Path(notes).read_text().split() == [*warm, *turn, "0.01", *turn, "0.01", *turn]


def result(*seconds: float) -> Result:
    turns = [(wall, 2 * wall) for wall in seconds]
    return Result(turns=turns, units=1, ready=0, held_mib=0, peak_mib=0, gpu_peak_mib=None, facts={})


def test_a_ratio_is_taken_within_each_round() -> None:
    quiet_then_busy, twice = result(1, 1, 5, 9, 9), result(2, 2, 10, 18, 27)
    results = {"one": quiet_then_busy, "other": twice, "slow": result(6)}
    record = case_record(results, {"other / one": ("other", "one"), "slow / one": ("slow", "one")}, "wall")
    assert record["ratios"] == {"other / one": 2, "slow / one": 6 / 5}  # of unlike turns, that of the medians
    assert record["spread"] == {"other / one": [2, 2]}
    assert record["contenders"]["other"]["cpu_seconds"] == 20 and record["contenders"]["other"]["turns"] == 5


def test_a_contender_that_fails_is_named() -> None:
    with pytest.raises(PixelrlError, match="hasty: no such thing"):
        race(
            {"hasty": Contender(make=fail, arguments=("no such thing",), rehearsal=("no such thing",))},
            rounds=1,
            turn_seconds=0,
            progress=no_progress,
        )


def ledger(**ratios: float) -> dict[str, Any]:
    return {"bench": "learner", "clock": "cpu", "machine": "m", "cases": {"cog": {"ratios": ratios}}}


def test_a_ratio_that_grows_beyond_the_tolerance_fails() -> None:
    quiet = Console(quiet=True)
    compare(ledger(a=1.2, b=0.1), ledger(a=1.0, b=0.5, gone=1.0), 0.25, quiet)
    with pytest.raises(PixelrlError, match="cog: a has grown by 30%; --tolerance allows 25%"):
        compare(ledger(a=1.3, b=0.1), ledger(a=1.0, b=0.1), 0.25, quiet)
    with pytest.raises(PixelrlError, match=r"no ratio in common.*cog"):
        compare(ledger(a=1.0), ledger(b=1.0), 0.25, quiet)
    with pytest.raises(PixelrlError, match=r"clock is 'wall'.*'cpu'"):
        compare(ledger(a=1.0), ledger(a=1.0) | {"clock": "wall"}, 0.25, quiet)


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("{", "is no JSON"), ("{}", "has no bench")])
def test_what_is_no_ledger_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "ledger.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PixelrlError, match=f"ledger.json: .*{message}|{message}"):
        read_ledger(path)


def test_bench_learner_writes_a_ledger_and_compares_with_it(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = tmp_path / "ledger.json"
    code, said = pixelrl("bench", "learner", "quick", "--quick", "--out", path)
    assert code == 0 and "pixelrl / floor" in said, said
    written = read_ledger(path)
    case = written["cases"]["quick"]
    others = {"eager", "floor", "modules", "tiled", "with diagnostics", "without DR3"}
    assert set(case["contenders"]) == {"pixelrl"} | others
    assert case["ratios"]["operations, pixelrl / tiled"] < 1
    assert case["ratios"]["with / without DR3 and diagnostics"] > 0
    assert written["command"][:3] == ["pixelrl", "bench", "learner"] and written["settings"]["quick"]
    assert {"machine", "commit", "began"} <= written.keys()
    assert case["case"]["recipe"]["batch_size"] == 4
    slow = json.loads(path.read_text())
    slow["cases"]["quick"]["ratios"] = dict.fromkeys(case["ratios"], 1e-9)
    path.with_name("fast.json").write_text(json.dumps(slow))
    code, said = pixelrl("bench", "compare", path, path)
    assert code == 0 and "+0%" in said
    code, said = pixelrl("bench", "compare", path, path.with_name("fast.json"))
    assert code == 1 and "has grown by" in said


def test_bench_learner_beside_robomimic(tmp_path: Path, pixelrl: Pixelrl) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    path = tmp_path / "ledger.json"
    skip = ("eager", "tiled", "floor", "modules", "with diagnostics", "robomimic fixed")
    code, said = pixelrl("bench", "learner", "robomimic", "--quick", "--out", path, "--skip", *skip)
    assert code == 0 and "the same work" in said and "NOT the same" not in said, said
    case = read_ledger(path)["cases"]["robomimic"]
    assert set(case["contenders"]) == {"pixelrl", "robomimic"}
    assert max(case["contenders"]["robomimic"]["apart"][name] for name in ("td", "cql", "policy")) <= 1e-4
    assert case["ratios"]["operations, pixelrl / robomimic"] < 1 / 4


def test_bench_data_beside_robomimic(tmp_path: Path, pixelrl: Pixelrl) -> None:
    pytest.importorskip("robomimic", reason="robomimic is not installed")
    path = tmp_path / "ledger.json"
    code, said = pixelrl("bench", "data", "--quick", "--out", path)
    assert code == 0, said
    ((name, case),) = read_ledger(path)["cases"].items()
    assert name == "2 x 16 px, batch 4" and "ram / bare copy" in case["ratios"]
    places = {"pixelrl ram", "pixelrl cache", "pixelrl file"}
    assert {"bare copy", "robomimic all", "robomimic low_dim", *places} <= case["contenders"].keys()
    assert case["case"]["batch_bytes"] == 2 * 4 * 2 * 3 * 16 * 16
    assert case["case"]["unique_bytes"] == 2 * 6 * 2 * 3 * 16 * 16
    assert list(tmp_path.iterdir()) == [path]


def test_bench_opening_has_both_sizes(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path = tmp_path / "ledger.json"
    code, said = pixelrl("bench", "data", "--quick", "--opening", "20_000", "--out", path)
    assert code == 0, said
    ((name, case),) = read_ledger(path)["cases"].items()
    assert name == "cached transitions, 16 px, batch 4" and set(case["contenders"]) == {"20,000", "200"}
    assert set(case["ratios"]) == {"a batch of 20,000 / of 200"} and "20,000: open in" in said
    assert list(tmp_path.iterdir()) == [path]


def test_bench_simulation_beside_robosuite(tmp_path: Path, pixelrl: Pixelrl) -> None:
    path, picture = tmp_path / "ledger.json", tmp_path / "drawings.png"
    options = ("--quick", "--size", "32", "--out", path, "--picture", picture)
    code, said = pixelrl("bench", "simulation", "pick-place-tray", *options)
    assert code == 0 and "transport" in said, said
    ((name, case),) = read_ledger(path)["cases"].items()
    assert name == "pick-place-tray" and case["case"] == {"task": name, "size": 32, "steps": 4}
    alone = {"robosuite", "pixelrl stock", "pixelrl fast"}
    assert set(case["contenders"]) == {*alone, "rollouts by 1", "rollouts by 2"}
    assert set(case["ratios"]) == {"fast / robosuite", "fast / stock", "2 workers / 1 (wall)"}
    for contender in alone:
        row = case["contenders"][contender]
        assert set(row["ms"]) == {"physics", "controller", "drawing", "rest"}
        assert sum(row["ms"].values()) == pytest.approx(1000 * row["cpu_seconds"])
    assert case["contenders"]["pixelrl fast"]["ms"]["drawing"] < case["contenders"]["robosuite"]["ms"]["drawing"]
    assert 5 < case["drawings_apart"] < 100
    with Image.open(picture) as drawn:
        assert drawn.width > 3 * 128


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulation", "--workers", "1"), "--workers is 1; it must be at least 2"),
        (("simulation", "Lifft"), "no task 'Lifft'.*Lift"),
        (("data", "--opening", "999"), "--opening 999.*25600"),
        (("data", "--places", "attic"), "'attic'.*ram"),
        (("data", "--demos", "1", "--steps", "2"), "--demos 1 x --steps 2.*256"),
        (("learner", "cogg"), "'cogg'.*quick"),
        (("learner", "quick", "--quick", "--compare", "nowhere.json"), "nowhere.json"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixelrl: Pixelrl, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = pixelrl("bench", *words)
    assert code == 1 and said.startswith("pixelrl: ")
    assert re.search(message, said), said
    assert not list(tmp_path.iterdir())

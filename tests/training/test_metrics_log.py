"""Where figures go."""

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.loop import Report
from pixelrl.training.metrics_log import CSVLog, Log


def report(step: int, **metrics: float) -> Report:
    return Report(
        step=step, seconds=step / 2, metrics={name.replace("_", "/"): value for name, value in metrics.items()}
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_report(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "metrics.csv", 0)
    log.write(report(10, critic_td=0.125))
    log.write(report(20, critic_td=1234567.0))
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "step,seconds,critic/td",
        "10,5.00,0.125",
        "20,10.00,1.23457e+06",
    ]


def test_a_figure_that_comes_later_adds_a_column(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "metrics.csv", 0)
    log.write(report(1, actor_bc=1.0))
    log.write(report(2, actor_maximizeq=2.0))
    log.write(report(3, actor_bc=3.0, actor_maximizeq=4.0))
    assert [(row["actor/bc"], row["actor/maximizeq"]) for row in rows(tmp_path / "metrics.csv")] == [
        ("1", ""),
        ("", "2"),
        ("3", "4"),
    ]
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("damaged", [b"10,1.00,0.5,7", b"10,1.00,0.\xff5", b"1x,1.00,0.5", b"10,1.00,0.5\xc3"])
def test_damaged_row_is_named_when_the_run_goes_on(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = b"step,seconds,actor/bc\n5,1.00,0.5\n" + damaged + b"\n15,1.00,0.5\n"
    path.write_bytes(whole)
    with pytest.raises(PixelrlError, match=r"metrics\.csv: line 3 is damaged; expected a number for each name"):
        CSVLog(path, 20)
    assert path.read_bytes() == whole
    for names in (b"seconds,actor/bc", b"step,actor/b\xff"):
        path.write_bytes(names + b"\n1.00,0.5\n")
        with pytest.raises(PixelrlError, match=r"metrics\.csv: line 1 is damaged"):
            CSVLog(path, 20)
    path.write_bytes(b"step,seconds,actor/bc\n5,1.00,0.5\n10,1.0")
    CSVLog(path, 20)
    assert path.read_bytes() == b"step,seconds,actor/bc\r\n5,1.00,0.5\r\n"


def test_resuming_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = CSVLog(path, 0)
    for step in (5, 10, 15):
        log.write(report(step, actor_bc=step))
    resumed = CSVLog(path, 10)
    assert [row["step"] for row in rows(path)] == ["5", "10"]
    resumed.write(report(15, actor_bc=0.5, critic_td=2.0))
    assert [(row["step"], row["actor/bc"], row["critic/td"]) for row in rows(path)] == [
        ("5", "5", ""),
        ("10", "10", ""),
        ("15", "0.5", "2"),
    ]


def test_a_row_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,seconds,a,b\n1,0.5,1,2\n2,1.0,3")
    CSVLog(path, 5).write(report(3, a=5.0))
    assert [row["step"] for row in rows(path)] == ["1", "3"]


def test_a_fresh_run_starts_a_fresh_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    CSVLog(path, 0).write(report(1, a=1.0))
    CSVLog(path, 0)
    assert rows(path) == []


def test_tensorboard_shows_the_same_and_forgets_the_same(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        for step in (5, 10, 15):
            log.write(report(step, critic_td=step))
    with Log(tmp_path, 10) as log:
        log.write(report(15, critic_td=99.0))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("critic/td")] == [(5, 5.0), (10, 10.0), (15, 99.0)]
    assert [row["critic/td"] for row in rows(tmp_path / "metrics.csv")] == ["5", "10", "99"]


def test_an_error_closes_the_log_and_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), Log(tmp_path, 0) as log:
        log.write(report(1, a=1.0))
        raise ValueError("boom")
    assert len(rows(tmp_path / "metrics.csv")) == 1
    assert EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("a")[0].value == 1


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log, Path("/dev/full").open("wb", buffering=0) as full:
        log.board._records._writer = full
        with pytest.raises(OSError, match=r"No space left on device: '.*/events.out.tfevents"):
            log.write(report(1, a=1.0))
        log.csv.path.unlink()
        log.csv.path.symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"No space left on device: '.*/metrics\.csv"):
            log.write(report(2, a=1.0))

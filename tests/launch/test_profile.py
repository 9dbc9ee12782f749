"""Where the time of a step goes."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from tests.tiny import CPU, make_learner, shrink, transitions

from benchmarks.cases import CASES, shrunk
from pixelrl.launch.commands.profile import profile_steps, sentences, summarise
from pixelrl.launch.recipes import cog, quick_cog_dr3
from pixelrl.learning.learner import Learner
from pixelrl.runtime.profiling import PREFIX, span


def event(name: str, start: float, end: float, kernels: tuple[float, ...] = ()) -> Any:
    """Return an event as torch's profiler has them [us]."""
    return SimpleNamespace(
        name=name,
        device_type=SimpleNamespace(name="CPU"),
        time_range=SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start),
        kernels=[SimpleNamespace(duration=each) for each in kernels],
    )


EVENTS = [
    event(PREFIX + "step", 0, 1000),
    event(PREFIX + "draw", 0, 100),
    event(PREFIX + "td", 200, 600),
    event(PREFIX + "encoding", 250, 450),
    event("aten::conv2d", 300, 310, kernels=(50, 20)),
    event(PREFIX + "backward critic", 600, 900),
    event("aten::convolution_backward", 650, 660, kernels=(130,)),  # in another thread, as CUDA's backward passes are
    event("aten::_local_scalar_dense", 950, 960),
    event(PREFIX + "step", 1000, 2000),
]


def test_time_in_a_part_of_a_part_counts_once() -> None:
    summary = summarise(EVENTS, plain_ms=0.8, diagnostics_ms=0.1)
    ms = {name: part["ms"] for name, part in summary["parts"].items()}
    # two steps: 200 us of the first and all of the second lie between the parts
    expected = {"step": 0.6, "draw": 0.05, "td": 0.1, "encoding": 0.1, "backward critic": 0.15}
    assert ms == pytest.approx(expected)
    assert next(iter(ms)) == "step" and sum(part["share"] for part in summary["parts"].values()) == pytest.approx(1)
    assert summary["step_ms_profiled"] == pytest.approx(1.0) and summary["step_ms"] == 0.8


def test_kernels_belong_to_the_part_that_started_them() -> None:
    summary = summarise(EVENTS, plain_ms=0.8, diagnostics_ms=0.1)
    device = {name: part["device_ms"] for name, part in summary["parts"].items() if part["device_ms"]}
    assert device == pytest.approx({"encoding": 0.035, "backward critic": 0.065})
    assert summary["device_busy"] == pytest.approx(0.1 / 0.8) and summary["waits"] == 0.5
    said = " ".join(sentences(summary))
    assert "its batch in 5.0%" in said and "Kernels run in 12%" in said and "0.5 times a step" in said


@pytest.mark.parametrize("make", [quick_cog_dr3, cog])
def test_a_profile_of_real_steps(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = make_learner(shrink(make()))
    console = Console(width=100)
    summary = profile_steps(learner, transitions, tmp_path / "run", measure_every=100, console=console)
    assert json.loads((tmp_path / "run/profile.json").read_text()) == summary
    parts = summary["parts"]
    wanted = {"draw", "transfer", "obs", "encoding", "next_value", "td", "cql", "maximizeq", "guard", "target"}
    assert wanted | {"backward critic", "backward actor", "optimise critic", "optimise actor"} <= parts.keys()
    assert sum(part["share"] for part in parts.values()) == pytest.approx(1)
    assert summary["steps"] == 50 and summary["diagnostics_ms"] > 0 and summary["device_busy"] is None
    assert summary["replayed_ms"] > 0
    printed = capsys.readouterr().out
    assert "`train` replays what it has recorded:" in printed
    assert "backward critic" in printed and "encode s" in printed and "diagnostics, one step in 100" in printed
    with gzip.open(tmp_path / "run/trace.json.gz", "rt") as file:
        assert any(each.get("name") == PREFIX + "cql" for each in json.load(file)["traceEvents"])


@pytest.mark.parametrize("name", ["quick", "cog", "impala"])
def test_no_picture_is_copied_from_one_layout_to_another(name: str) -> None:
    """Nor are the maps that convolutions make of them; weights are, which are small."""
    case = shrunk(CASES[name]())
    learner, (batch,) = Learner(case.recipe, case.spec(), CPU), case.batches(1, CPU)
    learner.update(batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiled:
        learner.update(batch)
    events = list(profiled.events() or ())
    assert "aten::convolution_backward" in {event.name for event in events}
    copied = [event.input_shapes[0] for event in events if event.name == "aten::clone"]
    rows = {len(batch), 2 * len(batch)}  # of s, of s and s'
    assert not [shape for shape in copied if len(shape) == 4 and shape[0] in rows]


def test_names_cost_nothing_and_mean_nothing_without_a_profiler() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled, span("inside"):
        pass
    assert [each.name for each in profiled.events() or ()] == [PREFIX + "inside"]
    assert type(span("outside")).__name__ == "nullcontext"

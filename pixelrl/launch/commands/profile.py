"""`pixelrl train --profile`: where the time of a step goes, and what waits for what."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from pixelrl.learning.batch import Batch
from pixelrl.learning.execution import Capture, updater
from pixelrl.learning.recipe import Recipe
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.runtime.files import write_json
from pixelrl.launch.processor import Threads, make_learner, settle_kernels, settle_threads
from pixelrl.learning.learner import Learner
from pixelrl.training.run_directory import pick_device
from pixelrl.runtime.profiling import PREFIX, span

WARM, STEPS, MEASURED = 10, 50, 5
"""Steps before the profile, in it, and with diagnostics after it."""

MEASURE_EVERY = 100
"""Steps between two runs of the diagnostics, as `train` has it by default."""

LABELS = {
    "draw": "draw the batch",
    "transfer": "to the device",
    "obs": "augment s",
    "next_obs": "augment s'",
    "both_obs": "augment s and s'",
    "both_encodings": "encode s and s'",
    "both_state_embeddings": "critics' first layer in s and s'",
    "q_both": "Q(s, a) and Q(s', a')",
    "encodings": "split the encodings of s and s'",
    "encoding": "encode s",
    "next_encoding": "encode s'",
    "state_embedding": "critics' first layer in s",
    "q_data": "Q(s, a)",
    "policy": "policy in s",
    "next_policy": "policy in s'",
    "policy_action": "sample a ~ pi(s)",
    "q_policy": "Q(s, a ~ pi(s))",
    "next_action": "sample a' ~ pi(s')",
    "q_next": "Q(s', a')",
    "next_value": "target networks: encode s', Q(s', a')",
    "log_prob": "log pi(a | s)",
    "td_target": "TD target",
    "target": "move the target networks",
    "step": "between the parts",
}
"""What the parts of an update are called for a person; those of others go by their own names."""

WAITS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
"""Calls in which Python waits for the device."""


def profile_training(
    recipe: Recipe,
    data: Callable[[torch.device], Mixture],
    out: Path,
    *,
    device: str = "auto",
    threads: Threads = "auto",
    capture: Capture = "auto",
    console: Console,
) -> dict[str, Any]:
    """Profile a learner that is thrown away, on data that `data` opens, as `train` would train it."""
    where = pick_device(device)
    mixture = data(where)
    make = partial(make_learner, recipe, mixture.spec, where, settle_kernels(recipe, where, None))
    settle_threads(threads, where, None, make, mixture.batch)
    return profile_steps(make(), mixture.batch, out, measure_every=MEASURE_EVERY, console=console, capture=capture)


def profile_steps(
    learner: Learner,
    batch_at: Callable[[int], Batch],
    out: Path,
    *,
    measure_every: int,
    console: Console,
    capture: Capture = "auto",
) -> dict[str, Any]:
    """Take some steps under torch's profiler, print a table, and write `profile.json` and `trace.json.gz` into `out`.

    The learner has moved afterwards: give one that may be thrown away.

    Args:
        learner: fresh; its warm-up terms are skipped.
        batch_at: the batch of a step.
        out: directory for the results.
        measure_every: over how many steps one run of the diagnostics is spread.
        console: where to print.
        capture: how `train` would take its steps; the parts are told of steps taken operation by operation.

    Returns:
        What `profile.json` holds: see `summarise`; and `replayed_ms`, None where nothing is replayed.
    """
    learner.step = max(learner.step, learner.recipe.warmup_steps)
    for _ in range(WARM):
        advance(learner, batch_at)
    plain = time_steps(learner, lambda: advance(learner, batch_at))
    with profile(activities=activities(learner.device)) as steps:
        for _ in range(STEPS):
            advance(learner, batch_at)
        synchronised(learner.device)
    with profile(activities=activities(learner.device)) as measured:
        for _ in range(MEASURED):
            advance(learner, batch_at, measure=True)
        synchronised(learner.device)
    replayed = time_replayed(learner, batch_at, capture)  # last: it may change the kernels
    diagnostics = [each for each in measured.events() or () if each.name == PREFIX + "diagnostics"]
    spent = sum(each.time_range.elapsed_us() for each in diagnostics) / MEASURED / measure_every / 1e3
    summary = summarise(steps.events() or (), plain_ms=plain, diagnostics_ms=spent) | {"replayed_ms": replayed}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "profile.json", summary)
    steps.export_chrome_trace(str(out / "trace.json.gz"))
    console.print(draw(summary, measure_every))
    for line in sentences(summary):
        console.print(line, highlight=False)
    console.print(f"{out}: profile.json holds the figures; open trace.json.gz in ui.perfetto.dev", highlight=False)
    return summary


def time_steps(learner: Learner, step: Callable[[], object]) -> float:
    """Return what a step takes [ms]."""
    start = synchronised(learner.device)
    for _ in range(STEPS):
        step()
    return (synchronised(learner.device) - start) / STEPS * 1e3


def time_replayed(learner: Learner, batch_at: Callable[[int], Batch], capture: Capture) -> float | None:
    """Return what a step takes as `train` takes it [ms], if it replays what it has recorded."""
    update = updater(learner, capture)
    if update == learner.update:
        return None

    def step() -> None:
        update(batch_at(learner.step).to(learner.device))

    for _ in range(WARM):
        step()
    return time_steps(learner, step)


def advance(learner: Learner, batch_at: Callable[[int], Batch], *, measure: bool = False) -> None:
    """Take a step as the training loop does, with names for its parts."""
    with span("step"):
        with span("draw"):
            batch = batch_at(learner.step)
        with span("transfer"):
            batch = batch.to(learner.device)
        learner.update(batch, measure=measure)


def synchronised(device: torch.device) -> float:
    """Wait for the device, and return the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def activities(device: torch.device) -> list[ProfilerActivity]:
    """Return what to record."""
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def summarise(events: Any, *, plain_ms: float, diagnostics_ms: float) -> dict[str, Any]:
    """Share the time out among the named parts: what a part spends in another one counts for the other alone.

    Args:
        events: of torch's profiler.
        plain_ms: milliseconds a step without a profiler.
        diagnostics_ms: milliseconds a step of the diagnostics.

    Returns:
        `step_ms`, and `step_ms_profiled`, of which `parts` are the pieces: name -> `ms` and `share`, on a GPU also
        `device_ms`, the time of the kernels that the part started; `diagnostics_ms`; `waits`: how often a step waits
        for the device; `device_busy`: the share of the time in which kernels run, None on a CPU.
    """
    spans = sorted(
        (each for each in events if each.name.startswith(PREFIX) and each.device_type.name == "CPU"),
        key=lambda each: (each.time_range.start, -each.time_range.end),
    )
    count = sum(each.name == PREFIX + "step" for each in spans)
    mine: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    open_spans: list[Any] = []
    marks = sorted([*spans, *(each for each in events if each.kernels)], key=lambda each: each.time_range.start)
    for each in marks:  # in order of time: the innermost span that is open when something starts is its own
        while open_spans and open_spans[-1].time_range.end <= each.time_range.start:
            open_spans.pop()
        if each.name.startswith(PREFIX):
            mine[each.name] += each.time_range.elapsed_us()
            if open_spans:
                mine[open_spans[-1].name] -= each.time_range.elapsed_us()
            open_spans.append(each)
        elif open_spans:
            kernels[open_spans[-1].name] += sum(kernel.duration for kernel in each.kernels)
    total = sum(mine.values())
    busy = sum(kernels.values())
    parts: dict[str, Any] = {}
    for name, spent in mine.most_common():
        part = {"ms": spent / count / 1e3, "share": spent / total}
        parts[name.removeprefix(PREFIX)] = part | ({"device_ms": kernels[name] / count / 1e3} if busy else {})
    return {
        "steps": count,
        "step_ms": plain_ms,
        "step_ms_profiled": total / count / 1e3,
        "diagnostics_ms": diagnostics_ms,
        "waits": sum(each.name in WAITS for each in events) / count,
        "device_busy": busy / count / 1e3 / plain_ms if busy else None,
        "parts": parts,
    }


def draw(summary: dict[str, Any], measure_every: int) -> Table:
    """Return the table that a person reads."""
    title = f"{summary['step_ms']:.2f} ms a step ({summary['step_ms_profiled']:.2f} ms under the profiler)"
    table = Table(title=title)
    device = summary["device_busy"] is not None
    for label in ("part of a step", "ms", "share", *(["kernels ms"] if device else [])):
        table.add_column(label, justify="left" if label.startswith("part") else "right")
    for name, part in summary["parts"].items():
        figures = [f"{part['ms']:.3f}", f"{part['share']:.1%}"]
        table.add_row(LABELS.get(name, name), *figures, *([f"{part['device_ms']:.3f}"] if device else []))
    table.add_section()
    share = summary["diagnostics_ms"] / summary["step_ms_profiled"]
    table.add_row(f"diagnostics, one step in {measure_every}", f"{summary['diagnostics_ms']:.3f}", f"{share:.1%}")
    return table


def sentences(summary: dict[str, Any]) -> list[str]:
    """Say what waits for what."""
    parts = summary["parts"]
    data = sum(parts[name]["share"] for name in ("draw", "transfer") if name in parts)
    said = [f"The learner waits for its batch in {data:.1%} of the time."]
    if summary.get("replayed_ms") is not None:
        ours = f"{summary['replayed_ms']:.2f} ms a step instead of {summary['step_ms']:.2f}"
        said.append(f"This is operation by operation; `train` replays what it has recorded: {ours}.")
    if summary["device_busy"] is None:
        return [*said, "All of it is computed on the CPU: nothing waits for another device."]
    busy = summary["device_busy"]
    said.append(f"Kernels run in {busy:.0%} of the time; for the rest the GPU waits for Python to start the next one.")
    return [*said, f"Python waits for the GPU {summary['waits']:.1f} times a step."]

"""`pixelrl train --profile`: where the time of a step goes, by torch's own profiler."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile, record_function

from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.files import atomic_path, write_json
from pixelrl.training.diagnostics import measure
from pixelrl.training.execution import Execution, make_step

WARM_UP, STEPS = 10, 50
"""Steps before the profile, and in it."""


def profile_training(
    recipe: Recipe, mixture: Mixture, out: Path, *, device: torch.device, execution: Execution, console: Console
) -> list[dict[str, Any]]:
    """Profile a learner that is thrown away: print a table, and write `profile.json` and `trace.json.gz` into `out`.

    Warm-up terms are skipped. The parts of an update have names of their own in the table: the properties of
    `UpdateContext`, the terms, `backward ...`, `optimise ...`; a part counts what it calls, too.
    """
    learner = Learner(recipe, mixture.spec, device)
    learner.step = recipe.warmup_steps
    take_step = make_step(learner, execution)
    for step in range(WARM_UP):
        take_step(mixture.batch(step).to(device))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        for step in range(STEPS):
            with record_function("draw the batch"):
                batch = mixture.batch(step).to(device)
            with record_function("step"):
                take_step(batch)
        with record_function("diagnostics, once in a hundred steps"):
            measure(learner, batch)
    averages = profiler.key_averages()
    order = "device_time_total" if device.type == "cuda" else "cpu_time_total"
    console.print(averages.table(sort_by=order, row_limit=40, max_name_column_width=50))
    rows = [
        {
            "name": row.key,
            "calls_per_step": row.count / STEPS,
            "cpu_ms_per_step": row.cpu_time_total / STEPS / 1000,
            "self_cpu_ms_per_step": row.self_cpu_time_total / STEPS / 1000,
            "device_ms_per_step": row.device_time_total / STEPS / 1000,
        }
        for row in sorted(averages, key=lambda row: -row.cpu_time_total)
    ]
    write_json(out / "profile.json", rows)
    with atomic_path(out / "trace.json.gz") as temporary:
        profiler.export_chrome_trace(str(temporary))
    console.print(f"{out / 'profile.json'}; {out / 'trace.json.gz'} opens in chrome://tracing or ui.perfetto.dev")
    return rows

"""`pixelrl train --profile`: where the time of a step goes, by torch's own profiler."""

from torch.profiler import ProfilerActivity, profile, record_function

from pixelrl.launch.commands.train import Training
from pixelrl.launch.console import plain_console
from pixelrl.launch.torchrun import set_threads
from pixelrl.learning.learner import Learner
from pixelrl.runtime.distributed import SINGLE_PROCESS
from pixelrl.runtime.files import atomic_path, write_json
from pixelrl.training.diagnostics import measure
from pixelrl.training.execution import make_step
from pixelrl.training.run_directory import pick_device

WARM_UP, STEPS = 10, 50
"""Steps before the profile, and in it."""


def profile_training(options: Training) -> None:
    """Profile a learner that is thrown away: print a table, and write `profile.json` and `trace.json.gz` into `--out`.

    Warm-up terms are skipped. The parts of an update have names of their own in the table: the properties of
    `UpdateContext`, the terms, `backward ...`, `optimise ...`; a part counts what it calls, too.
    """
    device, recipe, out, console = pick_device(options.device), options.recipe, options.out, plain_console()
    set_threads(options.threads, device, None)
    mixture = options.load(device, SINGLE_PROCESS, console)
    learner = Learner(recipe, mixture.spec, device)
    learner.step = recipe.warmup_steps
    take_step = make_step(learner, options.execution)
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

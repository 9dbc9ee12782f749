"""`pixelrl bench learner`: what an update costs, beside its floor, its naive form and robomimic's CQL."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from rich.console import Console

from benchmarks.cases import CASES, Case, shrunk
from benchmarks.floor import gigaflop, graphed, record, replay
from benchmarks.ledger import case_record, note_ratio, print_case
from benchmarks.race import Clock, Contender, Result, Work, by_rounds, forget_peak, load, race
from benchmarks.robomimic_agreement import compare_losses
from benchmarks.robomimic_cql import (
    build_robomimic,
    conservative_term,
    robomimic_update,
    robomimics_batch,
    robomimics_recipe,
)
from benchmarks.tiled import tiled
from pixelrl.encoders.resnet import RobomimicResNet18
from pixelrl.learning.batch import Batch
from pixelrl.learning.learner import Learner
from pixelrl.runtime.seeding import derive
from pixelrl.terms.dr3 import DR3
from pixelrl.training.configuration import to_json
from pixelrl.training.diagnostics import measure
from pixelrl.training.execution import WARM_UP as WARM
from pixelrl.training.execution import Execution, make_step

MEASURE_EVERY = 100
"""How often `pixelrl train` runs the diagnostics by default."""

RATIOS = {
    "pixelrl / floor": ("pixelrl", "floor"),
    "pixelrl / modules": ("pixelrl", "modules"),
    "eager / floor": ("eager", "floor"),
    "graph / floor": ("graph", "floor"),
    "compiled / floor": ("compiled", "floor"),
    "pixelrl / tiled": ("pixelrl", "tiled"),
    "pixelrl / robomimic": ("pixelrl", "robomimic"),
    "pixelrl / robomimic fixed": ("pixelrl", "robomimic fixed"),
}
HOW: dict[str, Execution] = {
    "eager": "eager",
    "graph": "graph",
    "compiled": "compile",
}
"""How contenders take their steps; the others as `pixelrl train` does by default."""
AGREEMENT = 1e-4
"""How far apart, relative to their size, losses of the same work may be in fp32."""


def bench_learner(
    cases: Mapping[str, Case],
    *,
    device: torch.device,
    clock: Clock,
    threads: int,
    rounds: int,
    turn_seconds: float,
    robomimic_turns: int,
    skip: Sequence[str],
    compiled: bool,
    console: Console,
) -> dict[str, Any]:
    """Measure the cases one after another, print them, and return their JSON."""
    records: dict[str, Any] = {}
    for name, case in cases.items():
        contenders = {
            label: contender
            for label, contender in line_up(case, device, threads, robomimic_turns, compiled).items()
            if label not in skip
        }
        with console.status(name, refresh_per_second=1) as status:  # drawing takes time, too
            results = race(
                contenders,
                rounds=rounds,
                turn_seconds=turn_seconds,
                progress=lambda who, name=name: status.update(f"{name}: {who}"),  # type: ignore[misc]
            )
        made = case_record(results, RATIOS, clock)
        note_further(made, results, clock)
        made["load_per_core"] = load()
        made["case"] = to_json(case)
        records[name] = made
        print_case(name, made, console, rows=case.recipe.batch_size, unit="updates")
        for label, row in made["contenders"].items():
            print_facts(label, row, console)
    return records


def line_up(
    case: Case, device: torch.device, threads: int, robomimic_turns: int, compiled: bool
) -> dict[str, Contender]:
    """Return who takes part."""

    def contender(kind: str, case: Case = case) -> Contender:
        rehearsal = ("pixelrl", shrunk(CASES["quick"]()), str(device), threads)
        arguments = (kind, case, str(device), threads)
        return Contender(make=make, arguments=arguments, rehearsal=rehearsal, warm=WARM + 2)  # a graph is recorded then

    captured = ["graph"] if device.type == "cuda" else []
    if (captured or compiled) and not isinstance(case.recipe.encoder, RobomimicResNet18):  # its BatchNorm: see capture
        captured.append("compiled")
    chosen = {kind: contender(kind) for kind in ("pixelrl", "eager", *captured, "floor", "modules", "tiled")}
    if case.recipe.critic:
        chosen["with diagnostics"] = contender("with diagnostics")
    rest = tuple(term for term in case.recipe.critic if not isinstance(term, DR3))
    if rest != case.recipe.critic:
        chosen["without DR3"] = contender("pixelrl", replace(case, recipe=replace(case.recipe, critic=rest)))
    if case.robomimic:
        samples = conservative_term(case.recipe).uniform
        fixed = replace(case, recipe=robomimics_recipe(samples, case.recipe.batch_size, learned=False))
        for label, each in (("robomimic", case), ("robomimic fixed", fixed)):
            slow = contender("robomimic", each)
            chosen[label] = replace(slow, turns=robomimic_turns, warm=0)
    return chosen


def make(kind: str, case: Case, device: str, threads: int) -> Work:
    """Make one contender, in a process of its own."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    batches = case.batches(4, where)
    supply = cycle(batches)
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    if kind == "robomimic":
        return make_robomimic(case, batches[0], where, wait)
    learner = Learner(case.recipe, case.spec(), where)
    if kind == "tiled":
        learner = tiled(learner)
    step = make_step(learner, HOW.get(kind, "eager"))
    measured = kind == "with diagnostics"

    def update() -> object:
        batch = next(supply)
        if measured:
            measure(learner, batch)
        return step(batch)

    def plain() -> object:
        return learner.update(next(supply))

    if kind in ("floor", "modules"):
        floor = replay(record(plain), modules=kind == "modules")
        return Work(unit=graphed(floor) if kind == "floor" and where.type == "cuda" else floor, wait=wait)
    facts = {"gigaflop": gigaflop(plain)}
    if where.type == "cuda":
        facts["kernel_share"] = kernel_share(update)
    return Work(unit=update, wait=wait, facts=facts)


def make_robomimic(case: Case, batch: Batch, device: torch.device, wait: Callable[[], None]) -> Work:
    """Make robomimic's CQL, and compare its losses with ours, which warms it up."""
    warnings.filterwarnings("ignore", module="robomimic|torchvision")  # deprecations, again and again
    torch.manual_seed(derive(0, "robomimic"))
    spec = case.spec()
    algo = build_robomimic(case.recipe, spec, device)
    given = robomimics_batch(batch, spec)
    pairs: dict[str, tuple[float, float]] = {}

    def both() -> None:
        pairs.update(compare_losses(case.recipe, spec, batch, algo))

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        operations = gigaflop(both)
    operations -= gigaflop(lambda: Learner(case.recipe, spec, device).update(batch))
    apart = {name: abs(one - other) / max(abs(other), 1.0) for name, (one, other) in pairs.items()}
    facts = {"gigaflop": operations, "losses": {name: list(pair) for name, pair in pairs.items()}, "apart": apart}
    forget_peak()  # ours was in it
    return Work(unit=lambda: robomimic_update(algo, given), wait=wait, facts=facts)


def note_further(record: dict[str, Any], results: Mapping[str, Result], clock: Clock) -> None:
    """Note an update with DR3 and diagnostics over one without, and its operations over those of other forms.

    The diagnostics run once in `MEASURE_EVERY` updates.
    """
    bare = "without DR3" if "without DR3" in results else "pixelrl"
    named = ("pixelrl", "eager", "with diagnostics", bare)
    if set(named) <= results.keys():
        rounds = by_rounds([results[name] for name in named], clock)
        costs = [(ours + max(all_ - eager, 0.0) / MEASURE_EVERY) / rest for ours, eager, all_, rest in rounds]
        note_ratio(record, "with / without DR3 and diagnostics", costs)
    work = {name: result.facts["gigaflop"] for name, result in results.items() if "gigaflop" in result.facts}
    for other in ("tiled", "robomimic"):
        if {"pixelrl", other} <= work.keys():
            record["ratios"][f"operations, pixelrl / {other}"] = work["pixelrl"] / work[other]


def print_facts(label: str, row: Mapping[str, Any], console: Console) -> None:
    """Print what else is known of a contender."""
    if "gigaflop" in row:
        console.print(f"  {label}: {row['gigaflop']:,.4g} GFLOP an update")
    if "kernel_share" in row:
        console.print(f"  {label}: kernels run in {row['kernel_share']:.0%} of the time")
    if "apart" in row:
        losses = [name for name in row["apart"] if name in ("td", "cql", "policy")]
        worst = max(row["apart"][name] for name in losses)
        verdict = "the same work" if worst <= AGREEMENT else f"NOT the same work (at most {AGREEMENT:.0e} is)"
        console.print(f"  {label}: {', '.join(losses)} losses agree to {worst:.1e}: {verdict}")


def kernel_share(update: Callable[[], object], updates: int = 20) -> float:
    """Return the share of the time in which kernels run on the GPU, by torch's profiler; one stream is assumed."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(WARM + 2):
        update()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start = time.perf_counter()
        for _ in range(updates):
            update()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    busy = sum(event.self_device_time_total for event in profiler.key_averages())  # [us]
    return float(busy / 1e6 / seconds)

"""`python -m benchmarks.learner [CASE ...]`: what an update costs beside its floor, its naive form and robomimic's."""

import time
import warnings
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from benchmarks.cases import CASES, Case, named_case
from benchmarks.floor import floor, gigaflop
from benchmarks.ledger import case_record, command_line, print_case, write_ledger
from benchmarks.robomimic_cql import (
    build_robomimic,
    compare_losses,
    conservative_term,
    robomimic_update,
    robomimics_batch,
    robomimics_recipe,
)
from benchmarks.tiled import tiled
from benchmarks.turns import DEFAULTS, Contender, Options, Work, take_turns
from pixelrl.launch.provenance import Provenance, cores
from pixelrl.learning.learner import Learner
from pixelrl.runtime.seeding import derive
from pixelrl.training.configuration import to_json
from pixelrl.training.execution import WARM_UP, Execution, make_step
from pixelrl.training.run_directory import pick_device

WAYS: tuple[Execution, ...] = ("eager", "compile", "graph")
OTHERS = ("floor", "tiled", "robomimic", "robomimic fixed")

AGREEMENT = 1e-4
"""How far apart, relative to their size, losses of the same work may be in fp32."""

COLUMNS = {
    "updates/s": "per_second",
    "CPU s": "cpu_seconds",
    "GFLOP": "gigaflop",
    "peak MiB": "peak_mib",
    "GPU MiB": "gpu_peak_mib",
    "first steps [s]": "first_steps_seconds",
}


def main(
    cases: Positional[tuple[str, ...]] = CASES,
    /,
    options: OmitArgPrefixes[Options] = DEFAULTS,
    threads: int | None = None,
    device: str = "auto",
) -> None:
    """Measure updates on random pictures; no data are read. Ratios are costs: less is better.

    eager, compile, graph (on CUDA): as `train --execution` has it. floor: the same convolutions and matrix products,
    forward and backward, and nothing else (on CUDA as a graph). tiled: the observation repeated, and encoded anew, for
    every sampled action. robomimic: its CQL, whose losses are compared with ours first, on the same weights and
    actions; "robomimic fixed" is without its learned weight.

    Args:
        cases: quick (quick_cog_dr3, 48 px), cog (cog_dr3, 48 px), impala (the same with IMPALA-small, 64 px, 3 frames),
            robomimic (its nets, ResNet-18, 84 px, batch 16), or RECIPE[:ENCODER[:PIXELS[:FRAMES[:BATCH_SIZE]]]].
        options: how it is measured.
        threads: of each contender on the CPU; default: one a core.
        device: auto (CUDA where there is one), cpu, cuda, cuda:1, ...
    """
    provenance, where = Provenance(seed=0), pick_device(device)
    chosen, threads = {name: named_case(name) for name in cases}, threads or cores()
    if options.quick:
        options, threads = replace(options, rounds=1, turn_seconds=0.01), 1
        chosen = {name: case.shrunk() for name, case in chosen.items()}
    clock = options.clock or ("wall" if where.type == "cuda" else "cpu")
    records = {}
    for name, case in chosen.items():
        contenders = line_up(case, str(where), threads)
        compared = "robomimic" in contenders and "robomimic" not in options.skip
        agreement = compare(case, where) if compared else {}
        results = take_turns(name, contenders, options)
        pairs = {f"{way} / {other}": (way, other) for way in WAYS for other in OTHERS}
        record = case_record(results, pairs, clock) | {"case": to_json(case)} | agreement
        work = {label: result.facts["gigaflop"] for label, result in results.items()}
        for other in work.keys() & {"tiled", "robomimic"} if "eager" in work else ():
            record["ratios"][f"operations, eager / {other}"] = work["eager"] / work[other]
        print_case(f"{name}, {threads} threads", record, COLUMNS)
        if agreement:
            worst = max(agreement["losses_apart"][key] for key in ("td", "cql", "policy"))
            verdict = "the same work" if worst <= AGREEMENT else f"NOT the same work (at most {AGREEMENT:.0e} is)"
            Console().print(f"  our losses and robomimic's agree to {worst:.1e}: {verdict}", highlight=False)
        records[name] = record
    settings = {"device": where.type, "threads": threads, "torch": str(torch.__version__)}
    write_ledger("learner", records, options, clock, provenance, **settings)


def line_up(case: Case, device: str, threads: int) -> dict[str, Contender]:
    """Return who takes part."""

    def contender(kind: str, case: Case = case) -> Contender:
        rehearsal = ("eager", named_case("quick").shrunk(), device, threads)
        return Contender(make=make, arguments=(kind, case, device, threads), rehearsal=rehearsal)

    ways = [way for way in WAYS if way != "graph" or device.startswith("cuda")]
    chosen = {kind: contender(kind) for kind in (*ways, "floor", "tiled")}
    if case.robomimic:
        samples, size = conservative_term(case.recipe).uniform, case.recipe.batch_size
        fixed = replace(case, recipe=robomimics_recipe(samples, size, learned=False))
        chosen |= {"robomimic": contender("robomimic"), "robomimic fixed": contender("robomimic", fixed)}
    return chosen


def make(kind: str, case: Case, device: str, threads: int) -> Work:
    """Make one contender, in a process of its own."""
    torch.set_num_threads(threads)
    where, spec = torch.device(device), case.spec()
    batches = case.batches(4, where)
    supply = cycle(batches)
    wait = torch.cuda.synchronize if where.type == "cuda" else lambda: None
    if kind == "robomimic":
        algo, given = make_robomimic(case, where), robomimics_batch(batches[0], spec)
        operations = gigaflop(lambda: robomimic_update(algo, given))
        return Work(unit=lambda: robomimic_update(algo, given), wait=wait, facts={"gigaflop": operations})
    learner = Learner(case.recipe, spec, where)
    if kind == "tiled":
        learner = tiled(learner)

    def eager() -> object:
        return learner.update(next(supply))

    facts: dict[str, Any] = {"gigaflop": gigaflop(eager)}
    if kind == "floor":
        return Work(unit=floor(eager, graph=where.type == "cuda"), wait=wait, facts=facts)
    if kind == "compile":  # what a user waits for the first time
        torch.compiler.config.force_disable_caches = True
    step = make_step(learner, kind if kind in WAYS else "eager")
    start = time.perf_counter()
    for _ in range(WARM_UP + 1):  # by then it is compiled, or captured
        step(next(supply))
    wait()  # type: ignore[no-untyped-call]
    facts["first_steps_seconds"] = time.perf_counter() - start
    return Work(unit=lambda: step(next(supply)), wait=wait, facts=facts)


def make_robomimic(case: Case, device: torch.device) -> Any:
    """Make robomimic's CQL."""
    warnings.filterwarnings("ignore", module="robomimic|torchvision")  # deprecations, again and again
    torch.manual_seed(derive(0, "robomimic"))
    return build_robomimic(case.recipe, case.spec(), device)


def compare(case: Case, device: torch.device) -> dict[str, Any]:
    """Return our and robomimic's losses on the same weights, and how far apart they are, relative to max(1, loss)."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pairs = compare_losses(case.recipe, case.spec(), case.batches(1, device)[0], make_robomimic(case, device))
    apart = {name: abs(one - other) / max(abs(other), 1.0) for name, (one, other) in pairs.items()}
    return {"losses": {name: list(pair) for name, pair in pairs.items()}, "losses_apart": apart}


if __name__ == "__main__":
    command_line(main)

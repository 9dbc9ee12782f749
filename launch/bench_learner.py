"""`pixelrl bench learner`: what an update costs, beside its floor, its naive form and robomimic's CQL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from rich.console import Console

from pixelrl.batch import ActionDim, Batch, Observation, Spec
from pixelrl.config import Recipe, to_json
from pixelrl.errors import PixelrlError
from pixelrl.launch.bench_floor import gigaflop, record, replay
from pixelrl.launch.bench_ledger import case_record, print_case
from pixelrl.launch.bench_race import Clock, Contender, Work, load, race
from pixelrl.launch.bench_robomimic import (
    build_robomimic,
    compare_losses,
    conservative_term,
    robomimic_update,
    robomimics_batch,
    robomimics_recipe,
)
from pixelrl.launch.bench_tiled import tiled
from pixelrl.launch.recipes import ENCODERS, RECIPES
from pixelrl.learner import Learner
from pixelrl.seeding import derive
from pixelrl.terms.dr3 import DR3

MEASURE_EVERY = 100
"""How often `pixelrl train` runs the diagnostics by default."""

RATIOS = {
    "pixelrl / floor": ("pixelrl", "floor"),
    "pixelrl / tiled": ("pixelrl", "tiled"),
    "pixelrl / robomimic": ("pixelrl", "robomimic"),
    "pixelrl / robomimic, weight fixed": ("pixelrl", "robomimic, weight fixed"),
}
AGREEMENT = 1e-4
"""How far apart, relative to their size, losses of the same work may be in fp32."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An update to measure: a recipe, and the shape of its pictures.

    Attributes:
        recipe: warm-up is left out, so that the main terms are measured.
        size: height and width of the pictures [px].
        frames: how many are stacked, of 3 channels each.
        actions: length of an action.
        robomimic: whether robomimic's CQL is the same work.
    """

    recipe: Recipe
    size: int
    frames: int = 1
    actions: int = 7
    robomimic: bool = False

    def spec(self) -> Spec:
        """Return the shapes."""
        dims = tuple(ActionDim(name=f"a{index}") for index in range(self.actions))
        images = {"camera_image": (3 * self.frames, self.size, self.size)}
        sources = ("task", "prior")
        return Spec(images=images, proprio={}, action=dims, sources=sources, proprio_mean=(), proprio_std=())

    def batches(self, count: int, device: torch.device) -> list[Batch]:
        """Return random batches on the device: what data cost is not measured here."""
        generator = torch.Generator().manual_seed(derive(0, "bench"))
        size, shape = self.recipe.batch_size, self.spec().images["camera_image"]
        rows = torch.arange(size)

        def observe() -> Observation:
            picture = torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
            return Observation(images={"camera_image": picture}, proprio=torch.empty(size, 0))

        made = [
            Batch(
                obs=observe(),
                action=torch.rand(size, self.actions, generator=generator) * 1.8 - 0.9,
                reward=(rows % 8 == 0).float(),
                discount=self.recipe.gamma * (rows % 8 > 0).float(),
                next_obs=observe(),
                source=rows % 2,
            )
            for _ in range(count)
        ]
        return [batch.to(device) for batch in made]


def named_case(
    recipe: Recipe, *, size: int, frames: int = 1, encoder: str | None = None, batch_size: int | None = None
) -> Case:
    """Return a case of a recipe without its warm-up, with another encoder or batch size if asked for."""
    chosen = recipe.encoder if encoder is None else ENCODERS[encoder]()
    rows = batch_size or recipe.batch_size
    plain = replace(recipe, warmup=(), warmup_steps=0, encoder=chosen, batch_size=rows)
    return Case(recipe=plain, size=size, frames=frames)


CASES: dict[str, Callable[[], Case]] = {
    "quick": lambda: named_case(RECIPES["quick_cog_dr3"](), size=48),
    "cog": lambda: named_case(RECIPES["cog_dr3"](), size=48),
    "impala": lambda: named_case(RECIPES["cog_dr3"](), size=64, frames=3, encoder="impala"),
    "robomimic": lambda: Case(recipe=robomimics_recipe(), size=84, robomimic=True),
}


def chosen_cases(
    names: Sequence[str],
    recipe: str | None,
    *,
    size: int,
    frames: int,
    encoder: str | None,
    batch_size: int | None,
) -> dict[str, Case]:
    """Return the cases of these names (all if none), or the one of a recipe.

    Raises:
        PixelrlError: there is no such case, recipe or encoder.
    """
    for option, name, known in (("--recipe", recipe, RECIPES), ("--encoder", encoder, ENCODERS)):
        if name is not None and name not in known:
            raise PixelrlError(f"{option}: there is none named {name!r}, but: {', '.join(known)}")
    if unknown := [name for name in names if name not in CASES]:
        raise PixelrlError(f"there is no case {unknown[0]!r}, but: {', '.join(CASES)}")
    if recipe is not None:
        made = named_case(RECIPES[recipe](), size=size, frames=frames, encoder=encoder, batch_size=batch_size)
        label = f"{recipe}, {type(made.recipe.encoder).__name__}, {size} px x {frames}, {made.recipe.batch_size}"
        return {label: made}
    return {name: CASES[name]() for name in names or CASES}


def shrunk(case: Case) -> Case:
    """Return a case for which every contender takes a moment."""
    if case.robomimic:
        return replace(case, recipe=robomimics_recipe(actions=2, batch_size=3), size=48)
    small = {"critic_hidden": (16, 8), "actor_hidden": (16,), "batch_size": 4}
    return replace(case, recipe=replace(case.recipe, **small))  # type: ignore[arg-type]


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
    console: Console,
) -> dict[str, Any]:
    """Measure the cases one after another, print them, and return their JSON."""
    records: dict[str, Any] = {}
    for name, case in cases.items():
        contenders = {
            label: contender
            for label, contender in line_up(case, device, threads, robomimic_turns).items()
            if label.partition(",")[0] not in skip
        }
        with console.status(name) as status:
            results = race(
                contenders,
                rounds=rounds,
                turn_seconds=turn_seconds,
                preload=("torch._dynamo",),  # torch's optimisers import it
                progress=lambda who, name=name: status.update(f"{name}: {who}"),  # type: ignore[misc]
            )
        made = case_record(results, RATIOS, clock)
        made["ratios"] |= shares(results, clock)
        made["load_per_core"] = load()
        made["case"] = to_json(case)
        records[name] = made
        print_case(name, made, console, rows=case.recipe.batch_size, unit="updates")
        for label, row in made["contenders"].items():
            print_facts(label, row, console)
    return records


def line_up(case: Case, device: torch.device, threads: int, robomimic_turns: int) -> dict[str, Contender]:
    """Return who takes part."""

    def contender(kind: str, case: Case = case) -> Contender:
        rehearsal = ("pixelrl", shrunk(CASES["quick"]()), str(device), threads)
        return Contender(make=make, arguments=(kind, case, str(device), threads), rehearsal=rehearsal)

    chosen = {kind: contender(kind) for kind in ("pixelrl", "floor", "tiled")}
    if case.recipe.critic:
        chosen["with diagnostics"] = contender("with diagnostics")
    rest = tuple(term for term in case.recipe.critic if not isinstance(term, DR3))
    if rest != case.recipe.critic:
        chosen["without DR3"] = contender("pixelrl", replace(case, recipe=replace(case.recipe, critic=rest)))
    if case.robomimic:
        fixed = replace(case, recipe=robomimics_recipe(conservative_term(case.recipe).uniform, case.recipe.batch_size, learned=False))
        for label, each in (("robomimic", case), ("robomimic, weight fixed", fixed)):
            slow = contender("robomimic", each)
            chosen[label] = replace(slow, turns=robomimic_turns, warm=False)
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
    measure = kind == "with diagnostics"

    def update() -> object:
        return learner.update(next(supply), measure=measure)

    if kind == "floor":
        return Work(unit=replay(record(update)), wait=wait)
    facts = {"gigaflop": gigaflop(update)}
    if where.type == "cuda":
        facts["kernel_share"] = kernel_share(update)
    return Work(unit=update, wait=wait, facts=facts)


def make_robomimic(case: Case, batch: Batch, device: torch.device, wait: Callable[[], None]) -> Work:
    """Make robomimic's CQL with the weights of `derive`d seeds, and compare its losses with ours, which warms it up."""
    torch.manual_seed(derive(0, "robomimic"))
    spec = case.spec()
    algo = build_robomimic(case.recipe, spec, device)
    given = robomimics_batch(batch, spec)
    pairs: dict[str, tuple[float, float]] = {}

    def both() -> None:
        pairs.update(compare_losses(case.recipe, spec, batch, algo))

    operations = gigaflop(both) - gigaflop(lambda: Learner(case.recipe, spec, device).update(batch))
    apart = {name: abs(one - other) / max(abs(other), 1.0) for name, (one, other) in pairs.items()}
    facts = {"gigaflop": operations, "losses": {name: list(pair) for name, pair in pairs.items()}, "apart": apart}
    return Work(unit=lambda: robomimic_update(algo, given), wait=wait, facts=facts)


def shares(results: Mapping[str, Any], clock: Clock) -> dict[str, float]:
    """Return what DR3 and the diagnostics cost: an update with both over one without, and operations over the tiled form's.

    The diagnostics run once in `MEASURE_EVERY` updates.
    """
    found = {}
    seconds = {name: result.seconds(clock) for name, result in results.items()}
    if {"pixelrl", "with diagnostics"} <= seconds.keys():
        extra = max(seconds["with diagnostics"] - seconds["pixelrl"], 0.0) / MEASURE_EVERY
        bare = seconds.get("without DR3", seconds["pixelrl"])
        found["with / without DR3 and diagnostics"] = (seconds["pixelrl"] + extra) / bare
    work = {name: result.facts["gigaflop"] for name, result in results.items() if "gigaflop" in result.facts}
    for other in ("tiled", "robomimic"):
        if {"pixelrl", other} <= work.keys():
            found[f"operations, pixelrl / {other}"] = work["pixelrl"] / work[other]
    return found


def print_facts(label: str, row: Mapping[str, Any], console: Console) -> None:
    """Print what else is known of a contender."""
    if "gigaflop" in row:
        rate = row["gigaflop"] * row["per_second"]
        console.print(f"  {label}: {row['gigaflop']:,.4g} GFLOP an update, {rate:,.0f} GFLOP/s")
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

    for _ in range(3):
        update()
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start.record()  # type: ignore[no-untyped-call]
        for _ in range(updates):
            update()
        end.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    busy = sum(event.self_device_time_total for event in profiler.key_averages())  # [us]
    return busy / 1e3 / start.elapsed_time(end)  # type: ignore[no-any-return, no-untyped-call]

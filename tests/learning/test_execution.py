"""Recorded steps are the steps that would have been taken, and nothing in a step waits for the device."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pixelrl.launch.recipes import RECIPES, cog_dr3, quick_cog_dr3
from pixelrl.learning.batch import Metrics
from pixelrl.learning.execution import WARM, Capture, Captured, Taped, capturable, updater
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.loop import train
from tests.tiny import CPU, SPEC, learn, make_learner, same, shrink, transitions

WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero", "item"}
"""Operations whose result, or whose shape, Python must read from the device."""


class NeverWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fail where a GPU would be waited for, or where a tensor of numbers is made on the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITS, f"{name} waits for the device"
        assert name != "lift_fresh", "torch.tensor() copies from the host"
        indices = args[1] if name in ("index", "index_put_") else ()
        assert not any(each is not None and each.dtype == torch.bool for each in indices), f"{name} by a mask waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_nothing_in_a_step_waits_for_the_device(make: Callable[[], Recipe], precision: str) -> None:
    learner = make_learner(shrink(make(), precision=precision, warmup_steps=0))
    learn(learner, 1)  # optimisers and the loss scale set themselves up
    with NeverWaits():
        learner.update(transitions(1))


def test_the_watch_sees_what_waits() -> None:
    numbers = torch.arange(3.0)
    for waits in (
        lambda: float(numbers.sum()),
        lambda: bool((numbers > 1).any()),
        lambda: numbers[numbers > 1],
        lambda: torch.tensor([1.0]),
        lambda: numbers.nonzero(),
    ):
        with pytest.raises(AssertionError), NeverWaits():
            waits()


def by_hand(work: Callable[[], Metrics]) -> tuple[Callable[[], object], Metrics]:
    """Record as a graph does: the work is done when it is replayed, and overwrites the same metrics."""
    metrics: Metrics = {}
    return lambda: metrics.update(work()), metrics


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_recorded_steps_are_the_steps_that_would_have_been_taken(precision: str) -> None:
    recipe = shrink(quick_cog_dr3(), warmup_steps=5, steps=12, precision=precision)
    plain, recorded = make_learner(recipe), make_learner(recipe)
    step, told = Captured(recorded, by_hand), []
    for number in range(12):
        measure = number in (4, 10)
        metrics = plain.update(transitions(number), measure=measure)
        again = step(transitions(number), measure=measure)
        assert again.keys() == metrics.keys() and all(torch.equal(again[key], metrics[key]) for key in metrics)
        told.append(id(again))
    assert same(plain.networks, recorded.networks) and recorded.step == 12
    assert torch.equal(plain.generator.get_state(), recorded.generator.get_state())
    assert len(step._recordings) == 2  # with the warm-up's terms, and with the others
    assert told[WARM] != told[8] == told[9] == told[11]


def test_the_loop_takes_recorded_steps() -> None:
    learner = make_learner(shrink(quick_cog_dr3()))
    assert isinstance(updater(learner, "auto"), Taped) and isinstance(updater(learner, "tape"), Taped)
    with pytest.raises(PixelrlError, match="--capture graph, on cpu with 1 ranks: it needs CUDA, and one rank"):
        next(train(learner, transitions, 2, measure_every=1, capture="graph"))
    assert updater(learner, "none") == learner.update


def test_optimisers_are_capturable_only_while_they_are_recorded() -> None:
    learner = make_learner(shrink(quick_cog_dr3()))
    sides = (learner.critic.optimiser, learner.actor.optimiser, learner.actor.dual_optimiser)
    with capturable(learner):
        assert all(group["capturable"] for each in sides if each for group in each.param_groups)
    assert not any(group["capturable"] for each in sides if each for group in each.param_groups)


def test_a_batch_names_all_its_tensors() -> None:
    batch = transitions()
    assert len(batch.tensors) == 6 + 2 * 3  # two observations of two cameras and proprioception
    assert not any(each.any() for each in batch.map(torch.zeros_like).tensors)
    assert batch.to(CPU).action is batch.action


# On a GPU


def on_cuda(recipe: Recipe) -> Learner:
    return Learner(recipe, SPEC, torch.device("cuda"))


def agree_on_cuda(recipe: Recipe, how: Capture, rtol: float, atol: float) -> None:
    """Take steps kernel by kernel, and in another way, and compare all that they tell and leave behind."""
    plain, other = on_cuda(recipe), on_cuda(recipe)
    step = updater(other, how)
    for number in range(20):
        batch = transitions(number).to(plain.device)
        told, again = plain.update(batch), step(batch)
        assert again.keys() == told.keys()
        for key, value in told.items():
            torch.testing.assert_close(
                again[key], value, rtol=rtol, atol=atol, msg=lambda said, key=key: f"{key}: {said}"
            )
    for a, b in zip(plain.networks.parameters(), other.networks.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
    assert torch.equal(plain.generator.get_state(), other.generator.get_state())
    assert plain.skipped() == other.skipped()


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["graph", "tape"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_a_graph_gives_the_numbers_of_kernels_one_by_one(
    make: Callable[[], Recipe], precision: str, how: Capture
) -> None:
    recipe = shrink(make(), warmup_steps=6 if make().warmup else 0, steps=20, precision=precision)
    agree_on_cuda(recipe, how, rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("make", [cog_dr3, quick_cog_dr3])
def test_compiled_kernels_give_the_same_numbers_but_for_rounding(make: Callable[[], Recipe]) -> None:
    agree_on_cuda(
        shrink(make(), warmup=(), warmup_steps=0, steps=20, precision="fp32"), "compile", rtol=1e-2, atol=1e-4
    )


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["graph", "compile"])
def test_every_replay_draws_fresh_noise(how: Capture) -> None:
    recipe = replace(shrink(quick_cog_dr3(), warmup_steps=0), critic_lr=0.0, actor_lr=0.0, tau=0.0)
    step, batch = updater(on_cuda(recipe), how), transitions().to(torch.device("cuda"))
    seen = [step(batch)["critic/cql/gap"].item() for _ in range(WARM + 4)]
    assert len(set(seen)) == len(seen)


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["graph", "tape"])
def test_a_replay_never_waits_for_the_gpu(how: Capture) -> None:
    learner = on_cuda(shrink(quick_cog_dr3(), warmup_steps=0))
    step, batch = updater(learner, how), transitions().to(learner.device)
    for _ in range(WARM + 1):
        step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch)
        learner.update(batch)  # nor does a step without a graph
    finally:
        torch.cuda.set_sync_debug_mode("default")

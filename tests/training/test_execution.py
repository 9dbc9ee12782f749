"""However a step is executed, it is the same step, and nothing in it waits for the device."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.utils import fresh_cache
from torch.utils._python_dispatch import TorchDispatchMode

from pixelrl.launch.recipes import RECIPES, cog_dr3, quick_bc, quick_cog_dr3
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.execution import WARM_UP, Execution, make_step
from pixelrl.training.loop import train
from tests.tiny import CPU, SPEC, learn, make_learner, shrink, transitions

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


def test_execution_is_eager_unless_told() -> None:
    learner = make_learner(shrink(quick_cog_dr3()))
    assert make_step(learner, "eager") == learner.update
    with pytest.raises(PixelrlError, match="--execution graph, on cpu with 1 ranks: it needs CUDA, and one rank"):
        next(train(learner, transitions, 2, measure_every=1, execution="graph"))


@pytest.mark.slow
@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_compiled_steps_give_the_same_numbers_but_for_rounding(make: Callable[[], Recipe]) -> None:
    recipe = shrink(make(), warmup=(), critic_warmup=(), warmup_steps=0)
    eager, compiled = make_learner(recipe), make_learner(recipe)
    step = make_step(compiled, "compile")
    for number in range(4):
        told, again = eager.update(transitions(number)), step(transitions(number))
        assert again.keys() == told.keys()
        for key, value in told.items():
            torch.testing.assert_close(
                again[key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
            )
    for a, b in zip(eager.networks.parameters(), compiled.networks.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert torch.equal(eager.generator.get_state(), compiled.generator.get_state())


def test_learners_of_one_process_are_compiled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with torch._dynamo.config.patch(recompile_limit=1):  # as after eight learners, or phases of one
        for width in (4, 5, 6):
            learner = make_learner(shrink(quick_bc(), actor_hidden=(width,)))
            step = make_step(learner, "compile")
            for number in range(2):
                step(transitions(number))
            assert learner.step == 2


def test_a_missing_compiler_is_one_line(tmp_path: Path) -> None:
    torch._dynamo.reset()  # what another test compiled would do
    step = make_step(make_learner(shrink(quick_bc())), "compile")
    with fresh_cache(dir=str(tmp_path)), torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        step(transitions(0))  # the first step is not compiled
        with pytest.raises(PixelrlError, match=r"compile: torch cannot compile \(.*no-such-compiler.*\); use .*eager$"):
            step(transitions(1))


def test_a_batch_names_all_its_tensors() -> None:
    batch = transitions()
    assert len(batch.tensors) == 6 + 2 * 3  # two observations of two cameras and proprioception
    assert not any(each.any() for each in batch.map(torch.zeros_like).tensors)
    assert batch.to(CPU).action is batch.action


# On a GPU


def on_cuda(recipe: Recipe) -> Learner:
    return Learner(recipe, SPEC, torch.device("cuda"))


def agree_on_cuda(recipe: Recipe, how: Execution, rtol: float, atol: float) -> None:
    """Take steps kernel by kernel, and in another way, and compare all that they tell and leave behind."""
    plain, other = on_cuda(recipe), on_cuda(recipe)
    step = make_step(other, how)
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
@pytest.mark.parametrize("how", ["graph"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_a_graph_gives_the_numbers_of_kernels_one_by_one(
    make: Callable[[], Recipe], precision: str, how: Execution
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
def test_every_replay_draws_fresh_noise(how: Execution) -> None:
    recipe = replace(shrink(quick_cog_dr3(), warmup_steps=0), critic_lr=0.0, actor_lr=0.0, tau=0.0)
    step, batch = make_step(on_cuda(recipe), how), transitions().to(torch.device("cuda"))
    seen = [step(batch)["critic/cql/gap"].item() for _ in range(WARM_UP + 4)]
    assert len(set(seen)) == len(seen)


@pytest.mark.cuda
@pytest.mark.parametrize("how", ["graph"])
def test_a_replay_never_waits_for_the_gpu(how: Execution) -> None:
    learner = on_cuda(shrink(quick_cog_dr3(), warmup_steps=0))
    step, batch = make_step(learner, how), transitions().to(learner.device)
    for _ in range(WARM_UP + 1):
        step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch)
        learner.update(batch)  # nor does a step without a graph
    finally:
        torch.cuda.set_sync_debug_mode("default")

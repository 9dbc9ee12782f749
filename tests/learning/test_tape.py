"""A tape does again what was done, bit for bit, with other inputs and fresh noise."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import DrqCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.launch.recipes import RECIPES, cog_dr3, quick_cog_dr3
from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext
from pixelrl.learning.execution import Taped, updater
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.tape import in_place, record
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.bc import BC
from pixelrl.terms.td import TD
from tests import tiny
from tests.tiny import CPU, SPEC, Calls, make_learner, same, shrink, transitions


def test_a_recording_takes_other_inputs_and_draws_anew() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([2.0, 3.0])

    def work(x: Tensor) -> dict[str, Any]:
        noise = torch.randn(2, generator=generator)
        return {"sum": [(x * scale).sum() + noise[0]], "noise": (noise, None)}

    first, recording = record(lambda: work(x), [x := torch.tensor([1.0, 10.0])])
    assert first["sum"][0] == 32 + first["noise"][0][0] and first["noise"][1] is None
    scale[0] = 4.0  # what lies outside is read anew
    again = recording([torch.tensor([1.0, 1.0])])
    generator.manual_seed(0)
    torch.randn(2, generator=generator)
    assert torch.equal(again["noise"][0], torch.randn(2, generator=generator))
    assert again["sum"][0] == 7 + again["noise"][0][0] and again["noise"][1] is None


def test_gradients_are_recorded_and_what_nobody_uses_is_not_done() -> None:
    layer = nn.Linear(3, 2)
    x = torch.randn(5, 3)

    def work() -> tuple[Tensor | None, ...]:
        layer(x).exp()
        return torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))

    _, recording = record(work, [x])
    other = torch.randn(5, 3)
    with Calls() as calls:
        weight, bias = recording([other])
    wanted = torch.autograd.grad(layer(other).square().sum(), list(layer.parameters()))
    assert torch.equal(weight, wanted[0]) and torch.equal(bias, wanted[1]) and not weight.requires_grad
    assert calls.names.count("addmm") == 1 and "exp" not in calls.names


def test_what_is_done_in_place_is_done_in_place_again() -> None:
    def work(x: Tensor) -> Tensor:
        y = x + 1
        y[1:].mul_(10)
        return torch.relu_(y) + y

    first, recording = record(lambda: work(x), [x := torch.tensor([1.0, 2.0, -3.0])])
    assert first.tolist() == [4, 60, 0] and recording([torch.tensor([0.0, -2.0, 1.0])]).tolist() == [2, 0, 40]


def test_only_what_nobody_reads_any_more_is_written_over() -> None:
    def work(x: Tensor) -> tuple[Tensor, ...]:
        half = x[:2] * 2  # x is an input: its view is not written over
        read_again = half + x[2:]
        own = read_again.exp().neg()  # nor what is returned
        folded = own.view(1, 2) * own.flip(0)
        return read_again, folded.squeeze(0).square() + half, (half.expand(3, 2) - 1).neg()  # nor what is too small

    x = torch.tensor([0.5, -1.0, 0.25, 2.0])
    wanted, recording = record(lambda: work(x), [x])
    before = x.clone()
    found = recording([x])
    assert torch.equal(x, before) and all(map(torch.equal, found, wanted))
    over = [(node.name, node.kwargs["out"].name) for node in in_place(recording.graph).graph.nodes if node.kwargs]
    assert over == [
        ("neg_default", "exp_default"),
        ("mul_tensor_1", "view_default"),
        ("add_tensor_1", "pow_tensor_scalar"),
        ("neg_default_1", "sub_tensor"),
    ]
    assert not any(node.kwargs for node in recording.graph.graph.nodes)


def agree(recipe: Recipe, steps: int = 9) -> None:
    """Take steps as usual and by a tape, and compare all that they tell and leave behind."""
    plain, taped = make_learner(recipe), make_learner(recipe)
    step = updater(taped, "tape")
    for number in range(steps):
        measure = number == 5
        metrics = plain.update(transitions(number), measure=measure)
        again = step(transitions(number), measure=measure)
        assert again.keys() == metrics.keys() and all(torch.equal(again[key], metrics[key]) for key in metrics)
    assert same(plain.networks, taped.networks) and taped.step == steps
    assert torch.equal(plain.generator.get_state(), taped.generator.get_state())
    assert torch.equal(plain.guard._notes, taped.guard._notes) and plain.guard._updates == taped.guard._updates
    for side in ("critic", "actor"):
        ours, theirs = getattr(plain, side).multipliers, getattr(taped, side).multipliers
        assert all(torch.equal(ours[key].log, theirs[key].log) for key in ours)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_every_recipe_learns_the_same_by_a_tape(make: Callable[[], Recipe], precision: str) -> None:
    agree(shrink(make(), precision=precision, warmup_steps=3 if make().warmup else 0, steps=9))


@pytest.mark.parametrize("encoder", [DrqCNN(), ImpalaCNN(), ResNet18(), RobomimicResNet18()])
def test_every_encoder_learns_the_same_by_a_tape(encoder: PixelEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "SPEC", replace(SPEC, images={"front_image": (3, 36, 36)}))
    monkeypatch.setattr(tiny.observation, "__defaults__", (0, 4, tiny.SPEC))
    agree(shrink(cog_dr3(), encoder=encoder, batch_size=4), steps=4)


def test_a_step_that_goes_wrong_is_noted_by_a_tape_too() -> None:
    learner = make_learner(shrink(quick_cog_dr3(), warmup_steps=0))
    step = updater(learner, "tape")
    for number in range(3):
        step(transitions(number))
    with torch.no_grad():
        next(learner.networks.critic.parameters()).fill_(float("nan"))
    step(transitions(3))
    with pytest.raises(Exception, match="step 4: critic/td is nan"):
        learner.check()


@dataclass(frozen=True, kw_only=True)
class Hasty(Term):
    """A term that looks at numbers."""

    how: Callable[[Tensor], Tensor]

    def __call__(self, update: UpdateContext) -> tuple[Tensor, Metrics]:
        return self.how(update.q_data.value), {}


LOOKS = {
    "if": lambda value: value.mean() if value.max() > 0 else value.sum(),
    "float": lambda value: value.mean() * float(value.detach().std()),
    "mask": lambda value: value[value > value.mean()].sum(),
    "list": lambda value: value.mean() * value.detach().tolist()[0][0],
    "array": lambda value: value.mean() * float(np.asarray(value.detach()).max()),
    "numpy": lambda value: value.mean() * float(value.detach().numpy().max()),
    "noise": lambda value: (value * torch.bernoulli(value.sigmoid(), generator=torch.Generator())).sum(),
    "nonzero": lambda value: value.flatten()[value.flatten().nonzero().squeeze(1)].mean(),
}


@pytest.mark.parametrize("how", LOOKS.values(), ids=LOOKS)
def test_a_term_that_decides_by_numbers_is_not_recorded(how: Callable[[Tensor], Tensor]) -> None:
    recipe = shrink(quick_cog_dr3(), critic=(TD(), Hasty(how=how)), warmup=(), warmup_steps=0)
    plain, other, strict = (make_learner(recipe) for _ in range(3))
    step, refused = updater(other, "auto"), updater(strict, "tape")
    for number in range(4):
        metrics = plain.update(transitions(number))
        with pytest.warns(UserWarning, match="critic/hasty: .*cannot follow") if number == 1 else nullcontext():
            again = step(transitions(number))
        assert all(torch.equal(again[key], metrics[key]) for key in metrics)
    assert same(plain.networks, other.networks)
    refused(transitions(0))
    with pytest.raises(PixelrlError, match=r"critic/hasty: .*use --capture none, or decide by torch.where"):
        refused(transitions(1))


def test_the_warm_up_and_what_follows_are_recorded_apart() -> None:
    """Even if they have the same terms, with other weights."""
    terms = {"warmup": (BC(weight=1.0),), "actor": (BC(weight=0.1),)}
    agree(shrink(quick_cog_dr3(), **terms, warmup_steps=3, steps=9))


def test_an_index_by_numbers_is_recorded() -> None:
    places = torch.tensor([2, 0])
    _, recording = record(lambda: x[places], [x := torch.tensor([1.0, 2.0, 3.0])])
    assert recording([torch.tensor([4.0, 5.0, 6.0])]).tolist() == [6, 4]


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler, and there is no g++")
def test_compiled_steps_are_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    recipe = shrink(quick_cog_dr3(), warmup=(), warmup_steps=0)
    plain, compiled = make_learner(recipe), make_learner(recipe)
    plain.networks.use_onednn(False)
    step = updater(compiled, "compile")
    for number in range(4):
        metrics, again = plain.update(transitions(number)), step(transitions(number))
        assert again.keys() == metrics.keys()
        for key, value in metrics.items():
            torch.testing.assert_close(
                again[key], value, rtol=1e-4, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
            )
    for ours, theirs in zip(plain.networks.parameters(), compiled.networks.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
    assert torch.equal(plain.generator.get_state(), compiled.generator.get_state())


def test_where_nothing_can_be_compiled_that_is_said() -> None:
    learner = make_learner(shrink(quick_cog_dr3(), warmup_steps=0))
    taped = Taped(learner, compiled=True)
    learner.update(transitions())
    learner.update(transitions(), derive=taped.find)

    def fail(*tensors: Tensor) -> None:
        raise RuntimeError("no compiler\nadvice")

    taped._recordings = {key: replace(each, run=fail) for key, each in taped._recordings.items() if each is not None}
    with pytest.raises(PixelrlError, match=r"--capture compile: Inductor failed \(no compiler\); use tape"):
        learner.update(transitions(), derive=taped.find)


def test_batch_statistics_are_not_compiled() -> None:
    learner = Learner(shrink(cog_dr3(), encoder=RobomimicResNet18()), replace(SPEC, images={"a": (3, 36, 36)}), CPU)
    with pytest.raises(PixelrlError, match=r"--capture compile: this encoder's BatchNorm.*use tape"):
        updater(learner, "compile")

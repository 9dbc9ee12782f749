"""Ranks that share every batch learn what one alone learns; here they are threads, and talk through gloo."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pixelrl.encoders.resnet import RobomimicResNet18
from pixelrl.launch.recipes import RECIPES, cog_dr3, quick_cog_dr3
from pixelrl.launch.torchrun import outliving
from pixelrl.learning.augment import random_shift
from pixelrl.learning.batch import Batch, Observation
from pixelrl.learning.build import fresh_networks
from pixelrl.learning.interventions import Intervention, ReDo
from pixelrl.learning.learner import Direction, Learner, Objectives
from pixelrl.learning.noise import Noise, SharedGenerator, draw
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.runtime import distributed
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import DivergenceError, LostRankError, PixelrlError
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.td import TD
from tests.tiny import CPU, SPEC, flat, flat_gradient, measured_update, same, seeded, shrink, transitions

Result = TypeVar("Result")
SIZE = 12


@pytest.fixture(params=[2, 3], ids="{} ranks".format)
def ranks(request: pytest.FixtureRequest) -> list[Distributed]:
    return joined(request.param)


def joined(count: int, patience: float = 20) -> list[Distributed]:
    """Return all ranks of a group, in this process; they wait for each other so long [s]."""
    store = dist.HashStore()

    def join(rank: int) -> Distributed:
        group = dist.ProcessGroupGloo(store, rank, count, timedelta(seconds=patience))
        return Distributed(rank=rank, world_size=count, group=group, store=store)

    return each(range(count), join)


def each(items: Sequence[Any], work: Callable[[Any], Result]) -> list[Result]:
    """Do work for each item at the same time; an error in one is what comes back for it."""
    found: dict[int, Any] = {}

    def run(index: int, item: Any) -> None:
        try:
            found[index] = work(item)
        except BaseException as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [found[index] for index in range(len(items))]


def share(batch: Batch, distributed: Distributed) -> Batch:
    """Return our rows of a batch, as `Mixture` gives them."""

    def ours(value: Any) -> Any:
        if isinstance(value, Observation):
            return Observation(
                images={key: ours(image) for key, image in value.images.items()}, proprio=ours(value.proprio)
            )
        return value[distributed.rank :: distributed.world_size]

    return Batch(**{key: ours(value) for key, value in vars(batch).items()})


def learners(recipe: Recipe, ranks: Sequence[Distributed]) -> list[Learner]:
    return [Learner(recipe, SPEC, CPU, place) for place in ranks]


def enlarge(learner: Learner) -> None:
    """Let the last layers be as large as the others: nearly zero as they start, they would hide most of a gradient."""
    for name, parameter in learner.networks.named_parameters():
        if ".last." in name:
            parameter.data *= 3e3


def learn(learner: Learner, steps: int) -> dict[str, torch.Tensor]:
    """Take steps, and return what the last one measured."""
    found: dict[str, torch.Tensor] = {}
    for _ in range(steps):
        batch = share(transitions(learner.step, size=SIZE), learner.distributed)
        found = measured_update(learner, batch)
        learner.check()
    return found


LAGRANGE = replace(cog_dr3(), critic=(TD(), CQL(weight=AtMost(bound=1.0)), DR3(weight=0.01)))


RECYCLED = replace(quick_cog_dr3(), intervention=ReDo(every=2, threshold=0.6, encoders=True))
NORMALISED = ("quick_fql", "quick_qc", "quick_rebrac")
"""Recipes that divide by mean |Q|, which each rank takes over its own rows (`MaximizeQ(normalize=True)`)."""
EXACT = {name: make() for name, make in RECIPES.items() if name.startswith("quick_") and name not in NORMALISED}


@pytest.mark.parametrize(
    "recipe", [LAGRANGE, RECYCLED, *EXACT.values()], ids=["cog, learned weight", "quick_cog_dr3, ReDo", *EXACT]
)
def test_ranks_learn_and_measure_what_one_does(
    recipe: Recipe, ranks: list[Distributed], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone_at_it = threading.Lock()  # threads have one global generator of torch's, which processes do not share

    def fresh(*words: Any) -> Any:
        with alone_at_it:
            return fresh_networks(*words)

    monkeypatch.setattr("pixelrl.learning.learner.fresh_networks", fresh)
    small = shrink(recipe, batch_size=SIZE, warmup_steps=1 if recipe.warmup_steps else 0)
    alone, *others = learners(small, [SINGLE_PROCESS, *ranks])
    for learner in (alone, *others):
        enlarge(learner)
    expected = learn(alone, 4)
    for learner, found in zip(others, each(others, lambda learner: learn(learner, 4)), strict=True):
        assert not isinstance(found, BaseException), found
        assert same(learner.networks, others[0].networks), "bit for bit"
        assert torch.equal(learner.generator.get_state(), alone.generator.get_state())
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)
        for (ours, _), (theirs, _) in zip(learner.objectives, alone.objectives, strict=True):
            torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-6)
            slope, right = flat_gradient(ours), flat_gradient(theirs)
            assert slope is not None and right is not None and (slope - right).norm() <= 1e-5 * right.norm() > 0
            for name, multiplier in theirs.multipliers.items():
                torch.testing.assert_close(ours.multipliers[name].log, multiplier.log, rtol=1e-6, atol=1e-7)
                assert multiplier.value != multiplier.rule.start


def test_noise_is_that_of_our_rows() -> None:
    everything = torch.randn(4, 6, 3, generator=seeded(7))
    for rank in range(3):
        generator = SharedGenerator()
        generator.manual_seed(7)
        generator.distributed = Distributed(rank=rank, world_size=3)
        assert torch.equal(draw(torch.randn, (4, 2, 3), generator, rows=1), everything[:, rank::3])
        assert torch.equal(torch.randn(5, generator=generator), torch.randn(5, generator=after(everything)))


def after(drawn: torch.Tensor) -> torch.Generator:
    """Return a generator that has drawn these normal numbers."""
    generator = seeded(7)
    torch.randn(drawn.shape, generator=generator)
    return generator


def test_pictures_are_shifted_as_one_rank_would() -> None:
    pictures = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    everything = random_shift(pictures, 3, seeded(1))
    for rank in range(2):
        generator = SharedGenerator()
        generator.manual_seed(1)
        generator.distributed = Distributed(rank=rank, world_size=2)
        assert torch.equal(random_shift(pictures[rank::2], 3, generator), everything[rank::2])


def test_what_goes_wrong_on_one_rank_stops_all_in_the_same_words() -> None:
    learners_ = learners(shrink(quick_cog_dr3(), batch_size=SIZE), joined(2))

    def spoilt(learner: Learner) -> None:
        batch = transitions(size=SIZE)
        reward = batch.reward.clone()
        reward[7] = math.nan  # a row of rank 1 and of the prior data
        learner.update(share(replace(batch, reward=reward), learner.distributed))
        learner.check()

    first, second = each(learners_, spoilt)
    assert isinstance(first, DivergenceError) and str(first) == str(second)
    assert "step 1: critic/td is nan, in rows of prior (1)" in str(first)


def test_an_overflow_on_one_rank_is_skipped_by_all() -> None:
    pair = learners(shrink(quick_cog_dr3(), batch_size=SIZE, precision="fp16", warmup_steps=0), joined(2))
    before = flat(pair[0].critic)

    def overflowing(learner: Learner) -> int:
        batch = share(transitions(size=SIZE), learner.distributed)

        def differentiate(batch: Batch, noise: Noise, objectives: Objectives, scale: Tensor) -> Direction:
            direction = learner.differentiate(batch, noise, objectives, scale)
            gradient = direction.gradients[0][0]
            if learner.distributed.rank == 1 and gradient is not None:
                gradient.view(-1)[3] = math.inf
            return direction

        learner.update(batch, differentiate)
        return learner.skipped()

    assert each(pair, overflowing) == [1, 1]
    for learner in pair:
        assert torch.equal(flat(learner.critic), before) and learner.scaler.get_scale() == 2.0**15
        assert same(learner.networks, pair[0].networks)


def test_a_lost_rank_leaves_the_last_whole_step() -> None:
    ranks = joined(2, patience=4)
    one, other = learners(shrink(quick_cog_dr3(), batch_size=SIZE), ranks)
    each([one, other], lambda learner: learn(learner, 2))
    weights = flat(one.critic)
    noise = one.generator.get_state()
    with pytest.raises(LostRankError, match=r"another rank is gone, as rank 0 of 2 noticed: .*imed out"):
        learn(one, 1)  # the other does not come
    assert one.step == 2 and torch.equal(flat(one.critic), weights)
    assert torch.equal(one.generator.get_state(), noise)
    assert [place.elect_reporter() for place in ranks] == [True, False]


def test_a_rank_that_is_lost_amid_an_intervention_leaves_no_whole_step(tmp_path: Path) -> None:
    recipe = shrink(quick_cog_dr3(), batch_size=SIZE, intervention=ReDo(every=1))
    one, other = learners(recipe, joined(2, patience=4))
    each([one, other], lambda learner: learn(learner, 1))
    assert one.whole
    other.recipe = replace(recipe, intervention=Intervention())  # it goes away before its units are asked for
    lost, _ = each([one, other], lambda learner: learner.update(share(transitions(size=SIZE), learner.distributed)))
    assert isinstance(lost, LostRankError) and not one.whole
    with pytest.raises(LostRankError), outliving(one, tmp_path / "last.safetensors", 0.0):
        raise lost
    assert not (tmp_path / "last.safetensors").exists()


@pytest.mark.parametrize(("backend", "aborted"), [("nccl", ["abort"]), ("gloo", [])])
def test_nccl_is_aborted_after_a_lost_rank(monkeypatch: pytest.MonkeyPatch, backend: str, aborted: list[str]) -> None:
    called: list[str] = []
    monkeypatch.setattr(distributed.dist, "get_backend", lambda group: backend)
    group = SimpleNamespace(abort=lambda: called.append("abort"))
    Distributed(world_size=2, group=group).abort()  # type: ignore[arg-type]
    assert called == aborted
    Distributed().abort()


def test_work_that_fails_on_some_ranks_is_told_by_the_first_of_them(ranks: list[Distributed]) -> None:
    def work(place: Distributed) -> int:
        return place.run_on_all_ranks(lambda: 6 // (len(ranks) - 1 - place.rank))

    *quiet, loud = each(ranks, work)
    assert isinstance(loud, ZeroDivisionError)
    assert all(isinstance(end, SystemExit) and end.code == 1 for end in quiet)
    assert each(ranks, lambda place: place.run_on_all_ranks(lambda: place.rank)) == list(range(len(ranks)))


def test_ranks_agree(ranks: list[Distributed]) -> None:
    assert each(ranks, lambda place: place.any(place.rank == 1)) == [True] * len(ranks)
    assert each(ranks, lambda place: place.any(False)) == [False] * len(ranks)
    assert each(ranks, lambda place: place.all_gather_text(f"I am {place.rank}"))[0] == [
        f"I am {n}" for n in range(len(ranks))
    ]
    assert each(ranks, lambda place: place.check_same_state("step 5")) == [None] * len(ranks)
    loud, *quiet = each(ranks, lambda place: place.check_same_state(f"step {place.rank * 5}"))
    assert str(loud) == "rank 1 is at step 5, rank 0 at step 0; expected the same everywhere"
    assert all(isinstance(end, SystemExit) for end in quiet)


def test_batch_norm_is_refused() -> None:
    recipe = shrink(cog_dr3(), encoder=RobomimicResNet18())
    with pytest.raises(PixelrlError, match="BatchNorm mixes the pictures of a batch, and 2 ranks"):
        Learner(recipe, replace(SPEC, images={"front_image": (3, 64, 64)}), CPU, Distributed(world_size=2))

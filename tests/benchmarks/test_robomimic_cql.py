"""robomimic's CQL and ours do the same work: on the same weights and sampled actions, they have the same losses."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pixelrl.learning.batch import Batch, Observation, Spec
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.actions import ActionDim

pytest.importorskip("robomimic", reason="robomimic is not installed")

from benchmarks.robomimic_cql import (
    build_robomimic,
    compare_losses,
    robomimic_update,
    robomimics_batch,
    robomimics_recipe,
)

CPU = torch.device("cpu")
SIZE = 3
SPEC = Spec(
    images={"front_image": (3, 48, 48)},
    proprio={"position": 3, "gripper": 1},
    action=tuple(ActionDim(name=f"a{index}") for index in range(7)),
    sources=("task",),
    proprio_mean=(0.0,) * 4,
    proprio_std=(1.0,) * 4,
)


def transitions() -> Batch:
    """Return random transitions; one is rewarded, and one ends."""
    generator = torch.Generator().manual_seed(0)

    def observe() -> Observation:
        pictures = torch.randint(0, 256, (SIZE, 3, 48, 48), generator=generator, dtype=torch.uint8)
        return Observation(images={"front_image": pictures}, proprio=torch.randn(SIZE, 4, generator=generator))

    return Batch(
        obs=observe(),
        action=torch.rand(SIZE, 7, generator=generator) * 1.8 - 0.9,
        reward=torch.tensor([0.0, 1.0, 0.0]),
        discount=torch.tensor([0.99, 0.0, 0.99]),
        next_obs=observe(),
        next_action=torch.zeros(SIZE, 7),
        return_to_go=torch.zeros(SIZE),
        source=torch.zeros(SIZE, dtype=torch.int64),
    )


BOTH = [pytest.param(True, id="learned weight"), pytest.param(False, id="fixed weight", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=BOTH)
def pair(request: pytest.FixtureRequest) -> tuple[Recipe, Any]:
    """Return a recipe and robomimic's CQL, after a step: multipliers and weights are not where they start."""
    recipe = robomimics_recipe(actions=2, batch_size=SIZE, learned=request.param)
    torch.manual_seed(1)
    algo = build_robomimic(recipe, SPEC, CPU)
    robomimic_update(algo, robomimics_batch(transitions(), SPEC))
    return recipe, algo


def test_the_losses_agree_on_the_same_weights_and_actions(pair: tuple[Recipe, Any]) -> None:
    recipe, algo = pair
    batch = transitions()
    learned_nets = torch.nn.ModuleList([algo.nets["actor"], algo.nets["critic"]])
    before = [value.clone() for value in learned_nets.parameters()]
    pairs = compare_losses(recipe, SPEC, batch, algo)
    for name in ("td", "cql", "policy"):
        ours, theirs = pairs[name]
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), name
    for name in ("critic gradient", "policy gradient"):
        ours, theirs = pairs[name]
        assert ours == pytest.approx(theirs, rel=1e-2), name
    assert pairs["encoder gradient error"][0] < 0.1
    assert abs(pairs["td"][1]) > 0.1 and pairs["cql"][1] > 1 and pairs["critic gradient"][1] > 0.1
    assert all(torch.equal(now, then) for now, then in zip(learned_nets.parameters(), before, strict=True))
    assert {group["lr"] for optimiser in algo.optimizers["critic"] for group in optimiser.param_groups} == {1e-3}


def test_another_definition_would_be_told(pair: tuple[Recipe, Any]) -> None:
    recipe, algo = pair
    batch = transitions()
    half = replace(batch, discount=batch.discount / 2)  # robomimic has its discount from its own settings
    ours, theirs = compare_losses(recipe, SPEC, half, algo)["td"]
    assert ours != pytest.approx(theirs, rel=1e-4)

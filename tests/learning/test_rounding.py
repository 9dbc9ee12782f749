"""Weights of few values: what they are rounded to, and that learning moves the weights behind them."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pixelrl.launch.recipes import quick_bc
from pixelrl.learning.learner import Learner
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.rounding import inner_weights, round_weights, rounded, rounding
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training import checkpoint
from pixelrl.training.execution import make_step
from pixelrl.training.run_directory import Run, checkpoint_path, read_networks
from tests.tiny import CPU, SPEC, make_learner, same, shrink, transitions


def test_numbers_are_rounded_to_evenly_spaced_values_by_hand() -> None:
    # two bits: 0, 1, 2, 3 between the least and the greatest of a bucket
    found = rounded(torch.tensor([[0.0, 3.0], [1.4, 1.6]]), bits=2)
    torch.testing.assert_close(found, torch.tensor([[0.0, 3.0], [1.0, 2.0]]))


def test_every_256_numbers_have_bounds_of_their_own() -> None:
    first, rest = torch.linspace(0, 1, 256), torch.tensor([5.0, 7.0, 6.4])
    found = rounded(torch.cat([first, rest]), bits=1)
    assert set(found[:256].tolist()) == {0.0, 1.0} and found[256:].tolist() == [5.0, 7.0, 7.0]
    assert rounded(torch.full((300,), 0.1), bits=1).eq(0.1).all()  # all alike: nothing to divide by


def test_first_and_last_layers_and_biases_stay() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3))
    before = [parameter.clone() for parameter in network.parameters()]
    round_weights(network, 2)
    changed = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert changed == [False, False, True, False, False, False]


def test_weights_come_back_after_rounding_whatever_happens() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3))
    before = network[1].weight.clone()
    with pytest.raises(ValueError, match="stop"), rounding(network, 2):
        assert len(network[1].weight.unique()) <= 4
        raise ValueError("stop")
    assert torch.equal(network[1].weight, before)


def recipe(bits: int) -> Recipe:
    return shrink(quick_bc(), weight_bits=bits, actor_hidden=(16, 16))


def test_gradients_at_rounded_weights_move_the_weights_themselves() -> None:
    learner, plain = make_learner(recipe(2)), make_learner(recipe(0))
    round_weights(plain.networks.actor, 2)
    wanted = plain.differentiate(transitions(), plain.generator, plain.objectives, plain.loss_scale()).gradients[0]
    before = [weight.clone() for weight in inner_weights(learner.networks.actor)]
    step = make_step(learner, "eager")
    step(transitions())
    for old, new in zip(before, inner_weights(learner.networks.actor), strict=True):
        assert 0 < (old - new).abs().max() < 1e-2 and len(new.unique()) > 4  # a step from where it was, not rounded
    found = [parameter.grad for parameter in learner.actor.parameters]
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other)


def test_run_acts_with_the_weights_that_it_learned_at(tmp_path: Path) -> None:
    learner = Learner(recipe(2), SPEC, CPU)
    learner.update(transitions())
    Run(recipe=learner.recipe, spec=SPEC, data={}, fingerprint="", actions="unit").write(tmp_path)
    checkpoint.save(checkpoint_path(tmp_path), learner)
    _, networks, _ = read_networks(tmp_path)
    assert all(len(weight.unique()) <= 4 * -(-weight.numel() // 256) for weight in inner_weights(networks.actor))
    round_weights(learner.networks.actor, 2)
    assert same(networks, learner.networks)


def test_too_many_bits_are_refused() -> None:
    with pytest.raises(PixelrlError, match="recipe: weight_bits is 17; it must be between 1 and 16, or 0"):
        recipe(17)

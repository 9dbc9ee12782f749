"""The watch for values that explode."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pixelrl.launch.recipes import quick_bc, quick_cog
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.divergence import DivergenceMonitor, largest_q
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.term import Term
from pixelrl.runtime.errors import DivergenceError
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.td import TD
from pixelrl.training import checkpoint
from tests.tiny import CPU, known, learn, make_learner, seeded, shrink, transitions

NOTHING = torch.empty(0)


def update_with_q(*value: float) -> UpdateContext:
    """Return an update in which two critics say this of each row; sources take turns."""
    rows = torch.tensor(value)
    output = CriticOutput(torch.stack([rows, 0 * rows]), NOTHING)
    return known(
        transitions(size=len(value)), q_data=output, td_target=torch.zeros_like(rows), log_prob=torch.zeros_like(rows)
    )


def make_monitor() -> DivergenceMonitor:
    monitor = DivergenceMonitor(["critic/td", "critic/dr3", "critic/td"], ("task", "prior"), CPU)
    monitor.limit = 50.0
    return monitor


def parts(td: float, dr3: float) -> dict[str, torch.Tensor]:
    return {"critic/td": torch.tensor(td), "critic/dr3": torch.tensor(dr3)}


def test_what_rewards_allow() -> None:
    assert largest_q(0.95, 10.0) == pytest.approx(1e3 * 200)
    assert largest_q(0.99, 0.001) == 1e4
    assert largest_q(1.0, 1.0) == 1e6


def test_the_first_wrong_step_is_the_one_that_is_told() -> None:
    monitor = make_monitor()
    monitor.record(monitor.observe(update_with_q(1, 2, 3, 50), parts(1, 2)))
    monitor.check(7)
    monitor.record(monitor.observe(update_with_q(1, 2, 3, -51), parts(1, -2)))
    monitor.record(monitor.observe(update_with_q(math.nan, 1, 1, 1), parts(math.nan, 1)))
    expected = r"step 8: \|Q\| is 51, and beyond 50 .* most of the loss is critic/dr3, in rows of prior \(1\)"
    for _ in range(2):
        with pytest.raises(DivergenceError, match=expected):
            monitor.check(9)


def test_a_term_that_is_no_number_is_named_before_a_large_one() -> None:
    monitor = make_monitor()
    monitor.record(monitor.observe(update_with_q(1, 2), parts(1e30, math.inf)))
    with pytest.raises(DivergenceError, match=r"step 1: critic/dr3 is inf, in rows of no one source"):
        monitor.check(1)


@pytest.mark.parametrize("name", ["td_target", "log_prob"])
def test_targets_and_densities_count_too(name: str) -> None:
    monitor, update = make_monitor(), update_with_q(1, 2, 3)
    vars(update)[name] = torch.tensor([1.0, 2.0, math.nan])
    monitor.record(monitor.observe(update, {"critic/td": torch.tensor(0.0)}))  # dr3 was not evaluated
    with pytest.raises(DivergenceError, match=r"step 1: \|Q\| is .* in rows of task \(1\)"):
        monitor.check(1)


@pytest.mark.parametrize("terms", [(TD(),), (CQL(weight=0.1),), (BC(),)], ids=["td", "cql", "bc"])
def test_what_no_term_asks_for_is_not_computed(terms: tuple[Term, ...]) -> None:
    learner = make_learner(shrink(quick_cog(), critic=terms, warmup=(), warmup_steps=0))
    objective = learner.critic
    alone, observed = (UpdateContext(learner.networks, transitions(), seeded()) for _ in range(2))
    for context in (alone, observed):
        loss = objective.loss(terms, context)
    learner.monitor.observe(observed, loss.parts)
    assert vars(alone).keys() == vars(observed).keys()
    assert torch.equal(alone.generator.get_state(), observed.generator.get_state())  # type: ignore[union-attr]


def test_values_within_bounds_pass_for_every_kind_of_recipe() -> None:
    for recipe in (quick_cog(), quick_bc()):
        learn(make_learner(shrink(recipe)), 3).check()


def test_no_checkpoint_holds_weights_that_nobody_looked_at(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(shrink(quick_cog(), warmup_steps=0)), 2)
    checkpoint.save(path, learner)
    before = path.read_bytes()
    learner.actor.parameters[0].data.view(-1)[5] = math.nan  # by the last step, so that no loss has shown it
    with pytest.raises(DivergenceError, match=r"step 2: networks\.actor\.\S+ holds numbers that are not finite"):
        checkpoint.save(path, learner)
    with pytest.raises(DivergenceError, match=r"networks\.actor"):
        checkpoint.save_networks(tmp_path / "2.safetensors", learner.networks, 2)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_waits_for_the_losses(tmp_path: Path) -> None:
    path, learner = tmp_path / "last.safetensors", learn(make_learner(shrink(quick_cog(), critic_lr=0.0)), 2)
    checkpoint.save(path, learner)
    batch = transitions(2)
    learner.update(replace(batch, reward=batch.reward * 1e7))  # nothing is measured, and no weight has moved far
    with (
        pytest.raises(
            DivergenceError, match=r"step 3: \|Q\| .* rows of prior.*checkpoint is .*last.safetensors, step 2"
        ),
        checkpoint.naming_last_good(path),
    ):
        checkpoint.save(path, learner)


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(DivergenceError, match="bad; the last good checkpoint was never saved"),
        checkpoint.naming_last_good(tmp_path / "last.safetensors"),
    ):
        raise DivergenceError("bad")


def test_a_checkpoint_that_was_damaged_since_hides_no_error(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    path.write_bytes(b"damaged")
    with pytest.raises(DivergenceError, match=r"bad; the last .* damaged since"), checkpoint.naming_last_good(path):
        raise DivergenceError("bad")


def test_an_overflow_leaves_learned_weights_of_terms_alone() -> None:
    learner = make_learner(shrink(quick_cog(), warmup_steps=0))
    multiplier = learner.actor.multipliers["entropy"]
    (slope,) = torch.autograd.grad(multiplier.ascend(torch.tensor(math.inf)), multiplier.log)
    assert slope == 0

"""The learner: what one gradient step does, and what it leaves alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pixelrl.launch.recipes import RECIPES, cog, quick_bc, quick_cog, quick_cog_dr3
from pixelrl.learning.backup import Backup
from pixelrl.learning.batch import Batch, Metrics
from pixelrl.learning.build import compute_dtype
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.learner import Learner
from pixelrl.learning.objective import term_name
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.term import Term
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD
from tests.tiny import CPU, SPEC, flat_gradient, learn, make_learner, measured_update, same, seeded, shrink, transitions

each_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)


@dataclass(frozen=True, kw_only=True)
class Pull(Term):
    """A term of a known value, with gradient into whatever is asked."""

    height: float = 1.0

    def __call__(self, update: UpdateContext) -> tuple[Tensor, Metrics]:
        return 0 * update.q_data.value.sum() + self.height, {"twice": torch.tensor(2 * self.height)}


def critic_only(*terms: Term, **changes: Any) -> Recipe:
    return shrink(cog(), critic=terms, actor=(), warmup=(), warmup_steps=0, **changes)


@dataclass(frozen=True, kw_only=True)
class Slip(Term):
    """A term that returns what it should not."""

    returns: Any

    def __call__(self, update: UpdateContext) -> Any:
        return self.returns


@pytest.mark.parametrize(
    ("returns", "came"),
    [
        (torch.zeros(()), r"\[\]"),
        ((torch.zeros(2), {}), r"\[2\], dict"),
        (None, "NoneType"),
        ((1.0, {}), "float, dict"),
    ],
)
def test_term_that_returns_something_else_is_named(returns: Any, came: str) -> None:
    learner = make_learner(critic_only(TD(), Slip(returns=returns)))
    expected = rf"critic/slip: a term returns a scalar tensor and a dict of tensors to log, and this one \({came}\)"
    with pytest.raises(PixelrlError, match=expected):
        learn(learner, 1)


@each_recipe
def test_an_objective_moves_its_own_parameters_only(make: Callable[[], Recipe]) -> None:
    recipe = shrink(make(), warmup_steps=0)
    start = make_learner(recipe).networks
    without_actor = learn(make_learner(replace(recipe, actor=())), 2).networks
    assert same(without_actor.actor, start.actor)
    if recipe.critic:
        assert not same(without_actor.critic, start.critic)
    if not recipe.shared_encoder:  # or nobody would train the encoder
        without_critic = learn(make_learner(replace(recipe, critic_lr=0.0)), 2).networks
        assert same(without_critic.critic, start.critic) and same(without_critic.target, start.target)
        assert not same(without_critic.actor, start.actor)


def test_what_has_no_critic_terms_has_no_critics() -> None:
    learner = learn(make_learner(shrink(quick_bc())), 2)
    assert sum(value.numel() for value in learner.networks.critic.parameters()) == 0
    assert learner.networks.policy(transitions().obs).mode.shape == (6, 3)
    with pytest.raises(PixelrlError, match=r"critic is \(\); a term of the actor that asks for Q"):
        learn(make_learner(shrink(quick_bc(), actor=(MaximizeQ(),))), 1)


def test_both_gradients_are_taken_at_the_same_parameters() -> None:
    # SGD in one's head: the actor's gradient may not depend on how far the critic steps
    slow, fast = (make_learner(shrink(quick_cog(), warmup_steps=0, critic_lr=lr)) for lr in (1e-6, 1e-1))
    for learner in (slow, fast):
        learner.update(transitions())
    assert same(slow.networks.actor, fast.networks.actor)
    assert not same(slow.networks.critic, fast.networks.critic)


def test_the_loss_is_the_weighted_sum_and_every_part_is_logged() -> None:
    learner = make_learner(critic_only(TD(weight=0.5), Pull(weight=3.0, height=7.0)))
    metrics = learner.update(transitions())
    assert metrics["critic/loss"].item() == pytest.approx(0.5 * metrics["critic/td"].item() + 21)
    assert metrics["critic/pull"].item() == 7 and metrics["critic/pull/twice"].item() == 14
    assert all(not value.requires_grad for value in metrics.values())
    assert not any(name.startswith("actor/") for name in metrics)
    assert term_name(TD()) == "td"


ABSENT = [
    ("critic", DR3(weight=0.0)),
    ("critic", DR3(weight=0.0, site="encoding", stop_gradient=True)),
    ("critic", TD(weight=0.0)),
    ("critic", BC(weight=0.0)),
    ("critic", CQL(weight=0.0)),
    ("actor", MaximizeQ(weight=0.0)),
    ("actor", Entropy(weight=0.0)),
    ("actor", BC(weight=0.0)),
    ("actor", AdvantageWeighted(weight=0.0)),
]


@pytest.mark.parametrize(
    ("side", "term"), ABSENT, ids=lambda value: value if isinstance(value, str) else term_name(value)
)
def test_a_term_of_weight_zero_is_absent(side: str, term: Term) -> None:
    base = shrink(quick_cog(), warmup_steps=0)
    rest = tuple(each for each in getattr(base, side) if type(each) is not type(term))
    without = learn(make_learner(replace(base, **{side: rest})), 3)
    with_it = learn(make_learner(replace(base, **{side: (*rest, term)})), 3)
    assert same(without.networks, with_it.networks)


@each_recipe
def test_the_seed_decides_everything(make: Callable[[], Recipe]) -> None:
    recipe = shrink(make())
    torch.manual_seed(1)
    one = learn(make_learner(recipe), 3)
    torch.manual_seed(2)  # the global generator has no say
    assert same(one.networks, learn(make_learner(recipe), 3).networks)
    assert not same(make_learner(recipe).networks, make_learner(replace(recipe, seed=1)).networks)


def test_making_a_learner_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    make_learner(shrink(cog()))
    assert torch.equal(torch.rand(4), expected)


def test_measuring_changes_nothing_that_is_learned() -> None:
    recipe = shrink(quick_cog_dr3())
    plain, measured = learn(make_learner(recipe), 3), learn(make_learner(recipe), 3, measured=True)
    assert same(plain.networks, measured.networks)


def test_warm_up_ends_after_its_steps() -> None:
    learner = make_learner(shrink(cog(), warmup_steps=2))
    seen = [learner.update(transitions(step)) for step in range(3)]
    assert ["actor/bc" in metrics for metrics in seen] == [True, True, False]
    assert ["actor/maximizeq" in metrics for metrics in seen] == [False, False, True]
    assert all({"actor/entropy", "critic/td", "critic/cql"} <= metrics.keys() for metrics in seen)
    assert learner.step == 3


@pytest.mark.parametrize(("bound", "direction"), [(1.0, 1), (3.0, -1)])
def test_a_multiplier_climbs_above_its_bound_and_falls_below(bound: float, direction: int) -> None:
    rule = AtMost(bound=bound, start=0.5, rate=0.01)
    learner = make_learner(critic_only(TD(), Pull(weight=rule, height=2.0)))
    values = [learner.update(transitions())["critic/pull/weight"].item() for _ in range(4)]
    # Adam's first steps under a constant slope are `rate` each, in the logarithm
    expected = [0.5 * math.exp(direction * 0.01 * step) for step in range(4)]
    assert values == pytest.approx(expected, rel=1e-4)
    metrics = learner.update(transitions())
    total = metrics["critic/td"] + metrics["critic/pull/weight"] * 2
    assert metrics["critic/loss"].item() == pytest.approx(total.item())


def test_a_multiplier_rests_while_its_term_is_not_asked_for() -> None:
    bounded = Entropy(weight=AtMost(bound=1e3))
    learner = make_learner(shrink(cog(), warmup=(BC(), bounded), warmup_steps=2, actor=(BC(),)))
    values = []
    for _ in range(4):
        learn(learner, 1)
        values.append(learner.actor.multipliers["entropy"].value.item())
    assert values[0] > values[1] == values[2] == values[3]


def test_two_multipliers_climb_apart() -> None:
    recipe = shrink(
        cog(),
        critic=(TD(), CQL(weight=AtMost(bound=-1e3))),
        actor=(MaximizeQ(), Entropy(weight=AtMost(bound=1e3))),
        warmup=(),
        warmup_steps=0,
    )
    learner = learn(make_learner(recipe), 2)
    assert learner.critic.multipliers["cql"].value.item() > 1 > learner.actor.multipliers["entropy"].value.item()


def test_adam_moves_each_weight_along_its_own_gradient() -> None:
    """Gradients of convolutions come with channels last where pictures do, and weights do not."""

    def channels_last(batch: Batch) -> Batch:
        return batch.map(lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x)

    learner, plain = (make_learner(shrink(quick_cog_dr3(), warmup_steps=0)) for _ in range(2))
    for objective in plain.critic, plain.actor:
        groups = [{"params": group["params"], "lr": float(group["lr"])} for group in objective.optimiser.param_groups]
        objective.optimiser = torch.optim.Adam(groups, fused=False, foreach=False)  # which minds how tensors lie
        objective.set_learning_rate = lambda factor: None  # type: ignore[method-assign]
    batch = channels_last(transitions())
    gradients = learner.differentiate(batch, seeded(), learner.objectives, learner.loss_scale()).gradients
    assert any(g is not None and g.dim() == 4 and not g.is_contiguous() for each in gradients for g in each)
    learner.update(batch)
    plain.update(batch)
    for one, other in zip(learner.networks.parameters(), plain.networks.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_target_follows_the_stepped_critic() -> None:
    learner = make_learner(shrink(cog(), tau=0.25))
    before = [value.clone() for value in learner.networks.target.parameters()]
    learner.update(transitions())
    for old, new, critic in zip(
        before, learner.networks.target.parameters(), learner.networks.critic.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * critic)


def test_hard_target_is_the_critic_after_every_third_step_and_stays_between() -> None:
    learner = make_learner(shrink(cog(), tau=1.0, target_every=3))
    for step in range(1, 8):
        before = [value.clone() for value in learner.networks.target.parameters()]
        learn(learner, 1)
        after = list(learner.networks.target.parameters())
        expected = list(learner.networks.critic.parameters()) if step % 3 == 0 else before
        assert all(torch.equal(one, other) for one, other in zip(after, expected, strict=True)), step


def test_target_that_follows_at_once_is_the_critic_itself() -> None:
    learner = learn(make_learner(shrink(cog(), tau=1.0)), 2)
    assert same(learner.networks.target, learner.networks.critic)


def test_dr3_lowers_the_similarity_of_consecutive_features() -> None:
    base = shrink(cog(), critic_lr=1e-3, warmup_steps=0)
    dots = []
    for extra in ((), (DR3(weight=0.03),)):
        learner = learn(make_learner(replace(base, critic=(*base.critic, *extra))), 40)
        dots.append(measured_update(learner, transitions(99))["features/dot"].item())
    assert dots[1] < 0.7 * dots[0]


def test_a_regression_is_learned() -> None:
    # every transition ends: Q(s, a) is its reward
    batch = transitions()
    ended = replace(batch, discount=torch.zeros(6))
    learner = make_learner(critic_only(TD(), shift=0, critic_lr=1e-2))
    errors = [learner.update(ended)["critic/td/error"].item() for _ in range(60)]
    assert errors[-1] < 0.3 * errors[0]


# Precision


def gradient(recipe: Recipe, precision: str, state: dict[str, Tensor]) -> tuple[list[Tensor], Metrics]:
    """Return the gradients of one step, the critic's and the actor's, and its metrics."""
    learner = make_learner(replace(recipe, precision=precision))
    learner.networks.load_state_dict(state)
    if learner.scaler.is_enabled():  # the scale at which an fp16 run would have settled
        learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**4})
    metrics = measured_update(learner, transitions(7, size=16))

    sides = (learner.critic, learner.actor) if recipe.critic else (learner.actor,)
    return [found for side in sides if (found := flat_gradient(side)) is not None], metrics


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
@each_recipe
def test_half_precision_points_where_full_precision_does(make: Callable[[], Recipe], precision: str) -> None:
    recipe = shrink(make(), warmup_steps=0, critic_lr=3e-3, actor_lr=3e-3)
    state = learn(make_learner(replace(recipe, precision="fp32")), 20).networks.state_dict()
    exact, rounded = gradient(recipe, "fp32", state), gradient(recipe, precision, state)
    for one, other in zip(exact[0], rounded[0], strict=True):
        assert torch.cosine_similarity(one, other, dim=0) > 0.99
    assert all(value.isfinite() for value in rounded[1].values())
    assert all(value.dtype != torch.bfloat16 for name, value in rounded[1].items() if name.endswith(("/loss", "/td")))


def test_an_overflow_is_skipped_and_the_scale_falls() -> None:
    learner = make_learner(shrink(quick_cog_dr3(), precision="fp16", warmup_steps=0))
    learn(learner, 1)
    start = {key: value.clone() for key, value in learner.networks.critic.state_dict().items()}
    actor = {key: value.clone() for key, value in learner.networks.actor.state_dict().items()}
    (multiplier,) = learner.actor.multipliers.values()
    weight = multiplier.value
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**60})
    learner.update(transitions(1))
    assert multiplier.value == weight
    assert all(torch.equal(value, start[key]) for key, value in learner.networks.critic.state_dict().items())
    assert all(torch.equal(value, actor[key]) for key, value in learner.networks.actor.state_dict().items())
    assert learner.scaler.get_scale() == 2.0**59
    learner.scaler.load_state_dict(learner.scaler.state_dict() | {"scale": 2.0**10})
    learner.update(transitions(2))
    assert any(not torch.equal(value, start[key]) for key, value in learner.networks.critic.state_dict().items())
    assert all(value.isfinite().all() for value in learner.networks.state_dict().values())


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bf16_only_where_a_gpu_computes_in_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or native  # Turing emulates it

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert compute_dtype("auto", torch.device("cuda:1")) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_the_cpu_computes_in_full_precision_unless_told(precision: str) -> None:
    assert compute_dtype(precision, CPU) == torch.float32


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@each_recipe
def test_one_update_runs_on_the_gpu(make: Callable[[], Recipe], precision: str) -> None:
    device = torch.device("cuda")
    learner = Learner(shrink(make(), precision=precision, warmup_steps=0), SPEC, device)
    before = [value.clone() for value in learner.networks.actor.parameters()]
    batch: Batch = transitions().to(device)
    for _ in range(5):  # fp16 may skip a few at first
        metrics = measured_update(learner, batch)
    assert all(value.isfinite() for value in metrics.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.networks.actor.parameters(), strict=True))


def test_learning_rates_follow_a_half_cosine_to_the_last_step() -> None:
    learner = make_learner(shrink(quick_cog(), steps=4, final_lr=0.2, critic_lr=1.0, actor_lr=0.5))
    factors = []
    for step in range(4):
        learner.step = step
        factors.append(learner.lr_factor)
    # 0.2 + 0.8 * (1 + cos(pi k / 4)) / 2
    assert factors == pytest.approx([1.0, 0.882843, 0.6, 0.317157], abs=1e-6)
    learner.update(transitions())
    assert learner.critic.optimiser.param_groups[0]["lr"] == pytest.approx(0.317157, abs=1e-6)
    assert learner.actor.optimiser.param_groups[0]["lr"] == pytest.approx(0.158579, abs=1e-6)
    assert cog().final_lr == 1.0


def test_learning_rates_may_fall_along_a_line_after_a_rise() -> None:
    learner = make_learner(shrink(quick_cog(), steps=8, final_lr=0.0, schedule="linear", lr_warmup=2))
    factors = []
    for step in (0, 1, 2, 4, 6):
        learner.step = step
        factors.append(learner.lr_factor)
    assert factors == pytest.approx([0.5, 7 / 8, 6 / 8, 0.5, 0.25])


def test_weight_decay_pulls_matrices_and_filters_and_nothing_else() -> None:
    recipe = critic_only(Pull(), layer_norm=True, weight_decay=0.1, critic_lr=0.5)  # no gradient but decay's
    learner, start = make_learner(recipe), make_learner(recipe).networks.critic.state_dict()
    learn(learner, 1)
    for key, value in learner.networks.critic.state_dict().items():
        *path, kind = key.split(".")
        pulled = value.dim() > 1 and kind == "weight" and "last" not in path
        torch.testing.assert_close(value, start[key] * (1 - 0.5 * 0.1) if pulled else start[key])


def test_gradient_noise_has_the_variance_it_is_said_to_have() -> None:
    learner = make_learner(shrink(cog(), gradient_noise=0.04))
    learner.step = 9
    gradient = torch.zeros(20_000)
    learner.add_noise([gradient])
    assert gradient.std().item() == pytest.approx(math.sqrt(0.04 / 10**0.55), rel=0.03)


def test_actor_may_move_every_second_step_only() -> None:
    recipe = shrink(quick_cog(), warmup_steps=0, actor_every=2)
    learner = make_learner(recipe)
    before = make_learner(recipe).networks
    learn(learner, 1)
    moved_once = {key: value.clone() for key, value in learner.networks.actor.state_dict().items()}
    assert not same(learner.networks.actor, before.actor)
    learn(learner, 1)
    assert all(torch.equal(value, moved_once[key]) for key, value in learner.networks.actor.state_dict().items())


def test_critics_warm_up_has_terms_of_its_own() -> None:
    recipe = shrink(quick_cog(), warmup_steps=2, critic_warmup=(TD(target="returns"),))
    learner = make_learner(recipe)
    assert "critic/cql" not in learner.update(transitions()) and learner.step == 1
    learner.update(transitions(1))
    assert "critic/cql" in learner.update(transitions(2))


def test_value_network_is_moved_by_its_own_terms_alone() -> None:
    from pixelrl.launch.recipes import quick_iql

    recipe = shrink(quick_iql(), warmup_steps=0)
    learner = learn(make_learner(recipe), 2)
    start = make_learner(recipe).networks
    assert learner.networks.value is not None and start.value is not None
    assert not same(learner.networks.value, start.value)
    frozen = learn(make_learner(replace(recipe, critic=(BC(),), backup=Backup())), 1)
    assert frozen.networks.value is not None

"""Each term of a loss, on numbers worked out by hand."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pixelrl.learning.actors import PointAction, Reparameterised, SquashedGaussian
from pixelrl.learning.batch import Batch
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.critic_forms import HLGauss, Scalar
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.weights import AtMost
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.penalties import NormPenalty, RankPenalty, extreme_singular_values
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD
from tests.tiny import gradients, known, make_networks, moved, seeded, transitions

NOTHING = torch.empty(0)


def q_output(value: list[list[float]]) -> CriticOutput:
    """Return the output of E critics on B rows, without features."""
    return CriticOutput(torch.tensor(value, dtype=torch.float32, requires_grad=True), NOTHING)


def gaussian(mean: list[float], std: float, rows: int) -> SquashedGaussian:
    """Return the same distribution over A actions in every row."""
    return SquashedGaussian(torch.tensor([mean] * rows), torch.full((rows, len(mean)), math.log(std)))


@dataclass
class LinearCritic:
    """Q_e(s, a) = slope_e . a + offset_e, whatever s; in place of networks."""

    slope: Tensor
    offset: Tensor

    @property
    def critic(self) -> "LinearCritic":
        return self

    def q_values(self, state: Tensor, action: Tensor) -> CriticOutput:
        value = torch.einsum("ea,...a->e...", self.slope, action)
        return CriticOutput(value + self.offset.view(-1, *[1] * (value.dim() - 1)), NOTHING)


def rows(action: list[list[float]]) -> Batch:
    """Return a batch with these actions."""
    return replace(transitions(size=len(action)), action=torch.tensor(action))


# TD


def td_update() -> UpdateContext:
    batch = replace(transitions(size=2), reward=torch.tensor([1.0, 0.0]), discount=torch.tensor([0.5, 0.0]))
    return known(batch, form=Scalar(), q_data=q_output([[1, 2], [3, 4]]), next_value=torch.tensor([4.0, 100.0]))


@pytest.mark.parametrize(
    ("bounds", "targets", "loss"),
    [
        (None, (3.0, 0.0), 4.0 + 8.0),  # errors -2, 2 and 0, 4: means of squares 4 and 8, summed over the ensemble
        ((0.5, 2.0), (2.0, 0.5), 1.625 + 6.625),  # errors -1, 1.5 and 1, 3.5
    ],
)
def test_td_is_the_squared_bellman_error(
    bounds: tuple[float, float] | None, targets: tuple[float, float], loss: float
) -> None:
    value, metrics = TD(target_range=bounds)(td_update())
    assert value.item() == pytest.approx(loss)
    assert metrics["target"].item() == pytest.approx(sum(targets) / 2)


def test_td_of_a_histogram_is_its_cross_entropy() -> None:
    batch = replace(transitions(size=2), reward=torch.tensor([5.0, 4.5]), discount=torch.zeros(2))
    outputs = torch.zeros(2, 2, 21, requires_grad=True)
    form = HLGauss(bins=21)
    update = known(
        batch, form=form, q_data=CriticOutput(form.value(outputs), NOTHING, outputs), next_value=torch.zeros(2)
    )
    loss, metrics = TD()(update)
    assert loss.item() == pytest.approx(2 * math.log(21), rel=1e-5)  # of a flat histogram, for both critics
    assert metrics["error"].item() == pytest.approx(0.25, abs=1e-4)  # Q is 5 in the middle
    (slope,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(slope[0], (torch.full((2, 21), 1 / 21) - form.encode(torch.tensor([5.0, 4.5]))) / 2)


def test_td_pulls_q_and_not_its_target() -> None:
    networks = make_networks()
    update = UpdateContext(networks, transitions(), seeded())
    loss, _ = TD()(update)
    assert not update.td_target.requires_grad
    assert moved(gradients(loss, networks.critic))
    assert not moved(gradients(loss, networks.actor))


# CQL


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_cql_of_a_constant_q_is_the_volume_of_the_actions(temperature: float) -> None:
    # log of the integral of exp(c) over [-1, 1]^2 = c + 2 log 2; minus Q of the data, c + slope . a = c
    offset = torch.tensor([1.0, -4.0])
    update = known(
        rows([[0.3, -0.2]] * 5),
        LinearCritic(torch.zeros(2, 2), offset),
        state_embedding=NOTHING,
        q_data=q_output([[1.0] * 5, [-4.0] * 5]),
        policy=gaussian([0.0, 0.0], 1.0, 5),
        next_policy=gaussian([0.0, 0.0], 1.0, 5),
    )
    term = CQL(uniform=3, policy=0, next_policy=0, temperature=temperature)
    loss, metrics = term(update)
    assert loss.item() == pytest.approx(2 * temperature * 2 * math.log(2), rel=1e-5)  # two critics
    assert metrics["gap"].item() == pytest.approx(temperature * 2 * math.log(2), rel=1e-5)
    assert metrics["sampled_q"].item() == pytest.approx(-1.5)


@pytest.mark.parametrize(("uniform", "policy", "after"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_cql_converges_to_the_integral_from_every_proposal(
    uniform: int, policy: int, after: int, temperature: float
) -> None:
    # T log of the integral of exp(w a / T) over [-1, 1]^2 = T sum_d log(2 sinh(w_d / T) / (w_d / T))
    slope, count = torch.tensor([[1.5, -0.5]]), 60_000
    update = known(
        rows([[0.4, 0.2]]),
        LinearCritic(slope, torch.tensor([2.0])),
        state_embedding=NOTHING,
        q_data=q_output([[0.0]]),
        policy=gaussian([0.3, -0.2], 1.2, 1),
        next_policy=gaussian([-0.2, 0.4], 1.2, 1),
    )
    term = CQL(uniform=uniform * count, policy=policy * count, next_policy=after * count, temperature=temperature)
    exact = 2.0 + temperature * sum(math.log(2 * math.sinh(w) / w) for w in (1.5 / temperature, 0.5 / temperature))
    assert term(update)[0].item() == pytest.approx(exact, abs=0.03)


def test_calibrated_cql_pushes_no_action_below_the_recorded_return() -> None:
    # Q(s, a) = a; two actions of the policy are worth 1 and 5, the return is 3: (3, 5); the first has no gradient
    class Two(CQL):
        def propose(self, context: UpdateContext) -> tuple[Tensor, Tensor]:
            return torch.tensor([[[1.0]], [[5.0]]]), torch.zeros(2, 1)

    critic = LinearCritic(torch.ones(1, 1, requires_grad=True), torch.zeros(1))
    batch = replace(rows([[0.0]]), return_to_go=torch.tensor([3.0]))
    update = known(batch, critic, state_embedding=NOTHING, q_data=q_output([[0.0]]))
    loss, _ = Two(uniform=0, policy=2, next_policy=0, calibrated=True)(update)
    assert loss.item() == pytest.approx(math.log((math.exp(3) + math.exp(5)) / 2))
    (slope,) = torch.autograd.grad(loss, critic.slope)
    assert slope.item() == pytest.approx(5 * math.exp(5) / (math.exp(3) + math.exp(5)))
    loss, _ = Two(uniform=2, policy=0, next_policy=0, calibrated=True)(update)  # uniform ones stay
    assert loss.item() == pytest.approx(math.log((math.exp(1) + math.exp(5)) / 2), rel=1e-5)


def test_cql_may_count_rows_of_the_task_alone() -> None:
    # Q is 1 everywhere and 0, 2, 4 of the data: gaps of 1 + log 2, -1 + log 2, -3 + log 2; only the last row is prior's
    batch = replace(rows([[0.5]] * 3), source=torch.tensor([0, 0, 1]))
    critic = LinearCritic(torch.zeros(1, 1), torch.ones(1))
    update = known(batch, critic, state_embedding=NOTHING, q_data=q_output([[0.0, 2.0, 4.0]]))
    for task_only, expected in ((False, -3 + 3 * math.log(2)), (True, 2 * math.log(2))):
        loss, metrics = CQL(uniform=2, policy=0, next_policy=0, task_only=task_only)(update)
        assert loss.item() == pytest.approx(expected / 3, rel=1e-5) == metrics["gap"].item()


def test_cql_weighs_samples_by_their_density() -> None:
    value, density = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.5], [0.25]])
    exact = 2 * math.log((math.exp(1 / 2) / 0.5 + math.exp(3 / 2) / 0.25) / 2)
    assert CQL(temperature=2.0).soft_maximum(value, density.log()).item() == pytest.approx(exact)


def test_cql_proposes_uniform_then_pi_of_s_then_pi_of_the_next_s() -> None:
    here, there = gaussian([2.0, 2.0, 2.0], 0.1, 6), gaussian([-2.0, -2.0, -2.0], 0.1, 6)
    update = known(policy=here, next_policy=there)
    action, log_density = CQL(uniform=500, policy=2, next_policy=4).propose(update)
    assert action.shape == (506, 6, 3) and log_density.shape == (506, 6)
    uniform, own, after = action.split([500, 2, 4])
    assert uniform.min() < -0.99 and uniform.max() > 0.99 and uniform.mean().abs() < 0.05
    assert (log_density[:500] == -3 * math.log(2)).all()
    assert (own > 0.5).all() and (after < -0.5).all()
    for policy, actions, densities in ((here, own, log_density[500:502]), (there, after, log_density[502:])):
        expected = torch.stack([policy.log_prob(each) for each in actions])
        torch.testing.assert_close(densities, expected, rtol=1e-3, atol=1e-3)


def test_cql_moves_the_critic_and_neither_proposals_nor_densities() -> None:
    networks = make_networks()
    loss, _ = CQL()(UpdateContext(networks, transitions(), seeded()))
    assert moved(gradients(loss, networks.critic))
    assert not moved(gradients(loss, networks.actor))


def test_cql_pushes_sampled_actions_down_and_recorded_ones_up() -> None:
    data = q_output([[0.0, 0.0]])
    critic = LinearCritic(torch.zeros(1, 2), torch.tensor([0.5], requires_grad=True))
    policy = gaussian([0.0, 0.0], 1.0, 2)
    update = known(
        rows([[0.1, 0.1]] * 2), critic, state_embedding=NOTHING, q_data=data, policy=policy, next_policy=policy
    )
    loss, _ = CQL(uniform=4)(update)
    offset, recorded = torch.autograd.grad(loss, (critic.offset, data.value))
    assert offset.item() == pytest.approx(1)  # a soft maximum's slopes add up to one
    torch.testing.assert_close(recorded, torch.full((1, 2), -0.5))


# DR3

HERE = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 1.0]]])  # [E=2, B=2, F=2]
THERE = torch.tensor([[[4.0, 1.0], [5.0, 0.0]], [[1.0, 7.0], [-2.0, 4.0]]])
# dots: 6, 0 and 3, 2; means 3 and 2.5; sum 5.5


def features(here: Tensor, there: Tensor, discount: list[float]) -> UpdateContext:
    """Return a context with these features of s and of s', at both sites."""
    batch = replace(transitions(size=len(discount)), discount=torch.tensor(discount))
    outputs = {"q_data": CriticOutput(NOTHING, here), "q_next": CriticOutput(NOTHING, there)}
    return known(batch, ensemble=2, encoding=here, next_encoding=there, **outputs)


@pytest.mark.parametrize("site", ["last_hidden", "encoding"])
@pytest.mark.parametrize("stop", [False, True])
def test_dr3_is_the_mean_dot_product_summed_over_the_ensemble(site: str, stop: bool) -> None:
    here, there = HERE.clone().requires_grad_(), THERE.clone().requires_grad_()
    update = features(here, there, [0.9, 0.9])
    loss, _ = DR3(site=site, stop_gradient=stop)(update)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(5.5)
    (slope,) = torch.autograd.grad(loss, here, retain_graph=True)
    torch.testing.assert_close(slope, THERE / 2)
    (beyond,) = torch.autograd.grad(loss, there, allow_unused=True)
    assert beyond is None if stop else torch.equal(beyond, HERE / 2)


def test_dr3_sums_its_products_in_fp32() -> None:
    here = torch.full((1, 1, 4096), 1.0, dtype=torch.bfloat16)
    there = here.clone()
    there[..., 0] += 1 / 128
    update = features(here, there, [0.9])
    update.ensemble = 1
    loss, _ = DR3()(update)
    assert loss.dtype == torch.float32 and loss.item() == 4096 + 1 / 128


def test_dr3_takes_the_backups_action_and_the_online_critic() -> None:
    networks = make_networks()
    for parameter in networks.target.parameters():
        parameter.data.zero_()
    update = UpdateContext(networks, transitions(), seeded())
    update.td_target  # noqa: B018 (asked for first, as by TD)
    critic = networks.critic
    there = critic.q_values(critic.embed_state(critic.encode(update.next_obs)), update.next_action).features
    here = critic.q_values(critic.embed_state(critic.encode(update.obs)), update.batch.action).features
    dots = (here * there).sum(-1) * (update.batch.discount > 0)  # a step that truly ends is in no backup
    assert (update.batch.discount == 0).any()
    torch.testing.assert_close(DR3()(update)[0], dots.mean(1).sum())


def test_dr3_counts_pairs_of_a_backup_only() -> None:
    # dots (6, 0) and (3, 2), the second row an end: 6 / 2 + 3 / 2
    assert DR3()(features(HERE, THERE, [0.9, 0.0]))[0].item() == pytest.approx(4.5)


def test_dr3_counts_once_for_each_critic_that_shares_an_encoder() -> None:
    update = features(HERE[:1], THERE[:1], [0.9, 0.9])
    assert DR3(site="encoding")(update)[0].item() == pytest.approx(2 * 3)  # dots 6, 0; two critics
    assert NormPenalty(site="encoding")(update)[0].item() == pytest.approx(2 * (5 + 1) / 2)


def test_dr3_of_shuffled_pairs_takes_each_next_state_once_by_chance() -> None:
    rows = 512
    here = torch.eye(rows).unsqueeze(0)  # phi_i . phi'_j is 2^(j // 256), so the dots tell of which half s' is
    there = (1.0 + (torch.arange(rows) >= rows // 2)).view(1, rows, 1).expand(1, rows, rows)
    context = features(here, there, [0.9] * rows)
    context.ensemble = 1
    order = torch.rand(rows, generator=seeded()).argsort()
    assert DR3(pairs="shuffled")(context)[0].item() == pytest.approx(1.5)  # a permutation: the mean of all
    crossing = ((order >= rows // 2) != (torch.arange(rows) >= rows // 2)).float().mean()
    assert 0.4 < crossing < 0.6  # sources lie one behind the other in a batch
    # an s' beyond a true end is in no backup and does not count, wherever it lands
    ended = features(here, there, [0.9] * (rows // 2) + [0.0] * (rows // 2))
    ended.ensemble = 1
    assert DR3(pairs="shuffled")(ended)[0].item() == pytest.approx(0.5)


# Penalties


def test_norm_penalty_is_the_mean_squared_norm() -> None:
    # |phi|^2: 5, 1 and 9, 2
    loss, metrics = NormPenalty()(features(HERE, THERE, [0.9, 0.0]))
    assert loss.item() == pytest.approx(3 + 5.5)
    assert metrics["norm"].item() == pytest.approx(((3 + 5.5) / 2) ** 0.5)


@pytest.mark.parametrize(
    ("rows", "gap", "slope"),
    [
        ([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], 7.0, [[-6.0, 0.0], [0.0, 8.0], [0.0, 0.0]]),
        ([[1.0, 2.0], [3.0, 4.0]], 29.7321, [[3.0943, 3.2288], [5.5159, 8.3411]]),
        ([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]], 7.0, [[-6.0, 0.0, 0.0], [0.0, 8.0, 0.0]]),  # more units than rows
    ],
)
def test_rank_penalty_has_the_exact_gradient(rows: list[list[float]], gap: float, slope: list[list[float]]) -> None:
    phi = torch.tensor([rows], requires_grad=True)
    largest, smallest = extreme_singular_values(phi)
    (gradient,) = torch.autograd.grad((largest - smallest).sum(), phi)
    assert (largest - smallest).item() == pytest.approx(gap, abs=1e-4)
    torch.testing.assert_close(gradient, torch.tensor([slope]), atol=1e-4, rtol=1e-4)
    loss, _ = RankPenalty()(features(phi.expand(2, -1, -1), phi, [0.9] * len(rows)))
    assert loss.item() == pytest.approx(2 * gap / len(rows), abs=1e-4)


@pytest.mark.parametrize("site", ["last_hidden", "encoding"])
def test_dr3_moves_the_critic_through_the_next_features_unless_stopped(site: str) -> None:
    def slopes(stop: bool) -> list[Tensor]:
        networks = make_networks(shared_encoder=True)
        loss, _ = DR3(site=site, stop_gradient=stop)(UpdateContext(networks, transitions(), seeded()))  # type: ignore[arg-type]
        assert not moved(gradients(loss, networks.actor))
        return gradients(loss, networks.critic)

    free, stopped = slopes(False), slopes(True)
    assert moved(free) and moved(stopped)
    assert any(not torch.allclose(a, b) for a, b in zip(free, stopped, strict=True))


# SAC


def test_seeking_value_is_minus_the_smaller_q() -> None:
    output = q_output([[1, 5, 3], [2, 4, -3]])
    loss, _ = MaximizeQ()(known(q_policy=output))
    assert loss.item() == pytest.approx(-(1 + 4 - 3) / 3)


def test_seeking_value_may_take_the_mean_of_q_and_its_scale_away() -> None:
    output = q_output([[1, 5, 3], [2, 4, -3]])
    loss, _ = MaximizeQ(aggregate="mean")(known(q_policy=output))
    assert loss.item() == pytest.approx(-(1.5 + 4.5 + 0) / 3)
    loss, _ = MaximizeQ(aggregate="quantile", quantile=0.25)(known(q_policy=output))
    assert loss.item() == pytest.approx(-(1.25 + 4.25 - 1.5) / 3)
    loss, _ = MaximizeQ(normalize=True)(known(q_policy=output))
    assert loss.item() == pytest.approx(-(1 + 4 - 3) / (1 + 4 + 3))
    (slope,) = torch.autograd.grad(loss, output.value)
    torch.testing.assert_close(slope, -torch.tensor([[1.0, 0, 0], [0, 1, 1]]) / 3 / (8 / 3))


def test_imitation_by_squared_error_pulls_the_mode() -> None:
    policy = gaussian([0.0, 0.0], 1.0, 2)
    loss, metrics = BC(loss="squared_error")(known(rows([[0.3, -0.4], [1.0, 0.0]]), policy=policy))
    assert loss.item() == pytest.approx((0.25 + 1) / 2) and metrics["distance"].item() == pytest.approx(1.7 / 4)


def test_keeping_entropy_measures_the_shortfall_below_minus_dim_a() -> None:
    log_prob = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    loss, metrics = Entropy()(known(policy_action=Reparameterised(torch.zeros(1, 3, 2), log_prob[None], None)))
    assert loss.item() == pytest.approx(3 - 2)  # entropy -3, target -2: one nat short
    assert metrics["entropy"].item() == pytest.approx(-3)
    assert Entropy().weight == AtMost(bound=0.0)


def test_the_actors_terms_reach_the_actor() -> None:
    networks = make_networks()
    for term in (MaximizeQ(), Entropy(), BC(), AdvantageWeighted()):
        loss, _ = term(UpdateContext(networks, transitions(), seeded()))
        assert loss.shape == () and moved(gradients(loss, networks.actor))


# Imitation


def test_bc_is_the_negative_log_likelihood() -> None:
    policy = gaussian([0.2, -0.1], 0.5, 2)
    batch = rows([[0.5, 0.0], [-0.3, 0.9]])
    loss, metrics = BC()(known(batch, policy=policy))
    by_hand = 0.0
    for action in batch.action.tolist():
        for a, mean in zip(action, (0.2, -0.1), strict=True):
            z = (math.atanh(a) - mean) / 0.5
            by_hand += z * z / 2 + math.log(0.5) + math.log(2 * math.pi) / 2 + math.log(1 - a * a)
    assert loss.item() == pytest.approx(by_hand / 2, rel=1e-4)
    mode = (math.tanh(0.2), math.tanh(-0.1))
    distance = (abs(mode[0] - 0.5) + abs(mode[1]) + abs(mode[0] + 0.3) + abs(mode[1] - 0.9)) / 4
    assert metrics["distance"].item() == pytest.approx(distance, rel=1e-4)


def test_advantages_weigh_the_imitation() -> None:
    # both critics flat: V = min(2, 5) = 2; A = min_e Q_e - V = 1, -2, 8; w = exp(A / 2) up to 20
    policy, batch = gaussian([0.0, 0.0], 1.0, 3), rows([[0.1, 0.2], [-0.4, 0.3], [0.6, -0.7]])
    update = known(
        batch,
        LinearCritic(torch.zeros(2, 2), torch.tensor([2.0, 5.0])),
        state_embedding=NOTHING,
        policy=policy,
        q_data=q_output([[3, 0, 99], [4, 1, 10]]),
    )
    weights = torch.tensor([math.exp(0.5), math.exp(-1), 20.0])
    loss, metrics = AdvantageWeighted(temperature=2.0)(update)
    expected = -(weights * policy.log_prob(batch.action)).mean()
    torch.testing.assert_close(loss, expected)
    assert metrics["weight"].item() == pytest.approx(weights.mean().item())
    assert metrics["advantage"].item() == pytest.approx((1 - 2 + 8) / 3)


def test_the_policys_value_is_the_mean_over_samples_of_the_smaller_q() -> None:
    # Q_0 = a, Q_1 = -a: their minimum is -|a| at every sample, though both means are near 0
    policy = gaussian([0.0], 1.0, 1)
    critic = LinearCritic(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    update = known(rows([[0.5]]), critic, state_embedding=NOTHING, policy=policy, q_data=q_output([[0.0], [0.0]]))
    _, metrics = AdvantageWeighted(samples=16)(update)
    own = policy.sample(16, seeded())[0]
    assert metrics["advantage"].item() == pytest.approx(own.abs().mean().item(), rel=1e-5)


def test_the_value_of_a_deterministic_policy_is_that_of_its_own_action() -> None:
    policy = PointAction(torch.tensor([[0.3]]), noise=0.2, clip=0.5)
    critic = LinearCritic(torch.tensor([[1.0], [2.0]]), torch.zeros(2))
    update = known(rows([[0.5]]), critic, state_embedding=NOTHING, policy=policy, q_data=q_output([[0.5], [1.0]]))
    _, metrics = AdvantageWeighted(loss="squared_error")(update)
    assert metrics["advantage"].item() == pytest.approx(0.5 - math.tanh(0.3), rel=1e-5)  # the lesser Q is a


def test_an_enormous_advantage_is_only_as_large_as_the_limit() -> None:
    update = known(
        rows([[0.5]]),
        LinearCritic(torch.zeros(1, 1), torch.zeros(1)),
        state_embedding=NOTHING,
        policy=gaussian([0.0], 1.0, 1),
        q_data=q_output([[1e6]]),
    )
    loss, metrics = AdvantageWeighted(limit=7.0)(update)
    assert metrics["weight"].item() == 7 and loss.isfinite()


def test_advantage_weights_carry_no_gradient_into_the_critic() -> None:
    networks = make_networks()
    loss, _ = AdvantageWeighted()(UpdateContext(networks, transitions(), seeded()))
    assert not moved(gradients(loss, networks.critic))

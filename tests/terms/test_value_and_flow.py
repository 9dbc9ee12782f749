"""Terms of value networks and of flows, and the backups that go with them, on numbers worked out by hand."""

from dataclasses import replace

import pytest
import torch

from pixelrl.learning.backup import Backup
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.critic_forms import Quantile, Scalar
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.policies import FlowPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.expectile import Expectile
from pixelrl.terms.flow import FlowDistillation, FlowMatching
from pixelrl.terms.td import TD, FunctionalRegularization
from tests.tiny import gradients, known, make_networks, moved, seeded, transitions


@pytest.mark.parametrize(("expectile", "loss"), [(0.9, 1.85), (0.7, 1.55), (0.5, 1.25)])
def test_expectile_by_hand(expectile: float, loss: float) -> None:
    # u = (-1, 2): (1 - tau) 1 and tau 4, halved
    update = known(transitions(size=2), target_q_data=torch.tensor([[0.0, 3.0], [5.0, 9.0]]), state_value=torch.ones(2))
    update.backup = Backup(action="value")
    value, _ = Expectile(expectile=expectile)(update)
    assert value.item() == pytest.approx(loss)


@pytest.mark.parametrize("expectile", [0.0, 1.0])
def test_expectile_at_the_border_is_refused(expectile: float) -> None:
    with pytest.raises(PixelrlError, match=f"Expectile: expectile is {expectile}; it must be between 0 and 1"):
        Expectile(expectile=expectile)


@pytest.mark.parametrize("shared", [False, True])
def test_expectile_moves_the_value_network_and_nothing_else(shared: bool) -> None:
    networks = make_networks(shared_encoder=shared, value=True)
    loss, _ = Expectile()(UpdateContext(networks, transitions(), seeded(), backup=Backup(action="value")))
    assert networks.value is not None and moved(gradients(loss, networks.value))
    assert not moved(gradients(loss, networks.actor))
    assert not moved(gradients(loss, networks.critic.head))


def test_backup_of_a_value_network_asks_no_action() -> None:
    networks, batch = make_networks(value=True), transitions()
    update = UpdateContext(networks, batch, seeded(), backup=Backup(action="value"))
    expected = batch.reward + batch.discount * networks.state_value(update.next_obs)
    torch.testing.assert_close(update.td_target, expected.detach())
    assert not update.td_target.requires_grad and torch.equal(update.next_action, batch.next_action)
    assert "next_policy" not in vars(update)


@pytest.mark.parametrize(("values", "quarter"), [((1.0, 2.0, 3.0, 4.0, 10.0), 2.0), ((1.0, 3.0), 1.5)])
def test_aggregate_by_quantile_interpolates_between_critics(values: tuple[float, ...], quarter: float) -> None:
    backup = Backup(aggregate="quantile", quantile=0.25)
    assert backup.of_critics(torch.tensor(values).unsqueeze(1), seeded()).item() == pytest.approx(quarter)


def test_aggregate_of_a_random_subset_is_the_least_of_so_many() -> None:
    value = torch.arange(5.0).view(5, 1).expand(5, 4000)
    least = Backup(aggregate="subset", subset=2).of_critics(value, seeded())
    # of 10 pairs, 4 have the least 0, then 3, 2, 1
    shares = [(least == rank).float().mean().item() for rank in range(5)]
    assert shares == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=0.03)
    whole = Backup(aggregate="subset", subset=5).of_critics(value, seeded())
    assert torch.equal(whole, torch.zeros(4000))
    several = Backup(aggregate="subset", subset=5).of_critics(value.unsqueeze(1).expand(5, 3, 4000), seeded())
    assert several.shape == (3, 4000)


def test_backup_of_the_mean_of_several_actions_is_their_expectation() -> None:
    networks, batch = make_networks(), transitions()
    update = UpdateContext(networks, batch, seeded(), backup=Backup(samples=8, of_samples="mean"))
    actions = UpdateContext(networks, batch, seeded()).next_policy.actions(8, seeded())
    target = networks.target
    value = target.q_values(target.embed_state(target.encode(update.next_obs)), actions).value.amin(0).mean(0)
    torch.testing.assert_close(update.next_value, value)
    torch.testing.assert_close(update.next_action, actions[0])


def test_backup_with_a_penalty_pays_for_the_distance_to_what_was_done() -> None:
    networks, batch = make_networks(), transitions()
    plain = UpdateContext(networks, batch, seeded(), backup=Backup())
    dear = UpdateContext(networks, batch, seeded(), backup=Backup(penalty=0.5))
    distance = (plain.next_action - batch.next_action).square().sum(-1)
    torch.testing.assert_close(dear.td_target, plain.td_target - 0.5 * batch.discount * distance)
    assert Backup(penalty=0.5).needs_next_action and not Backup().needs_next_action


def test_huber_by_hand() -> None:
    errors = torch.tensor([[0.05, 0.5, 2.0]])
    for beta, expected in (
        (1.0, (0.00125, 0.125, 1.5)),
        (1 / 9, (0.01125, 0.4444, 1.9444)),
        (100.0, (1.25e-5, 0.00125, 0.02)),
    ):
        loss = Scalar(huber=beta).loss(None, errors, torch.zeros(3))
        torch.testing.assert_close(loss, torch.tensor([expected]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("quantiles", "target", "loss"),
    [
        ((0.0, 1.0), (1.0,), 0.125),
        ((0.0, 1.0), (-1.0,), 0.75),
        ((0.0, 1.0), (1.0, -1.0), 0.4375),
        ((0.0, 1.0, 2.0, 3.0), (2.0, 2.0), 0.4375),
    ],
)
def test_quantile_loss_by_hand(quantiles: tuple[float, ...], target: tuple[float, ...], loss: float) -> None:
    form = Quantile(quantiles=len(quantiles))
    outputs = torch.tensor(quantiles).view(1, 1, -1)
    assert form.loss(outputs, form.value(outputs), torch.tensor([target])).item() == pytest.approx(loss)


def test_quantiles_of_a_small_kappa_move_as_the_tabular_rule_says() -> None:
    form, outputs = Quantile(quantiles=2, kappa=0.01), torch.tensor([[[0.0, 2.0]]], requires_grad=True)
    loss = form.loss(outputs, form.value(outputs), torch.tensor([[1.0, 1.0]])).sum()
    (slope,) = torch.autograd.grad(loss, outputs)
    torch.testing.assert_close(outputs.detach() - 0.1 * slope, torch.tensor([[[0.025, 1.975]]]))


def test_quantile_critic_is_fitted_to_the_quantiles_of_its_target() -> None:
    networks, batch = make_networks(form=Quantile(quantiles=4)), transitions()
    update = UpdateContext(networks, batch, seeded())
    target = networks.target
    outputs = target.q_values(target.embed_state(target.encode(update.next_obs)), update.next_action).outputs
    assert outputs is not None and outputs.shape == (2, 6, 4)
    expected = batch.reward.unsqueeze(1) + batch.discount.unsqueeze(1) * outputs.amin(0)
    torch.testing.assert_close(update.td_samples, expected)
    loss, metrics = TD()(update)
    assert moved(gradients(loss, networks.critic)) and metrics["error"].isfinite()
    returns, _ = TD(target="returns")(update)
    assert returns.isfinite() and returns != loss


def test_td_of_returns_asks_nothing_of_the_next_state() -> None:
    update = UpdateContext(make_networks(), transitions(), seeded())
    loss, _ = TD(target="returns")(update)
    expected = (update.q_data.value - update.batch.return_to_go).square().mean(-1).sum()
    torch.testing.assert_close(loss, expected)
    assert "next_policy" not in vars(update)


def awr_update(loss: str) -> tuple[UpdateContext, AdvantageWeighted]:
    batch = replace(transitions(size=2), action=torch.tensor([[0.5], [-0.5]]))
    update = known(
        batch,
        target_q_data=torch.tensor([[1.0, 4.0], [2.0, 3.0]]),  # the least: 1 and 3
        state_value=torch.tensor([0.0, 4.0]),
        log_prob=torch.tensor([-1.0, -2.0]),
    )
    update.backup = Backup(action="value")
    return update, AdvantageWeighted(advantage="value", temperature=2.0, limit=1.5, loss=loss)  # type: ignore[arg-type]


def test_advantage_over_a_value_network_by_hand() -> None:
    update, term = awr_update("likelihood")
    loss, metrics = term(update)  # A = (1, -1): weights min(e^.5, 1.5) and e^-.5
    assert loss.item() == pytest.approx((1.5 * 1 + 0.606531 * 2) / 2, rel=1e-5)
    assert metrics["advantage"].item() == pytest.approx(0.0)


def test_weighted_squared_error_by_hand() -> None:
    update, term = awr_update("squared_error")

    class Mode:
        mode = torch.zeros(2, 1)

    vars(update)["policy"] = Mode()
    loss, _ = term(update)
    assert loss.item() == pytest.approx((1.5 * 0.25 + 0.606531 * 0.25) / 2, rel=1e-5)


def flow_update(**options: object) -> UpdateContext:
    networks = make_networks(shared_encoder=True, policy=FlowPolicy(steps=3, **options))  # type: ignore[arg-type]
    return UpdateContext(networks, transitions(), seeded())


def test_flow_matching_is_the_squared_error_of_the_velocity() -> None:
    update = flow_update()
    actor = update.networks.actor
    with torch.no_grad():
        for parameter in actor.flow.last.parameters():  # type: ignore[union-attr]
            parameter.zero_()
    loss, _ = FlowMatching()(update)
    generator = seeded()
    update.networks.policy(update.obs)  # no noise is drawn for pictures: shift is 0
    start = torch.randn(1, 6, 3, generator=generator)
    torch.testing.assert_close(loss, (update.batch.action - start).square().mean())  # the velocity is 0
    assert moved(gradients(loss, actor)) and not moved(gradients(loss, update.networks.critic.head))


def test_flow_matching_shapes_a_shared_encoder() -> None:
    update = flow_update()
    loss, _ = FlowMatching()(update)
    assert moved(gradients(loss, update.networks.critic.encoders))


def test_flow_distillation_holds_the_flow_fixed() -> None:
    update = flow_update()
    loss, _ = FlowDistillation()(update)
    actor = update.networks.actor
    assert moved(gradients(loss, actor.one_step))  # type: ignore[arg-type]
    assert not moved(gradients(loss, actor.flow))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": (FlowMatching(),)}, "actor has FlowMatching, which needs --policy flow"),
        ({"policy": FlowPolicy(), "warmup": ()}, "CQL, which needs a policy with a density: --policy gaussian"),
        ({"value": (Expectile(),), "critic": (), "shared_encoder": False}, "critic_warmup and value need critic terms"),
        ({"backup": Backup(action="value")}, "backup.action is value; it needs terms of a value network"),
        ({"actor": (AdvantageWeighted(advantage="value"),)}, "needs a value network: terms in Recipe.value"),
    ],
)
def test_recipes_whose_parts_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    from pixelrl.launch.recipes import quick_cog

    with pytest.raises(PixelrlError, match=message):
        replace(quick_cog(), **{"warmup_steps": 0, "warmup": (), **changes})  # type: ignore[arg-type]


def test_one_step_terms_want_a_one_step_network() -> None:
    from pixelrl.launch.recipes import quick_fql

    with pytest.raises(PixelrlError, match="FlowDistillation, which needs --policy flow with"):
        replace(quick_fql(), policy=FlowPolicy(one_step=False))


def test_functional_regularisation_by_hand() -> None:
    # Q 2, y 3, Q' 1, kappa 0.5: 1 + 0.5, and d/dQ = 2 (2 - 3) + 2 * 0.5 (2 - 1) = -1
    value = torch.tensor([[2.0]], requires_grad=True)
    data = CriticOutput(value, torch.empty(0))
    update = known(transitions(size=1), q_data=data, td_target=torch.tensor([3.0]), form=Scalar())
    vars(update)["target_q_data"] = torch.tensor([[1.0]])
    loss = TD()(update)[0] + 0.5 * FunctionalRegularization()(update)[0]
    assert loss.item() == pytest.approx(1.5)
    assert torch.autograd.grad(loss, value)[0].item() == pytest.approx(-1.0)


def test_backup_by_the_critics_themselves_carries_no_gradient() -> None:
    networks, batch = make_networks(), transitions()
    with torch.no_grad():
        for parameter in networks.target.parameters():
            parameter.mul_(0.5)
    update = UpdateContext(networks, batch, seeded(), backup=Backup(network="online"))
    critic = networks.critic
    value = critic.q_values(critic.embed_state(critic.encode(update.next_obs)), update.next_action).value.amin(0)
    torch.testing.assert_close(update.td_target, batch.reward + batch.discount * value)
    assert not update.td_target.requires_grad

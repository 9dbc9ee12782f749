"""The scratch pad of one step."""

from collections import Counter
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from pixelrl.encoders.conv import CogCNN
from pixelrl.launch.recipes import cog, cog_dr3, quick_cog, quick_cog_dr3
from pixelrl.learning.backup import Backup
from pixelrl.learning.batch import Observation
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.interventions import Intervention, PlasticityInjection
from pixelrl.learning.networks import Networks
from pixelrl.learning.recipe import Recipe
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.bc import BC
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.td import TD
from tests.tiny import gradients, known, make_learner, make_networks, moved, seeded, shrink, transitions

RESULTS = ["encoding", "next_encoding", "q_data", "q_policy", "q_next"]


def leaf(update: UpdateContext, name: str) -> torch.Tensor:
    result = getattr(update, name)
    return result if isinstance(result, torch.Tensor) else result.features


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("shared", [False, True])
def test_what_is_asked_for_first_without_gradient_still_has_one(name: str, shared: bool) -> None:
    networks = make_networks(shared_encoder=shared)
    update = UpdateContext(networks, transitions(), seeded(), shift=1)
    with torch.no_grad():
        first = leaf(update, name)
    assert leaf(update, name) is first
    assert moved(gradients(first.square().sum(), networks.critic))


def test_the_policy_and_its_action_keep_their_gradient_too() -> None:
    networks = make_networks()
    update = UpdateContext(networks, transitions(), seeded())
    with torch.no_grad():
        action, log_prob, _ = update.policy_action
    assert moved(gradients(action.sum(), networks.actor)) and moved(gradients(log_prob.sum(), networks.actor))
    assert moved(gradients(update.q_policy.value.sum(), networks.actor))


def test_what_lies_beyond_the_backup_has_no_gradient() -> None:
    update = UpdateContext(make_networks(shared_encoder=True), transitions(), seeded())
    for tensor in (update.next_action, update.next_value, update.td_target):
        assert not tensor.requires_grad


def test_the_target_is_reward_plus_discount_times_the_smaller_target_q() -> None:
    networks = make_networks()
    for parameter in networks.target.head.parameters():
        parameter.data *= 1.5  # so that it is not the critic's
    update = UpdateContext(networks, transitions(), seeded())
    target = networks.target
    first, second = target.q_values(target.embed_state(target.encode(update.batch.next_obs)), update.next_action).value
    assert (first < second).any() or (first > second).any()
    expected = update.batch.reward + update.batch.discount * torch.minimum(first, second)
    torch.testing.assert_close(update.td_target, expected)
    ends = update.batch.discount == 0
    assert ends.any() and torch.equal(update.td_target[ends], update.batch.reward[ends])


def next_q(update: UpdateContext, action: torch.Tensor) -> torch.Tensor:
    """Return the target critics' Q(s', a)."""
    target = update.networks.target
    return target.q_values(target.embed_state(target.encode(update.next_obs)), action).value


@pytest.mark.parametrize("aggregate", ["min", "mean"])
def test_backup_of_the_recorded_action_is_sarsas(aggregate: Literal["min", "mean"]) -> None:
    batch = transitions()
    networks = make_networks()
    update = UpdateContext(networks, batch, seeded(), backup=Backup(action="recorded", aggregate=aggregate))
    value = next_q(update, batch.next_action)
    value = value.amin(0) if aggregate == "min" else value.mean(0)
    torch.testing.assert_close(update.td_target, batch.reward + batch.discount * value)
    before = update.td_target
    with torch.no_grad():
        for parameter in networks.actor.parameters():
            parameter.add_(1.0)
    again = UpdateContext(networks, batch, seeded(), backup=Backup(action="recorded", aggregate=aggregate))
    assert torch.equal(again.td_target, before)  # whatever the policy is


def test_backup_of_the_recorded_return_asks_no_critic() -> None:
    batch = transitions()
    update = known(batch)
    update.backup = Backup(action="returns")
    assert torch.equal(update.td_target, batch.return_to_go) and torch.equal(update.next_action, batch.next_action)


def test_backup_of_the_best_of_several_actions_takes_the_one_with_the_highest_target_q() -> None:
    networks, batch = make_networks(), transitions()
    update = UpdateContext(networks, batch, seeded(), backup=Backup(samples=5))
    actions = UpdateContext(networks, batch, seeded()).next_policy.actions(5, seeded())
    value = next_q(update, actions).amin(0)
    assert len(value.argmax(0).unique()) > 1
    torch.testing.assert_close(update.next_value, value.amax(0))
    torch.testing.assert_close(update.next_action, actions[value.argmax(0), torch.arange(len(batch))])


def test_backup_of_several_recorded_actions_is_refused() -> None:
    with pytest.raises(PixelrlError, match="backup: samples is 2; it must be at least 1, and 1 unless actions are"):
        Backup(action="recorded", samples=2)


def test_all_terms_see_the_same_shifted_pictures() -> None:
    update = UpdateContext(make_networks(), transitions(), seeded(), shift=2)
    assert update.obs is update.obs and update.next_obs is update.next_obs
    assert not torch.equal(update.obs.images["front_image"], update.batch.obs.images["front_image"] / 255)
    torch.testing.assert_close(update.encoding, update.networks.critic.encode(update.obs))


def test_a_shared_encoder_gives_the_policy_the_critics_encoding() -> None:
    networks = make_networks(shared_encoder=True)
    update = UpdateContext(networks, transitions(), seeded(), shift=1)
    torch.testing.assert_close(update.policy.mean, networks.policy(update.obs).mean)
    torch.testing.assert_close(update.next_policy.mean, networks.policy(update.next_obs).mean)


def test_imitation_among_the_critics_terms_shapes_a_shared_encoder_only() -> None:
    shared, apart = make_networks(shared_encoder=True), make_networks(shared_encoder=False)
    loss, _ = BC()(UpdateContext(shared, transitions(), seeded()))
    assert moved(gradients(loss, shared.critic.encoders))
    assert not moved(gradients(loss, shared.critic.head))
    loss, _ = BC()(UpdateContext(apart, transitions(), seeded()))
    assert not moved(gradients(loss, apart.critic))
    loss, _ = TD()(UpdateContext(apart, transitions(), seeded()))
    assert moved(gradients(loss, apart.critic.encoders))


def count_encodings(networks: Networks) -> Counter[str]:
    """Count the pictures' rows that each encoder is shown, call by call."""
    seen: Counter[str] = Counter()

    def watch(name: str, encoder: nn.Module) -> None:
        def note(module: nn.Module, inputs: object, result: torch.Tensor) -> None:
            seen[name] += result.shape[0]
            assert result.shape[0] in (6, 12)  # s, s' or both; never tiled for sampled actions

        encoder.register_forward_hook(note)

    for name, critic in (("critic", networks.critic), ("target", networks.target)):
        for index, encoder in enumerate(critic.encoders):
            watch(f"{name}{index}", encoder)
    if networks.actor.encoder is not None:
        watch("actor", networks.actor.encoder)
    return seen


@pytest.mark.parametrize(
    ("recipe", "critic"),
    [(cog(), 1), (cog_dr3(), 2), (quick_cog(), 2), (quick_cog_dr3(), 2)],  # s; and s' for DR3 or a shared encoder
    ids=["cog", "cog_dr3", "quick_cog", "quick_cog_dr3"],
)
def test_each_picture_is_encoded_once_by_each_network(recipe: object, critic: int) -> None:
    learner = make_learner(shrink(recipe, warmup_steps=0))  # type: ignore[arg-type]
    seen = count_encodings(learner.networks)
    learner.update(transitions())
    if learner.recipe.shared_encoder:
        assert seen == {"critic0": 6 * critic, "target0": 6}
    else:
        assert seen == {"critic0": 6 * critic, "critic1": 6 * critic, "target0": 6, "target1": 6, "actor": 12}


@pytest.mark.parametrize(("bottleneck", "passes"), [(0, [12]), (4, [6, 6])], ids=["plain", "noisy"])
def test_both_states_of_dr3_are_encoded_in_one_pass_unless_encoders_draw_noise(
    bottleneck: int, passes: list[int]
) -> None:
    learner = make_learner(shrink(quick_cog_dr3(), encoder=CogCNN(channels=2, bottleneck=bottleneck)))
    rows: list[int] = []
    learner.networks.critic.encoders[0].register_forward_hook(lambda *given: rows.append(len(given[2])))
    learner.update(transitions())
    assert rows == passes


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("site", ["last_hidden", "encoding"])
def test_encoding_both_states_in_one_pass_changes_neither_dr3_nor_its_gradient(
    shared: bool, site: Literal["last_hidden", "encoding"]
) -> None:
    networks = make_networks(shared_encoder=shared)
    results = []
    for at_once in (False, True):
        update = UpdateContext(networks, transitions(), seeded(), shift=1, at_once=at_once)
        loss = DR3(site=site)(update)[0] + TD()(update)[0]
        results.append([loss, update.policy.mean, update.next_value, *gradients(loss, networks.critic)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("recipe", "at_once"), [(quick_cog_dr3(), True), (quick_cog(), False), (cog_dr3(), False)])
def test_states_are_encoded_in_one_pass_only_where_a_gradient_goes_through_both(recipe: Recipe, at_once: bool) -> None:
    assert make_learner(shrink(recipe)).at_once is at_once
    silent = replace(recipe, critic=tuple(replace(term, weight=0.0) for term in recipe.critic))
    assert not make_learner(shrink(silent)).at_once


@pytest.mark.parametrize("shared", [False, True])
def test_encoding_once_is_what_the_naive_form_computes(shared: bool) -> None:
    """COG's code repeats the pictures for every sampled action, encodes each copy, and appends the action to it."""
    networks, batch, count = make_networks(shared_encoder=shared), transitions(), 5
    action = torch.rand(count, 6, 3, generator=seeded(3)) * 2 - 1

    def naive() -> torch.Tensor:
        images = {key: value.repeat(count, 1, 1, 1) for key, value in batch.obs.images.items()}
        tiled = Observation(images=images, proprio=batch.obs.proprio.repeat(count, 1))
        head, values = networks.critic.head, []
        for member in range(2):
            encoder = networks.critic.encoders[0 if shared else member]
            x = torch.cat([encoder(tiled), action.flatten(0, 1)], dim=1)
            first = torch.cat([head.from_state.weight[member], head.from_action.weight[member]])
            x = torch.relu(x @ first + head.from_state.bias[member])  # type: ignore[index]
            for layer in head.layers:
                x = torch.relu(x @ layer.weight[member] + layer.bias[member])  # type: ignore[index,operator]
            values.append((x @ head.last.weight[member] + head.last.bias[member]).view(count, 6))  # type: ignore[index]
        return torch.stack(values)

    once, tiled = UpdateContext(networks, batch, seeded()).q_values(action).value, naive()
    torch.testing.assert_close(once, tiled, rtol=1e-5, atol=1e-5)
    for one, other in zip(
        gradients(once.logsumexp(1).mean(), networks.critic),
        gradients(tiled.logsumexp(1).mean(), networks.critic),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("injected", [False, True])
def test_slow_last_layer_stands_on_the_critics_own_trunk(injected: bool) -> None:
    networks = make_networks(intervention=PlasticityInjection() if injected else Intervention())
    if injected:
        for critic in (networks.critic, networks.target):
            critic.head.inject(make_networks(seed=1).critic.learning_head)  # type: ignore[operator]
    last = networks.target.learning_head.last
    torch.nn.init.normal_(last.weight)
    backup = Backup(network="last_layer", aggregate="mean")

    def update() -> UpdateContext:
        return UpdateContext(networks, transitions(), seeded(), backup=backup)

    critic, batch = networks.critic, transitions()
    if not injected:
        for obs, mine in ((batch.next_obs, update().next_value), (batch.obs, update().target_q_data.mean(0))):
            action = update().next_action if obs is batch.next_obs else batch.action
            phi = critic.q_values(critic.embed_state(critic.encode(obs)), action).features
            torch.testing.assert_close(mine, last(phi).squeeze(-1).mean(0))
    value = update().next_value
    for name, parameter in networks.target.named_parameters():
        if "last" not in name:
            parameter.data.normal_()  # nobody looks at the slow copy's trunk
    assert torch.equal(update().next_value, value) and not update().td_target.requires_grad
    for each in networks.target.parameters():
        each.data.zero_()
    assert not update().next_value.any()


def test_slow_last_layer_that_equals_the_critics_is_no_target_network() -> None:
    networks, values = make_networks(), []
    for network in ("last_layer", "online"):
        backup = Backup(network=network)  # type: ignore[arg-type]
        values.append(UpdateContext(networks, transitions(), seeded(), backup=backup).td_target)
    assert torch.equal(*values)

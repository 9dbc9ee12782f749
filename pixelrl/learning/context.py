"""What the terms of one gradient step share: encodings, Q and phi, the policy's actions, the TD target."""

from collections.abc import Callable
from typing import Generic, TypeVar, overload

import torch
from torch import Tensor

from pixelrl.learning.actors import ActionDistribution, Reparameterised
from pixelrl.learning.augment import augment
from pixelrl.learning.backup import Backup
from pixelrl.learning.batch import Batch, Observation
from pixelrl.learning.critic_forms import CriticForm
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.networks import Networks
from pixelrl.learning.noise import EncoderNoise, Noise
from pixelrl.learning.span import span

Result = TypeVar("Result")


class shared(Generic[Result]):
    """A property that is computed once, with its graph, when it is first asked for; a profiler shows its name.

    It is what `functools.cached_property` is, whose lock torch cannot compile in Python 3.11.
    """

    def __init__(self, compute: "Callable[[UpdateContext], Result]") -> None:
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    @overload
    def __get__(self, context: None, owner: type) -> "shared[Result]": ...

    @overload
    def __get__(self, context: "UpdateContext", owner: type) -> Result: ...

    def __get__(self, context: "UpdateContext | None", owner: type) -> "shared[Result] | Result":
        """Compute it; from then on the result lies in its place."""
        if context is None:
            return self
        with torch.enable_grad(), span(self.name):
            result = self.compute(context)
        setattr(context, self.name, result)
        return result

    def peek(self, context: "UpdateContext") -> Result | None:
        """Return it if a term has asked for it, else None: nothing is computed."""
        result: Result | None = vars(context).get(self.name)
        return result


class UpdateContext:
    """What the terms of one step share: computed once, and only if some term asks.

    A result comes with its graph even if the first to ask does so under `no_grad`: others will want the gradient.
    Nothing here is detached for the terms' sake. The learner differentiates the critic's objective with respect to the
    critic's parameters only (a shared encoder is among them) and the actor's with respect to the actor's only, so a
    gradient can never leak from one into the other.

    Args:
        networks: the learned functions.
        batch: the transitions.
        generator: of the noise in augmentation and in sampled actions.
        shift: augmentation, the largest shift of a picture [pixels].
        shift_alike: move s and s' alike.
        shift_chance: that pictures are shifted at all.
        backup: what Q is fitted to.
        teacher: networks that are imitated.
        learning: encoders add the noise that they learn with, if they have any.
        at_once: the critic encodes s and s' in one pass, which is faster where the gradient goes through both.

    Attributes:
        information: what bottlenecks let through of s, in nats, `[B]` each, once `encoding` was asked for.
    """

    def __init__(
        self,
        networks: Networks,
        batch: Batch,
        generator: Noise,
        *,
        shift: int = 0,
        shift_alike: bool = False,
        shift_chance: float = 1.0,
        backup: Backup | None = None,
        teacher: Networks | None = None,
        learning: bool = False,
        at_once: bool = False,
    ) -> None:
        self.networks, self.batch, self.generator, self.teacher = networks, batch, generator, teacher
        self.shift, self.shift_alike, self.shift_chance = shift, shift_alike, shift_chance
        self.backup, self.learning, self.at_once = Backup() if backup is None else backup, learning, at_once
        self.information: list[Tensor] = []

    def encoder_noise(self) -> EncoderNoise:
        """Return what a pass through encoders is given."""
        return EncoderNoise(self.generator if self.learning else None)

    @shared
    def both_obs(self) -> Observation:
        """The states s, then s', augmented, in the numbers that the encoders see: one draw of noise for both."""
        both = self.batch.obs.followed_by(self.batch.next_obs)
        return augment(both, self.shift, self.generator, alike=self.shift_alike, chance=self.shift_chance)

    @shared
    def obs(self) -> Observation:
        """The states s, augmented."""
        if not self.networks.critic.encoders:  # then nobody looks at s'
            return augment(self.batch.obs, self.shift, self.generator, chance=self.shift_chance)
        return self.both_obs.map(lambda tensor: tensor[: len(self.batch)])

    @shared
    def next_obs(self) -> Observation:
        """The states s', augmented."""
        return self.both_obs.map(lambda tensor: tensor[len(self.batch) :])

    @shared
    def both_encodings(self) -> tuple[Tensor, ...]:
        """The critic's encodings of s and of s', `[E | 1, B, D]`, of one pass."""
        return self.networks.critic.encode(self.both_obs).chunk(2, 1)

    @shared
    def encoding(self) -> Tensor:
        """The critic's encoding of s, `[E | 1, B, D]`."""
        if self.at_once:
            return self.both_encodings[0]
        noise = self.encoder_noise()
        self.information = noise.information
        return self.networks.critic.encode(self.obs, noise)

    @shared
    def next_encoding(self) -> Tensor:
        """The critic's encoding of s', `[E | 1, B, D]`, with gradient."""
        if self.at_once:
            return self.both_encodings[1]
        return self.networks.critic.encode(self.next_obs, self.encoder_noise())

    @shared
    def state_embedding(self) -> Tensor:
        """What all actions in s share: its part of the critic's first layer, `[E, B, H]`."""
        return self.networks.critic.embed_state(self.encoding)

    @shared
    def policy(self) -> ActionDistribution:
        """The policy in s."""
        shared = self.networks.actor.encoder is None
        return self.networks.policy(self.obs, self.encoding if shared else None, noise=self.encoder_noise())

    @shared
    def log_prob(self) -> Tensor:
        """The log-density of the recorded action under the policy in s, float32 `[B]`."""
        return self.policy.log_prob(self.batch.action)

    @shared
    def next_policy(self) -> ActionDistribution:
        """The policy in s', that of the slow actor if there is one; without gradient: it is only ever sampled."""
        shared = self.networks.actor.encoder is None
        encoding = self.next_encoding.detach() if shared else None
        with torch.no_grad():
            return self.networks.policy(self.next_obs, encoding, target=True, noise=self.encoder_noise())

    @shared
    def policy_action(self) -> Reparameterised:
        """What the policy does in s, differentiable in the actor."""
        return self.policy.reparameterised(self.generator)

    def possible(self, action: Tensor) -> Tensor:
        """Return the actions that the policy can take in place of these, `[..., A]`; see `Actor.possible`."""
        return self.networks.actor.possible(action)

    @shared
    def next_policy_actions(self) -> Tensor:
        """Actions of the policy in s', `[N, B, A]`, as many as the backup asks for."""
        return self.next_policy.actions(self.backup.samples, self.generator)

    @shared
    def next_action(self) -> Tensor:
        """The action a' of the Bellman backup, `[B, A]`; see `Backup`."""
        if self.backup.action != "policy":
            return self.batch.next_action
        sampled = self.next_policy_actions
        if self.backup.samples == 1 or self.backup.of_samples == "mean":
            return sampled[0]
        with torch.no_grad():
            value = self.backup.of_critics(self.next_target(sampled).value, self.generator)
            best = value.argmax(0).view(1, -1, 1).expand(1, -1, sampled.shape[-1])
            return sampled.gather(0, best)[0]

    @shared
    def q_data(self) -> CriticOutput:
        """Q(s, a) of the recorded action: value `[E, B]`, phi `[E, B, F]`."""
        return self.q_values(self.batch.action)

    @shared
    def q_policy(self) -> CriticOutput:
        """Q(s, a~pi(s)), differentiable in the action: the expectation over what is not drawn, `[E, B]`."""
        mean, output = self.policy_action.mean, self.q_values(self.policy_action.actions)
        features = mean(output.features.movedim(-1, 0)).movedim(0, -1)
        return CriticOutput(mean(output.value), features, None)

    @shared
    def q_next(self) -> CriticOutput:
        """Q(s', a') by the *online* critic, with gradient: DR3 needs its phi."""
        critic = self.networks.critic
        return critic.q_values(critic.embed_state(self.next_encoding), self.next_action)

    @shared
    def next_target_state(self) -> Tensor:
        """What all actions in s' share in the critic of the backup, `[E, B, H]`, without gradient."""
        with torch.no_grad():
            critic, slow = self.networks.critic, self.networks.target
            if self.backup.network == "target":
                return slow.embed_state(slow.encode(self.next_obs, self.encoder_noise()))
            return critic.embed_state(self.next_encoding)

    def next_target(self, action: Tensor) -> CriticOutput:
        """Return what the backup's critics say of actions `[N, B, A]` or `[B, A]` in s', without gradient."""
        with torch.no_grad():
            critic, slow = self.networks.critic, self.networks.target
            if self.backup.network == "target":
                return slow.q_values(self.next_target_state, action)
            return critic.q_values(self.next_target_state, action, slow if self.shares_trunk else None)

    @property
    def shares_trunk(self) -> bool:
        """Whether the slow critics are the critics' own trunk below a slow last layer."""
        return self.backup.network == "last_layer"

    @shared
    def target_q_data(self) -> Tensor:
        """The target critics' Q(s, a) of the recorded action, `[E, B]`, without gradient."""
        with torch.no_grad():
            target, action = self.networks.target, self.batch.action
            if self.shares_trunk:
                return self.networks.critic.q_values(self.state_embedding, action, target).value
            state = target.embed_state(target.encode(self.obs, self.encoder_noise()))
            return target.q_values(state, action).value

    @shared
    def state_value(self) -> Tensor:
        """V(s), float32 `[B]`."""
        encoding = self.encoding if self.networks.shared_encoder else None
        return self.networks.state_value(self.obs, encoding, self.encoder_noise())

    @shared
    def advantage(self) -> Tensor:
        """By how much what counts of the target critics' Q(s, a) exceeds V(s), float32 `[B]`; its gradient is V's."""
        return self.backup.of_critics(self.target_q_data, self.generator) - self.state_value

    @shared
    def next_value(self) -> Tensor:
        """What the backup says of s', float32 `[B]`, without gradient; see `Backup`."""
        backup = self.backup
        with torch.no_grad():
            if backup.action == "value":
                encoding = self.next_encoding if self.networks.shared_encoder else None
                return self.networks.state_value(self.next_obs, encoding, self.encoder_noise())
            every = backup.action == "policy" and backup.of_samples == "mean" and backup.samples > 1
            action = self.next_policy_actions if every else self.next_action
            value = backup.of_critics(self.next_target(action).value, self.generator)
            return (value.mean(0) if every else value) - self.next_penalty

    @property
    def next_penalty(self) -> Tensor | float:
        """What it costs that a' differs from the recorded next action, `[B]`; see `Backup`."""
        if not self.backup.penalty:
            return 0.0
        return self.backup.penalty * (self.next_action - self.batch.next_action).square().sum(-1)

    @shared
    def td_target(self) -> Tensor:
        """What Q(s, a) is fitted to, float32 `[B]`, without gradient; see `Backup`."""
        if self.backup.action == "returns":
            return self.batch.return_to_go
        return self.batch.reward + self.batch.discount * self.next_value

    @shared
    def td_samples(self) -> Tensor:
        """What quantiles are fitted to, float32 `[B, M]`, without gradient: the target's own quantiles, if any."""
        if self.backup.action in ("returns", "value"):
            return self.td_target.unsqueeze(-1)
        with torch.no_grad():
            outputs = self.next_target(self.next_action).outputs
            assert outputs is not None
            following = self.backup.of_critics(outputs.movedim(-1, 1), self.generator) - self.next_penalty  # [M, B]
            return (self.batch.reward + self.batch.discount * following).T

    @shared
    def form(self) -> CriticForm:
        """What the critics put out."""
        return self.networks.critic.head.form

    @shared
    def ensemble(self) -> int:
        """E, how many critics there are."""
        return len(self.networks.critic.head.last.weight)

    def q_values(self, action: Tensor) -> CriticOutput:
        """Return Q and phi of other actions in s, `[N, B, A]` or `[B, A]`; only the critics' perceptrons meet them."""
        return self.networks.critic.q_values(self.state_embedding, action)

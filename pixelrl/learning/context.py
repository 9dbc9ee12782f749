"""The scratch pad of one gradient step, and what a term of a loss is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TypeVar

import torch
from torch import Tensor

from pixelrl.learning.augment import augment
from pixelrl.learning.batch import Batch, Metrics, Observation
from pixelrl.learning.networks import CriticOutput, Networks, SquashedGaussian
from pixelrl.learning.weights import Weight
from pixelrl.runtime.profiling import span

Result = TypeVar("Result")


def shared(compute: Callable[["UpdateContext"], Result]) -> cached_property[Result]:
    """Return a property that is computed once, with its graph, whoever asks first; a profiler shows its name."""

    @wraps(compute)
    def once(self: "UpdateContext") -> Result:
        with torch.enable_grad(), span(compute.__name__):
            return compute(self)

    return cached_property(once)


class UpdateContext:
    """What the terms of one step share: computed once, and only if some term asks.

    Whoever asks first, even under `no_grad`, the result comes with its graph, since others will want the gradient.
    Nothing here is detached for the terms' sake. The learner differentiates the critic's objective with respect to the
    critic's parameters only (a shared encoder is among them) and the actor's with respect to the actor's only, so a
    gradient can never leak from one into the other.

    Attributes:
        networks: the learned functions.
        batch: the transitions.
        generator: of the noise in augmentation and in sampled actions.
        shift: augmentation, the largest shift of a picture [pixels].
        together: let s and s' pass the critic together, forward and backward: half as many kernels, each twice as
            large. It is worth it if some term's gradient flows through s' too.
    """

    def __init__(
        self,
        networks: Networks,
        batch: Batch,
        generator: torch.Generator,
        *,
        shift: int = 0,
        together: bool = False,
    ) -> None:
        self.networks, self.batch, self.generator = networks, batch, generator
        self.shift, self.together = shift, together

    @shared
    def both_obs(self) -> Observation:
        """The states s, then the states s', 2B of them, augmented."""
        return augment(joined(self.batch.obs, self.batch.next_obs), self.shift, self.generator)

    @shared
    def obs(self) -> Observation:
        """The states s, augmented, in the numbers that the encoders see."""
        if not self.networks.critic.encoders:  # then nobody looks at s'
            return augment(self.batch.obs, self.shift, self.generator)
        return rows(self.both_obs, slice(len(self.batch)))

    @shared
    def next_obs(self) -> Observation:
        """The states s', augmented."""
        return rows(self.both_obs, slice(len(self.batch), None))

    @shared
    def both_encodings(self) -> Tensor:
        """The critic's encodings of s, then of s', `[E | 1, 2B, D]`."""
        return self.networks.critic.encode(self.both_obs)

    @shared
    def encodings(self) -> tuple[Tensor, Tensor]:
        """Their two halves."""
        here, there = self.both_encodings.chunk(2, dim=1)
        return here, there

    @shared
    def encoding(self) -> Tensor:
        """The critic's encoding of s, `[E | 1, B, D]`."""
        return self.encodings[0] if self.together else self.networks.critic.encode(self.obs)

    @shared
    def next_encoding(self) -> Tensor:
        """The critic's encoding of s', `[E | 1, B, D]`, with gradient."""
        return self.encodings[1] if self.together else self.networks.critic.encode(self.next_obs)

    @shared
    def both_state_embeddings(self) -> Tensor:
        """The part of s, then of s', in the critic's first layer, `[E, 2B, H]`."""
        return self.networks.critic.embed_state(self.both_encodings)

    @shared
    def state_embedding(self) -> Tensor:
        """What all actions in s share: its part of the critic's first layer, `[E, B, H]`."""
        if self.together:
            return self.both_state_embeddings.chunk(2, dim=1)[0]
        return self.networks.critic.embed_state(self.encoding)

    @shared
    def policy(self) -> SquashedGaussian:
        """The policy in s."""
        shared = self.networks.actor.encoder is None
        return self.networks.policy(self.obs, self.encoding if shared else None)

    @shared
    def log_prob(self) -> Tensor:
        """The log-density of the recorded action under the policy in s, float32 `[B]`."""
        return self.policy.log_prob(self.batch.action)

    @shared
    def next_policy(self) -> SquashedGaussian:
        """The policy in s', without gradient: it is only ever sampled."""
        shared = self.networks.actor.encoder is None
        encoding = self.next_encoding.detach() if shared else None
        with torch.no_grad():
            return self.networks.policy(self.next_obs, encoding)

    @shared
    def policy_action(self) -> tuple[Tensor, Tensor]:
        """One reparameterised action of the policy in s, `[B, A]`, and its log-density, `[B]`."""
        action, log_prob = self.policy.sample(1, self.generator)
        return action[0], log_prob[0]

    @shared
    def next_action(self) -> Tensor:
        """The action a' of the Bellman backup: one sample of the policy in s', `[B, A]`."""
        return self.next_policy.actions(1, self.generator)[0]

    @shared
    def q_both(self) -> tuple[CriticOutput, CriticOutput]:
        """Q(s, a) and Q(s', a')."""
        actions = torch.cat([self.batch.action, self.next_action])
        output = self.networks.critic.q_values(self.both_state_embeddings, actions)
        (value, next_value), (phi, next_phi) = (part.chunk(2, dim=1) for part in output)
        return CriticOutput(value, phi), CriticOutput(next_value, next_phi)

    @shared
    def q_data(self) -> CriticOutput:
        """Q(s, a) of the recorded action: value `[E, B]`, phi `[E, B, F]`."""
        return self.q_both[0] if self.together else self.q_values(self.batch.action)

    @shared
    def q_policy(self) -> CriticOutput:
        """Q(s, a~pi(s)), differentiable in the action."""
        return self.q_values(self.policy_action[0])

    @shared
    def q_next(self) -> CriticOutput:
        """Q(s', a') by the *online* critic, with gradient: DR3 needs its phi."""
        if self.together:
            return self.q_both[1]
        critic = self.networks.critic
        return critic.q_values(critic.embed_state(self.next_encoding), self.next_action)

    @shared
    def next_value(self) -> Tensor:
        """min_e of the target critic's Q(s', a'), float32 `[B]`, without gradient."""
        with torch.no_grad():
            target = self.networks.target
            state = target.embed_state(target.encode(self.next_obs))
            value: Tensor = target.q_values(state, self.next_action).value.amin(0)
            return value

    @shared
    def td_target(self) -> Tensor:
        """The Bellman target, r + discount min_e Q_target(s', a'), float32 `[B]`."""
        return self.batch.reward + self.batch.discount * self.next_value

    def q_values(self, action: Tensor) -> CriticOutput:
        """Judge other actions in s, `[N, B, A]` or `[B, A]`; only the critics' perceptrons meet them."""
        return self.networks.critic.q_values(self.state_embedding, action)


def joined(one: Observation, other: Observation) -> Observation:
    """Return the rows of one, then those of the other."""
    images = {key: torch.cat([value, other.images[key]]) for key, value in one.images.items()}
    return Observation(images=images, proprio=torch.cat([one.proprio, other.proprio]))


def rows(obs: Observation, which: slice) -> Observation:
    """Return some rows, as views."""
    return obs.map(lambda tensor: tensor[which])


@dataclass(frozen=True, kw_only=True)
class Term:
    """One additive part of a loss.

    A step is recorded once and replayed: let noise come from `update.generator`, and decide by `torch.where`, not `if`.

    Attributes:
        weight: a number, or `AtMost(bound=...)` for a learned multiplier.
    """

    weight: Weight = 1.0

    @property
    def reaches_next(self) -> bool:
        """Whether its gradient flows through the critic's view of s', too."""
        return False

    def __call__(self, update: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the unweighted scalar and whatever is worth logging; only the learner weighs and sums."""
        raise NotImplementedError

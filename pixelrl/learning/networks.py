"""All that is learned: the critics, their slow copy, and the actor; encoders below, heads above.

Encoders and heads are apart so that each picture is encoded once: sampled actions meet only the critic's head,
whose first layer is split into a part for the state (`Critic.embed_state`, computed once) and a part for the action.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Protocol, get_args

import torch
from torch import Tensor, nn

from pixelrl.learning.actors import ActionDistribution, Actor, relu_layers
from pixelrl.learning.backup import aggregated
from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.heads import FINAL_LAYER, CriticHead, CriticOutput, InjectedHead, Place
from pixelrl.learning.noise import EncoderNoise
from pixelrl.learning.policies import NOISE_ROWS, Acting, ActingKind
from pixelrl.learning.span import span
from pixelrl.runtime.errors import PixelrlError


class Encoder(Protocol):
    """A module that turns an observation into features `[B, D]`; `features` is D.

    One that learns with noise has `noisy`, which is true, and takes an `EncoderNoise` beside the observation.
    """

    features: int

    def __call__(self, obs: Observation) -> Tensor:
        """Encode."""
        ...


class EncoderConfig(Protocol):
    """A frozen description of an encoder; `encoders/` holds several."""

    def build(self, spec: Spec) -> nn.Module:
        """Return a fresh `Encoder` for observations of these shapes."""
        ...


def encode(encoder: nn.Module, obs: Observation, noise: EncoderNoise | None) -> Tensor:
    """Encode, with noise if there is any and the encoder takes it."""
    features: Tensor = encoder(obs, noise) if noise is not None and getattr(encoder, "noisy", False) else encoder(obs)
    return features


class Critic(nn.Module):
    """E Q-functions of pictures: either one encoder for all of them or one each (as COG)."""

    def __init__(self, encoders: list[nn.Module], head: CriticHead | InjectedHead) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.head = head

    def encode(self, obs: Observation, noise: EncoderNoise | None = None) -> Tensor:
        """Encode the pictures, once: `[E, B, D]`, or `[1, B, D]` if the encoder is shared; with noise to learn with.

        Raises:
            PixelrlError: there are no critics.
        """
        if not self.encoders:
            raise PixelrlError("recipe: critic is (); a term of the actor that asks for Q needs terms that train one")
        encodings = [encode(encoder, obs, noise) for encoder in self.encoders]
        return torch.stack(encodings) if len(encodings) > 1 else encodings[0].unsqueeze(0)  # a view copies nothing

    @property
    def noisy(self) -> bool:
        """Return whether an encoder learns with noise."""
        return any(getattr(encoder, "noisy", False) for encoder in self.encoders)

    @property
    def learning_head(self) -> CriticHead:
        """Return the head that learns; beside it there are others only after an injection."""
        return self.head.trained if isinstance(self.head, InjectedHead) else self.head

    def embed_state(self, encoding: Tensor) -> Tensor:
        """Return what all actions in a state share: its part of the head's first layer, `[E, B, H]`."""
        return self.head.embed_state(encoding)

    def q_values(self, state: Tensor, action: Tensor, slow: "Critic | None" = None) -> CriticOutput:
        """Return Q of actions `[N, B, A]` or `[B, A]` in states from `embed_state`; with `slow`, by its last layer."""
        head = None if slow is None else slow.head
        if action.dim() == 3:
            return CriticOutput(*self.head(state, action, head))
        value, features, outputs = self.head(state, action.unsqueeze(0), head)
        return CriticOutput(value.squeeze(1), features.squeeze(1), None if outputs is None else outputs.squeeze(1))


class ValueNetwork(nn.Module):
    """V of pictures, on an encoder of its own or on the critic's (IQL, arXiv 2110.06169)."""

    def __init__(self, features: int, hidden: Sequence[int], norm: Place | None, encoder: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        layers = relu_layers((features, *hidden))
        for place, width in reversed([*enumerate(hidden)] if norm else []):
            layers.insert(2 * place + (1 if norm == "before" else 2), nn.LayerNorm(width))
        self.trunk = nn.Sequential(*layers)
        self.last = nn.Linear(hidden[-1], 1)
        for parameter in self.last.parameters():
            nn.init.uniform_(parameter, -FINAL_LAYER, FINAL_LAYER)

    def forward(self, features: Tensor) -> Tensor:
        """Return V, float32 `[B]`, of features `[B, D]`."""
        hidden = self.trunk(features)
        with torch.autocast(hidden.device.type, enabled=False):
            value: Tensor = self.last(hidden.float()).squeeze(-1)
        return value


class Average(nn.Module):
    """A running average of critics and actor; one encoder for both stays one."""

    def __init__(self, critic: Critic, actor: Actor) -> None:
        super().__init__()
        self.critic, self.actor = deepcopy((critic, actor))
        self.requires_grad_(False)


class Networks(nn.Module):
    """Everything that is learned by gradient: critic, its slow copy, actor; a value network and a slow actor if asked.

    Args:
        critic, target: as they were built; the target starts as the critic's copy.
        actor: the policy.
        value: V, or None.
        shared: one encoder for all networks.
        acting: how the policy acts.
        target_actor: whether the actor has a slow copy.
        keeps_average: whether there is an average of critics and actor, which acts.
        action_width: numbers in an action, or in a chunk of them.
    """

    noise: Tensor

    def __init__(
        self,
        critic: Critic,
        target: Critic,
        actor: Actor,
        value: ValueNetwork | None,
        *,
        shared: bool,
        acting: Acting,
        target_actor: bool,
        keeps_average: bool,
        action_width: int,
    ) -> None:
        super().__init__()
        self.acting, self.shared_encoder = acting, shared
        self.critic, self.target = critic, target
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        self.actor, self.value = actor, value
        self.target_actor = deepcopy(self.actor).requires_grad_(False) if target_actor else None
        self.average = Average(self.critic, self.actor) if keeps_average else None
        rows = torch.randn(NOISE_ROWS, action_width, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", rows, persistent=False)  # the same for all: no checkpoint holds it

    def follow(self, tau: float) -> None:
        """Move the slow copies towards what they are copies of: target <- (1 - tau) target + tau critic."""
        with torch.no_grad(), span("target"):
            for slow, fast in self.followed:
                torch._foreach_lerp_(slow, fast, tau)

    @cached_property
    def followed(self) -> list[tuple[list[Tensor], list[Tensor]]]:
        """The parameters of each slow copy and of what it is a copy of: to look for them takes longer than to move."""
        pairs = [(self.target, self.critic), (self.target_actor, self.actor)]
        return [([*slow.parameters()], [*fast.parameters()]) for slow, fast in pairs if slow is not None]

    def policy(
        self,
        obs: Observation,
        encoding: Tensor | None = None,
        *,
        target: bool = False,
        noise: EncoderNoise | None = None,
    ) -> ActionDistribution:
        """Return the policy's distribution in B states.

        Args:
            obs: the states.
            encoding: the critic's encoding of them `[1, B, D]`, if it is at hand and the encoder is shared.
            target: that of the slow actor, where there is one.
            noise: what its own encoder learns with.
        """
        actor = self.target_actor if target and self.target_actor is not None else self.actor
        own = actor.encoder
        features = encode(own, obs, noise) if own is not None else self._shared(obs, encoding)
        distribution: ActionDistribution = actor(features)
        return distribution

    def state_value(
        self, obs: Observation, encoding: Tensor | None = None, noise: EncoderNoise | None = None
    ) -> Tensor:
        """Return V of B states, float32 `[B]`; arguments as `policy`'s.

        Raises:
            PixelrlError: there is no value network.
        """
        if self.value is None:
            raise PixelrlError("recipe: value is (); what asks for V needs terms that train it")
        own = self.value.encoder
        value: Tensor = self.value(encode(own, obs, noise) if own is not None else self._shared(obs, encoding))
        return value

    def _shared(self, obs: Observation, encoding: Tensor | None) -> Tensor:
        """Return the critic's features `[B, D]`, which all networks share."""
        return (self.critic.encode(obs) if encoding is None else encoding)[0]

    def set_acting(self, kind: str | None) -> None:
        """Let the policy act in another way than its recipe says; None: as it says.

        Raises:
            PixelrlError: there is no such way, or it takes critics that are not there.
        """
        if kind is None:
            return
        kinds = get_args(ActingKind)
        if kind not in kinds:
            raise PixelrlError(f"--acting {kind}: there is {', '.join(kinds)}")
        if kind == "best" and not self.critic.encoders:
            raise PixelrlError("--acting best: this run has no critics to choose by")
        self.acting = replace(self.acting, kind=kind)  # type: ignore[arg-type]

    @property
    def that_act(self) -> tuple[Critic, Actor]:
        """The critics and the actor that act: the average's, where there is one."""
        return (self.critic, self.actor) if self.average is None else (self.average.critic, self.average.actor)

    def acting_policy(self, obs: Observation, encoding: Tensor | None = None) -> ActionDistribution:
        """Return the distribution of what acts in B states; `encoding` is its critic's, if it is at hand."""
        critic, actor = self.that_act
        if actor.encoder is not None:
            features = actor.encoder(obs)
        else:
            features = (critic.encode(obs) if encoding is None else encoding)[0]
        policy: ActionDistribution = actor(features)
        return policy

    def act(self, obs: Observation) -> Tensor:
        """Return the action for the world in B states, `[B, A]`, as `Acting` says: nothing is drawn."""
        kind, (critic, _) = self.acting.kind, self.that_act
        if kind == "mode":
            return self.acting_policy(obs).mode
        if kind == "sample":
            pictures = torch.stack([image.long().sum((1, 2, 3)) for image in obs.images.values()]).sum(0)
            return self.acting_policy(obs).of_noise(self.noise[pictures % NOISE_ROWS].unsqueeze(0))[0]
        encoding = critic.encode(obs)
        actions = self.acting_policy(obs, encoding).of_noise(self.noise[: self.acting.samples].unsqueeze(1))
        value = critic.q_values(critic.embed_state(encoding), actions).value
        best = aggregated(value, self.acting.aggregate).argmax(0)
        return actions.gather(0, best.view(1, -1, 1).expand(1, -1, actions.shape[-1]))[0]

"""All that is learned: the critics, their slow copy, and the actor; encoders below, heads above.

Encoders and heads are apart so that each picture is encoded once: sampled actions meet only the critic's head,
whose first layer is split into a part for the state (`Critic.embed_state`, computed once) and a part for the action.
"""

from typing import Protocol, Unpack

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from pixelrl.learning.actors import Actor, SquashedGaussian
from pixelrl.learning.batch import Observation, Spec
from pixelrl.learning.heads import CriticHead, CriticOutput, HeadOptions
from pixelrl.runtime.errors import PixelrlError


class Encoder(Protocol):
    """A module that turns an observation into features `[B, D]`; `features` is D."""

    features: int

    def __call__(self, obs: Observation) -> Tensor:
        """Encode."""
        ...


class EncoderConfig(Protocol):
    """A frozen description of an encoder; `encoders/` holds several."""

    def build(self, spec: Spec) -> nn.Module:
        """Return a fresh `Encoder` for observations of these shapes."""
        ...


class Critic(nn.Module):
    """E Q-functions of pictures: either one encoder for all of them or one each (as COG)."""

    def __init__(self, encoders: list[nn.Module], head: CriticHead) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.head = head

    def encode(self, obs: Observation) -> Tensor:
        """Encode the pictures, once: `[E, B, D]`, or `[1, B, D]` if the encoder is shared.

        Raises:
            PixelrlError: there are no critics.
        """
        if not self.encoders:
            raise PixelrlError("recipe: critic is (); a term of the actor that asks for Q needs terms that train one")
        encodings = [encoder(obs) for encoder in self.encoders]
        return torch.stack(encodings) if len(encodings) > 1 else encodings[0].unsqueeze(0)  # a view copies nothing

    def embed_state(self, encoding: Tensor) -> Tensor:
        """Return what all actions in a state share: its part of the head's first layer, `[E, B, H]`."""
        state: Tensor = self.head.from_state(encoding)
        return state

    def q_values(self, state: Tensor, action: Tensor) -> CriticOutput:
        """Judge `[N, B, A]` or `[B, A]` actions in states from `embed_state`."""
        if action.dim() == 3:
            return CriticOutput(*self.head(state, action))
        value, features, outputs = self.head(state, action.unsqueeze(0))
        return CriticOutput(value.squeeze(1), features.squeeze(1), None if outputs is None else outputs.squeeze(1))


class Networks(nn.Module):
    """Everything that is learned by gradient: critic, its slow copy, and actor."""

    def __init__(
        self,
        spec: Spec,
        encoder: EncoderConfig,
        *,
        shared: bool,
        ensemble: int,
        critic_hidden: tuple[int, ...],
        actor_hidden: tuple[int, ...],
        layer_norm: bool,
        **head_options: Unpack[HeadOptions],
    ) -> None:
        super().__init__()

        def critic() -> Critic:
            encoders = [encoder.build(spec) for _ in range(1 if shared else ensemble)]
            features = (encoders or [encoder.build(spec)])[0].features
            sizes = (features, spec.action_dim, critic_hidden, ensemble)
            head = CriticHead(*sizes, layer_norm, **head_options)  # type: ignore[arg-type]
            return Critic(encoders, head)

        self.critic, self.target = critic(), critic()
        self.target.load_state_dict(self.critic.state_dict())
        self.target.requires_grad_(False)
        own = None if shared else encoder.build(spec)
        features = (own or self.critic.encoders[0]).features
        self.actor = Actor(features, spec.action_dim, actor_hidden, own)  # type: ignore[arg-type]

    def follow(self, tau: float) -> None:
        """Move the slow copy towards the critic: target <- (1 - tau) target + tau critic."""
        target, critic = (list[Tensor](module.parameters()) for module in (self.target, self.critic))
        with torch.no_grad(), record_function("target"):
            torch._foreach_lerp_(target, critic, tau)

    def policy(self, obs: Observation, encoding: Tensor | None = None) -> SquashedGaussian:
        """Return the policy's distribution in B states.

        Args:
            obs: the states.
            encoding: the critic's encoding of them `[1, B, D]`, if it is at hand and the encoder is shared.
        """
        if self.actor.encoder is not None:
            features = self.actor.encoder(obs)
        else:
            features = (self.critic.encode(obs) if encoding is None else encoding)[0]
        distribution: SquashedGaussian = self.actor(features)
        return distribution

"""The naive form of an update: the observation is repeated for every sampled action, and encoded each time."""

from typing import Any

from einops import rearrange, repeat
from torch import Tensor

from pixelrl.learning.batch import Observation
from pixelrl.learning.heads import CriticOutput
from pixelrl.learning.learner import Learner
from pixelrl.learning.networks import Critic
from pixelrl.learning.noise import EncoderNoise


class TiledCritic(Critic):
    """A critic over the same weights that works as COG's code and robomimic do.

    An encoding serves the first action that is judged by it; for every other one, the pictures are encoded anew.
    """

    def __init__(self, critic: Critic) -> None:
        super().__init__(list(critic.encoders), critic.head)

    def encode(self, obs: Observation, noise: EncoderNoise | None = None) -> Tensor:
        """Encode, and remember what was encoded."""
        encoding: Any = super().encode(obs, noise)
        encoding.obs = obs
        return encoding  # type: ignore[no-any-return]

    def embed_state(self, encoding: Any) -> Tensor:
        """Hand on what was encoded."""
        state: Any = super().embed_state(encoding)
        state.obs, state.spent = encoding.obs, False
        return state  # type: ignore[no-any-return]

    def q_values(self, state: Any, action: Tensor, slow: Critic | None = None) -> CriticOutput:
        """Judge `[N, B, A]` or `[B, A]` actions, with N B pictures to encode."""
        if action.dim() == 2 and not state.spent:
            state.spent = True
            return super().q_values(state, action, slow)
        actions = action if action.dim() == 3 else action.unsqueeze(0)
        count = len(actions)
        again = super().embed_state(super().encode(tile(state.obs, count)))
        value, features, _ = super().q_values(again, actions.flatten(0, 1), slow)
        if action.dim() == 2:
            return CriticOutput(value, features)
        return CriticOutput(
            rearrange(value, "e (n b) -> e n b", n=count), rearrange(features, "e (n b) f -> e n b f", n=count)
        )


def tile(obs: Observation, count: int) -> Observation:
    """Repeat B observations `count` times, `[N B, ...]`, the N-th copies one after another."""
    images = {key: repeat(value, "b ... -> (n b) ...", n=count) for key, value in obs.images.items()}
    return Observation(images=images, proprio=repeat(obs.proprio, "b p -> (n b) p", n=count))


def tiled(learner: Learner) -> Learner:
    """Make a learner's critics judge in the naive form; parameters, losses and gradients stay what they were."""
    networks, learner.at_once = learner.networks, False
    networks.critic, networks.target = TiledCritic(networks.critic), TiledCritic(networks.target)
    return learner

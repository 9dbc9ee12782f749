"""What flows from the data to the losses: observations, batches and their shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelrl.runtime.actions import ActionDim

Metrics = dict[str, Tensor]
"""Name -> scalar tensor, left on its device until somebody reads it."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the robot senses at B instants.

    Attributes:
        images: observation key (say `agentview_image`) -> uint8 `[B, C, H, W]`, channels last in memory, as files have
            them and convolutions like them; augmentation turns them into numbers in [0, 1] for all encoders at once,
            and an encoder takes either. With a history, C counts the channels of all its frames, the oldest first.
        proprio: float32 `[B, P]`, raw (metres, radians, ...), the keys of `Spec.proprio` in their order.
    """

    images: Mapping[str, Tensor]
    proprio: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Observation":
        """Return an observation with every tensor changed."""
        images = {key: change(value) for key, value in self.images.items()}
        return Observation(images=images, proprio=change(self.proprio))

    def followed_by(self, other: "Observation") -> "Observation":
        """Return these rows, then the other's."""
        images = {key: torch.cat([value, other.images[key]]) for key, value in self.images.items()}
        return Observation(images=images, proprio=torch.cat([self.proprio, other.proprio]))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B transitions; n-step returns and endings are folded into reward and discount, so no loss knows of either.

    Attributes:
        obs: the state s.
        action: float32 `[B, A]` in [-1, 1].
        reward: float32 `[B]`, the discounted sum of the rewards between `obs` and `next_obs`.
        discount: float32 `[B]`, gamma^n, or 0 where the episode truly ends (a time-out bootstraps).
        next_obs: the state s' to bootstrap from.
        next_action: float32 `[B, A]`, what was done in s'; at the end of a demo, where nothing was, its last action.
        return_to_go: float32 `[B]`, the discounted rewards from s to the true end or to the end of the recording;
            nothing is bootstrapped, so after a time-out it is a lower bound (of rewards that are not negative).
        source: int64 `[B]`, an index into `Spec.sources`.
    """

    obs: Observation
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Observation
    next_action: Tensor
    return_to_go: Tensor
    source: Tensor

    def __len__(self) -> int:
        """Return B."""
        return self.action.shape[0]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return a batch with every tensor changed."""
        return Batch(
            obs=self.obs.map(change),
            action=change(self.action),
            reward=change(self.reward),
            discount=change(self.discount),
            next_obs=self.next_obs.map(change),
            next_action=change(self.next_action),
            return_to_go=change(self.return_to_go),
            source=change(self.source),
        )

    def to(self, device: torch.device) -> "Batch":
        """Move to a device; copies from pinned memory overlap with computation."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    @property
    def tensors(self) -> list[Tensor]:
        """Return all tensors, in an order of their own."""
        found: list[Tensor] = []
        self.map(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
        return found


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The shapes (and scales) of a data set, read from it and never from a configuration.

    Attributes:
        images: observation key -> (C, H, W) of one of its uint8 pictures.
        proprio: observation key -> its length, in the order in which they are concatenated.
        action: the dimensions of the action.
        sources: the names of the mixture's sources; `Batch.source` counts along them.
        proprio_mean, proprio_std: statistics of the P proprioceptive numbers over the data, for normalisation.
        history: frames that an observation shows of each camera, stacked along the channels, the oldest first.
        chunk: h, the successive actions that count as one (arXiv 2507.07969).
    """

    images: Mapping[str, tuple[int, int, int]]
    proprio: Mapping[str, int]
    action: tuple[ActionDim, ...]
    sources: tuple[str, ...]
    proprio_mean: tuple[float, ...]
    proprio_std: tuple[float, ...]
    history: int = 1
    chunk: int = 1

    @property
    def stacks(self) -> dict[str, tuple[int, int, int]]:
        """Return observation key -> (C, H, W) of what the networks see: all frames of the history."""
        return {key: (self.history * c, h, w) for key, (c, h, w) in self.images.items()}

    @property
    def action_dim(self) -> int:
        """Return A."""
        return len(self.action)

    @property
    def action_width(self) -> int:
        """Return h A, how many numbers a chunk of actions has."""
        return self.chunk * self.action_dim

    @property
    def proprio_dim(self) -> int:
        """Return P."""
        return sum(self.proprio.values())

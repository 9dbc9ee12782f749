"""What a policy is, and how it acts: frozen configurations that a recipe composes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pixelrl.learning.actors import Actor, FlowActor, GaussianActor, PointActor
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class GaussianPolicy:
    """A squashed Gaussian: tanh of a normal distribution whose mean and deviation depend on the state (SAC)."""

    has_density = True

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own."""
        return GaussianActor(features, actions, hidden, encoder)


@dataclass(frozen=True, kw_only=True)
class DeterministicPolicy(GaussianPolicy):
    """One action a state, tanh of the network's output (TD3, arXiv 1802.09477; ReBRAC)."""

    noise: float = 0.2
    """standard deviation of what targets add to it, so that Q becomes smooth"""
    noise_clip: float = 0.5
    """the largest such noise"""

    has_density = False

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own."""
        return PointActor(features, actions, hidden, encoder, noise=self.noise, clip=self.noise_clip)


@dataclass(frozen=True, kw_only=True)
class FlowPolicy(GaussianPolicy):
    """Noise moved along a learned flow to an action: it can hold several modes (FQL, arXiv 2502.02538)."""

    steps: int = 10
    """Euler's steps along the flow"""
    one_step: bool = True
    """also learn, by `FlowDistillation`, a network that arrives in one step; it is the policy then"""

    has_density = False

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if self.steps < 1:
            raise PixelrlError(f"policy: steps is {self.steps}; it must be at least 1")

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own."""
        return FlowActor(features, actions, hidden, encoder, steps=self.steps, one_step=self.one_step)


PolicyForm = GaussianPolicy
"""What a policy is."""


ActingKind = Literal["mode", "sample", "best"]


@dataclass(frozen=True, kw_only=True)
class Acting:
    """How a policy acts in the world, in evaluation and on the robot: a function of what it sees, and of nothing else.

    Noise comes from a table that belongs to the policy, so that an episode can be repeated and an artefact be proven.
    """

    kind: ActingKind = "mode"
    """mode: the action that stands for all. sample: the noise of a row of the table that the pictures choose.
    best: of the table's first `samples` actions, the one that the critics value most (arXiv 2304.10573)"""
    samples: int = 32
    """N, for `best`"""
    aggregate: Literal["min", "mean"] = "min"
    """what counts of the critics' values, for `best`"""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not 1 <= self.samples <= NOISE_ROWS:
            raise PixelrlError(f"acting: samples is {self.samples}; it must be between 1 and {NOISE_ROWS}")


NOISE_ROWS = 1024
"""How many rows of noise a policy carries for acting."""

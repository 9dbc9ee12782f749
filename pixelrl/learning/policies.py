"""What a policy is, and how it acts: frozen configurations that a recipe composes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pixelrl.learning.actors import ActionDistribution, Actor, FlowActor, GaussianActor, PointAction, PointActor
from pixelrl.learning.hybrid import HybridActor
from pixelrl.learning.noise import Noise
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class GaussianPolicy:
    """A squashed Gaussian: tanh of a normal distribution whose mean and deviation depend on the state (SAC)."""

    has_density = True

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own."""
        return GaussianActor(features, actions, hidden, encoder)


@dataclass(frozen=True, kw_only=True)
class HybridPolicy(GaussianPolicy):
    """A squashed Gaussian, but on or off in some dimensions, as a gripper is recorded.

    Between its two positions nothing was recorded, so Q has a valley there, and a policy that climbs Q along a
    continuous action stays on the side where it happens to begin.
    """

    switches: tuple[int, ...] = (-1,)
    """which dimensions of an action are on or off; -1 is the last"""
    level: float = 1.0
    """a switch puts out this or its negative; what was recorded, or Q is asked where it knows nothing"""

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        if not 1 <= len(self.switches) <= MOST_SWITCHES:
            raise PixelrlError(f"policy: switches are {self.switches}; expected 1 to {MOST_SWITCHES} dimensions")
        if not 0 < self.level <= 1:
            raise PixelrlError(f"policy: level is {self.level}; it must be above 0 and at most 1")

    def build(self, features: int, actions: int, hidden: Sequence[int], encoder: nn.Module | None) -> Actor:
        """Return a fresh actor on features `[B, D]`, with `encoder` as its own.

        Raises:
            PixelrlError: an action has no such dimension, or nothing but switches.
        """
        switches = sorted({dim + actions if dim < 0 else dim for dim in self.switches})
        if not len(switches) == len(self.switches) < actions or not 0 <= switches[0] <= switches[-1] < actions:
            raise PixelrlError(
                f"policy: switches are {self.switches}; expected some of the dimensions 0 to {actions - 1}, each once"
            )
        return HybridActor(features, actions, hidden, encoder, switches=switches, level=self.level)


@dataclass(frozen=True, kw_only=True)
class DeterministicPolicy(GaussianPolicy):
    """One action a state, tanh of the network's output (TD3, arXiv 1802.09477; ReBRAC)."""

    noise: float = 0.2
    """standard deviation of what targets add to it, so that Q becomes smooth"""
    noise_clip: float = 0.5
    """the largest such noise"""

    has_density = False

    def __post_init__(self) -> None:
        """Check what the types cannot."""
        for name, value in (("noise", self.noise), ("noise_clip", self.noise_clip)):
            if not value >= 0:
                raise PixelrlError(f"policy: {name} is {value}; it must be at least 0")

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


MOST_SWITCHES = 3
"""A policy's own action is evaluated in all 2^k positions of its switches."""

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


def own_actions(policy: ActionDistribution, count: int, generator: Noise) -> Tensor:
    """Return actions of a policy, `[N, B, A]`: drawn, or its one of a deterministic policy, without targets' noise."""
    return policy.mode.unsqueeze(0) if isinstance(policy, PointAction) else policy.actions(count, generator)

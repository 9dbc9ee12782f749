"""A recipe: what is learned, from what, and how, as one frozen value."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pixelrl.learning.backup import Backup
from pixelrl.learning.context import Term
from pixelrl.learning.critic_forms import CriticForm, Scalar
from pixelrl.learning.networks import EncoderConfig
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is learned, from what, and how: the terms are the algorithm."""

    critic: tuple[Term, ...]
    """terms of the critic's loss (none: no critic is learned)"""
    actor: tuple[Term, ...]
    """terms of the actor's loss"""
    warmup: tuple[Term, ...] = ()
    """terms of the actor's loss in the first `warmup_steps` steps"""
    warmup_steps: int = 0
    """how long the actor follows `warmup`"""

    encoder: EncoderConfig
    """the network between pictures and features"""
    shared_encoder: bool = False
    """one encoder for critics and actor, trained by the critic's terms; else one per network, as COG"""
    ensemble: int = 2
    """number of Q-functions"""
    critic_hidden: tuple[int, ...] = (1024, 512, 256)
    """widths of the critic's hidden layers; the last one is phi"""
    actor_hidden: tuple[int, ...] = (1024, 512, 256, 256, 256, 256)
    """widths of the actor's hidden layers"""
    layer_norm: bool = False
    """LayerNorm in the critic's hidden layers (SEEM, arXiv 2310.04411)"""
    layer_norm_place: Literal["before", "after"] = "before"
    """before the non-linearity (SEEM, RLPD) or after it (ReBRAC, FQL)"""
    feature_norm: bool = False
    """divide the critic's last hidden layer by its length (arXiv 2211.15144)"""
    form: CriticForm = field(default_factory=Scalar)
    """what a critic puts out: `scalar`, or `hl_gauss`, a histogram (arXiv 2403.03950)"""

    steps: int
    """gradient steps; with `final_lr` below 1 also the length of the cosine, when more are asked for later too"""
    batch_size: int = 256
    """transitions a step"""
    critic_lr: float = 3e-4
    """Adam's learning rate for the critic and a shared encoder"""
    actor_lr: float = 1e-4
    """Adam's learning rate for the actor"""
    final_lr: float = 1.0
    """factor on both learning rates at the last step, reached along a half cosine; 1: they stay"""
    backup: Backup = field(default_factory=Backup)
    """what Q is fitted to"""
    tau: float = 0.005
    """how far the target network follows when it moves; 1: it is the critic itself"""
    target_every: int = 1
    """steps between the moves of the target network; with `tau` 1: hard copies"""
    shift: int = 4
    """random-shift augmentation: at most so many pixels; 0: none"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """arithmetic of the networks; auto: bf16 on CUDA, fp32 elsewhere; losses are always reduced in fp32"""

    gamma: float = 0.99
    """discount per step"""
    n_step: int = 1
    """rewards summed before bootstrapping"""
    ends: Literal["never", "goal", "dones"] = "never"
    """what ends an episode for the value: nothing (COG), reaching the goal, or the file's dones; time-outs never do"""
    reward_scale: float = 1.0
    """factor on the task data's rewards (the prior data's are zero)"""
    reward_shift: float = 0.0
    """added to the task data's rewards after that, say 1 for costs of 1 a step and 0 in the goal"""
    task_share: float | None = None
    """share of the task data in each batch; None: all transitions alike, as COG"""
    images: tuple[str, ...] | None = None
    """observation keys of the cameras; None: all there are"""
    history: int = 1
    """frames that each observation shows of every camera, this one and those before it"""
    proprio: tuple[str, ...] | None = None
    """observation keys of the proprioception; None: all that a robot could know"""

    seed: int = 0
    """of initial weights, batches and noise"""

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            PixelrlError: names the option, what came, and what would be right.
        """
        for name, allowed, rule in (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("ensemble", self.ensemble >= 1, "at least 1"),
            ("n_step", self.n_step >= 1, "at least 1"),
            ("history", self.history >= 1, "at least 1 frame"),
            ("critic_hidden", min(self.critic_hidden, default=0) >= 1, "at least one layer, each at least 1 wide"),
            ("actor_hidden", min(self.actor_hidden, default=0) >= 1, "at least one layer, each at least 1 wide"),
            ("critic_lr", 0 <= self.critic_lr < math.inf, "at least 0"),
            ("actor_lr", 0 <= self.actor_lr < math.inf, "at least 0"),
            ("final_lr", 0 <= self.final_lr <= 1, "between 0 and 1"),
            ("target_every", self.target_every >= 1, "at least 1"),
            ("tau", 0 <= self.tau <= 1, "between 0 and 1"),
            ("gamma", 0 <= self.gamma <= 1, "between 0 and 1"),
            ("shift", self.shift >= 0, "at least 0 pixels"),
            ("reward_scale", math.isfinite(self.reward_scale), "a number"),
            ("reward_shift", math.isfinite(self.reward_shift), "a number"),
            (
                "task_share",
                self.task_share is None or 0 < self.task_share < 1,
                "between 0 and 1, both excluded, or None",
            ),
            ("warmup_steps", self.warmup_steps >= 0, "at least 0"),
            ("warmup_steps", bool(self.warmup) or not self.warmup_steps, "0 without warm-up terms"),
            (
                "shared_encoder",
                bool(self.critic) or not self.shared_encoder,
                "False without critic terms: nothing would train the shared encoder",
            ),
        ):
            if not allowed:
                raise PixelrlError(f"recipe: {name} is {getattr(self, name)}; it must be {rule}")
        for name in ("critic", "actor", "warmup"):
            kinds = [type(term).__name__ for term in getattr(self, name)]
            if repeated := {kind for kind in kinds if kinds.count(kind) > 1}:
                raise PixelrlError(f"recipe: {name} has {min(repeated)} twice; give one term the sum of both weights")
        bounds: dict[str, AtMost] = {}
        for term in (*self.warmup, *self.actor):
            kind, weight = type(term).__name__, term.weight
            if isinstance(weight, AtMost) and bounds.setdefault(kind, weight) != weight:
                raise PixelrlError(
                    f"recipe: {kind} has one bound in warmup and another in actor; it has one multiplier"
                )

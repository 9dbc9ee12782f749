"""A recipe: what is learned, from what, and how, as one frozen value."""

import math
from dataclasses import dataclass, field
from typing import Literal

from pixelrl.learning.backup import Backup, EnsembleRule
from pixelrl.learning.critic_forms import CriticForm, Quantile, Scalar
from pixelrl.learning.interventions import Intervention, PlasticityInjection, ReDo, Reset
from pixelrl.learning.networks import EncoderConfig
from pixelrl.learning.policies import Acting, FlowPolicy, GaussianPolicy, HybridPolicy, PolicyForm
from pixelrl.learning.term import Need, Term
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError

LARGEST = 1e9
"""The largest factor on rewards, and the largest shift: beyond it float32 holds no sum of them."""


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
    """how long the actor follows `warmup`, and the critic `critic_warmup`"""
    critic_warmup: tuple[Term, ...] = ()
    """terms of the critic's loss in the first `warmup_steps` steps; none: its usual ones"""
    value: tuple[Term, ...] = ()
    """terms of a value network's loss (none: there is no value network)"""

    encoder: EncoderConfig
    """the network between pictures and features"""
    shared_encoder: bool = False
    """one encoder for critics and actor, trained by the critic's terms; else one per network, as COG"""
    ensemble: int = 2
    """number of Q-functions"""
    critic_hidden: tuple[int, ...] = (1024, 512, 256)
    """widths of the hidden layers of critic and value network; the critic's last one is phi"""
    actor_hidden: tuple[int, ...] = (1024, 512, 256, 256, 256, 256)
    """widths of the actor's hidden layers"""
    layer_norm: bool = False
    """LayerNorm in the critic's hidden layers (SEEM, arXiv 2310.04411)"""
    layer_norm_place: Literal["before", "after"] = "before"
    """before the non-linearity (SEEM, RLPD) or after it (ReBRAC, FQL)"""
    feature_norm: bool = False
    """divide the critic's last hidden layer by its length (arXiv 2211.15144)"""
    last_layer_start: float | None = None
    """the critic's last layer starts uniform in +- this; None: 1e-4, as COG, and 0.1 with `feature_norm`"""
    form: CriticForm = field(default_factory=Scalar)
    """what a critic puts out: `scalar`, `hl_gauss`, a histogram (arXiv 2403.03950), or `quantile`"""
    weight_bits: int = 0
    """the actor computes with inner weights that take 2^bits values in each 256 of them (arXiv 1802.05668); 0: any"""
    policy: PolicyForm = field(default_factory=GaussianPolicy)
    """what the actor is: `gaussian`, `deterministic`, or `flow`"""
    acting: Acting = field(default_factory=Acting)
    """how it acts in the world"""
    target_actor: bool = False
    """actions of the backup come from a slow copy of the actor, which moves as the target network does"""
    chunk: int = 1
    """successive actions that count as one, from data to robot (arXiv 2507.07969); `n_step` is as many then"""

    steps: int
    """gradient steps; with `final_lr` below 1 also the length of the cosine, when more are asked for later too"""
    batch_size: int = 256
    """transitions a step"""
    critic_lr: float = 3e-4
    """Adam's learning rate for the critic and a shared encoder"""
    value_lr: float | None = None
    """Adam's learning rate for a value network; None: the critic's"""
    actor_lr: float = 1e-4
    """Adam's learning rate for the actor"""
    final_lr: float = 1.0
    """factor on all learning rates at the last step; 1: they stay"""
    schedule: Literal["cosine", "linear"] = "cosine"
    """the way there: a half cosine or a straight line"""
    lr_warmup: int = 0
    """steps in which learning rates rise from 0, along a line"""
    weight_decay: float = 0.0
    """AdamW's, of matrices and filters, but not of biases, gains and last layers; 0: Adam"""
    gradient_noise: float = 0.0
    """eta: normal noise of variance eta / (1 + step)^0.55 is added to all gradients (arXiv 1511.06807)"""
    backup: Backup = field(default_factory=Backup)
    """what Q is fitted to"""
    tau: float = 0.005
    """how far the target network follows when it moves; 1: it is the critic itself"""
    target_every: int = 1
    """steps between the moves of the target network; with `tau` 1: hard copies"""
    actor_every: int = 1
    """steps between the moves of the actor (TD3: 2)"""
    intervention: Intervention = field(default_factory=Intervention)
    """what is done to the networks between steps, against a loss of plasticity"""
    shift: int = 4
    """random-shift augmentation: at most so many pixels; 0: none"""
    shift_alike: bool = False
    """move s and s' alike (OGBench); else each on its own"""
    shift_chance: float = 1.0
    """share of the batches that are shifted at all (OGBench: 0.5)"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """arithmetic of the networks; auto: bf16 on CUDA, fp32 elsewhere; losses are always reduced in fp32"""

    gamma: float = 0.99
    """discount per step"""
    n_step: int = 1
    """rewards summed before bootstrapping"""
    ends: Literal["never", "goal", "dones", "masks"] = "never"
    """what ends an episode for the value: nothing (COG), reaching the goal, or the file's dones; time-outs never do.
    masks: the dones, and what was recorded behind one is learned from too (OGBench)"""
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
            ("seed", self.seed >= 0, "at least 0"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("ensemble", self.ensemble >= 1, "at least 1"),
            ("n_step", self.n_step >= 1, "at least 1"),
            ("history", self.history >= 1, "at least 1 frame"),
            ("critic_hidden", min(self.critic_hidden, default=0) >= 1, "at least one layer, each at least 1 wide"),
            ("actor_hidden", min(self.actor_hidden, default=0) >= 1, "at least one layer, each at least 1 wide"),
            (
                "last_layer_start",
                self.last_layer_start is None or 0 <= self.last_layer_start < math.inf,
                "at least 0, or None",
            ),
            ("critic_lr", 0 <= self.critic_lr < math.inf, "at least 0"),
            ("actor_lr", 0 <= self.actor_lr < math.inf, "at least 0"),
            ("value_lr", self.value_lr is None or 0 <= self.value_lr < math.inf, "at least 0, or None"),
            ("final_lr", 0 <= self.final_lr <= 1, "between 0 and 1"),
            ("target_every", self.target_every >= 1, "at least 1"),
            ("actor_every", self.actor_every >= 1, "at least 1"),
            ("lr_warmup", self.lr_warmup >= 0, "at least 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("gradient_noise", 0 <= self.gradient_noise < math.inf, "at least 0"),
            ("chunk", self.chunk >= 1, "at least 1 action"),
            ("n_step", self.chunk == 1 or self.n_step == self.chunk, f"{self.chunk}, as chunk is"),
            ("weight_bits", 0 <= self.weight_bits <= 16, "between 1 and 16, or 0"),
            ("tau", 0 <= self.tau <= 1, "between 0 and 1"),
            ("gamma", 0 <= self.gamma <= 1, "between 0 and 1"),
            ("shift", self.shift >= 0, "at least 0 pixels"),
            ("shift_chance", 0 <= self.shift_chance <= 1, "between 0 and 1"),
            ("reward_scale", abs(self.reward_scale) <= LARGEST, f"a number of at most {LARGEST:g}"),
            ("reward_shift", abs(self.reward_shift) <= LARGEST, f"a number of at most {LARGEST:g}"),
            (
                "task_share",
                self.task_share is None or 0 < self.task_share < 1,
                "between 0 and 1, both excluded, or None",
            ),
            ("warmup_steps", self.warmup_steps >= 0, "at least 0"),
            (
                "warmup_steps",
                bool(self.warmup or self.critic_warmup) or not self.warmup_steps,
                "0 without warm-up terms",
            ),
            (
                "shared_encoder",
                bool(self.critic) or not self.shared_encoder,
                "False without critic terms: nothing would train the shared encoder",
            ),
        ):
            if not allowed:
                raise PixelrlError(f"recipe: {name} is {getattr(self, name)}; it must be {rule}")
        self._check_terms()

    def _check_terms(self) -> None:
        """Check terms against each other and against what they need."""
        for name in ("critic", "critic_warmup", "value", "actor", "warmup"):
            kinds = [type(term).__name__ for term in getattr(self, name)]
            if repeated := {kind for kind in kinds if kinds.count(kind) > 1}:
                raise PixelrlError(f"recipe: {name} has {min(repeated)} twice; give one term the sum of both weights")
            for term in getattr(self, name):
                for need in term.needs:
                    if not self._has(need):
                        what = f"{name} has {type(term).__name__}"
                        raise PixelrlError(f"recipe: {what}, which needs {WANTED[need]}")
        moved = {need for term in self.actor if term.weight != 0 for need in term.needs or ("anything",)}
        if isinstance(self.policy, FlowPolicy) and self.policy.one_step and moved == {"flow"}:
            what = "policy.one_step is True, and no term of the actor trains that network, which acts"
            raise PixelrlError(f"recipe: {what}; give --policy.no-one-step, or FlowDistillation among the terms")
        for term in () if self.shared_encoder else (*self.critic, *self.critic_warmup):
            if term.imitates and term.weight != 0:
                kind = type(term).__name__
                what = f"critic has {kind}, which trains nothing there without a shared encoder"
                raise PixelrlError(f"recipe: {what}; --critic.{kind.lower()}.weight 0 leaves it out")
        bounds: dict[tuple[bool, str], AtMost] = {}
        for critic, terms in ((True, (*self.critic, *self.critic_warmup)), (False, (*self.warmup, *self.actor))):
            for term in terms:
                kind, weight = type(term).__name__, term.weight
                if isinstance(weight, AtMost) and bounds.setdefault((critic, kind), weight) != weight:
                    raise PixelrlError(
                        f"recipe: {kind} has one bound in warmup and another in actor; it has one multiplier"
                    )
        if not self.critic and (self.critic_warmup or self.value):
            raise PixelrlError("recipe: critic is (); critic_warmup and value need critic terms")
        if not self.critic and isinstance(self.intervention, PlasticityInjection | ReDo | Reset):
            kind = type(self.intervention).__name__
            raise PixelrlError(f"recipe: intervention is {kind}; it changes critics, and there are no critic terms")
        if self.value_lr is not None and not self.value:
            raise PixelrlError(f"recipe: value_lr is {self.value_lr}; there is no value network (Recipe.value is ())")
        if self.backup.action == "value" and not self.value:
            raise PixelrlError("recipe: backup.action is value; it needs terms of a value network (Recipe.value)")
        for rule in (self.backup, *(term for term in self.actor if isinstance(term, EnsembleRule))):
            if rule.aggregate == "subset" and rule.subset > self.ensemble:
                raise PixelrlError(f"recipe: a subset of {rule.subset} critics; ensemble is {self.ensemble}")
        if self.chunk > 1 and isinstance(self.policy, HybridPolicy):
            raise PixelrlError(f"recipe: chunk is {self.chunk}; --policy hybrid gives single actions")
        if self.acting.kind == "best" and not self.critic:
            raise PixelrlError("recipe: acting.kind is best; it needs critic terms, of which there are none")
        if isinstance(self.form, Quantile) and self.backup.of_samples == "mean" and self.backup.samples > 1:
            raise PixelrlError("recipe: backup.of_samples is mean; quantiles are fitted to one action's: give best")

    def _has(self, need: Need) -> bool:
        """Tell whether the recipe has what a term needs."""
        if need == "value":
            return bool(self.value)
        if need == "bottleneck":
            return getattr(self.encoder, "bottleneck", 0) > 0
        flow = isinstance(self.policy, FlowPolicy)
        one_step = isinstance(self.policy, FlowPolicy) and self.policy.one_step
        smooth = not isinstance(self.policy, HybridPolicy)
        has = {"density": self.policy.has_density, "smooth mode": smooth, "flow": flow, "one-step flow": one_step}
        return has[need]


WANTED: dict[Need, str] = {
    "density": "a policy with a density: --policy gaussian or hybrid",
    "smooth mode": "a policy whose mode has a gradient: any but --policy hybrid",
    "flow": "--policy flow",
    "one-step flow": "--policy flow with --policy.one-step",
    "value": "a value network: terms in Recipe.value",
    "bottleneck": "an encoder with a bottleneck: --encoder.bottleneck 16",
}

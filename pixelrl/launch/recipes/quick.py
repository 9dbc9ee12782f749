"""Quick recipes, which are ours: they fit two CPU cores and ten minutes, on tasks that pay once, in the goal."""

from dataclasses import replace

from pixelrl.encoders.conv import SmallCNN
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import HLGauss, Quantile, Scalar
from pixelrl.learning.policies import Acting, DeterministicPolicy, FlowPolicy, HybridPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.expectile import Expectile
from pixelrl.terms.flow import FlowDistillation, FlowMatching
from pixelrl.terms.penalties import NormPenalty, RankPenalty
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD

TARGETS = TD(target_range=(0.0, 10.0))
"""Rewards of 10 at the goal, which ends the episode, bound every return."""


def quick_cog() -> Recipe:
    """COG for two CPU cores: a small shared encoder, short horizon, and a little imitation in the actor.

    Departures from `cog`, each because it learns sooner: the encoder is shared and also shaped by imitation; three-step
    returns and gamma 0.95; rewards of 10 at the goal, which ends the episode, so that targets lie in [0, 10]; CQL
    weighs 0.1; the actor keeps half of a BC term; learning rates of 5e-4 fall along a cosine, so that the last
    checkpoint, the one that counts, is a settled one.
    """
    return Recipe(
        critic=(
            TARGETS,
            CQL(weight=0.1, uniform=3, policy=3, next_policy=3),
            BC(weight=1.0),
        ),
        actor=(MaximizeQ(), Entropy(), BC(weight=0.5)),
        warmup=(BC(),),
        warmup_steps=300,
        encoder=SmallCNN(),
        shared_encoder=True,
        critic_hidden=(192, 128),
        actor_hidden=(256, 256),
        steps=9_000,
        batch_size=128,
        critic_lr=5e-4,
        actor_lr=5e-4,
        final_lr=0.05,
        shift=2,
        gamma=0.95,
        n_step=3,
        ends="goal",
        reward_scale=10.0,
    )


def quick_cog_dr3() -> Recipe:
    """`quick_cog` with DR3 on the last hidden layer, as in the paper, at a weight for its 128 units.

    Departure: s' is the state that the three-step return bootstraps from, so three steps on, or fewer at an end.
    """
    base = quick_cog()
    return replace(base, critic=(*base.critic, DR3(weight=0.001)))


def quick_bc() -> Recipe:
    """Behaviour cloning of the same data with the same encoder and policy network as `quick_cog`."""
    return replace(quick_cog(), critic=(), actor=(BC(),), warmup=(), warmup_steps=0, shared_encoder=False)


def quick_awr_dr3() -> Recipe:
    """`quick_cog_dr3` with an actor that imitates the better recorded actions more, instead of climbing Q."""
    return replace(quick_cog_dr3(), actor=(AdvantageWeighted(temperature=1.0),))


def quick_cog_penalties() -> Recipe:
    """`quick_cog` with every penalty on features at weight 0, as if absent, for studies: options choose which count.

    `--critic.dr3.weight` (with `--critic.dr3.pairs shuffled` a placebo), `.normpenalty.weight`, `.rankpenalty.weight`.
    """
    base = quick_cog()
    return replace(base, critic=(*base.critic, DR3(weight=0.0), NormPenalty(weight=0.0), RankPenalty(weight=0.0)))


def quick_cog_alone() -> Recipe:
    """`quick_cog_penalties` closer to COG as published: after the warm-up the actor climbs Q, and imitates nothing.

    What `quick_cog` does not need, this does: the gripper, which is recorded at +-0.9, is a switch; five critics; CQL
    weighs 1; the temperature starts at 0.3, since it falls too slowly for so few steps. The encoder is still shared
    and also shaped by imitation.
    """
    base = quick_cog_penalties()
    _, cql, *others = base.critic
    return replace(
        base,
        critic=(TARGETS, replace(cql, weight=1.0), *others),
        actor=(MaximizeQ(), Entropy(weight=AtMost(bound=0.0, start=0.3))),
        warmup_steps=1_000,
        ensemble=5,
        policy=HybridPolicy(level=0.9),
    )


def quick_td() -> Recipe:
    """Evaluate a cloned policy by one-step TD, for studies of critics alone: nothing else moves them or their encoder.

    As in Fig. 1 of DR3's paper (arXiv 2112.04716): a' comes from a model of the recorded policy, and the target is
    the mean over eight of them. `--backup.samples 32 --backup.of-samples best` makes it Q-learning over that model's
    actions; `--backup.samples 1 --backup.action recorded` SARSA, `returns` Monte-Carlo. No shift, a constant rate, no
    bounds on targets; DR3 stands at weight 0, as if absent.
    """
    return replace(
        quick_cog(),
        critic=(TD(), DR3(weight=0.0)),
        actor=(BC(),),
        shared_encoder=False,
        backup=Backup(samples=8, of_samples="mean"),
        n_step=1,
        final_lr=1.0,
        shift=0,
    )


def quick_sarsa() -> Recipe:
    """Evaluate the recorded policy by SARSA with `quick_cog`'s networks; the actor imitates."""
    critic = (TARGETS, BC(weight=1.0))
    return replace(quick_cog(), critic=critic, actor=(BC(),), backup=Backup(action="recorded"))


def quick_mc() -> Recipe:
    """Regress Q to recorded returns with `quick_cog`'s networks; the actor imitates."""
    return replace(quick_sarsa(), backup=Backup(action="returns"))


def quick_onestep() -> Recipe:
    """One-step RL: `quick_sarsa`'s critic, and an actor that imitates the better actions more."""
    return replace(quick_sarsa(), actor=(AdvantageWeighted(temperature=1.0),))


def quick_iql() -> Recipe:
    """IQL (arXiv 2110.06169) with `quick_cog`'s networks: V is an expectile of Q over recorded actions."""
    return replace(
        quick_sarsa(),
        value=(Expectile(expectile=0.9),),
        backup=Backup(action="value"),
        actor=(AdvantageWeighted(advantage="value", temperature=1.0, limit=100.0),),
    )


def quick_riql() -> Recipe:
    """RIQL (arXiv 2310.12955): IQL with a low quantile of five critics, Huber's loss, and a deterministic policy."""
    weighted = AdvantageWeighted(advantage="value", temperature=1.0, limit=100.0, loss="squared_error")
    return replace(
        quick_iql(),
        critic=(TARGETS, BC(weight=1.0, loss="squared_error")),
        ensemble=5,
        form=Scalar(huber=1.0),
        backup=Backup(action="value", aggregate="quantile", quantile=0.25),
        policy=DeterministicPolicy(),
        actor=(weighted,),
        warmup=(BC(loss="squared_error"),),
    )


def quick_rebrac() -> Recipe:
    """ReBRAC (arXiv 2305.09836): a deterministic policy, imitation in its objective and in the backup.

    Of the actor's weights of imitation 1, 0.3 and 0.1 the middle one solves most of `pick-place-tray`.
    """
    imitation = BC(weight=1.0, loss="squared_error")
    return replace(
        quick_cog(),
        critic=(TARGETS, imitation),
        layer_norm=True,
        layer_norm_place="after",
        backup=Backup(penalty=0.01),
        policy=DeterministicPolicy(),
        target_actor=True,
        actor_every=2,
        actor=(MaximizeQ(normalize=True), replace(imitation, weight=0.3)),
        warmup=(imitation,),
    )


def quick_calql() -> Recipe:
    """`quick_cog` with Cal-QL's conservative term (arXiv 2303.05479)."""
    base = quick_cog()
    conservative = CQL(weight=0.1, uniform=3, policy=3, next_policy=3, calibrated=True)
    return replace(base, critic=(TARGETS, conservative, BC(weight=1.0)))


def quick_hlgauss_cog() -> Recipe:
    """`quick_cog` with critics that are histograms over [0, 10] (arXiv 2403.03950)."""
    return replace(quick_cog(), form=HLGauss(low=0.0, high=10.0))


def quick_qtd_cog() -> Recipe:
    """`quick_cog` with critics of 16 quantiles (arXiv 2305.18388)."""
    return replace(quick_cog(), form=Quantile(quantiles=16, kappa=1.0))


def quick_fql() -> Recipe:
    """FQL (arXiv 2502.02538) with `quick_cog`'s networks: a flow imitates, and a one-step policy climbs Q near it."""
    return replace(
        quick_cog(),
        critic=(TARGETS, FlowMatching()),
        layer_norm=True,
        layer_norm_place="after",
        backup=Backup(aggregate="mean"),
        policy=FlowPolicy(),
        acting=Acting(kind="sample"),
        actor=(FlowMatching(), FlowDistillation(weight=1.0), MaximizeQ(aggregate="mean", normalize=True)),
        warmup=(FlowMatching(), FlowDistillation()),
    )


def quick_ifql() -> Recipe:
    """IFQL: IQL's critics, a flow that imitates, and the best of 32 of its actions in the world (arXiv 2304.10573).

    LayerNorm, as in `ifql`: without it critics prefer the flow's rarest actions, which nobody recorded.
    """
    return replace(
        quick_iql(),
        critic=(TARGETS, FlowMatching()),
        layer_norm=True,
        layer_norm_place="after",
        policy=FlowPolicy(one_step=False),
        acting=Acting(kind="best", samples=32),
        actor=(FlowMatching(),),
        warmup=(FlowMatching(),),
    )


def quick_qc() -> Recipe:
    """Q-chunking: `quick_fql` with three successive actions as one (arXiv 2507.07969)."""
    return replace(quick_fql(), chunk=3, n_step=3)

"""The field's offline algorithms with the networks and the protocol of OGBench's visual tasks (arXiv 2410.20092).

Pictures of 64 x 64, three frames, IMPALA's small encoder, batches of 256, half a million steps at 3e-4; pictures are
shifted by up to 3 pixels, s and s' alike, in half of the batches. Rewards as its singletask data have them: -1 until
the task is done, 0 then, which ends the value and not the recording, as its masks say; `pixelrl convert` reads the
data. Departures of all: hidden layers are rectified (there: GELU), and the flow and one-step policies of FQL stand on
one encoder.

What the authors chose for IQL, ReBRAC and IFQL on these tasks was not found: their terms have the values of each
paper's other sparse tasks, and are to be tuned.
"""

from dataclasses import replace

from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import Scalar
from pixelrl.learning.policies import Acting, DeterministicPolicy, FlowPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.expectile import Expectile
from pixelrl.terms.flow import FlowDistillation, FlowMatching
from pixelrl.terms.sac import MaximizeQ
from pixelrl.terms.td import TD


def iql() -> Recipe:
    """IQL (arXiv 2110.06169): expectile 0.9 and temperature 1 / 10, its settings for sparse tasks."""
    return Recipe(
        critic=(TD(),),
        value=(Expectile(expectile=0.9),),
        actor=(AdvantageWeighted(advantage="value", temperature=0.1, limit=100.0),),
        backup=Backup(action="value"),
        encoder=ImpalaCNN(),
        critic_hidden=(512, 512, 512),
        actor_hidden=(512, 512, 512),
        layer_norm=True,
        layer_norm_place="after",
        steps=500_000,
        batch_size=256,
        critic_lr=3e-4,
        actor_lr=3e-4,
        history=3,
        shift=3,
        shift_alike=True,
        shift_chance=0.5,
        ends="masks",
        proprio=(),
    )


def riql() -> Recipe:
    """RIQL (arXiv 2310.12955): IQL with the 0.25-quantile of five critics, Huber's loss, and a deterministic policy."""
    return replace(
        iql(),
        value=(Expectile(expectile=0.7),),
        actor=(AdvantageWeighted(advantage="value", temperature=1 / 3, limit=100.0, loss="squared_error"),),
        ensemble=5,
        form=Scalar(huber=1.0),
        backup=Backup(action="value", aggregate="quantile", quantile=0.25),
        policy=DeterministicPolicy(),
    )


def rebrac() -> Recipe:
    """ReBRAC (arXiv 2305.09836): imitation weighs 0.01 twice; actor and targets move every second step."""
    return replace(
        iql(),
        value=(),
        actor=(MaximizeQ(normalize=True), BC(weight=0.01, loss="squared_error")),
        backup=Backup(penalty=0.01),
        policy=DeterministicPolicy(),
        target_actor=True,
        target_every=2,
        actor_every=2,
    )


def fql() -> Recipe:
    """FQL (arXiv 2502.02538): alpha, the weight of `FlowDistillation`, is 100 to 300 on OGBench's visual tasks."""
    return replace(
        iql(),
        value=(),
        actor=(FlowMatching(), FlowDistillation(weight=300.0), MaximizeQ(aggregate="mean")),
        backup=Backup(aggregate="mean"),
        policy=FlowPolicy(steps=10),
        acting=Acting(kind="sample"),
        critic_hidden=(512, 512, 512, 512),
        actor_hidden=(512, 512, 512, 512),
    )


def ifql() -> Recipe:
    """IFQL: IQL's critics with a flow that imitates, and the best of 32 of its actions (as IDQL, arXiv 2304.10573)."""
    return replace(
        iql(),
        actor=(FlowMatching(),),
        policy=FlowPolicy(steps=10, one_step=False),
        acting=Acting(kind="best", samples=32),
        critic_hidden=(512, 512, 512, 512),
        actor_hidden=(512, 512, 512, 512),
    )


def qc() -> Recipe:
    """Q-chunking with FQL (arXiv 2507.07969): five successive actions are one, for critics and policy; alpha is 100."""
    base = fql()
    actor = (FlowMatching(), FlowDistillation(weight=100.0), MaximizeQ(aggregate="mean"))
    return replace(base, actor=actor, chunk=5, n_step=5)

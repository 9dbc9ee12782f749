"""COG and what differs from it in one thing; the networks are COG's.

Published settings: COG's paper (arXiv 2010.14500, app. B and C) and its authors' code; DR3's paper (arXiv 2112.04716)
and a fork of COG by members of the group.
"""

from dataclasses import replace

from pixelrl.encoders.conv import CogCNN
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import HLGauss, Quantile
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD


def cog() -> Recipe:
    """COG as published: CQL on task and prior data alike, its own CNN for each network, episodes never end.

    Departures from the authors' code: layers start as torch starts them, but for the last ones (there every fully
    connected layer starts within +-1e-4); the actor's CNN has a ReLU after its last layer of 256; random shifts repeat
    the border of a picture (there it is padded with zeros) and are drawn once a step (there in every network's pass);
    both gradients are taken before either step; half a million steps (the default there is three million).
    """
    temperature = AtMost(bound=0.0, start=1.0, rate=1e-4)
    return Recipe(
        critic=(TD(), CQL(weight=1.0, uniform=1, policy=1, next_policy=1)),
        actor=(MaximizeQ(), Entropy(weight=temperature)),
        warmup=(BC(), Entropy(weight=temperature)),
        warmup_steps=10_000,
        encoder=CogCNN(),
        critic_hidden=(1024, 512, 256),
        actor_hidden=(1024, 512, 256, 256, 256, 256),
        steps=500_000,
        proprio=(),
    )


def cog_dr3() -> Recipe:
    """COG with DR3 as in a fork of COG by members of the group: on the encoder's output, s' held fixed, weight 0.001.

    The paper's text describes the last hidden layer without stop-gradient; that is `DR3()` with its defaults, and wants
    a weight of its own (0.03 on Atari).
    """
    base = cog()
    return replace(base, critic=(*base.critic, DR3(weight=0.001, site="encoding", stop_gradient=True)))


def bc() -> Recipe:
    """Behaviour cloning of all data with COG's policy network."""
    return replace(cog(), critic=(), actor=(BC(),), warmup=(), warmup_steps=0)


def hlgauss_cog() -> Recipe:
    """COG with critics that are histograms (arXiv 2403.03950), for tasks that pay once, 1, in the goal.

    The weights of CQL and of the actor's terms do not carry over from a scalar critic, and were not tuned.
    """
    return replace(cog(), form=HLGauss(low=0.0, high=1.0), ends="goal")


def qtd_cog() -> Recipe:
    """COG with critics of 32 quantiles (arXiv 2305.18388), whose mean is Q for CQL and the actor."""
    return replace(cog(), form=Quantile(quantiles=32, kappa=0.1))


def calql() -> Recipe:
    """COG with Cal-QL's conservative term (arXiv 2303.05479): weight 5, 10 actions a kind, best-of-10 backup."""
    conservative = CQL(weight=5.0, uniform=10, policy=10, next_policy=10, calibrated=True)
    return replace(cog(), critic=(TD(), conservative), backup=Backup(samples=10), ends="goal")


def sarsa() -> Recipe:
    """Evaluate the recorded policy by SARSA, with COG's networks; the actor imitates (DR3's arm without TD's a')."""
    evaluated = replace(cog(), critic=(TD(),), actor=(BC(),), warmup=(), warmup_steps=0, ends="goal")
    return replace(evaluated, backup=Backup(action="recorded"))


def mc() -> Recipe:
    """Regress Q to recorded returns, with COG's networks; the actor imitates."""
    return replace(sarsa(), backup=Backup(action="returns"))


def onestep() -> Recipe:
    """One-step RL (arXiv 2106.08909): SARSA's critic, and an actor that imitates the better actions more.

    Departure: both learn at once, where the paper learns one after the other.
    """
    return replace(sarsa(), actor=(AdvantageWeighted(temperature=0.1),))

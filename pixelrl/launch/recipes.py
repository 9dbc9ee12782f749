"""The recipes: each is a function that returns a whole configuration; variants are made by `replace`.

Published settings: COG's paper (arXiv 2010.14500, app. B and C) and its authors' code; DR3's paper (arXiv 2112.04716)
and a fork of COG by members of the group. The quick recipes are ours: they fit two CPU cores and ten minutes.
"""

from collections.abc import Callable
from dataclasses import replace

from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.encoders.conv import CogCNN, DrqCNN, SmallCNN
from pixelrl.encoders.impala import ImpalaCNN
from pixelrl.encoders.resnet import ResNet18, RobomimicResNet18
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.weights import AtMost
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.dr3 import DR3
from pixelrl.terms.penalties import NormPenalty, RankPenalty
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


def quick_cog() -> Recipe:
    """COG for two CPU cores: a small shared encoder, short horizon, and a little imitation in the actor.

    Departures from `cog`, each because it learns sooner: the encoder is shared and also shaped by imitation; three-step
    returns and gamma 0.95; rewards of 10 at the goal, which ends the episode, so that targets lie in [0, 10]; CQL
    weighs 0.1; the actor keeps half of a BC term; learning rates of 5e-4 fall along a cosine, so that the last
    checkpoint, the one that counts, is a settled one.
    """
    return Recipe(
        critic=(
            TD(target_range=(0.0, 10.0)),
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


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        quick_cog_dr3,
        quick_cog,
        quick_bc,
        quick_awr_dr3,
        quick_cog_penalties,
        cog_dr3,
        cog,
        bc,
    )
}

ENCODERS: dict[str, Callable[[], PixelEncoder]] = {
    "small": SmallCNN,
    "cog": CogCNN,
    "drq": DrqCNN,
    "impala": ImpalaCNN,
    "resnet18": ResNet18,
    "resnet18_robomimic": RobomimicResNet18,
}

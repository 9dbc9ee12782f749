"""Students: recipes that are made of their teacher's, with smaller networks, and imitate it."""

from collections.abc import Callable
from dataclasses import replace

from pixelrl.encoders.conv import SmallCNN
from pixelrl.learning.backup import Backup
from pixelrl.learning.critic_forms import Scalar
from pixelrl.learning.interventions import Intervention
from pixelrl.learning.policies import Acting, DeterministicPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.terms.distillation import Distillation


def same(teacher: Recipe) -> Recipe:
    """Give the student its teacher's encoder and widths; it has no critic, and one action a state."""
    return replace(
        teacher,
        critic=(),
        critic_warmup=(),
        value=(),
        value_lr=None,
        actor=(Distillation(),),
        warmup=(),
        warmup_steps=0,
        shared_encoder=False,
        form=Scalar(),
        policy=DeterministicPolicy(),
        acting=Acting(),
        backup=Backup(),
        target_actor=False,
        actor_every=1,
        intervention=Intervention(),
        gradient_noise=0.0,
    )


def narrow(teacher: Recipe) -> Recipe:
    """Keep the teacher's encoder, and put a narrow actor behind it."""
    return replace(same(teacher), actor_hidden=(64, 64))


def small(teacher: Recipe) -> Recipe:
    """Give the student a small encoder with half the filters of `quick_cog`'s, and a narrow actor."""
    return replace(narrow(teacher), encoder=SmallCNN(channels=(8, 16, 16), features=64))


STUDENTS: dict[str, Callable[[Recipe], Recipe]] = {make.__name__: make for make in (small, narrow, same)}
"""Student's recipe by its name, as `pixelrl distill --recipe` knows it."""

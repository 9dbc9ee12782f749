"""Imitation of a teacher, whose networks a learner holds beside its own."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixelrl.learning.actors import SquashedGaussian
from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.term import Need, Term
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Distillation(Term):
    """Imitate what the teacher does in the same shifted pictures: mean_i |mode(s_i) - teacher(s_i)|^2.

    Both see one draw of the augmentation, so that the student learns the teacher's own invariances and no others
    (Beyer et al., arXiv 2106.05237).

    Attributes:
        loss: `squared_error`, summed over the dimensions, of the action that the teacher would take in the world; or
            `kl` of two Gaussians before their tanh, KL(teacher || student), summed over the dimensions.
    """

    loss: Literal["squared_error", "kl"] = "squared_error"

    @property
    def needs(self) -> tuple[Need, ...]:
        """Return whether it needs a density."""
        return ("density",) if self.loss == "kl" else ()

    def __call__(self, context: UpdateContext) -> tuple[Tensor, Metrics]:
        """Return the loss and, to read, the distance between both actions, and how many have another sign.

        Raises:
            PixelrlError: there is no teacher, or the loss is `kl` and the teacher no Gaussian.
        """
        if context.teacher is None:
            raise PixelrlError("recipe: Distillation has no teacher; `pixelrl distill RUN` gives it one")
        student = context.policy
        with torch.no_grad():
            taught = context.teacher.act(context.obs)
        error = student.mode - taught
        metrics = {
            "distance": error.detach().abs().mean(),
            "sign_flips": ((student.mode.detach() * taught < 0) & (taught.abs() > 0.1)).float().mean(),
        }
        if self.loss == "squared_error":
            return error.square().sum(-1).mean(), metrics
        with torch.no_grad():
            teacher = context.teacher.acting_policy(context.obs)
        if not (isinstance(student, SquashedGaussian) and isinstance(teacher, SquashedGaussian)):
            raise PixelrlError("recipe: the teacher is no Gaussian; give --actor.distillation.loss squared_error")
        return divergence(teacher, student).mean(), metrics


def divergence(teacher: SquashedGaussian, student: SquashedGaussian) -> Tensor:
    """Return KL(teacher || student), `[B]`; the tanh that both share changes nothing."""
    logs = student.log_std - teacher.log_std
    moved = (2 * teacher.log_std).exp() + (teacher.mean - student.mean).square()
    return (logs + moved * (-2 * student.log_std).exp() / 2 - 0.5).sum(-1)

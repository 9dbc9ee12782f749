"""Imitation of a teacher, on numbers worked out by hand."""

import math
from typing import Any

import pytest
import torch

from pixelrl.learning.actors import SquashedGaussian
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.interventions import HareTortoise
from pixelrl.learning.policies import DeterministicPolicy
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.distillation import Distillation, divergence
from tests.tiny import gradients, make_networks, moved, seeded, transitions


def context(**options: Any) -> UpdateContext:
    """Return a step of a student beside another network as its teacher."""
    return UpdateContext(make_networks(), transitions(), seeded(), teacher=make_networks(seed=1, **options), shift=1)


def test_divergence_by_hand() -> None:
    # of N(0, 1) from N(1, 2^2): log 2 + (1 + 1) / 8 - 1 / 2, in each of two dimensions
    teacher = SquashedGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    student = SquashedGaussian(torch.ones(1, 2), torch.full((1, 2), math.log(2)))
    assert divergence(teacher, student).item() == pytest.approx(2 * (math.log(2) + 0.25 - 0.5))
    assert divergence(teacher, teacher).item() == 0


@pytest.mark.parametrize("loss", ["squared_error", "kl"])
def test_distillation_moves_the_student_towards_its_teacher_and_not_the_teacher(loss: Any) -> None:
    update = context()
    value, metrics = Distillation(loss=loss)(update)
    assert update.teacher is not None and value > 0 and 0 <= metrics["sign_flips"] <= 1
    assert moved(gradients(value, update.networks.actor)) and not moved(gradients(value, update.teacher.actor))


def test_student_and_teacher_see_the_same_shifted_pictures() -> None:
    update = context()
    error = update.networks.policy(update.obs).mode - update.teacher.act(update.obs)  # type: ignore[union-attr]
    assert Distillation()(update)[0].item() == pytest.approx(error.square().sum(-1).mean().item())
    itself = UpdateContext(update.networks, update.batch, seeded(), teacher=update.networks, shift=1)
    assert Distillation()(itself)[0].item() == 0


def test_the_teacher_that_acts_is_imitated() -> None:
    update = context(intervention=HareTortoise())
    teacher = update.teacher
    assert teacher is not None and teacher.average is not None
    with torch.no_grad():
        teacher.actor.last.bias += 1  # of the hare, which does not act
    mode = teacher.acting_policy(update.obs).mode
    assert torch.equal(mode, teacher.act(update.obs)) and not torch.equal(mode, teacher.policy(update.obs).mode)
    taught = teacher.acting_policy(update.obs)
    expected = divergence(taught, update.policy).mean()
    assert Distillation(loss="kl")(update)[0].item() == pytest.approx(expected.item())


def test_distillation_without_a_teacher_or_a_gaussian_one_is_refused() -> None:
    with pytest.raises(PixelrlError, match="Distillation has no teacher"):
        Distillation()(UpdateContext(make_networks(), transitions(), seeded()))
    with pytest.raises(PixelrlError, match="the teacher is no Gaussian; give"):
        Distillation(loss="kl")(context(policy=DeterministicPolicy()))

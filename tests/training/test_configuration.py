"""One run as one frozen value, to and from JSON."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pixelrl.launch.recipes import RECIPES, bc, cog, quick_cog
from pixelrl.learning.policies import DeterministicPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.term import Term
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.errors import PixelrlError
from pixelrl.terms.awr import AdvantageWeighted
from pixelrl.terms.bc import BC
from pixelrl.terms.cql import CQL
from pixelrl.terms.sac import Entropy, MaximizeQ
from pixelrl.terms.td import TD
from pixelrl.training.configuration import from_json, to_json
from tests.tiny import SPEC, learn, make_learner, shrink


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_a_recipe_survives_json(make: Callable[[], Recipe]) -> None:
    assert from_json(json.loads(json.dumps(to_json(make())))) == make()


def test_shapes_and_learned_weights_survive_json() -> None:
    recipe = replace(
        cog(), critic=(TD(target_range=(0.0, 1.0)), CQL(weight=AtMost(bound=5.0))), images=("front_image",)
    )
    assert from_json(json.loads(json.dumps(to_json((recipe, SPEC))))) == (recipe, SPEC)


def test_the_class_is_named() -> None:
    assert to_json(BC(weight=0.5)) == {"is": "BC", "weight": 0.5, "loss": "likelihood"}


@pytest.mark.parametrize("name", ["pathlib.Path", "pixelrl.terms.bc.BC", "BD", "UpdateContext", "Term.__init__", ""])
def test_only_configurations_are_built(name: str) -> None:
    with pytest.raises(PixelrlError, match=f"no configuration class '{name}'"):
        from_json({"recipe": [{"is": name}]})


def test_a_term_of_ones_own_can_be_read_back() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Term):
        strength: float = 2.0

    assert from_json(to_json(Mine(strength=3.0))) == Mine(strength=3.0)


def test_an_unknown_option_is_named_beside_the_known_ones() -> None:
    with pytest.raises(
        PixelrlError, match=r"CQL has no option 'unifrom'; it has calibrated, next_policy, policy, .*uniform"
    ):
        from_json({"is": "CQL", "unifrom": 3})


@pytest.mark.parametrize(
    ("kind", "option", "value", "rule"),
    [
        (TD, "target_range", (math.nan, 10.0), "a number and a higher one"),
        (TD, "target_range", (10.0, 0.0), "a number and a higher one"),
        (CQL, "temperature", 0.0, "above 0"),
        (AdvantageWeighted, "temperature", 0.0, "above 0"),
        (AdvantageWeighted, "samples", 0, "at least 1"),
        (AdvantageWeighted, "limit", -5.0, "above 0"),
        (DeterministicPolicy, "noise", -1.0, "at least 0"),
        (DeterministicPolicy, "noise_clip", -1.0, "at least 0"),
    ],
)
def test_part_that_cannot_be_is_refused(kind: Any, option: str, value: Any, rule: str) -> None:
    with pytest.raises(PixelrlError, match=re.escape(f": {option} is {value}; it must be {rule}")):
        kind(**{option: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"critic": (TD(), CQL(), TD(weight=0.5))}, "critic has TD twice"),
        ({"warmup": (BC(), BC())}, "warmup has BC twice"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"n_step": 0}, "n_step is 0"),
        ({"ensemble": 0}, "ensemble is 0"),
        ({"gamma": 1.01}, "gamma is 1.01; it must be between 0 and 1"),
        ({"gamma": -0.1}, "gamma is -0.1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PixelrlError, match=message):
        replace(cog(), **changes)


def test_a_shared_encoder_needs_somebody_who_trains_it() -> None:
    with pytest.raises(PixelrlError, match="nothing would train the shared encoder"):
        replace(bc(), shared_encoder=True)
    with pytest.raises(PixelrlError, match="nothing would train the shared encoder"):
        replace(quick_cog(), critic=())


@pytest.mark.parametrize(
    "changes",
    [
        {"tau": 1.5},
        {"tau": -0.1},
        {"shift": -1},
        {"critic_lr": -1e-4},
        {"actor_lr": float("nan")},
        {"critic_hidden": ()},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_data_are_read(changes: dict[str, Any]) -> None:
    with pytest.raises(PixelrlError, match=next(iter(changes))):
        replace(cog(), **changes)


def test_warm_up_may_weigh_a_term_otherwise_than_the_actor_does() -> None:
    fixed = (MaximizeQ(), Entropy(weight=0.1))
    learn(make_learner(shrink(cog(), warmup=(BC(), Entropy()), actor=fixed)), 3)


def test_two_rules_for_one_multiplier_are_refused_or_obeyed() -> None:
    rules = {"warmup": (BC(), Entropy(weight=AtMost(bound=0.0, start=0.5))), "actor": (MaximizeQ(), Entropy())}
    try:
        learner = make_learner(shrink(cog(), **rules))
    except PixelrlError:
        return
    assert learner.actor.multipliers["entropy"].value.item() == pytest.approx(0.5)

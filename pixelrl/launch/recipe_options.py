"""Every value of a recipe as an option of the command line: `--gamma`, `--critic.cql.weight`, `--encoder.features`."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from pixelrl.launch.recipes import ENCODERS
from pixelrl.learning.critic_forms import HLGauss, Quantile, Scalar
from pixelrl.learning.interventions import (
    HareTortoise,
    Intervention,
    PlasticityInjection,
    ReDo,
    Reset,
    ShrinkPerturb,
)
from pixelrl.learning.objective import term_name
from pixelrl.learning.policies import DeterministicPolicy, FlowPolicy, GaussianPolicy, HybridPolicy
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.term import Term
from pixelrl.learning.weights import Weight
from pixelrl.runtime.errors import PixelrlError

PARTS: dict[str, dict[str, Callable[[], Any]]] = {
    "encoder": {**ENCODERS},
    "form": {"scalar": Scalar, "hl_gauss": HLGauss, "quantile": Quantile},
    "policy": {
        "gaussian": GaussianPolicy,
        "hybrid": HybridPolicy,
        "deterministic": DeterministicPolicy,
        "flow": FlowPolicy,
    },
    "intervention": {
        "none": Intervention,
        "reset": Reset,
        "shrink_perturb": ShrinkPerturb,
        "redo": ReDo,
        "hare_tortoise": HareTortoise,
        "injection": PlasticityInjection,
    },
}
"""Parts of a recipe that may be of several classes, by the option's name: `--encoder drq`, `--form hl_gauss`."""


def choose_parts(recipe: Recipe, words: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Take `--encoder NAME` and the like out of the options; return the recipe with those parts, whose options stay.

    Raises:
        PixelrlError: an unknown part.
    """
    chosen, words = take_options(words, *PARTS)
    recipe = copy(recipe)
    for part, name in chosen.items():
        if name not in PARTS[part]:
            raise PixelrlError(f"--{part}: there is no {part} {name!r}, but: {', '.join(PARTS[part])}")
        vars(recipe)[part] = PARTS[part][name]()  # parts are checked against each other when all options are in
    return recipe, words


def take_options(words: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """Return the values of `--NAME VALUE` or `--NAME=VALUE` for the names that are there, and the other words."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?", const="")
    found, others = parser.parse_known_args(words)
    return {name: value for name, value in vars(found).items() if value is not None}, others


def recipe_registry() -> ConstructorRegistry:
    """Return the rules by which tyro makes options of a recipe, for `tyro.cli(..., registry=)`.

    Options set values and never structure: whatever may be one of several classes (an encoder, a learned weight) stays
    of the class that it is, and a term stands under its name.
    """
    registry = ConstructorRegistry()
    registry.struct_rule(dataclass_rule)
    registry.struct_rule(terms_rule)
    return registry


def terms_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Give a tuple of terms one group of options for each term."""
    terms = info.default
    if not isinstance(terms, tuple) or not ((terms and isinstance(terms[0], Term)) or Term in get_args(info.type)):
        return None
    fields = [StructFieldSpec(name=term_name(term), type=type(term), default=term) for term in terms]
    return StructConstructorSpec(instantiate=lambda **named: tuple(named.values()), fields=tuple(fields))


def dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Give a dataclass the options of its class, with its own values as defaults."""
    if isinstance(info.default, type) or not is_dataclass(info.default):
        return None
    spec = ConstructorRegistry.get_struct_spec(replace(info, default=tyro.MISSING))
    if not isinstance(spec, StructConstructorSpec):
        return None
    return replace(spec, fields=tuple(with_value(field, getattr(info.default, field.name)) for field in spec.fields))


def with_value(field: StructFieldSpec, value: Any) -> StructFieldSpec:
    """Return a field with a default, and of its class where it may be of several."""
    kind: Any = field.type
    if is_dataclass(value) and get_origin(kind) is not Annotated:
        kind = type(value)
    elif kind == Weight:
        kind = float
    return replace(field, type=kind, default=value)

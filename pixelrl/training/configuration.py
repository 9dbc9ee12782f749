"""Configurations as JSON and back: frozen dataclasses of known classes, and nothing else."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pixelrl.encoders.conv
import pixelrl.encoders.impala
import pixelrl.encoders.resnet
import pixelrl.terms.awr
import pixelrl.terms.bc
import pixelrl.terms.cql
import pixelrl.terms.distillation
import pixelrl.terms.dr3
import pixelrl.terms.expectile
import pixelrl.terms.flow
import pixelrl.terms.information
import pixelrl.terms.penalties
import pixelrl.terms.sac
import pixelrl.terms.td  # noqa: F401 (what is imported here can be read)
from pixelrl.encoders.cameras import PixelEncoder
from pixelrl.learning.backup import Backup
from pixelrl.learning.batch import Spec
from pixelrl.learning.critic_forms import CriticForm
from pixelrl.learning.interventions import Intervention
from pixelrl.learning.policies import Acting, PolicyForm
from pixelrl.learning.recipe import Recipe
from pixelrl.learning.term import Term
from pixelrl.learning.weights import AtMost
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import PixelrlError

CONFIGURATIONS = (
    *(Recipe, Spec, ActionDim, AtMost, Backup, Acting),
    *(CriticForm, PolicyForm, Intervention, Term, PixelEncoder),
)


def configuration_classes(*more: type) -> dict[str, type]:
    """Return all classes that a configuration may be made of, by name: terms and encoders that are imported, too."""
    return {kind.__name__: kind for base in (*CONFIGURATIONS, *more) for kind in family(base)}


def family(kind: type) -> Iterator[type]:
    """Yield a class and all its subclasses."""
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for subclass in subclasses:
        yield from family(subclass)


def to_json(value: Any) -> Any:
    """Return JSON values; a dataclass becomes a mapping with its class under `is`."""
    if is_dataclass(value) and not isinstance(value, type):
        body = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return {"is": type(value).__name__, **body}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    return value


def from_json(value: Any, *more: type) -> Any:
    """Rebuild what `to_json` wrote, of the known classes and `more`; lists become tuples.

    Nothing is imported by its name in a file, so a configuration from a stranger runs no foreign code.

    Raises:
        PixelrlError: an unknown class or option.
    """
    if isinstance(value, list):
        return tuple(from_json(item, *more) for item in value)
    if not isinstance(value, dict):
        return value
    body = {key: from_json(item, *more) for key, item in value.items() if key != "is"}
    if "is" not in value:
        return body
    kind = configuration_classes(*more).get(str(value["is"]))
    if kind is None or not is_dataclass(kind):
        raise PixelrlError(
            f"this version of pixelrl has no configuration class {value['is']!r}; import one of your own first"
        )
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(body) - known):
        raise PixelrlError(
            f"configuration: {kind.__name__} has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return kind(**body)

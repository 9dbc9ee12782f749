"""The model card of an exported policy: README.md beside it, as hubs read it (YAML in front, Markdown below)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

MODEL_CARD = "README.md"
TEMPLATE = Path(__file__).with_suffix(".md.j2")

File = tuple[str, str | None]
"""A file's name, and its SHA-256, None if it is gone."""


def model_card(contract: Mapping[str, Any], *, recipe: str, steps: int, data: Mapping[str, Sequence[File]]) -> str:
    """Return the card.

    Args:
        contract: what `policy.json` says.
        recipe: what the policy was trained by, in a line.
        steps: of its training.
        data: source -> its files.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)
    environment.filters["percent"] = "{:.0%}".format
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(contract=contract, recipe=recipe, steps=steps, data=data)

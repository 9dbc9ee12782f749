"""What several verbs take: how their options are typed, and read."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from pixelrl.launch.provenance import cores
from pixelrl.runtime.errors import PixelrlError

Out = Annotated[Path, arg(metavar="PATH")]
Drawing = Literal["stock", "fast"]


def counted(workers: int | None) -> int:
    """Return how many workers to use: as many as cores unless told otherwise."""
    if workers is not None and workers < 1:
        raise PixelrlError(f"--workers is {workers}; it must be at least 1")
    return cores() if workers is None else workers


def pairs(option: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary; values are read as JSON, or else as text."""
    result: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise PixelrlError(f"{option}: {word!r} is not KEY=VALUE")
        try:
            result[key] = json.loads(value)
        except ValueError:
            result[key] = value
    return result

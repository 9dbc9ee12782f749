"""What the options of several commands have in common."""

import json
from typing import Any, Literal

from pixelrl.launch.provenance import cores
from pixelrl.runtime.errors import PixelrlError

Drawing = Literal["stock", "fast"]


def worker_count(workers: int | None) -> int:
    """Return how many workers `--workers` asks for: as many as cores by default."""
    if workers is not None and workers < 1:
        raise PixelrlError(f"--workers is {workers}; it must be at least 1")
    return cores() if workers is None else workers


def key_values(option: str, words: tuple[str, ...]) -> dict[str, Any]:
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

"""The tests mirror the package, folder by folder; what several of them need lies here."""

from collections.abc import Callable
from pathlib import Path

Pixelrl = Callable[..., tuple[int, str]]
"""What the fixture `pixelrl` gives: it takes the words of a command, and returns its exit code and what it printed."""

Streams = Callable[..., tuple[int, str, str]]
"""The same of `pixelrl_streams`, with what was printed on either stream."""

ROOT = Path(__file__).parents[1]

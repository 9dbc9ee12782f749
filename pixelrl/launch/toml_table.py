"""A table of a TOML file, every key of which is checked: its type, and that it is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError


class TomlTable:
    """A table of the file whose keys are taken one by one; a key that is left in the end is unknown.

    `where` is its name, with a dot behind it; empty at the top.
    """

    def __init__(self, path: Path, where: str, body: Any) -> None:
        if not isinstance(body, dict):
            raise PixelrlError(f"{path}: {where.rstrip('.')} is {body!r}; expected a table")
        self.path, self.where, self.body, self.known = path, where, dict(body), list[str]()

    def take(self, key: str, kind: Any, default: Any = None, *, needed: bool = False) -> Any:
        """Return a value of a type, or of a list of values of a type (`[int]`), which becomes a tuple.

        Raises:
            PixelrlError: it is missing, or of another type.
        """
        self.known.append(key)
        if key not in self.body:
            if needed:
                raise self.error(key, "missing", named(kind))
            return default
        value = self.body.pop(key)
        each, values = (kind[0], value) if isinstance(kind, list) else (kind, [value])
        each = (int, float) if each is float else each
        right = isinstance(values, list) and all(
            isinstance(item, each) and (each is bool or not isinstance(item, bool)) for item in values
        )
        if not right or not values:
            raise self.error(key, repr(value), named(kind))
        return tuple(values) if isinstance(kind, list) else value

    def table(self, key: str, *, needed: bool = False) -> "TomlTable":
        """Return a table within this one; an empty one if it is not there."""
        self.known.append(key)
        if needed and key not in self.body:
            raise self.error(key, "missing", "a table")
        return TomlTable(self.path, f"{self.where}{key}.", self.body.pop(key, {}))

    def tables(self, key: str, usual: Sequence[Mapping[str, Any]] = ()) -> list["TomlTable"]:
        """Return the tables of a list; those of `usual` if it is not there."""
        self.known.append(key)
        bodies = self.body.pop(key, list(usual))
        if not isinstance(bodies, list):
            raise self.error(key, repr(bodies), f"a list of tables, the keys of each below [[{self.where}{key}]]")
        return [TomlTable(self.path, f"{self.where}{key}.{number}.", body) for number, body in enumerate(bodies)]

    def some(self, key: str, known: Sequence[int], default: Any = ()) -> Any:
        """Return a list of some of the numbers that there are, each once, as a tuple.

        Raises:
            PixelrlError: it is none, holds another number, or one of them twice.
        """
        found = self.take(key, [int], default)
        if found is not None and (not {*found} <= {*known} or len({*found}) < len(found)):
            raise self.error(key, repr(list(found)), f"some of {list(known)}, each once")
        return found

    def words(self, key: str) -> tuple[str, ...]:
        """Return a table of options as the words of a command line."""
        options = self.table(key)
        words: list[str] = []
        for name, value in options.body.items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(item, str | int | float) for item in values):
                hint = (
                    f'; quote names with dots, "{name}.{next(iter(value), "x")}" = ...'
                    if isinstance(value, dict)
                    else ""
                )
                raise options.error(name, repr(value), f"a number, a text, true or false, or a list of them{hint}")
            if isinstance(value, bool):
                group, dot, last = name.rpartition(".")
                words.append(f"--{group}{dot}{last if value else f'no-{last}'}")
            else:
                words += [f"--{name}", *map(str, values)]
        return tuple(words)

    def end(self) -> None:
        """Raise a `PixelrlError` if a key is left."""
        for key in self.body:
            raise PixelrlError(f"{self.path}: there is no key {self.where}{key}; known: {', '.join(self.known)}")

    def error(self, key: str, came: str, right: str) -> PixelrlError:
        """Return the error of a key."""
        return PixelrlError(f"{self.path}: {self.where}{key} is {came}; expected {right}")


def named(kind: Any) -> str:
    """Return what a value of a type is called."""
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return f"a list, of which each is {names[kind[0]]}" if isinstance(kind, list) else names[kind]

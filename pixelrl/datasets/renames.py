"""Other names for observation keys: `agentview_rgb=agentview_image` joins data that call their cameras otherwise."""

import re
from collections.abc import Iterable, Mapping

from pixelrl.runtime.errors import DataError, PixelrlError


def parse_renames(said: Iterable[str], option: str = "--rename") -> dict[str, str]:
    """Return old -> new of texts OLD=NEW.

    Raises:
        PixelrlError: a text that is none, or says twice what becomes of a key, or what a key becomes of.
    """
    names: dict[str, str] = {}
    for text in said:
        found = re.fullmatch(r"([^=]+)=([^=/]+)", text)
        if not found or found[1] == found[2] or found[1] in names or found[2] in names.values():
            raise PixelrlError(f"{option} {text}: expected OLD=NEW, each name once on its side, and no '/' in NEW")
        names[found[1]] = found[2]
    return names


def rename_keys(held: Iterable[str], rename: Mapping[str, str], place: str) -> dict[str, str]:
    """Return new name -> the name in the file, of all keys; all renames happen at once, so two may be exchanged.

    Raises:
        DataError: a key to rename that is not there, or two that would have one name.
    """
    stored: dict[str, str] = {}
    for key in (keys := [*held]):
        name = rename.get(key, key)
        if "/" in name:
            raise DataError(f"{place}: {key!r} would be named {name!r}; expected another name, without '/'")
        if name in stored:
            raise DataError(
                f"{place}: {stored[name]!r} and {key!r} would both be named {name!r}; expected another name"
            )
        stored[name] = key
    if missing := [key for key in rename if key not in keys]:
        raise DataError(f"{place}: no {missing[0]!r} to rename; expected one of {', '.join(keys) or 'nothing'}")
    return stored

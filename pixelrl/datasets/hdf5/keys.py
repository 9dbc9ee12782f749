"""Which observation keys of a file are learned from, by which names, and why not the others."""

import re
from collections.abc import Iterable, Mapping, Sequence

import h5py

from pixelrl.datasets.hdf5.access import child, has, is_array, members, where
from pixelrl.runtime.errors import DataError, PixelrlError

DEPTH = "depth or labels of pixels"
PRIVILEGED = "what the simulator knows and no robot senses"
UNWANTED = "not asked for"
EXPECTED = (DEPTH, PRIVILEGED, UNWANTED)
"""Why observations are not learned from, where nobody would wonder; other reasons are worth a warning."""


def parse_renames(said: Iterable[str], option: str = "--rename") -> dict[str, str]:
    """Return old -> new of texts OLD=NEW: `agentview_rgb=agentview_image` joins data that call their cameras otherwise.

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


def is_no_camera(key: str) -> bool:
    """Tell whether a key names depth, distances, normals or labels of pixels, as robosuite and IsaacLab call them."""
    return re.search(r"depth|segment|semantic|instance_id|distance_to|normals", key) is not None


def select_keys(
    demo: h5py.Group, images: Sequence[str] | None, proprio: Sequence[str] | None, rename: Mapping[str, str]
) -> tuple[dict[str, tuple[int, int, int]], dict[str, int], dict[str, str]]:
    """Choose the observation keys by a demo: the shapes of the pictures and of the vectors, and why not the others.

    All keys are those that `rename`, old -> new, makes of the file's; unless they are asked for, in the order of names.
    """
    home = next((name for name in ("frames", "obs") if has(demo, name)), None)
    group = child(demo, home) if home else None
    names = members(group) if group is not None else []
    stored = rename_keys(names, rename, where(group if group is not None else demo))
    names = sorted(stored)
    held = {key: item for key in names if is_array(item := child(group, stored[key]))}
    pictures = [key for key, item in held.items() if item.ndim == 4]
    vectors = [key for key, item in held.items() if item.ndim == 2 and item.shape[1] and item.dtype.kind == "f"]
    if not pictures:
        raise DataError(
            f"{where(demo)}: no pictures, it holds {', '.join(names) or 'states'} only; expected uint8 (N, H, W, C) "
            "under obs/ (`pixelrl render` draws them from states, `pixelrl convert` unpacks JPEG and PNG)"
        )
    for wanted, offered, kind in ((images, pictures, "pictures"), (proprio, vectors, "float vectors")):
        for key in wanted or ():
            if key not in offered:
                raise DataError(f"{where(demo)}: no {key!r} among its {kind}: {', '.join(offered) or 'there are none'}")
    doubts = {key: _why_ignored(key, held.get(key)) for key in names}
    images = [key for key in pictures if not doubts[key]] if images is None else images
    proprio = [key for key in vectors if not doubts[key]] if proprio is None else proprio
    ignored = {key: doubts[key] or UNWANTED for key in names if key not in (*images, *proprio)}
    return {key: held[key].shape[1:] for key in images}, {key: held[key].shape[1] for key in proprio}, ignored


def _why_ignored(key: str, item: h5py.Dataset | None) -> str:
    """Say why nothing is learned from a member of the observations unless it is asked for; empty if it is."""
    if item is None:
        return "no array of numbers (coded pictures? `pixelrl convert` unpacks JPEG and PNG)"
    came = f"{item.dtype} {list(item.shape[1:])} a row"
    if item.ndim in (3, 4) and is_no_camera(key):
        return DEPTH
    if item.ndim in (3, 4):
        return "" if item.ndim == 4 else f"{came}; a picture is uint8 [H, W, C] (grey: [H, W, 1])"
    if item.ndim == 2 and item.shape[1] and item.dtype.kind == "f":
        return PRIVILEGED if key.startswith("object") else ""
    return f"{came}; a vector is floats [D] a row"

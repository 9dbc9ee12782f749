"""Checks on the outline of a file: what is there, in which types and lengths, and how it is stored."""

import math
from collections.abc import Iterator
from shlex import quote

from pixelrl.datasets.inspect.issues import Issue, Occurrence
from pixelrl.datasets.hdf5.access import CHANNELS
from pixelrl.datasets.inspect.outline import NUMBERS, Array, DemoStructure, FileStructure

SLOW, VERY_SLOW = 2.0, 4.0
"""Reading one compressed picture unpacks so many times its bytes."""

LARGEST = 2**32
"""No array of numbers of one demo, and no single picture, may take more bytes than this."""

Form = tuple[tuple[int, ...], str]
"""The shape of a row, and the type."""


def structure(outline: FileStructure) -> Iterator[Occurrence]:
    """Find arrays that are missing, that cannot be looked into, or that most demos do not have."""
    usual = outline.usual
    for name, demo in outline.demos.items():
        for place, reason in demo.refused.items():
            yield _error("structure", place or ".", "cannot be read", name, detail=reason)
        if "" in demo.refused:
            continue
        for key in (*NUMBERS, *sorted(usual.keys() - set(NUMBERS))):
            if key not in demo.arrays and not {key, key.partition("/")[0]} & demo.refused.keys():
                yield from _missing(outline, demo, name, key)
        for key in sorted(demo.arrays.keys() - usual.keys() - set(NUMBERS)):
            message = "held by the fewer demos, so not read"
            yield Occurrence(check="structure", level="warning", where=key, message=message, demo=name)
        if not demo.later:
            message = "missing: the last transition is dropped, and its reward with it,"
            yield Occurrence(check="next_obs", level="warning", where="next_obs", message=message, demo=name)
        if demo.samples is None:
            message = "no attribute num_samples (robomimic wants it)"
            yield Occurrence(check="structure", level="note", where=".", message=message, demo=name)


def _missing(outline: FileStructure, demo: DemoStructure, name: str, key: str) -> Iterator[Occurrence]:
    """Say what an array that is not there means: some are read for training, some by others, some by nobody."""
    group, _, sensor = key.partition("/")
    if key in NUMBERS:
        yield _error("structure", key, "missing", name)
    elif (group == "frames" and demo.home == "obs") or (group == "next_obs" and not demo.later):
        return  # the frames lie in obs, or there are none after the last action, which is told once
    elif sensor in {*outline.cameras, *outline.vectors} and (group == demo.home or demo.home == "obs"):
        yield _error("structure", key, "missing (most demos have it)", name)
    else:
        message = "missing (most demos have it); not needed here, but others may read it"
        yield Occurrence(check="structure", level="note", where=key, message=message, demo=name)


def dtypes(outline: FileStructure) -> Iterator[Occurrence]:
    """Find pictures that are not bytes, actions that are not floats, and rows of unusual shape or type."""
    usual = outline.usual
    pictures, vectors = outline.cameras, outline.vectors
    for name, demo in outline.demos.items():
        for place, array in demo.arrays.items():
            key = place.partition("/")[2]
            shape, dtype = usual.get(place, (array.shape[1:], array.dtype))
            if key in pictures and (array.dtype != "uint8" or len(array.shape) != 4 or array.shape[-1] not in CHANNELS):
                expected = f"expected uint8 [N, H, W, C] with C in {CHANNELS}{_hint(array)}"
                yield _error("dtypes", place, f"is {_form(array)}; {expected}", name)
            elif (place in NUMBERS or key in {*pictures, *vectors}) and array.shape[1:] != shape:
                yield _error("dtypes", place, f"has rows of {_row(array.shape[1:])}; expected {_row(shape)}", name)
            elif place == "actions" and (array.kind != "f" or len(array.shape) != 2):
                yield _error("dtypes", place, f"is {_form(array)}; expected floats [N, A]", name)
            elif place in NUMBERS and place != "actions" and len(array.shape) != 1:
                yield _error("dtypes", place, f"is {_form(array)}; expected one number a step", name)
            elif key in vectors and array.kind != "f":
                yield _error("dtypes", place, f"is {array.dtype}; expected {dtype}, as in most demos", name)
            elif math.prod(array.shape[1:] if key in pictures else array.shape) * 8 > LARGEST:
                yield _error("dtypes", place, f"has the absurd shape {array.shape}", name)


def lengths(outline: FileStructure) -> Iterator[Occurrence]:
    """Find arrays whose rows do not match the actions, demos without a transition, and arrays never written."""
    read = {*outline.cameras, *outline.vectors}
    for name, demo in outline.demos.items():
        if "actions" not in demo.arrays or not demo.arrays["actions"].shape:
            continue
        steps = demo.arrays["actions"].shape[0]
        if demo.samples not in (None, steps):
            yield _error("lengths", ".", "num_samples is not the number of actions", name, f"{demo.samples}, {steps}")
        if steps < (1 if demo.later else 2):
            message = "too short: there is no transition in it"
            yield _error("lengths", "actions", message, name, f"{steps} actions")
        for place, array in demo.arrays.items():
            group, _, key = place.partition("/")
            if place not in NUMBERS and key not in read:
                continue
            wanted = steps + 1 if group == "frames" else steps
            if array.shape[0] != wanted:
                message = "has not as many rows as the actions ask for"
                yield _error("lengths", place, message, name, f"{array.shape[0]} rows; expected {wanted}")
            elif not array.written:
                yield _error("lengths", place, "was never written (it reads as zeros)", name)


def compression(outline: FileStructure) -> Iterator[Issue]:
    """Find pictures whose chunks span several frames: to read one frame, all chunks that touch it are unpacked."""
    slow: dict[str, tuple[float, Array, str, int]] = {}
    for name, demo in outline.demos.items():
        for key in outline.cameras:
            array = demo.arrays.get(f"{demo.home}/{key}")
            if array is not None and (cost := unpacked(array)) >= SLOW:
                _, _, first, count = slow.get(key, (0.0, array, name, 0))
                slow[key] = (max(cost, slow[key][0]) if key in slow else cost, array, first, count + 1)
    for key, (cost, array, first, count) in slow.items():
        home = outline.demos[first].home
        yield Issue(
            check="compression",
            level="warning" if cost >= VERY_SLOW else "note",
            where=f"{home}/{key}",
            message=f"{array.compression} in chunks of {_row(array.chunks or ())}: to read one picture, {cost:.0f} "
            f"times its bytes are unpacked, in {count} of {len(outline.demos)} demos; expected one picture a chunk",
            file=str(outline.path),
            demo=first,
            demos=count,
            looked=len(outline.demos),
            fix=_repack(outline),
        )


def unpacked(array: Array) -> float:
    """Return how many bytes are unpacked to read one row, relative to the bytes of the row; 1 if not compressed."""
    if array.chunks is None or array.compression == "none":
        return 1.0
    touched = math.prod(math.ceil(size / chunk) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True))
    return touched * math.prod(array.chunks) / max(1, math.prod(array.shape[1:]))


def attributes(outline: FileStructure) -> Iterator[Issue]:
    """Find an unfinished file, a wrong total, members that are no demos, and filters that name demos wrongly."""
    file = str(outline.path)
    if outline.unfinished:
        message = f"the file says that it is {outline.unfinished}: whoever wrote it was interrupted; its"
        message += f" {len(outline.demos)} demos are read"
        yield Issue(check="unfinished", level="warning", where="file", message=message, file=file)
    steps = [demo.arrays["actions"].shape[0] if "actions" in demo.arrays else None for demo in outline.demos.values()]
    known = [count for count in steps if count is not None]
    if len(known) == len(steps) and outline.total not in (None, sum(known)):
        message = f"the attribute total is {outline.total}; the demos hold {sum(known)} actions (demos lost or added?)"
        yield Issue(check="lengths", level="warning", where="data", message=message, file=file)
    if outline.strangers:
        message = f"{', '.join(outline.strangers[:5])}: not read; demos are named demo_0, demo_1, ..."
        yield Issue(check="structure", level="warning", where="data", message=message, file=file)
    for mask, names in outline.masks.items():
        if gone := sorted(set(names) - set(outline.demos)):
            message = f"names {len(gone)} demos that are not there, say {gone[0]}: it cannot be used"
            yield Issue(check="masks", level="warning", where=f"mask/{mask}", message=message, file=file)
    for one, other in (("train", "valid"), ("train", "test")):
        if both := sorted(set(outline.masks.get(one, ())) & set(outline.masks.get(other, ()))):
            message = f"{len(both)} demos are in mask/{one} too, say {both[0]}"
            yield Issue(check="masks", level="warning", where=f"mask/{other}", message=message, file=file)


def sound(outline: FileStructure, occurrences: Iterator[Occurrence] | list[Occurrence]) -> list[str]:
    """Return the demos whose arrays can be read: those without an error among these occurrences."""
    sick = {occurrence.demo for occurrence in occurrences if occurrence.level == "error"}
    return [name for name in outline.demos if name not in sick]


def picture_bytes(demo: DemoStructure, keys: tuple[str, ...]) -> int:
    """Return the bytes of a demo's pictures, unpacked."""
    held = (demo.arrays.get(f"{demo.home}/{key}") for key in keys)
    return sum(math.prod(array.shape) for array in held if array is not None)


def _error(check: str, where: str, message: str, demo: str, detail: str = "") -> Occurrence:
    return Occurrence(check=check, level="error", where=where, message=message, demo=demo, detail=detail)


def _row(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _form(array: Array) -> str:
    return f"{array.dtype} {list(array.shape[1:])} a row"


def _hint(array: Array) -> str:
    """Return what may have happened to pictures that are not as they should be."""
    if len(array.shape) == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS:
        return " (channels come first: transpose)"
    return " (floats in [0, 1]? multiply by 255)" if array.kind == "f" else ""


def _repack(outline: FileStructure) -> str:
    """Return a command that rewrites the file so that it is read fast."""
    rows = {row for row, _ in outline.usual.values() if len(row) == 3}
    target = outline.path.with_suffix(f".repacked{outline.path.suffix}")
    files = f"{quote(str(outline.path))} {quote(str(target))}"
    if len(rows) == 1:  # a chunk must not be larger than any array of its rank
        return f"h5repack -f GZIP=4 -l CHUNK=1x{_row(rows.pop())} {files}"
    return f"h5repack -f NONE -l CONTI {files}"

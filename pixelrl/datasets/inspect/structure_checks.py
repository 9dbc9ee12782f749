"""Checks on the structure of a file: what is there, in which types and lengths, and how it is stored."""

import math
from collections.abc import Iterable, Iterator
from shlex import quote

import numpy as np

from pixelrl.datasets.hdf5.access import CHANNELS, LEAVE_OUT, overclaim
from pixelrl.datasets.inspect.file_structure import GROUPS, NUMBERS, ArrayLayout, DemoStructure, FileStructure
from pixelrl.datasets.inspect.issues import Issue, Level, Occurrence

SLOW, VERY_SLOW = 2.0, 4.0
"""Reading one compressed picture unpacks so many times its bytes."""

LARGEST = 2**32
"""No array of numbers of one demo, and no single picture, may take more bytes than this."""


def check_demos(structure: FileStructure) -> list[Occurrence]:
    """Run all checks on the structure of demos."""
    return [*check_members(structure), *check_types(structure), *check_lengths(structure)]


def check_members(structure: FileStructure) -> Iterator[Occurrence]:
    """Find arrays that are missing, that cannot be looked into, or that most demos do not have."""
    usual = structure.usual
    for name, demo in structure.demos.items():
        for place, reason in demo.refused.items():
            only_others_read_it = demo.home == "frames" and place.partition("/")[0] in ("obs", "next_obs")
            level: Level = "warning" if only_others_read_it else "error"
            yield Occurrence("structure", level, place or ".", "cannot be read", name, detail=reason)
        if "" in demo.refused:
            continue
        for key in (*NUMBERS, *sorted(usual.keys() - set(NUMBERS))):
            if key not in demo.arrays and not {key, key.partition("/")[0]} & demo.refused.keys():
                yield from _missing(structure, demo, name, key)
        for key in sorted(demo.arrays.keys() - usual.keys() - set(NUMBERS)):
            message = "held by the fewer demos, so not read"
            yield Occurrence("structure", "warning", key, message, name)
        last = [f"next_obs/{key}" for key in (*structure.cameras, *structure.vectors)]
        if demo.home == "obs" and (lacking := [key for key in last if key not in demo.arrays]):
            message = "missing: the last step counts where it reaches the goal, and is else left out,"
            place = lacking[0] if demo.has_next_obs else "next_obs"
            yield Occurrence("last-frame", "warning", place, message, name)
        if demo.samples is None:
            message = "no attribute num_samples (robomimic wants it)"
            yield Occurrence("structure", "note", ".", message, name)


def _missing(structure: FileStructure, demo: DemoStructure, name: str, key: str) -> Iterator[Occurrence]:
    """Say what a missing array means: some are read for training, some only by other programs."""
    group, _, sensor = key.partition("/")
    if key in {"rewards", "dones"} - {*structure.selection.required}:
        return
    if key in NUMBERS:
        hint = {"rewards": "--task-reward last:1", "dones": "--task-dones last"}.get(key)
        rule = f"; prior data need none (--prior), and {hint} makes some," if hint else ""
        yield _error("structure", key, f"missing{rule}", name)
    elif demo.home == "obs" and (group == "frames" or (group == "next_obs" and not demo.has_next_obs)):
        return  # the frames lie in obs, or there are none after the last action, which is told once
    elif sensor in {*structure.cameras, *structure.vectors} and (group == demo.home or demo.home == "obs"):
        yield _error("structure", key, "missing (most demos have it)", name)
    else:
        message = "missing (most demos have it); not needed here, but others may read it"
        yield Occurrence("structure", "note", key, message, name)


def check_types(structure: FileStructure) -> Iterator[Occurrence]:
    """Find pictures that are not bytes, actions that are not floats, and rows of unusual shape or type."""
    pictures, vectors = structure.cameras, structure.vectors
    for name, demo in structure.demos.items():
        for place, array in demo.arrays.items():
            key = place.partition("/")[2]
            shape, dtype = structure.usual.get(place, (array.shape[1:], array.dtype))
            came, message = f"{array.dtype} {list(array.shape[1:])} a row", ""
            if key in pictures and (array.dtype != "uint8" or len(array.shape) != 4 or array.shape[-1] not in CHANNELS):
                message = f"is {came}; expected uint8 [N, H, W, C] with C in {CHANNELS}{_hint(array)}{LEAVE_OUT}"
            elif (place in NUMBERS or key in {*pictures, *vectors}) and array.shape[1:] != shape:
                message = f"has rows of {_row(array.shape[1:])}; expected {_row(shape)}"
            elif place == "actions" and (array.kind != "f" or len(array.shape) != 2):
                message = f"is {came}; expected floats [N, A]"
            elif place in NUMBERS and place != "actions" and len(array.shape) != 1:
                message = f"is {came}; expected one number a step"
            elif key in vectors and array.kind != "f":
                message = f"is {array.dtype}; expected {dtype}, as in most demos"
            elif math.prod(array.shape[1:] if key in pictures else array.shape) * 8 > LARGEST:
                message = f"has the absurd shape {array.shape}"
            if message:
                yield _error("dtypes", place, message, name)


def check_lengths(structure: FileStructure) -> Iterator[Occurrence]:
    """Find arrays whose rows do not match the actions, demos without a transition, and arrays never written."""
    read = {*structure.cameras, *structure.vectors}
    for name, demo in structure.demos.items():
        if "actions" not in demo.arrays:
            continue
        steps = demo.arrays["actions"].shape[0]
        if demo.samples not in (None, steps):
            came = f"{demo.samples}; {steps} actions"
            yield _error("lengths", ".", "num_samples is not the number of actions", name, came)
        if steps < 1:
            yield _error("lengths", "actions", "too short: there is no step in it", name, f"{steps} actions")
        for place, array in demo.arrays.items():
            group, _, key = place.partition("/")
            if place not in NUMBERS and key not in read:
                continue
            wanted = steps + 1 if group == "frames" else steps
            if array.shape[0] != wanted:
                message = "has not as many rows as the actions ask for"
                yield _error("lengths", place, message, name, f"{array.shape[0]} rows; expected {wanted}")
            elif array.unwritten:
                yield _error("lengths", place, f"{array.unwritten} (it reads as zeros)", name)


def readable_demos(structure: FileStructure, occurrences: Iterable[Occurrence], *, pictures: bool = True) -> list[str]:
    """Return the demos whose arrays can be read: those without an error; without `pictures`, theirs do not count."""
    errors = [each for each in occurrences if each.level == "error"]
    spared = () if pictures else structure.cameras
    wrong = {each.demo for each in errors if each.where.partition("/")[2] not in spared}
    return [name for name in structure.demos if name not in wrong]


def picture_bytes(demo: DemoStructure, cameras: Iterable[str]) -> int:
    """Return the bytes of a demo's pictures, unpacked."""
    held = (demo.arrays.get(f"{demo.home}/{key}") for key in cameras)
    return sum(math.prod(array.shape) for array in held if array is not None)


def check_size(structure: FileStructure) -> Iterator[Issue]:
    """Find demos that together claim more bytes than the file can hold: none of them is read."""
    used = {*NUMBERS, *(f"{group}/{key}" for group in GROUPS for key in (*structure.cameras, *structure.vectors))}
    arrays = (array for demo in structure.demos.values() for place, array in demo.arrays.items() if place in used)
    claimed = sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)
    if wrong := overclaim(claimed, structure.bytes):
        message = f"{wrong}: nothing is read"
        yield Issue(check="structure", level="error", where="data", message=message, file=str(structure.path))


def check_file(structure: FileStructure) -> Iterator[Issue]:
    """Find a wrong total, members that are no demos, filters that name demos wrongly, and slow pictures."""
    file = str(structure.path)

    def warning(check: str, where: str, message: str) -> Issue:
        return Issue(check=check, level="warning", where=where, message=message, file=file)

    steps = [demo.arrays["actions"].shape[0] for demo in structure.demos.values() if "actions" in demo.arrays]
    if len(steps) == len(structure.demos) and structure.total not in (None, sum(steps)):
        message = (
            f"the attribute total is {structure.total}; the demos hold {sum(steps)} actions (demos lost or added?)"
        )
        yield warning("lengths", "data", message)
    if structure.strangers:
        message = f"{', '.join(structure.strangers[:5])}: not read; demos are named demo_0, demo_1, ..."
        yield warning("structure", "data", message)
    masks = {name: set(demos) for name, demos in structure.masks.items()}
    for name, demos in masks.items():
        if gone := sorted(demos - set(structure.demos)):
            message = f"names {len(gone)} demos that are not there, say {gone[0]}: it cannot be used"
            yield warning("masks", f"mask/{name}", message)
    for name in ("valid", "test"):
        if both := sorted(masks.get("train", set()) & masks.get(name, set())):
            yield warning("masks", f"mask/{name}", f"{len(both)} demos are in mask/train too, say {both[0]}")
    yield from _slow_pictures(structure)


def _slow_pictures(structure: FileStructure) -> Iterator[Issue]:
    """Find pictures whose chunks span several frames: to read one frame, all chunks that touch it are unpacked."""
    for key in structure.cameras:
        places = ((name, demo.arrays.get(f"{demo.home}/{key}")) for name, demo in structure.demos.items())
        slow = [(name, array) for name, array in places if array is not None and unpacked(array) >= SLOW]
        if not slow:
            continue
        array = slow[0][1]
        cost, count = max(unpacked(each) for _, each in slow), len(structure.demos)
        yield Issue(
            check="compression",
            level="warning" if cost >= VERY_SLOW else "note",
            where=f"{structure.demos[slow[0][0]].home}/{key}",
            message=f"{array.compression} in chunks of {_row(array.chunks or ())}: to read one picture, {cost:.0f} "
            f"times its bytes are unpacked, in {len(slow)} of {count} demos; expected one picture a chunk",
            file=str(structure.path),
            demo=slow[0][0],
            demos=len(slow),
            looked=count,
            fix=_repack(structure),
        )


def unpacked(array: ArrayLayout) -> float:
    """Return how many bytes are unpacked to read one row, relative to the bytes of the row; 1 if not compressed."""
    if array.chunks is None or array.compression == "none":
        return 1.0
    touched = math.prod(math.ceil(size / chunk) for size, chunk in zip(array.shape[1:], array.chunks[1:], strict=True))
    return touched * math.prod(array.chunks) / max(1, math.prod(array.shape[1:]))


def _error(check: str, where: str, message: str, demo: str, detail: str = "") -> Occurrence:
    return Occurrence(check, "error", where, message, demo, detail=detail)


def _row(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _hint(array: ArrayLayout) -> str:
    """Return what may have happened to pictures that are not as they should be."""
    if len(array.shape) == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS:
        return " (channels come first: transpose)"
    return " (floats in [0, 1]? multiply by 255)" if array.kind == "f" else ""


def _repack(structure: FileStructure) -> str:
    """Return a command that rewrites the file so that it is read fast."""
    rows = {row for row, _ in structure.usual.values() if len(row) == 3}
    target = structure.path.with_suffix(f".repacked{structure.path.suffix}")
    files = f"{quote(str(structure.path))} {quote(str(target))}"
    if len(rows) == 1:  # a chunk must not be larger than any array of its rank
        return f"h5repack -f GZIP=4 -l CHUNK=1x{_row(rows.pop())} {files}"
    return f"h5repack -f NONE -l CONTI {files}"

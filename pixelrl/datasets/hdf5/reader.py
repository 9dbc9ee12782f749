"""Read robomimic's HDF5: what others recorded, and what `writer` wrote.

https://robomimic.github.io/docs/datasets/overview.html
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import (
    DEFLATED,
    child,
    dataset,
    expect,
    finite,
    flags,
    has,
    is_array,
    json_attribute,
    members,
    open_file,
    text_array,
    where,
)
from pixelrl.datasets.hdf5.action_dims import read_action_dims
from pixelrl.runtime.actions import ActionDim
from pixelrl.runtime.errors import DataError

BLOCK = 4 * 2**20
"""Bytes of pictures that are read at a time: a demo may be longer than memory."""


@dataclass(frozen=True, kw_only=True)
class FileContents:
    """What a file holds, short of its numbers: enough to plan the memory.

    Attributes:
        path: the file.
        demos: demo -> its number of steps N, in the order of their numbers. It has N + 1 frames; where none was
            recorded after the last step, the one before is repeated.
        pictures: observation key -> (H, W, C) of its uint8 pictures.
        vectors: observation key -> its length.
        action: what each dimension of the action means.
        env_args: robomimic's description of the environment; empty if the file has none.
        ignored: observation key -> why nothing is learned from it.
    """

    path: Path
    demos: Mapping[str, int]
    pictures: Mapping[str, tuple[int, int, int]]
    vectors: Mapping[str, int]
    action: tuple[ActionDim, ...]
    env_args: Mapping[str, Any]
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Return how many frames a camera has in all demos."""
        return sum(self.demos.values()) + len(self.demos)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The numbers of one demo: `Episode` as a file gives it back.

    Attributes:
        name: say `demo_3`.
        sensors: observation key -> `[N + 1, ...]`: uint8 pictures `[H, W, C]`, float32 vectors `[D]`.
        actions: float32 `[N, A]`.
        rewards: float32 `[N]`.
        dones: bool `[N]`, as recorded: in some files they mark the end of every demo, successful or not.
        next_missing: bool `[N]`, true where the frame after the step was not recorded: the next row, if there is one,
            begins another episode.
        clocks: observation keys that grow with every frame, as time does.
        notes: whatever the writer noted.
    """

    name: str
    sensors: Mapping[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    next_missing: NDArray[np.bool_]
    clocks: tuple[str, ...]
    notes: Mapping[str, Any]


def read_contents(
    path: Path,
    *,
    mask: str | None = None,
    images: Sequence[str] | None = None,
    proprio: Sequence[str] | None = None,
    required: Sequence[str] = ("rewards", "dones"),
) -> FileContents:
    """Read and check all shapes of a file, and none of its pixels.

    Args:
        path: the file.
        mask: one of its filters, a subset of its demos.
        images: observation keys of the cameras, in their order; None: all pictures but depth.
        proprio: those of the proprioception; None: all float vectors but `object...`, what the simulator knows and no
            robot senses.
        required: what every demo must hold beside its actions; of `rewards` and `dones` that are not, zeros are read.

    Raises:
        DataError: anything that does not fit, with the file, the demo and the key.
    """
    with open_file(path) as file:
        data = child(file, "data")
        names = _demo_names(file, mask)
        first = child(data, names[0])
        pictures, vectors, ignored = _select(first, images, proprio)
        actions = dataset(first, "actions")
        if actions.ndim != 2 or not actions.shape[1]:
            raise DataError(f"{where(actions)}: shape {actions.shape}; expected (N, A)")
        env_args = json_attribute(data, "env_args", {})
        contents = FileContents(
            path=path,
            demos={name: _check_demo(child(data, name), pictures, vectors, actions, required) for name in names},
            pictures=pictures,
            vectors=vectors,
            action=read_action_dims(data, env_args, actions.shape[1]),
            env_args=env_args,
            ignored=ignored,
        )
    _check_size(contents)
    return contents


def read_demos(contents: FileContents, names: Iterable[str] | None = None) -> Iterator[Demo]:
    """Read the demos named (None: all), one at a time.

    Raises:
        DataError: a number that is not finite, or a done that is neither 0 nor 1, with its place.
    """
    with open_file(contents.path) as file:
        data = child(file, "data")
        for name in contents.demos if names is None else names:
            yield _read_demo(child(data, name), name, contents)


def read_pictures(contents: FileContents, key: str) -> Iterator[NDArray[np.uint8]]:
    """Yield a camera's pictures of all demos in blocks, uint8 `[n, H, W, C]`, none of which reaches into two demos."""
    rows = max(1, BLOCK // math.prod(contents.pictures[key]))
    with open_file(contents.path) as file:
        for name, steps in contents.demos.items():
            for start in range(0, steps + 1, rows):
                yield picture_rows(file["data"][name], key, start, min(start + rows, steps + 1))


def picture_rows(demo: h5py.Group, key: str, start: int, stop: int) -> NDArray[np.uint8]:
    """Read some successive frames of a demo, uint8 `[stop - start, H, W, C]`."""
    held, last = sensor(demo, key)
    pictures: NDArray[np.uint8] = held[start:stop]
    return np.concatenate([pictures, last[-1:]]) if last is not None and stop > len(held) else pictures


def sensor(demo: h5py.Group, key: str) -> tuple[h5py.Dataset, h5py.Dataset | None]:
    """Return the datasets that hold the N + 1 frames of a key: all of the first, then the last row of the second.

    Where nothing was recorded after the last step, both are the same.
    """
    if has(demo, "frames"):
        return dataset(child(demo, "frames"), key), None
    obs = dataset(child(demo, "obs"), key)
    recorded = has(demo, "next_obs") and has(child(demo, "next_obs"), key)
    return obs, dataset(child(demo, "next_obs"), key) if recorded else obs


def _demo_names(file: h5py.File, mask: str | None) -> list[str]:
    """Return the demos of a file, or of one of its filters, in the order of their numbers."""
    data = child(file, "data")
    names = [name for name in members(data) if re.fullmatch(r"demo_[0-9]{1,18}", name)]
    if mask is not None:
        masks = child(file, "mask")
        chosen = set(text_array(masks, mask))
        if unknown := chosen - set(names):
            raise DataError(f"{where(masks)}/{mask}: names {min(unknown)[:60]!a}, which /data does not hold")
        names = [name for name in names if name in chosen]
    if not names:
        raise DataError(f"{where(data)}: no demos; expected groups demo_0, demo_1, ...")
    return sorted(names, key=lambda name: int(name[5:]))


def _select(
    demo: h5py.Group, images: Sequence[str] | None, proprio: Sequence[str] | None
) -> tuple[dict[str, tuple[int, int, int]], dict[str, int], dict[str, str]]:
    """Choose the observation keys by a demo: the shapes of the pictures and of the vectors, and why not the others."""
    home = next((name for name in ("frames", "obs") if has(demo, name)), None)
    group = child(demo, home) if home else None
    names = members(group) if group is not None else []
    held = {key: child(group, key) for key in names if is_array(group, key)}
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
    ignored = {key: why for key in names if (why := _why_ignored(key, held.get(key)))}
    chosen = (
        [key for key in pictures if key not in ignored] if images is None else images,
        [key for key in vectors if key not in ignored] if proprio is None else proprio,
    )
    ignored = {key: why for key, why in ignored.items() if key not in {*chosen[0], *chosen[1]}}
    ignored |= {key: "not asked for" for key in (*pictures, *vectors) if key not in {*chosen[0], *chosen[1], *ignored}}
    return {key: held[key].shape[1:] for key in chosen[0]}, {key: held[key].shape[1] for key in chosen[1]}, ignored


def _why_ignored(key: str, item: h5py.Dataset | None) -> str:
    """Say why nothing is learned from a member of the observations unless it is asked for; empty if it is."""
    if item is None:
        return "no array of numbers (coded pictures? `pixelrl convert` unpacks JPEG and PNG)"
    came = f"{item.dtype} {list(item.shape[1:])} a row"
    if item.ndim == 4:
        return "depth" if key.endswith("_depth") else ""
    if item.ndim == 3:
        return f"{came}; a picture is uint8 [H, W, C] (grey: [H, W, 1])"
    if item.ndim == 2 and item.shape[1] and item.dtype.kind == "f":
        return "what the simulator knows and no robot senses" if key.startswith("object") else ""
    return f"{came}; a vector is floats [D] a row"


def _check_demo(
    demo: h5py.Group,
    pictures: Mapping[str, tuple[int, int, int]],
    vectors: Mapping[str, int],
    actions: h5py.Dataset,
    required: Sequence[str],
) -> int:
    """Check the shapes and types of a demo, and return its number of steps."""
    taken = dataset(demo, "actions")
    steps = len(taken)
    expect(taken, (steps, *actions.shape[1:]), "f")
    for key in ("rewards", "dones"):
        if key in required or has(demo, key):
            expect(dataset(demo, key), (steps,), "fiub")
    noted = demo.attrs.get("num_samples", steps)
    if not np.array_equal(noted, steps):
        raise DataError(f"{where(demo)}: num_samples is {str(noted)[:60]!a} beside {steps} actions")
    if steps < 1:
        raise DataError(f"{where(demo)}: no actions; expected one or more")
    for key, shape in {**pictures, **{key: (size,) for key, size in vectors.items()}}.items():
        held, last = sensor(demo, key)
        for part, rows in ((held, steps + (last is None)), (last, steps)):
            if part is not None:
                expect(part, (rows, *shape), "u" if key in pictures else "f")
                if not part.is_virtual and not part.id.get_storage_size():
                    raise DataError(f"{where(part)}: was never written; expected what was observed")
    return steps


def _check_size(contents: FileContents) -> None:
    """Raise if the demos together claim more than the file can hold: one may be linked to under many names."""
    claimed = contents.frames * (sum(map(math.prod, contents.pictures.values())) + sum(contents.vectors.values()))
    held = contents.path.stat().st_size
    if claimed > DEFLATED * held:
        raise DataError(f"{contents.path}: claims {claimed} bytes of observations; a file of {held} cannot hold them")


def _read_demo(demo: h5py.Group, name: str, contents: FileContents) -> Demo:
    """Read one demo and check its numbers."""
    steps = contents.demos[name]
    sensors, clocks = {}, []
    for key in (*contents.pictures, *contents.vectors):
        held, last = sensor(demo, key)
        frames = held[()] if last is None else np.concatenate([held[()], last[-1:]])
        sensors[key] = frames if key in contents.pictures else finite(frames, where(held))
        if key in contents.vectors and steps > 1 and (np.diff(frames[:steps], axis=0) > 0).all():
            clocks.append(key)
    zeros = np.zeros(steps, np.float32)
    rewards = dataset(demo, "rewards")[()] if has(demo, "rewards") else zeros
    dones = flags(dataset(demo, "dones")[()] if has(demo, "dones") else zeros, f"{where(demo)}/dones")
    return Demo(
        name=name,
        sensors=sensors,
        actions=finite(dataset(demo, "actions")[()], f"{where(demo)}/actions"),
        rewards=finite(rewards, f"{where(demo)}/rewards"),
        dones=dones,
        next_missing=_next_missing(demo, contents, dones),
        clocks=tuple(clocks),
        notes=json_attribute(demo, "notes", {}),
    )


def _next_missing(demo: h5py.Group, contents: FileContents, dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the frame after a step was not recorded, `[N]`: several episodes may lie in one demo.

    An episode ends within a demo where `next_obs` is not the next row of `obs`; where there is no `next_obs`, at a done
    that the next step takes back; and at `timeouts`, as D4RL has them.

    Raises:
        DataError: `next_obs` mostly lies elsewhere than one row later, so it was recorded wrongly.
    """
    steps = len(dones)
    missing = np.zeros(steps, np.bool_)
    if has(demo, "timeouts"):
        missing[:-1] |= flags(dataset(demo, "timeouts")[()], f"{where(demo)}/timeouts")[: steps - 1]
    if has(demo, "frames"):
        return missing
    used = (*contents.pictures, *contents.vectors)
    later = child(demo, "next_obs") if has(demo, "next_obs") else None
    if later is None:
        missing[:-1] |= dones[:-1] & ~dones[1:]
    else:
        jumps = _jumps(child(demo, "obs"), later, dones)
        if steps > 2 and jumps.sum() > (steps - 1) / 2:
            rows = f"at {jumps.sum()} of {steps - 1} rows, the first is {int(jumps.argmax())}"
            raise DataError(f"{where(later)}: not what obs holds one row later, {rows}; off by one?")
        missing[:-1] |= jumps
    missing[-1] = later is None or not all(has(later, key) for key in used)
    return missing


def _jumps(obs: h5py.Group, later: h5py.Group, dones: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where `next_obs` is not the next row of `obs`, `[N - 1]`: by vectors if there are any, else by pictures.

    A vector may differ by a hundredth of its range: simulators compute both anew. Pictures are only looked at where an
    episode may end, at dones.
    """
    shared = [key for key in members(obs) if has(later, key) and is_array(obs, key) and is_array(later, key)]
    found = np.zeros(len(dones) - 1, np.bool_)
    arrays = [(dataset(obs, key), dataset(later, key)) for key in shared]
    arrays = [(one, two) for one, two in arrays if one.shape == two.shape and len(one) == len(dones)]
    vectors = [(one[1:], two[:-1]) for one, two in arrays if one.ndim == 2 and one.dtype.kind == "f"]
    for now, then in vectors:
        slack = 0.01 * np.ptp(now, axis=0, keepdims=True) + 1e-6 if len(now) else 0
        found |= (np.abs(now - then) > slack).any(axis=1)
    if not vectors:
        for row in np.flatnonzero(dones[:-1]).tolist():
            found[row] = any((one[row + 1] != two[row]).any() for one, two in arrays if one.ndim == 4)
    return found

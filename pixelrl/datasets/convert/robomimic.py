"""robomimic's HDF5 as a `DatasetStream`: every array in its own type, and what lies beyond the fields of `Episode`.

    /data/demo_0: actions [N, A], rewards [N], dones [N], states [N, D], obs/KEY [N, ...], next_obs/KEY [N, ...]

Others write the same with less: no `next_obs`, no rewards, groups in `obs`, coded pictures; see `sensors`.
https://robomimic.github.io/docs/datasets/overview.html
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import (
    Budget,
    DatasetStream,
    DroppedFields,
    FormatOptions,
    leaving_out,
)
from pixelrl.datasets.convert.sensors import as_sensor, is_sensor, leaves, stored_rows
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import (
    DEFLATED,
    child,
    dataset,
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
from pixelrl.datasets.hdf5.boundaries import find_next_missing
from pixelrl.datasets.hdf5.reader import check_num_samples, demo_names, home_of
from pixelrl.datasets.hdf5.writer import EpisodeWriter
from pixelrl.datasets.rewards import find_success, is_success
from pixelrl.runtime.errors import DataError

KNOWN = {"actions", "rewards", "dones", "states", "obs", "next_obs", "frames"}
"""The members of a demo that an `Episode` has room for."""

GENERATION = "datagen_info"
"""What MimicGen notes of objects and subtasks, in IsaacLab among the observations: no robot senses it."""

SAID = ("total", "env_args", "action_dims")
"""The attributes of `/data` that come along, or are said in other words."""

Places = dict[str, tuple[str, ...]]
"""Sensor -> where it lies below `obs`."""


def read_robomimic(
    path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions(), *, paid_by: str = ""
) -> DatasetStream:
    """Open a file; `dropped` fills while the episodes are read.

    All arrays of `obs` come along, also those that nobody learns from. Demos are renumbered from 0. Where rewards are
    missing, the attribute `paid_by` of a demo says whether its last step is paid, and ends it.

    Raises:
        DataError: anything that does not fit, with the file, the demo and the key; a file without pictures.
    """
    with open_file(path) as file:
        data = child(file, "data")
        names = demo_names(file)
        if unknown := set(options.leave_out) - set(names):
            raise DataError(f"{where(data)}: no {min(unknown)!r} to leave out; expected one of its {len(names)} demos")
        names = [name for name in names if name not in options.leave_out]
        if not names:
            raise DataError(f"{where(data)}: --leave-out leaves no demo")
        first = child(data, names[0])
        with leaving_out(names, names[0]):
            places = _places(first, options)
            actions = dataset(first, "actions")
            if actions.ndim != 2 or not actions.shape[1]:
                raise DataError(f"{where(actions)}: shape {actions.shape}; expected (N, A)")
        env_args = json_attribute(data, "env_args", {})
        action_dims = read_action_dims(data, env_args, actions.shape[1])
        masks = _masks(file, names, dropped)
        extra = {f"/{name}" for name in members(file) if name not in ("data", "mask")}
        extra |= {f"/data's {name}" for name in data.attrs if name not in SAID}
        extra |= {f"/data/{name}" for name in members(data) if name not in names}
        for name in sorted(extra):
            dropped[name] += 0
    if names != [f"demo_{index}" for index in range(len(names))]:
        dropped["the names of the demos, which are numbered anew"] += 0

    def episodes() -> Iterator[Episode]:
        budget = Budget(path, 2 * DEFLATED)  # obs and next_obs tell the same
        with open_file(path) as file:
            for name in names:
                with leaving_out(names, name):
                    episode = _episode(child(child(file, "data"), name), places, dropped, options, paid_by, budget)
                yield episode

    return DatasetStream(
        episodes=episodes,
        count=len(names),
        env_args=env_args,
        action_dims=action_dims,
        masks=masks,
        names=tuple(names),
    )


def write_robomimic(path: Path, stream: DatasetStream, options: FormatOptions = FormatOptions()) -> frozenset[str]:
    """Write a file in robomimic's format; it appears when it is whole, and nothing is lost.

    Raises:
        DataError: an episode whose arrays disagree about its length, or no episode at all.
    """
    masks = {name: [f"demo_{index}" for index in indices] for name, indices in stream.masks.items()}
    dims, about = stream.action_dims, stream.env_args
    with EpisodeWriter(path, env_args=about, action_dims=dims, compress=options.compress, masks=masks) as writer:
        for episode in stream.episodes():
            writer.add(episode)
    return frozenset()


def check_views(path: Path) -> None:
    """Raise unless `obs` and `next_obs`, as h5py gives them to other programs, hold the frames of a file of ours.

    Raises:
        DataError: they do not.
    """
    with h5py.File(path, locking=False) as file:
        for demo in file["data"].values():
            for key, held in demo["frames"].items():
                frames = held[()]
                for group, expected in (("obs", frames[:-1]), ("next_obs", frames[1:])):
                    if key not in demo[group] or demo[group][key][()].tobytes() != expected.tobytes():
                        raise DataError(f"{path}: {demo.name}/{group}/{key} does not hold the demo's frames")


def _masks(file: h5py.File, demos: list[str], dropped: DroppedFields) -> dict[str, tuple[int, ...]]:
    """Return the filters of a file, each as indices of its demos; demos that are gone are gone from them."""
    if not has(file, "mask"):
        return {}
    group = child(file, "mask")
    places = {name: index for index, name in enumerate(demos)}
    masks = {}
    for key in members(group):
        names = text_array(group, key)
        for name in sorted({name for name in names if name not in places}):
            dropped[f"/mask/{key}'s {name[:60]!a}, which /data does not hold"] += 0
        masks[key] = tuple(places[name] for name in names if name in places)
    return masks


def _places(demo: h5py.Group, options: FormatOptions) -> Places:
    """Return the sensors that a demo has and that are wanted."""
    if not has(demo, "frames") and not has(demo, "obs"):
        raise DataError(f"{where(demo)}: no pictures, it has no obs/ (`pixelrl render` draws them)")
    places: Places = {}
    home = home_of(demo)
    sensors = [(key, place) for key, place, item in leaves(home) if is_sensor(item)]
    known = {key for key, _ in sensors}
    if unknown := [key for key in options.keys if key not in known]:
        raise DataError(f"{where(home)}: no {unknown[0]!r}; --keys takes some of {', '.join(sorted(known))}")
    for key, place in sensors:
        if options.wants(key) and (place[0] != GENERATION or key in options.keys):
            if key in places:
                raise DataError(f"{where(home)}: {key!r} and {'/'.join(place)!r} would have one name")
            places[key] = place
    return places


def _episode(
    demo: h5py.Group, places: Places, dropped: DroppedFields, options: FormatOptions, paid_by: str, budget: Budget
) -> Episode:
    """Read one demo, and count what stays behind."""
    actions = np.asarray(dataset(demo, "actions")[()])
    steps = len(actions)
    check_num_samples(demo, steps)
    sensors = {key: _frames(demo, place, steps, dropped, budget) for key, place in places.items()}
    home = home_of(demo)
    above = home.name.rsplit("/", 1)[-1]
    others = ["/".join((above, *place)) for key, place, _ in leaves(home) if key not in places]
    known = KNOWN | {options.reward_key}
    for name in (*(name for name in members(demo) if name not in known), *others):
        dropped[name] += 1
    attributes, numbers = _attributes(demo, dropped)
    if paid_by in numbers and not has(demo, "rewards") and options.reward_key is None:
        dones = (np.arange(steps) == steps - 1) & is_success(numbers[paid_by], where(demo), paid_by)
        rewards: NDArray[Any] = dones.astype(np.float32)
        dropped[f"rewards and dones, which are not there: {paid_by} pays the last step of a demo, and ends it"] += 1
    else:
        rewards = _column(demo, options.reward_key or "rewards", steps, dropped)
        dones = flags(_column(demo, "dones", steps, dropped), f"{where(demo)}/dones")
    if steps and not has(demo, "frames") and len(ends := np.flatnonzero(find_next_missing(demo, (), dones == 1)[:-1])):
        rows = ", ".join(map(str, ends[:5].tolist())) + (", ..." if len(ends) > 5 else "")
        message = f"{len(ends) + 1} episodes in one demo, which end at rows {rows}"
        raise DataError(f"{where(demo)}: {message}; `train` tells them apart, and here each wants a demo of its own")
    return Episode(
        sensors=sensors,
        actions=actions,
        rewards=rewards,
        dones=dones,
        states=_states(demo, steps, dropped),
        attributes=attributes,
        notes={**json_attribute(demo, "notes", {}), **numbers, **_success(demo, options.reward)},
    )


def _success(demo: h5py.Group, rule: str) -> dict[str, bool]:
    """Return what a demo says of its success, if a rule asks for it, as training finds it; a note of that name."""
    kind, _, attribute = rule.partition(":")
    if kind != "success":
        return {}
    attribute = attribute or "success"
    return {attribute: is_success(find_success(demo, attribute), where(demo), attribute)}


def _column(demo: h5py.Group, name: str, steps: int, dropped: DroppedFields) -> NDArray[Any]:
    """Return one number a step, `[N]`; zeros where `rewards` or `dones` are missing."""
    if not has(demo, name) and name in ("rewards", "dones"):
        dropped[f"{name}, which are not there: 0 is written (--reward and --dones say more)"] += 1
        return np.zeros(steps, np.float32)
    values = np.asarray(dataset(demo, name)[()])
    return values[:, 0] if values.shape == (steps, 1) else values


def _frames(
    demo: h5py.Group, place: tuple[str, ...], steps: int, dropped: DroppedFields, budget: Budget
) -> NDArray[Any]:
    """Return `[N + 1, ...]`, or `[N, ...]` without `next_obs`, which must tell the same story one step later."""
    home, key = home_of(demo), "/".join(place)
    where_it_is = f"{where(home)}/{key}"
    if has(demo, "frames"):  # ours: as it is
        rows = stored_rows(home, place, (steps + 1,), budget)
        return as_sensor(rows, where_it_is, budget) if isinstance(rows, list) else rows
    now = stored_rows(home, place, (steps,), budget)
    if not has(demo, "next_obs") or key not in child(demo, "next_obs"):
        return as_sensor(now, where_it_is, budget)
    later = stored_rows(child(demo, "next_obs"), place, (steps,), budget)
    if isinstance(now, list) and isinstance(later, list):
        same, frames = now[1:] == later[:-1], as_sensor([*now, later[-1]], where_it_is, budget)
    elif isinstance(now, list) or isinstance(later, list) or now.shape[1:] != later.shape[1:]:
        raise DataError(f"{where(demo)}/next_obs/{key}: not of the type and shape of {where_it_is}")
    else:
        same = now[1:].tobytes() == later[:-1].tobytes()
        frames = as_sensor(np.concatenate([now, later[-1:]]), where_it_is, budget)
    if not same:
        dropped[f"next_obs/{key}, which is not obs one step later"] += 1
    return frames


def _states(demo: h5py.Group, steps: int, dropped: DroppedFields) -> NDArray[Any] | None:
    """Return the states `[N + 1, D]`; where the last was not recorded, the one before stands for it."""
    if not has(demo, "states"):
        return None
    if not is_array(child(demo, "states")):
        dropped["states, which are no array [N, D]"] += 1
        return None
    states = np.asarray(dataset(demo, "states")[()])
    if states.ndim != 2 or len(states) not in (steps, steps + 1):
        dropped[f"states, of another length than actions ({states.shape})"] += 1
        return None
    return np.asarray(np.concatenate([states, states[-1:]])[: steps + 1])


def _attributes(demo: h5py.Group, dropped: DroppedFields) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the attributes that are text, and those that are a number, but for those with a place of their own."""
    texts: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    for name in demo.attrs:
        if name in ("num_samples", "notes"):
            continue
        kind = demo.attrs.get_id(name)
        if isinstance(name, str) and kind.shape == () and h5py.check_string_dtype(kind.dtype) is not None:
            value = demo.attrs[name]
            try:
                texts[name] = value.decode() if isinstance(value, bytes) else value.encode().decode()
            except UnicodeError:
                dropped[f"attribute {name}, whose text is not UTF-8"] += 1
        elif isinstance(name, str) and kind.shape == () and kind.dtype.kind in "fiub":
            value = demo.attrs[name].item()  # a long double is none of Python's
            if math.isfinite(value):
                numbers[name] = float(value) if kind.dtype.kind == "f" else value
        else:
            dropped[f"attribute {name}"] += 1
    return texts, numbers

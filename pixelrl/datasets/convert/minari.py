"""Minari's data sets, by their file format: `data/main_data.hdf5` and `data/metadata.json`.

Minari keeps N + 1 observations of N steps, as we do, and numbers in their own types. Pictures of 32 x 32 and more it
keeps as JPEG; its readers take whatever Pillow reads, so we write PNG there, which loses nothing. States, notes,
attributes, `env_args`, what actions mean and masks lie under `pixelrl`, where Minari does not look.
https://minari.farama.org/content/dataset_standards/
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    describe,
    described,
    reading,
)
from pixelrl.datasets.convert.pictures import MODES, decode_picture, encode_png
from pixelrl.datasets.convert.sensors import as_sensor
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import DEFLATED, child, dataset, flags, has, json_attribute, members, open_file, where
from pixelrl.datasets.hdf5.writer import create_file
from pixelrl.runtime.actions import unnamed_dims
from pixelrl.runtime.env_args import gymnasium_env_args
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import write_json

FILE, METADATA = "data/main_data.hdf5", "data/metadata.json"
WRITTEN = "0.5.3"
"""The version whose layout is written: the first that keeps pictures encoded."""

READ = ("0.4.", "0.5.")
SMALLEST = 32
"""From these sides on [px] Minari takes uint8 for a picture."""

NAME = re.compile(r"[-\w]+-v\d+")
OURS = "pixelrl"


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One array of an observation: where it lies below `observations`, its shape, and whether Minari encodes it."""

    place: tuple[str, ...]
    shape: tuple[int, ...]
    picture: bool
    encoded: bool


def write_minari(root: Path, stream: DatasetStream, options: FormatOptions = FormatOptions()) -> frozenset[str]:
    """Write a data set into the folder `root`, whose name is the data set's and ends in a version; nothing is lost.

    Raises:
        DataError: another name, no episodes, or pictures that no PNG can hold.
    """
    if not NAME.fullmatch(root.name):
        raise DataError(f"{root}: Minari's names end in a version; expected one like {root.name.split('-v')[0]}-v0")
    root.joinpath("data").mkdir(parents=True)
    steps = count = 0
    spaces: dict[str, Any] = {}
    beyond = False
    with create_file(root / FILE) as file:
        for episode in stream.episodes():
            spaces = spaces or {key: _space(frames.shape[1:], frames.dtype) for key, frames in episode.sensors.items()}
            _write_episode(file.create_group(f"episode_{count}"), count, episode)
            beyond |= bool((np.abs(episode.actions) > 1).any())
            steps, count = steps + len(episode), count + 1
    if not count:
        raise DataError(f"{root}: no episodes came to be written; expected one or more")
    limit = math.inf if beyond else 1.0
    shape = episode.actions.shape[1:]
    action = {"type": "Box", "dtype": episode.actions.dtype.name, "shape": list(shape)}
    metadata = {
        "total_episodes": count,
        "total_steps": steps,
        "data_format": "hdf5",
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(action | {"low": [-limit] * shape[0], "high": [limit] * shape[0]}),
        "dataset_id": root.name,
        "minari_version": WRITTEN,
        "dataset_size": round((root / FILE).stat().st_size / 1e6, 1),
        OURS: describe(stream),
    }
    write_json(root / METADATA, metadata)
    return frozenset()


def _space(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Describe an array as Minari writes Gymnasium's spaces."""
    if dtype.kind == "b":
        return {"type": "MultiBinary", "n": list(shape)}
    ends = (-math.inf, math.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    low, high = (np.full(shape, end, dtype).tolist() for end in ends)
    return {"type": "Box", "dtype": dtype.name, "shape": list(shape), "low": low, "high": high}


def _is_picture(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Tell whether Minari keeps such arrays encoded."""
    return dtype == np.uint8 and len(shape) in (2, 3) and min(shape[:2]) >= SMALLEST


def _write_episode(group: h5py.Group, index: int, episode: Episode) -> None:
    group.attrs["id"], group.attrs["total_steps"] = index, len(episode)
    for key, frames in episode.sensors.items():
        if _is_picture(frames.shape[1:], frames.dtype):
            pictures = frames if frames.ndim == 4 else frames[..., None]
            if pictures.shape[3] not in MODES:
                raise DataError(f"{where(group)}: {key} has {pictures.shape[3]} channels; expected {list(MODES)}")
            held = group.create_dataset(f"observations/{key}", (len(frames),), h5py.vlen_dtype(np.uint8))
            for row, picture in enumerate(pictures):
                held[row] = np.frombuffer(encode_png(picture), np.uint8)
        else:
            group[f"observations/{key}"] = frames
    group["actions"], group["rewards"], group["terminations"] = episode.actions, episode.rewards, episode.dones
    group["truncations"] = ~episode.dones & (np.arange(len(episode)) == len(episode) - 1)  # unless it is a true end
    group.create_group("infos")
    ours = group.create_group(OURS)
    ours.attrs["notes"], ours.attrs["attributes"] = (json.dumps(dict(v)) for v in (episode.notes, episode.attributes))
    if episode.states is not None:
        ours["states"] = episode.states[:-1]


def read_minari(root: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a data set; `dropped` fills while the episodes are read.

    Raises:
        DataError: another version, another format of data, actions that are no vectors, no pictures; names the place.
    """
    path = root / METADATA
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        version, kind, count = str(said["minari_version"]), said["data_format"], int(said["total_episodes"])
        leaves = dict(_leaves(json.loads(said["observation_space"]), (), dropped))
        leaves = {key: leaf for key, leaf in leaves.items() if options.wants(key)}
        action = json.loads(said["action_space"])
        if action["type"] != "Box" or len(action["shape"]) != 1 or not str(action["dtype"]).startswith("float"):
            raise DataError(f"{path}: actions are {action['type']} {action.get('shape', '')}; expected floats (A,)")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; expected a data set of Minari") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:80]
        raise DataError(f"{path}: not a description of Minari's, or it lacks {why}") from error
    if not version.startswith(READ):
        raise DataError(f"{path}: written by Minari {version[:20]}; expected 0.4 or 0.5")
    if kind != "hdf5":
        raise DataError(f"{path}: its data_format is {str(kind)[:20]!r}; expected 'hdf5'")
    if not any(leaf.picture for leaf in leaves.values()) or count < 1:
        held = ", ".join(leaves) or "nothing"
        raise DataError(f"{path}: {count} episodes of {held}; expected one or more, with pictures: uint8 (H, W, C)")

    def episodes() -> Iterator[Episode]:
        with open_file(root / FILE) as file:
            budget, reward = Budget(root / FILE, DEFLATED), options.reward_key or "rewards"
            held = sum(re.fullmatch(r"episode_\d+", name) is not None for name in members(file))
            if held > count:
                raise DataError(f"{root / FILE}: holds {held} episodes; expected the {count} that {METADATA} promises")
            for index in range(count):
                group = child(file, f"episode_{index}")
                yield _episode(group, leaves, int(action["shape"][0]), reward, budget, dropped)

    return DatasetStream(episodes=episodes, count=count, **_about(path, said, int(action["shape"][0])))


def _about(path: Path, said: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return what else there is of a `DatasetStream`: as pixelrl wrote it, or as Minari lets it be known."""
    with reading(f"{path}: env_spec or {OURS} is not as expected"):
        if OURS in said:
            return described(said[OURS])
        spec = json.loads(said.get("env_spec") or "{}")
        name = str(spec.get("id") or said.get("dataset_id", ""))
        env_args = gymnasium_env_args(name, spec.get("kwargs") or {})
    return {"env_args": env_args, "action_dims": unnamed_dims(size)}


def _leaves(space: Mapping[str, Any], place: tuple[str, ...], dropped: DroppedFields) -> Iterator[tuple[str, Leaf]]:
    """Yield the arrays of a space by their names, which join those of nested dicts with a dot."""
    kind = space["type"]
    if kind == "Dict":
        for key, inner in space["subspaces"].items():
            if "/" in key or key in ("", "."):
                raise ValueError(f"a key {key[:40]!r}; expected one without '/'")
            yield from _leaves(inner, (*place, key), dropped)
    elif kind == "Tuple":
        for index, inner in enumerate(space["subspaces"]):
            yield from _leaves(inner, (*place, f"_index_{index}"), dropped)
    elif kind in ("Box", "MultiBinary"):
        shape = space["shape"] if kind == "Box" else space["n"]
        shape = tuple(int(side) for side in (shape if isinstance(shape, list) else [shape]))
        bytes_ = kind == "Box" and space["dtype"] == "uint8"
        picture = bytes_ and len(shape) == 3 and shape[2] in MODES
        encoded = bytes_ and _is_picture(shape, np.dtype(np.uint8))
        name = ".".join(place) or ("image" if picture else "observation")
        yield name, Leaf(place=place, shape=shape, picture=picture, encoded=encoded)
    else:
        dropped[f"{'.'.join(place) or 'observations'}, of the space {kind}"] += 0


def _episode(
    group: h5py.Group, leaves: Mapping[str, Leaf], size: int, reward: str, budget: Budget, dropped: DroppedFields
) -> Episode:
    paid = group if has(group, reward) else child(group, "infos")
    actions, rewards = dataset(group, "actions")[()], dataset(paid, reward)[()]
    dones, truncations = (
        flags(dataset(group, name)[()], f"{where(group)}/{name}") for name in ("terminations", "truncations")
    )
    steps = len(actions)
    shapes = [array.shape for array in (actions, rewards, dones, truncations)]
    if shapes != [(steps, size), *[(steps,)] * 3] or not steps:
        came = ", ".join(map(str, shapes))
        raise DataError(f"{where(group)}: actions, rewards and ends are {came}; expected (N, {size}) and (N,)")
    if truncations[:-1].any() or (truncations[-1] and dones[-1]):
        dropped["truncations, where they are not just the last step"] += 1
    for name in members(child(group, "infos")) if has(group, "infos") else ():
        dropped[f"infos/{name}"] += 1
    for name in group.attrs:
        if name not in ("id", "total_steps", "seed"):
            dropped[f"attribute {name}"] += 1
    sensors = {key: _sensor(group, leaf, steps + 1) for key, leaf in leaves.items()}
    seed = group.attrs.get("seed")
    notes: dict[str, Any] = {"seed": int(seed)} if isinstance(seed, int | np.integer) else {}
    states, attributes = None, {}
    if has(group, OURS):
        ours = child(group, OURS)
        notes, attributes = json_attribute(ours, "notes", {}), json_attribute(ours, "attributes", {})
        states = dataset(ours, "states")[()] if has(ours, "states") else None
    else:
        sensors = {key: as_sensor(values, f"{where(group)}: {key}", budget) for key, values in sensors.items()}
    return Episode(
        sensors=sensors,
        actions=actions,
        rewards=rewards,
        dones=dones,
        states=None if states is None else np.concatenate([states, states[-1:]]),
        attributes=attributes,
        notes=notes,
    )


def _sensor(group: h5py.Group, leaf: Leaf, frames: int) -> NDArray[Any]:
    """Return one array of an episode's observations, `[N + 1, ...]`, decoded where Minari keeps it encoded."""
    *above, name = ("observations", *leaf.place)
    for part in above:
        group = child(group, part)
    held = child(group, name)
    if not leaf.encoded or not isinstance(held, h5py.Dataset) or held.ndim > 2:  # before 0.5.3 pictures lie plainly
        values = dataset(group, name)[()]
        if values.shape != (frames, *leaf.shape):
            raise DataError(f"{where(held)}: shape {values.shape}; expected {(frames, *leaf.shape)}")
        return np.asarray(values)
    if held.external or held.is_virtual or len(held) != frames:
        raise DataError(f"{where(held)}: {len(held)} pictures, or in another file; expected {frames} in this one")
    shape = leaf.shape if len(leaf.shape) == 3 else (*leaf.shape, 1)
    pictures = [decode_picture(bytes(held[row]), shape, f"{where(held)}[{row}]") for row in range(frames)]
    return np.stack(pictures).reshape(frames, *leaf.shape)

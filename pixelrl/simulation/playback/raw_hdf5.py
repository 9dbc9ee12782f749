"""Raw recordings in HDF5: simulator states and actions, with or without pictures.

Two layouts: robosuite's, as its `collect_human_demonstrations.py` writes it (`/data` has the attributes `env`,
`env_info` and `repository_version`), and robomimic's (`env_args`). In both a demo has `states` (N, D), `actions`
(N, A) and the attribute `model_file`, the MJCF of its scene; newer ones have `ep_meta`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import (
    child,
    dataset,
    finite,
    has,
    json_attribute,
    members,
    open_file,
    text_array,
    where,
)
from pixelrl.datasets.hdf5.reader import demo_names
from pixelrl.runtime.env_args import is_before_1_5
from pixelrl.runtime.errors import DataError
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv
from pixelrl.simulation.playback.replay import RawEpisode, render_raw_episode
from pixelrl.simulation.workers.pool import Heartbeat, Pool

COLLECTED_AT = 20
"""Actions a second in robosuite's own collecting script, which does not note them. [Hz]"""


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """What a raw file holds, short of its numbers.

    Attributes:
        path: the file.
        env_args: robomimic's description of the environment.
        demos: the names of the demos, in the order of their numbers.
        action_dim: A.
        masks: filter -> the demos that it names.
    """

    path: Path
    env_args: Mapping[str, Any]
    demos: tuple[str, ...]
    action_dim: int
    masks: Mapping[str, tuple[str, ...]]


def read_raw_file(path: Path) -> RawFile:
    """Read and check the outline of a raw file.

    Raises:
        DataError: no demos, no states, no environment, or shapes that contradict each other.
    """
    with open_file(path) as file:
        data, names = child(file, "data"), demo_names(file)
        sizes = {name: _check(child(data, name)) for name in names}
        for name, size in sizes.items():
            if size != sizes[names[0]]:
                raise DataError(f"{where(data)}/{name}: actions of {size} numbers; {names[0]} has {sizes[names[0]]}")
        env_args, masks = _env_args(data), _masks(file, names)
        return RawFile(path=path, env_args=env_args, demos=tuple(names), action_dim=sizes[names[0]], masks=masks)


def read_raw_episode(raw: RawFile, name: str) -> RawEpisode:
    """Read one demo.

    Raises:
        DataError: a number that is not finite, or an attribute that is not what it should be.
    """
    with open_file(raw.path) as file:
        demo = child(child(file, "data"), name)
        _check(demo)  # it may have changed since
        rewards = dataset(demo, "rewards") if has(demo, "rewards") else None
        return RawEpisode(
            states=_numbers(dataset(demo, "states")),
            actions=_numbers(dataset(demo, "actions")),
            rewards=None if rewards is None else finite(rewards[()], where(rewards)),
            scene=_text(demo, "model_file"),
            meta=json_attribute(demo, "ep_meta", {}),
            old=is_before_1_5(raw.env_args),
            notes=json_attribute(demo, "notes", {}),
        )


def render_raw_episodes(
    make: Callable[[], RobosuiteEnv],
    episodes: Iterable[tuple[str, RawEpisode]],
    *,
    replay: bool,
    pool: Pool,
    source: Path,
) -> Iterator[Episode]:
    """Yield demos with pictures, in their order, drawn by a pool of workers.

    `notes["render"]` has what `render_raw_episode` notes, and the demo's name, its `digest`, steps and success.

    Args:
        make: makes an environment in a worker.
        episodes: name and content of each demo.
        replay: play the actions too.
        pool: draws them.
        source: the raw file, for error messages.

    Raises:
        PixelrlError: the environment cannot be made, or a demo does not fit it.
    """
    jobs = ((f"{source}: {name}", (name, episode)) for name, episode in episodes)
    with closing(pool.run(partial(_open_renderer, make, replay), jobs, ordered=True)) as rendered:
        for done in rendered:
            yield done.result


@contextmanager
def _open_renderer(
    make: Callable[[], RobosuiteEnv], replay: bool
) -> Iterator[Callable[[tuple[str, RawEpisode], Heartbeat], Episode]]:
    """Make an environment in a worker, and yield what draws a demo."""

    def draw(named: tuple[str, RawEpisode], heartbeat: Heartbeat) -> Episode:
        name, raw = named
        episode = render_raw_episode(env, raw, replay=replay, heartbeat=heartbeat)
        facts = {"source": name, "digest": raw.digest(), "steps": len(episode)}
        facts |= {"success": bool(episode.dones.any()), **episode.notes["render"]}
        return replace(episode, notes={**episode.notes, "render": facts})

    with closing(make()) as env:
        yield draw


def _env_args(data: h5py.Group) -> dict[str, Any]:
    """Return robomimic's description of the environment; of robosuite's own layout, what it would be."""
    if "env_args" in data.attrs:
        args: dict[str, Any] = json_attribute(data, "env_args", {})
        if not isinstance(args.get("env_name"), str) or not isinstance(args.get("env_kwargs", {}), dict):
            raise DataError(f"{where(data)}: env_args has no env_name, or no env_kwargs: {str(args)[:100]}")
        return args
    name, info = _text(data, "env"), json_attribute(data, "env_info", None)
    if name is None or info is None:
        expected = "the attribute env_args (robomimic), or env and env_info (robosuite)"
        raise DataError(f"{where(data)}: no environment; expected {expected}")
    version = _text(data, "repository_version")
    kwargs = {"control_freq": COLLECTED_AT, **{key: value for key, value in info.items() if key != "env_name"}}
    return {"env_name": name, "type": 1, "env_kwargs": kwargs} | ({"env_version": version} if version else {})


def _check(demo: h5py.Group) -> int:
    """Check the shapes of a demo, and return the size of its actions."""
    if not has(demo, "states"):
        held = ", ".join(members(demo)[:20]) or "nothing"
        raise DataError(f"{where(demo)}: no states, it holds {held}; pictures can be drawn of simulator states only")
    states, actions = dataset(demo, "states"), dataset(demo, "actions")
    for item in (states, actions):
        if item.ndim != 2 or item.dtype.kind != "f" or not item.size:
            raise DataError(f"{where(item)}: {item.dtype} {item.shape}; expected floats (N, D)")
    steps = len(actions)
    if len(states) not in (steps, steps + 1):
        raise DataError(
            f"{where(states)}: {len(states)} states beside {steps} actions; expected {steps} or {steps + 1}"
        )
    if has(demo, "rewards") and (shape := dataset(demo, "rewards").shape) != (steps,):
        raise DataError(f"{where(demo)}/rewards: shape {shape}; expected ({steps},)")
    return int(actions.shape[1])


def _masks(file: h5py.File, demos: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the file's filters: name -> the demos that it names."""
    group = child(file, "mask") if has(file, "mask") else None
    masks = {name: tuple(text_array(group, name)) for name in members(group)} if group is not None else {}
    for name, chosen in masks.items():
        if unknown := set(chosen) - set(demos):
            raise DataError(f"{where(file)}/mask/{name}: names {min(unknown)[:60]!a}, which /data does not hold")
    return masks


def _numbers(item: h5py.Dataset) -> NDArray[np.float64]:
    """Return float64, to the last bit as recorded, or raise at the first NaN or infinity."""
    values: NDArray[np.float64] = item[()].astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise DataError(f"{where(item)}{bad[0].tolist()} is {values[tuple(bad[0])]}; expected finite numbers")
    return values


def _text(group: h5py.Group, name: str) -> str | None:
    """Return an attribute that is text, or None where it is missing."""
    value = group.attrs.get(name)
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        raise DataError(f"{where(group)}: attribute {name!r} holds {type(value).__name__}; expected text")
    return value

"""A file of initial states that any policy can be tried on: whole simulator states, the same on every machine.

Without such a file an episode begins where its environment's `reset(seed=...)` puts it: see `rollout`.

HDF5: `env_args`, `seed` and `sha256` are attributes of the root; `starts/<i>` holds a `State`: its `seed`, `start` and
`steps` as attributes, `physics`, `accelerations/` and `model/` as arrays, `memory` as JSON in bytes. What the model has
alike in all starts is in `model/` once. The hash is of the content, so that the same starts have the same hash.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import child, dataset, json_attribute, members, open_file
from pixelrl.datasets.hdf5.writer import create_file
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import make_robosuite_env
from pixelrl.simulation.envs.state import ACCELERATIONS, State
from pixelrl.simulation.workers.pool import Heartbeat, Pool

FORMAT = 1
"""The version of such files that is written and read here."""


@dataclass(frozen=True, kw_only=True)
class InitialStates:
    """Initial states of episodes of one environment.

    Attributes:
        env_args: robomimic's description of it.
        seed: of all of them.
        states: in order.
    """

    env_args: Mapping[str, Any]
    seed: int
    states: tuple[State, ...]

    @cached_property
    def sha256(self) -> str:
        """Return the hash of everything that decides how an episode begins."""
        result = hashlib.sha256(json.dumps(self.env_args, sort_keys=True).encode())
        for state in self.states:
            result.update(json.dumps([state.seed, state.start, state.steps]).encode())
            result.update(_pack(state.memory))
            for name, value in [("physics", state.physics), *state.accelerations.items(), *sorted(state.model.items())]:
                result.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        return result.hexdigest()


def record_initial_states(
    env_args: Mapping[str, Any], *, episodes: int, seed: int, pool: Pool, allow_import: Collection[str] = ()
) -> Iterator[State]:
    """Yield the states in which the episodes of an evaluation with this seed begin, in their order."""
    blind = {**env_args, "env_kwargs": {**env_args.get("env_kwargs", {}), "use_camera_obs": False}}
    jobs = ((f"start {index}", derive(seed, "evaluate", index)) for index in range(episodes))
    with closing(pool.run(partial(_open_starter, blind, allow_import), jobs, ordered=True)) as recorded:
        for done in recorded:
            yield done.result


@contextmanager
def _open_starter(
    env_args: Mapping[str, Any], allow_import: Collection[str]
) -> Iterator[Callable[[int, Heartbeat], State]]:
    """Make an environment in a worker, and yield what begins the episode of a seed."""

    def begin(seed: int, heartbeat: Heartbeat) -> State:
        env.reset(seed=seed)
        return env.snapshot()

    with closing(make_robosuite_env(env_args, allow_import)) as env:
        yield begin


def write_initial_states(path: Path, initial: InitialStates) -> str:
    """Write a file of initial states, whole or not at all, and return its hash.

    Raises:
        OSError: the disk is full, or something else keeps it from being written.
    """
    digest, common = initial.sha256, initial.states[0].model
    with create_file(path) as file:
        file.attrs.update({"format": FORMAT, "env_args": json.dumps(initial.env_args)})
        file.attrs.update({"seed": initial.seed, "sha256": digest})
        _write_arrays(file.create_group("model"), common)
        for index, state in enumerate(initial.states):
            group = file.create_group(f"starts/{index}")
            group.attrs.update({"seed": state.seed, "start": json.dumps(state.start), "steps": state.steps})
            group["physics"] = state.physics
            memory = np.frombuffer(_pack(state.memory), np.uint8)
            group.create_dataset("memory", data=memory, chunks=memory.shape, compression="gzip")
            _write_arrays(group.create_group("accelerations"), state.accelerations)
            own = {name: value for name, value in state.model.items() if not np.array_equal(value, common[name])}
            _write_arrays(group.create_group("model"), own)
    return digest


def read_initial_states(path: Path) -> InitialStates:
    """Read a file of initial states.

    Raises:
        DataError: not such a file, of another format, or changed since it was written.
    """
    with open_file(path) as file:
        found = file.attrs.get("format")
        if "starts" not in file or found is None:
            raise DataError(f"{path}: not a file of initial states; `pixelrl starts TASK --out FILE` writes one")
        if found != FORMAT:
            raise DataError(f"{path}: has format {found}; this version of pixelrl reads {FORMAT}: make it again")
        common, group = _read_arrays(child(file, "model")), child(file, "starts")
        states = tuple(_read_state(child(group, str(index)), common) for index in range(len(members(group))))
        env_args, seed = json_attribute(file, "env_args", {}), int(file.attrs["seed"])
        initial, said = InitialStates(env_args=env_args, seed=seed, states=states), file.attrs["sha256"]
    if not states or initial.sha256 != said:
        raise DataError(f"{path}: was changed or damaged since it was written: its sha256 is not {said}; make it again")
    return initial


def _read_state(group: h5py.Group, common: Mapping[str, NDArray[Any]]) -> State:
    accelerations = _read_arrays(child(group, "accelerations"))
    memory = json.loads(dataset(group, "memory")[()].tobytes())
    return State(
        seed=int(group.attrs["seed"]),
        start=json.loads(group.attrs["start"]),
        steps=int(group.attrs["steps"]),
        physics=dataset(group, "physics")[()],
        accelerations={name: accelerations[name] for name in ACCELERATIONS},
        model={**common, **_read_arrays(child(group, "model"))},
        memory=tuple((tuple(path), _decode(value)) for path, value in memory),
    )


def _write_arrays(group: h5py.Group, arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, value in arrays.items():
        group[name] = value


def _read_arrays(group: h5py.Group) -> dict[str, NDArray[Any]]:
    """Read a group's arrays; those without a number in them too."""
    return {name: np.array(child(group, name)[()]) for name in members(group)}


def _pack(memory: Iterable[tuple[tuple[str | int, ...], Any]]) -> bytes:
    """Return what Python's objects remember as JSON, every number exactly."""
    return json.dumps([[list(path), _encode(value)] for path, value in memory]).encode()


def _encode(value: Any) -> Any:
    """Return a value as JSON; arrays and NumPy's scalars as [type, shape, numbers], generators' states as they are."""
    if isinstance(value, np.ndarray | np.generic):
        return [str(value.dtype), list(value.shape), value.ravel().tolist()]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        dtype, shape, numbers = value
        array = np.array(numbers, np.dtype(dtype)).reshape(shape)
        return array if shape else array[()]
    return value

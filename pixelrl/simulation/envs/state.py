"""All that the future of a robosuite task depends on: taken out at any instant, put back in any process, bit for bit.

MuJoCo's own part is its integration state, and the accelerations that the last step left behind. Some tasks place or
scale things in the compiled model, so its numbers belong to it; meshes and textures do not. The rest is Python's: what
robots, controllers, grippers and the task itself remember, found by walking through robosuite's objects.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import SimulationError

Arrays = Mapping[str, NDArray[Any]]

ACCELERATIONS = (
    "qacc", "sensordata", "cacc", "cfrc_int", "cfrc_ext", "actuator_force", "qfrc_actuator", "qfrc_constraint",
)  # fmt: skip
"""What a step computes before it moves, and sensors may read after it."""

UNALTERED = ("mesh_", "tex_", "hfield_", "skin_", "bvh_", "oct_", "text_", "flex", "names", "paths")
"""Beginnings of the names of the model's large arrays, which no task changes."""

LOOKS = ("geom_rgba", "site_rgba", "mat_", "light_", "cam_")
"""Beginnings of the names of what decides how a scene looks: that is the environment's business, not the state's."""

ELSEWHERE = ("robosuite.utils.binding_utils", "robosuite.utils.observables")
"""MuJoCo's wrappers, and sensors that we read ourselves."""

PLAIN = (bool, int, float, str, type(None), np.generic, np.ndarray)


@dataclass(frozen=True, kw_only=True)
class State:
    """An instant of an episode.

    Attributes:
        seed: what the episode was reset with.
        start: which of the task's starts it had; None where there is only one.
        steps: how many steps ago it began.
        physics: MuJoCo's `mjSTATE_INTEGRATION`, float64 `[D]`.
        accelerations: arrays of MuJoCo's `mjData`, by name.
        model: arrays of MuJoCo's `mjModel`, by name.
        memory: what Python's objects remember: a path from the task, and a value there.
    """

    seed: int
    start: str | None
    steps: int
    physics: NDArray[np.float64]
    accelerations: Arrays
    model: Arrays
    memory: tuple[tuple[tuple[str | int, ...], Any], ...]


def take(task: Any, *, seed: int, start: str | None, steps: int) -> State:
    """Return the state of a robosuite environment; see `State` for the rest."""
    import mujoco  # loads an OpenGL library, which may be missing where nothing is simulated

    model, data = task.sim.model._model, task.sim.data._data
    chosen = options_of(type(task))  # values, or lists of them, that are said when it is made: how long, how drawn, ...
    physics = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    return State(
        seed=seed,
        start=start,
        steps=steps,
        physics=physics,
        accelerations={name: np.array(getattr(data, name)) for name in ACCELERATIONS},
        model={name: np.array(value) for name, value in _numbers(model)},
        memory=tuple(
            (path, value) for path, value in _remembered(task, (), set()) if path[0] not in chosen or len(path) > 2
        ),
    )


def put(task: Any, state: State) -> Arrays:
    """Put a robosuite environment, which was reset with the state's seed and start, into a state.

    Returns:
        What the model's arrays held before, where they were changed: a reset may not bring that back, `alter` does.

    Raises:
        SimulationError: the environment is built otherwise.
    """
    import mujoco

    model, data = task.sim.model._model, task.sim.data._data
    name, here = type(task).__name__, dict(_numbers(model))
    before = {}
    for field, value in state.model.items():
        if field not in here or here[field].shape != value.shape:
            found = list(here[field].shape) if field in here else "absent"
            raise SimulationError(
                f"the state is not one of this {name}: its model's {field} is {list(value.shape)}, here it is {found}"
            )
        if not np.array_equal(here[field], value):
            before[field] = np.array(here[field])
    if state.physics.shape != (size := mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION),):
        raise SimulationError(f"the state is not one of this {name}: it has {state.physics.size} numbers, not {size}")
    alter(task, {field: state.model[field] for field in before})
    mujoco.mj_setState(model, data, state.physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    task.sim.step1()  # all that follows from positions and velocities, as after a step
    for field in ACCELERATIONS:
        getattr(data, field)[...] = state.accelerations[field]
    for path, value in state.memory:
        _remind(task, path, value)
    return before


def alter(task: Any, arrays: Arrays) -> None:
    """Write arrays into a robosuite environment's compiled model."""
    for field, value in arrays.items():
        getattr(task.sim.model._model, field)[...] = value


def options_of(kind: type) -> set[str]:
    """Return the options of a class of tasks, those of its bases among them as far as it hands options on to them."""
    known: set[str] = set()
    for level in inspect.getmro(kind):
        taken = inspect.signature(level).parameters.values()
        known |= {each.name for each in taken if each.kind is not each.VAR_KEYWORD}
        if all(each.kind is not each.VAR_KEYWORD for each in taken):
            break  # others hand what they do not know on to the class above
    return known


def _numbers(model: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the measures of a compiled model; what is integer is structure, which no task changes."""
    for name in dir(model):
        if not name.startswith(("_", *UNALTERED, *LOOKS)):
            value = getattr(model, name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                yield name, value


def _remembered(thing: Any, path: tuple[str | int, ...], seen: set[int]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield path and value of all plain values within robosuite's and our own objects."""
    if isinstance(thing, PLAIN):
        if not (isinstance(thing, np.ndarray) and thing.dtype.hasobject):
            yield path, np.array(thing) if isinstance(thing, np.ndarray) else thing
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.random.Generator):
        yield path, thing.bit_generator.state
    for key, value in _parts(thing):
        yield from _remembered(value, (*path, key), seen)


def _parts(thing: Any) -> list[tuple[str | int, Any]]:
    """Return what is inside a thing, by attribute, key or index; nothing of strangers' objects."""
    if isinstance(thing, list):
        return list(enumerate(thing))
    if isinstance(thing, dict):
        return [(key, value) for key, value in thing.items() if isinstance(key, str | int)]
    module = type(thing).__module__
    if module.startswith(("robosuite.", "pixelrl.")) and module not in ELSEWHERE:
        return list(vars(thing).items())
    return []


def _remind(task: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Set the value at a path, unless it is there already."""
    holder: Any = vars(task)
    last: Any = path[-1]
    try:
        for key in path[:-1]:
            holder = holder[key]
            holder = holder if isinstance(holder, list | dict) else vars(holder)
        here = holder[last] if isinstance(holder, list) else holder.get(last)
        if isinstance(here, np.random.Generator):
            here.bit_generator.state = value  # in place: others hold on to it
        elif type(here) is not type(value) or not np.array_equal(here, value):
            holder[last] = np.array(value) if isinstance(value, np.ndarray) else value
    except (LookupError, TypeError) as error:
        where = "/".join(map(str, path))
        raise SimulationError(f"the state is not one of this {type(task).__name__}: here is no {where}") from error

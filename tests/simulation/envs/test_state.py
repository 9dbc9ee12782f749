"""A state put back anywhere has the same future, bit for bit."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.file_objects import NamedFile
from pixelrl.datasets.hdf5.writer import OutputFile
from pixelrl.runtime.errors import DataError, SimulationError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.simulation.envs.make import make_env
from pixelrl.simulation.envs.robosuite_env import RobosuiteEnv, default_env_args, make_robosuite_env
from pixelrl.simulation.envs.state import State
from pixelrl.simulation.evaluation.initial_states import InitialStates, read_initial_states, write_initial_states
from pixelrl.simulation.evaluation.rollout import rollout
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.simulation.workers.process_pool import WorkerPool

TASKS = {"pick-place-tray": "held", "drawer-blocked-drawer": None, "Lift": None}
SEED, AMID, END = 7, 4, 8


@pytest.fixture(scope="module")
def envs() -> Iterator[dict[str, RobosuiteEnv]]:
    made = {task: make_robosuite_env(default_env_args(task, size=32)) for task in TASKS}
    yield made
    for env in made.values():
        env.close()


def play(env: RobosuiteEnv, steps: range) -> list[str]:
    """Return a digest of all that is sensed, paid and true after each step."""
    digests = []
    for step in steps:
        action = np.random.default_rng(step).uniform(-1, 1, env.action_space.shape)
        sensors, *rest = env.step(action)
        digests.append(look(sensors) + repr(rest) + hashlib.sha256(env.state()).hexdigest())
    return digests


def look(sensors: Sensors) -> str:
    return hashlib.sha256(b"".join(sensors[key].tobytes() for key in sorted(sensors))).hexdigest()


@contextmanager
def elsewhere(folder: Path) -> Iterator[Callable[[str, Heartbeat], list[list[str]]]]:
    """In another process, after another episode: what is sensed in each state of a file, and what comes after."""

    def futures(task: str, heartbeat: Heartbeat) -> list[list[str]]:
        found = []
        with closing(make_robosuite_env(default_env_args(task, size=32))) as env:
            env.step(np.ones(env.action_space.shape))
            for state in read_initial_states(folder / f"{task}.hdf5").states:
                sensors, _ = env.reset(seed=99, options={"state": state})
                found.append([look(sensors), *play(env, range(state.steps, END))])
        return found

    yield futures


def test_state_has_one_future_in_any_process_after_any_history_and_amid_an_episode(
    envs: dict[str, RobosuiteEnv], tmp_path: Path
) -> None:
    expected = []
    for task, start in TASKS.items():
        env = envs[task]
        sensors, _ = env.reset(seed=SEED, options={"start": start})
        begun, first = env.snapshot(), look(sensors)
        before = play(env, range(AMID))
        amid = env.snapshot()
        after = play(env, range(AMID, END))
        initial = InitialStates(env_args=default_env_args(task), seed=SEED, states=(amid, begun))
        write_initial_states(tmp_path / f"{task}.hdf5", initial)
        expected.append([[before[-1][:64], *after], [first, *before, *after]])
    found = WorkerPool(1).run(partial(elsewhere, tmp_path), ((task, task) for task in TASKS), ordered=True)
    assert [done.result for done in found] == expected


@pytest.mark.parametrize("task", TASKS)
def test_state_decides_and_not_the_seed(envs: dict[str, RobosuiteEnv], task: str) -> None:
    """Another seed has other places, and another size of Lift's cube: as if robosuite drew other numbers."""
    env = envs[task]
    env.reset(seed=SEED)
    play(env, range(1))
    state = env.snapshot()
    expected = play(env, range(1, END))
    env.reset(options={"state": replace(state, seed=SEED + 1)})
    assert play(env, range(1, END)) == expected
    if task == "pick-place-tray":
        env.reset(options={"state": replace(state, memory=())})
        assert play(env, range(1, END)) != expected, "grippers and controllers have a memory"


def test_state_leaves_no_trace_and_changes_no_option(envs: dict[str, RobosuiteEnv]) -> None:
    """Say it comes from a version of the task with another cube."""
    env = envs["pick-place-tray"]
    sensors, _ = env.reset(seed=SEED)
    expected = [look(sensors), *play(env, range(END))]
    state = env.snapshot()
    other = {name: value + 0.01 * name.startswith(("geom_size", "body_mass")) for name, value in state.model.items()}
    for _ in range(2):
        env.reset(options={"state": replace(state, model=other)})
        sensors, _ = env.reset(seed=SEED)
        assert [look(sensors), *play(env, range(END))] == expected
    assert {path[0] for path, _ in state.memory} & {"robots", "timestep", "rng"} == {"robots", "timestep", "rng"}
    assert not {path[0] for path, _ in state.memory} & {"horizon", "control_freq", "render_visual_mesh", "distractor"}


def test_state_of_another_task_is_refused(envs: dict[str, RobosuiteEnv]) -> None:
    state = envs["Lift"].snapshot()
    with pytest.raises(SimulationError, match="no start 'table'; it has: blocked, open"):
        envs["drawer-blocked-drawer"].reset(options={"state": replace(state, start="table")})
    with pytest.raises(SimulationError, match=r"not one of this PickPlaceTray: its model's \w+ is \[.*, here it is \["):
        envs["pick-place-tray"].reset(options={"state": state})
    env = envs["pick-place-tray"]
    env.reset(seed=0)
    state = env.snapshot()
    with pytest.raises(SimulationError, match="it has 3 numbers, not"):
        env.reset(options={"state": replace(state, physics=np.zeros(3))})
    with pytest.raises(SimulationError, match="here is no robots/5/done"):
        env.reset(options={"state": replace(state, memory=((("robots", 5, "done"), True),))})


def test_initial_states_are_read_as_they_were_written(envs: dict[str, RobosuiteEnv], tmp_path: Path) -> None:
    env = envs["pick-place-tray"]
    states = []
    for seed in (1, 2):
        env.reset(seed=seed)
        states.append(env.snapshot())
    initial = InitialStates(env_args=default_env_args("pick-place-tray"), seed=3, states=tuple(states))
    path = tmp_path / "starts.hdf5"
    assert write_initial_states(path, initial) == initial.sha256
    again = read_initial_states(path)
    assert again.sha256 == initial.sha256 and (again.env_args, again.seed) == (initial.env_args, 3)
    for one, other in zip(initial.states, again.states, strict=True):
        assert_same(one, other)
    assert replace(initial, states=tuple(states[::-1])).sha256 != initial.sha256


def test_full_disk_while_initial_states_are_written_is_one_error(
    envs: dict[str, RobosuiteEnv], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 itself would end the process by a segmentation fault."""

    def write(self: OutputFile, block: Any) -> int:
        if self.tell() + len(block) > 20_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return FileIO.write(self, block)

    env = envs["pick-place-tray"]
    env.reset(seed=1)
    whole = InitialStates(env_args=default_env_args("pick-place-tray"), seed=3, states=(env.snapshot(),))
    monkeypatch.setattr(NamedFile, "write", write, raising=False)
    with pytest.raises(OSError, match="No space left"):
        write_initial_states(tmp_path / "starts.hdf5", whole)
    assert list(tmp_path.iterdir()) == []


def assert_same(one: State, other: State) -> None:
    np.testing.assert_array_equal(one.physics, other.physics)
    for mine, its in ((one.model, other.model), (one.accelerations, other.accelerations)):
        assert {key: (value.dtype, value.tobytes()) for key, value in mine.items()} == {
            key: (value.dtype, value.tobytes()) for key, value in its.items()
        }
    assert [path for path, _ in one.memory] == [path for path, _ in other.memory]
    for (path, value), (_, came) in zip(one.memory, other.memory, strict=True):
        assert type(value) is type(came), path
        np.testing.assert_array_equal(value, came, str(path))


def test_initial_states_that_are_none_or_were_changed_are_refused(
    envs: dict[str, RobosuiteEnv], tmp_path: Path
) -> None:
    import h5py

    env = envs["pick-place-tray"]
    env.reset(seed=1)
    path = tmp_path / "starts.hdf5"

    def fresh() -> h5py.File:
        write_initial_states(
            path, InitialStates(env_args=default_env_args("pick-place-tray"), seed=3, states=(env.snapshot(),))
        )
        return h5py.File(path, "r+")

    with fresh() as file:
        file["starts/0/physics"][3] += 1e-9
    with pytest.raises(DataError, match="changed or damaged since it was written"):
        read_initial_states(path)
    with fresh() as file:
        del file["starts/0/accelerations/qacc"]
    with pytest.raises(DataError, match=r"damaged one .*qacc"):
        read_initial_states(path)
    with fresh() as file:
        file.attrs["format"] = 9
    with pytest.raises(DataError, match="has format 9; this version of pixelrl reads 1"):
        read_initial_states(path)
    with h5py.File(path, "w") as file:
        file["data"] = 1
    with pytest.raises(DataError, match="not a file of initial states; `pixelrl starts TASK --out FILE` writes one"):
        read_initial_states(path)


def wander(sensors: Sensors) -> NDArray[np.float32]:
    """Act by what is seen, so that any difference grows."""
    shade = sensors["agentview_image"].mean(axis=(1, 2)) / 128 - 1
    return np.concatenate([np.sin(40 * shade), shade[:, :1]], axis=1).astype(np.float32).reshape(1, 4)


def test_rollouts_from_initial_states_are_those_from_their_seeds_for_any_number_of_workers(
    envs: dict[str, RobosuiteEnv], tmp_path: Path
) -> None:
    args: dict[str, Any] = default_env_args("pick-place-tray", size=16, horizon=6)
    make = partial(make_env, args)
    options: dict[str, Any] = {"episodes": 3, "seed": 5}
    by_seed = sorted(rollout(wander, make, workers=1, **options), key=lambda each: each.index)
    env = envs["pick-place-tray"]
    starts = []
    for outcome in by_seed:
        env.reset(seed=outcome.seed)
        starts.append(env.snapshot())
    write_initial_states(tmp_path / "starts.hdf5", InitialStates(env_args=args, seed=5, states=tuple(starts)))
    again = read_initial_states(tmp_path / "starts.hdf5").states
    found = list(rollout(wander, make, workers=2, initial_states=again, **options))
    assert sorted(found, key=lambda each: each.index) == by_seed
    with pytest.raises(SimulationError, match="3 episodes are to begin from 2 starts"):
        list(rollout(wander, make, workers=2, initial_states=again[:2], **options))

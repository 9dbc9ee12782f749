"""A Ray cluster: the same results as on this machine, also when a node is lost."""

import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pixelrl.launch.options import WorkerOptions, nodes_of
from pixelrl.launch.provenance import machine
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.tasks.scripted.collect import collect, record_episode
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.simulation.workers.process_pool import WorkerPool
from pixelrl.simulation.workers.ray import RayPool
from tests.simulation.evaluation.test_rollout import Crash, Fail, Walk, play
from tests.simulation.workers.test_process_pool import unopenable

QUIET = Console(quiet=True)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is missing: pip install 'pixelrl[ray]'"
)

PATIENCE = 180
"""Longer than any of these tests takes, with all that Ray starts for it. [s]"""


def linger(marker: Path) -> None:
    """Wait until something is at work on the node that is to be lost; there, tell that it is, and die with the node."""
    if "DOOMED" in os.environ:
        marker.touch()
    parent = os.getppid()
    while not marker.exists() or "DOOMED" in os.environ:
        threading.Event().wait(0.05)
        if os.getppid() != parent:
            os._exit(1)


def wait_for(path: Path) -> None:
    """Wait until there is such a file."""
    while not path.exists():
        threading.Event().wait(0.05)


class Linger(Walk):
    """An environment that lingers at its third step."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def step(self, action: Any) -> Any:
        if self.steps == 2:
            linger(self.marker)
        return super().step(action)


@contextmanager
def squarer(marker: Path | None) -> Iterator[Callable[[int, Heartbeat], int]]:
    """Square; die of a negative number."""

    def square(number: int, heartbeat: Heartbeat) -> int:
        if marker:
            linger(marker)
        return number**2 if number >= 0 else os._exit(3)

    yield square


def jobs(*numbers: int) -> Iterator[tuple[str, int]]:
    return ((f"number {number}", number) for number in numbers)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster on this machine, with one node of one CPU."""
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes: Any) -> Iterator[RayPool]:
    with WorkerOptions(engine="ray", ray_address=nodes.address).pool(QUIET) as found:
        assert isinstance(found, RayPool)
        yield found


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Fail a test that waits for ever, instead of waiting with it."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"the test took longer than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@contextmanager
def another_node(nodes: Any, cluster: RayPool, marker: Path) -> Iterator[None]:
    """Add a node, and kill it as soon as something is at work there."""
    node = nodes.add_node(num_cpus=1, env_vars={"DOOMED": "1"})
    over = threading.Event()

    def kill() -> None:
        while not (marker.exists() or over.wait(0.05)):
            pass
        nodes.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    cluster.workers = 2
    try:
        yield
    finally:
        cluster.workers = 1
        over.set()
        killer.join()
        nodes.wait_for_nodes()  # until the dead one no longer counts


@needs_ray
def test_lost_node_costs_its_unfinished_episodes_and_changes_nothing(
    nodes: Any, cluster: RayPool, tmp_path: Path
) -> None:
    marker = tmp_path / "playing"
    with another_node(nodes, cluster, marker):
        found = play(partial(Linger, marker), pool=cluster, videos=2, video_size=4)
    for outcome, expected in zip(found, play(videos=2, video_size=4), strict=True):
        np.testing.assert_equal(vars(outcome) | {"restarts": 0}, vars(expected))
    assert sum(outcome.restarts for outcome in found) == 1
    assert len(nodes_of(cluster)["nodes"]) == 1  # the other one has done nothing


@needs_ray
@pytest.mark.slow
def test_jobs_of_a_lost_node_are_done_elsewhere_and_results_come_in_order(
    nodes: Any, cluster: RayPool, tmp_path: Path
) -> None:
    marker = tmp_path / "squaring"
    with another_node(nodes, cluster, marker):
        results = list(cluster.run(partial(squarer, marker), jobs(1, 2, 3, 4, 5), ordered=True))
    assert [done.result for done in results] == [1, 4, 9, 16, 25]
    assert marker.exists()
    assert list(cluster.run(partial(squarer, marker), jobs())) == []


@needs_ray
@pytest.mark.slow
def test_episodes_of_the_simulator_are_collected_to_the_last_bit(cluster: RayPool) -> None:
    env_args = default_env_args("pick-place-tray", size=32)
    env = make_robosuite_env(env_args)
    for index, episode in enumerate(collect(env_args, "task", episodes=2, seed=1, pool=cluster)):
        here = record_episode(env, "task", derive(1, "task", index))
        np.testing.assert_equal(vars(episode), vars(here))
    env.close()


@needs_ray
def test_hung_worker_is_replaced_and_its_episode_begun_again(cluster: RayPool, tmp_path: Path) -> None:
    found = play(partial(Fail, "hang", tmp_path / "hang"), pool=cluster, episodes=3, time_limit=2)
    assert found == play(episodes=3) and [outcome.restarts for outcome in found] == [1, 0, 0]


@needs_ray
def test_job_that_loses_every_worker_is_named(cluster: RayPool) -> None:
    with pytest.raises(SimulationError, match=r"^number -1: lost with its worker or .*; it was begun 3 times"):
        list(cluster.run(partial(squarer, None), jobs(2, -1, 3), ordered=True))


@needs_ray
@pytest.mark.slow
def test_episode_that_loses_every_worker_is_named(cluster: RayPool) -> None:
    with pytest.raises(
        SimulationError, match=r"^episode 0 \(seed \d+\): lost with its worker .*; it was begun 3 times"
    ):
        play(partial(Fail, "die"), pool=cluster, episodes=1)


@needs_ray
def test_exception_names_episode_and_node(cluster: RayPool) -> None:
    with pytest.raises(SimulationError, match=r"^episode 0 \(seed \d+\), on [0-9.]+: after 2 .*100 % wrong") as error:
        play(Crash, pool=cluster, episodes=1)
    assert "raise Unpicklable(1, 2)" in error.value.__notes__[0]


@needs_ray
def test_worker_that_cannot_be_opened_is_named(cluster: RayPool) -> None:
    with pytest.raises(SimulationError, match=r"^a worker cannot be started, on [0-9.]+: RuntimeError: no GL context"):
        list(cluster.run(partial(unopenable, "raise"), jobs(1)))


@needs_ray
def test_cluster_without_a_free_cpu_ends_the_run(cluster: RayPool, tmp_path: Path) -> None:
    import ray

    over = tmp_path / "over"
    other = ray.remote(num_cpus=1)(wait_for).remote(over)
    nodes, cluster.nodes = cluster.nodes, {}
    with pytest.raises(SimulationError, match=r"^no job was done on the Ray cluster within 1 s; are its CPUs taken"):
        list(cluster.run(partial(squarer, None), jobs(1), time_limit=0.05))
    over.touch()
    ray.get(other)
    cluster.nodes = nodes


@needs_ray
def test_other_version_on_a_node_is_named(cluster: RayPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster.software, "mujoco", "1.50")
    with pytest.raises(SimulationError, match=r"mujoco [0-9.]+ on [0-9.]+, but 1\.50 here: have the same"):
        play(pool=cluster, episodes=1)


@needs_ray
def test_cluster_that_cannot_be_joined_is_named(cluster: RayPool) -> None:
    with pytest.raises(SimulationError, match=r"--workers 5: this Ray cluster has [12] CPUs"):
        RayPool(5, machine)
    for address, reason in (("127.0.0.1:1", "refused"), ("nowhere", "expected HOST:PORT")):
        with (
            pytest.raises(SimulationError, match=rf"address {address}: no cluster .*{reason}"),
            WorkerOptions(engine="ray", ray_address=address).pool(QUIET),
        ):
            pass


def test_error_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SimulationError, match=r"pip install 'pixelrl\[ray\]'"), WorkerOptions(engine="ray").pool(QUIET):
        pass
    with WorkerOptions(workers=2).pool(QUIET) as here:
        assert here == WorkerPool(2) and nodes_of(here) == {}

"""A Ray cluster: the same results as on this machine, also when a node is lost."""

import importlib.util
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pixelrl.launch.engine import cluster_for, nodes_of
from pixelrl.launch.provenance import machine
from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.evaluation.ray_engine import Cluster, deal
from pixelrl.simulation.tasks.scripted.collect import collect, record
from tests.simulation.evaluation.test_rollout import Fail, Walk, play

QUIET = Console(quiet=True)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is missing: pip install '.[ray]'")


def linger(marker: Path) -> None:
    """Wait until something is at work on the node that is to be lost; there, tell that it is, and never end."""
    if "DOOMED" in os.environ:
        marker.touch()
    parent = os.getppid()
    while not marker.exists() or ("DOOMED" in os.environ and os.getppid() == parent):
        threading.Event().wait(0.05)


class Linger(Walk):
    """An environment that lingers at its third step."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def step(self, action: Any) -> Any:
        if self.steps == 2:
            linger(self.marker)
        return super().step(action)


def square(marker: Path | None, numbers: Iterable[int]) -> Iterator[int]:
    """Square; die of a negative number."""
    for number in numbers:
        if marker:
            linger(marker)
        yield number**2 if number >= 0 else os._exit(3)


def named(*numbers: int) -> Iterator[tuple[str, int]]:
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
def cluster(nodes: Any) -> Iterator[Cluster]:
    with cluster_for("ray", nodes.address, None, QUIET) as found:
        assert found is not None
        yield found


@contextmanager
def another_node(nodes: Any, cluster: Cluster, marker: Path) -> Iterator[None]:
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
def test_a_lost_node_costs_its_unfinished_episodes_and_changes_nothing(
    nodes: Any, cluster: Cluster, tmp_path: Path
) -> None:
    marker = tmp_path / "playing"
    with another_node(nodes, cluster, marker):
        found = play(partial(Linger, marker), engine=cluster.play, films=2, film_size=4)
    for outcome, expected in zip(found, play(films=2, film_size=4), strict=True):
        np.testing.assert_equal(vars(outcome) | {"restarts": 0}, vars(expected))
    assert sum(outcome.restarts for outcome in found) == 1
    assert len(nodes_of(cluster)["nodes"]) == 2


@needs_ray
def test_a_lost_node_s_jobs_are_done_elsewhere_and_results_come_in_order(
    nodes: Any, cluster: Cluster, tmp_path: Path
) -> None:
    marker = tmp_path / "squaring"
    with another_node(nodes, cluster, marker):
        assert list(cluster.in_order(partial(square, marker), named(1, 2, 3, 4, 5))) == [1, 4, 9, 16, 25]
    assert marker.exists()
    assert list(cluster.in_order(partial(square, marker), named())) == []


@needs_ray
def test_episodes_of_the_simulator_are_collected_to_the_last_bit(cluster: Cluster) -> None:
    env_args = default_env_args("pick-place-tray", size=32)
    env = make_robosuite_env(env_args)
    for index, episode in enumerate(collect(env_args, "task", episodes=2, seed=1, team=cluster.in_order)):
        here = record(env, "task", derive(1, "task", index))
        np.testing.assert_equal(vars(episode), vars(here))
    env.close()


@needs_ray
def test_what_kills_its_worker_time_and_again_is_named(cluster: Cluster) -> None:
    with pytest.raises(SimulationError, match=r"^number -1: lost with its worker or its whole node 3 times"):
        list(cluster.in_order(partial(square, None), named(2, -1, 3)))
    with pytest.raises(SimulationError, match=r"^on [0-9.]+: episode 0 \(seed \d+\), after 2 .* died.* begun 3 times"):
        play(partial(Fail, "die"), engine=cluster.play, episodes=1)


@needs_ray
def test_another_version_on_a_node_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cluster._software, "mujoco", "1.50")
    with pytest.raises(SimulationError, match=r"mujoco [0-9.]+ on [0-9.]+, but 1\.50 here: have the same"):
        play(engine=cluster.play, episodes=1)


@needs_ray
def test_a_cluster_that_cannot_be_had_is_named(cluster: Cluster) -> None:
    with pytest.raises(SimulationError, match=r"--workers 5: this Ray cluster has [12] CPUs"):
        Cluster(cluster._ray, 5, machine)
    for address, reason in (("127.0.0.1:1", "refused"), ("nowhere", "expected HOST:PORT")):
        with (
            pytest.raises(SimulationError, match=rf"address {address}: no cluster .*{reason}"),
            cluster_for("ray", address, None, QUIET),
        ):
            pass


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SimulationError, match=r"pip install '\.\[ray\]'"), cluster_for("ray", "auto", None, QUIET):
        pass
    with cluster_for("local", "auto", None, QUIET) as here:
        assert here is None and nodes_of(here) == {}


def test_workers_are_dealt_evenly_as_far_as_cpus_go() -> None:
    cpus = {"small": 1, "none": 0, "large": 4, "middle": 2}
    assert deal(cpus, 5) == {"small": 1, "none": 0, "large": 2, "middle": 2}
    assert deal(cpus, 2) == {"small": 1, "none": 0, "large": 1, "middle": 0}
    assert deal(cpus, 9) == cpus

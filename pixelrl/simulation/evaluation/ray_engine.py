"""A Ray cluster that collects, draws and plays as one machine does, with the same results.

A policy travels by value, weights and all, and so do jobs and results; no node reads a file of another. Ray itself
pickles what its processes say to each other; nothing is unpickled from a file.

Bits are those of one machine where the nodes have the same software, which is checked, and compute alike: another kind
of processor or GPU may round, and draw, differently.
"""

import importlib
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import Any, TypeVar

from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.interfaces import Policy
from pixelrl.simulation.evaluation.crew import STARTING, AnyEnv
from pixelrl.simulation.evaluation.fleet import Facts, Fleet, Seat
from pixelrl.simulation.evaluation.ray_actors import Hand, Site, software
from pixelrl.simulation.evaluation.rollout import ROWS, TIME_LIMIT, Job, Judge, Outcome

Item = TypeVar("Item")
Result = TypeVar("Result")

AUTO = "auto"
"""The address of the cluster that this machine belongs to; where there is none, of one that is started here."""


PARTING = 5.0
"""How long a site has to end its crew. [s]"""


@contextmanager
def connected(address: str, workers: int | None, describe: Callable[[], Mapping[str, Any]]) -> Iterator["Cluster"]:
    """Yield a cluster for as long as it is needed; one that was started for this ends with it.

    Args:
        address: `HOST:PORT` of a cluster that this machine belongs to, or `AUTO`.
        workers: how many simulators work at once; None: one for each CPU of the cluster.
        describe: called on each node, to tell what it is.

    Raises:
        SimulationError: Ray is not installed, or there is no such cluster, or it has fewer CPUs.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise SimulationError("the engine ray needs Ray: pip install '.[ray]' here and on every node") from error
    try:
        if address != AUTO:
            _knock(address)
        ray.init(
            None if address == AUTO else address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, ...: Ray has no one way to fail
        reason = " ".join(str(error).split())[:300]
        raise SimulationError(f"Ray, at the address {address}: no cluster that can be joined ({reason})") from error
    try:
        yield Cluster(ray, workers, describe)
    finally:
        ray.shutdown()


class Cluster:
    """The nodes of a Ray cluster that this process has joined; see `connected`.

    Attributes:
        workers: how many simulators work at once.
        nodes: id of each node that has worked -> its `address`, and what `describe` told there.
    """

    def __init__(self, ray: Any, workers: int | None, describe: Callable[[], Mapping[str, Any]]) -> None:
        """Look at the nodes.

        Raises:
            SimulationError: they have fewer CPUs.
        """
        self._ray, self._describe = ray, describe
        self._software = software()
        total = sum(self._cpus().values())
        self.workers = total if workers is None else workers
        if not 1 <= self.workers <= total:
            raise SimulationError(f"--workers {self.workers}: this Ray cluster has {total} CPUs, one for each worker")
        self.nodes: dict[str, dict[str, Any]] = {}

    def in_order(
        self, work: Callable[[Iterable[Item]], Iterable[Result]], jobs: Iterable[tuple[str, Item]]
    ) -> Generator[Result, None, None]:
        """Yield the results of jobs in their order: a `Team`. A lost node's jobs are done again elsewhere.

        Raises:
            SimulationError: as a worker raised it, with the name of the job, or a job lost its worker time and again.
        """
        coming = iter(jobs)
        first = list(islice(coming, self.workers))
        dealt = deal(self._cpus(), len(first))
        seats = [Seat(node, number, 1) for node, count in dealt.items() for number in range(count)]
        finished: dict[int, Result] = {}
        due = 0

        def hire(seat: Seat) -> Any:
            return self._actor(Hand, seat, threads=1).remote(self._describe, work, seat.number)

        with self._fleet(hire, TIME_LIMIT) as fleet:
            for index, result, _ in fleet.run(seats, chain(first, coming), window=2 * self.workers):
                finished[index] = result
                while due in finished:
                    yield finished.pop(due)
                    due += 1

    def play(
        self,
        policy: Policy,
        make: Callable[[], AnyEnv],
        jobs: Sequence[Job],
        *,
        history: int,
        judge: Judge | None = None,
        time_limit: float = TIME_LIMIT,
    ) -> Generator[Outcome, None, None]:
        """Play episodes on all nodes: an `Engine`. A lost node's unfinished episodes are begun anew elsewhere.

        Raises:
            SimulationError: as on one machine, or an episode lost its node time and again.
        """
        dealt = deal(self._cpus(), min(self.workers, len(jobs)))
        seats = [
            Seat(node, begun, min(ROWS, count - begun))  # so many rows a policy's call has
            for node, count in dealt.items()
            for begun in range(0, count, ROWS)
        ]
        sent = self._ray.put((policy, judge))  # together, as they share their weights
        named = ((f"episode {job.index} (seed {job.seed})", job) for job in jobs)

        def hire(seat: Seat) -> Any:
            actor = self._actor(Site, seat, threads=seat.room + 1)
            return actor.remote(self._describe, sent, make, seat.room, history, time_limit)

        with self._fleet(hire, time_limit, parting=PARTING) as fleet:
            for _, outcome, losses in fleet.run(seats, named, window=len(jobs)):
                yield replace(outcome, restarts=outcome.restarts + losses)

    def _cpus(self) -> dict[str, int]:
        """Return how many CPUs each node has that is there now."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}

    def _fleet(self, hire: Callable[[Seat], Any], time_limit: float, parting: float = 0.0) -> Fleet:
        patience = STARTING * time_limit
        return Fleet(ray=self._ray, hire=hire, welcome=self._welcome, patience=patience, parting=parting)

    def _actor(self, kind: type, seat: Seat, threads: int) -> Any:
        """Return Ray's class of an actor for a seat."""
        affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        environment = {
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            "OMP_NUM_THREADS": "1",  # a core each
            "RAY_kill_child_processes_on_worker_exit": "0",  # they end by themselves, and free memory
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # or Ray hides the GPUs, on which pictures are drawn
        }
        return self._ray.remote(kind).options(
            num_cpus=seat.room,
            max_concurrency=threads,
            max_restarts=0,
            scheduling_strategy=affinity(seat.node, soft=True),
            runtime_env={"env_vars": environment},
        )

    def _welcome(self, facts: Facts) -> None:
        """Note a node, if its software is ours.

        Raises:
            SimulationError: it has other versions.
        """
        for name, ours in self._software.items():
            if facts["software"][name] != ours:
                theirs = f"{name} {facts['software'][name]} on {facts['node']['address']}"
                raise SimulationError(f"{theirs}, but {ours} here: have the same on every node of the Ray cluster")
        self.nodes[facts["id"]] = facts["node"]


def _knock(address: str) -> None:
    """Raise unless somebody listens there: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT, as `ray start --head` tells it")
    socket.create_connection((host, int(port)), timeout=5).close()


def deal(cpus: Mapping[str, int], workers: int) -> dict[str, int]:
    """Return how many of so many workers each node has: as evenly as CPUs allow, and no more than there are."""
    dealt = dict.fromkeys(cpus, 0)
    for _ in range(min(workers, sum(cpus.values()))):
        dealt[max(cpus, key=lambda node: (dealt[node] < cpus[node], -dealt[node]))] += 1
    return dealt

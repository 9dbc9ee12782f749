"""The same jobs on a Ray cluster, with the same results: a worker is an actor; one that is lost is replaced.

Ray's own retries are not used: it spends them within a second while a node dies (so they would have to be endless),
a job is bound to its actor, which waits for a CPU that others hold, and nobody can tell how often a job was begun.

A policy travels by value, weights and all, and so do jobs and results; no node reads a file of another. Ray pickles
what its processes say to each other; nothing is unpickled from a file.

Bits are those of one machine where the nodes have the same software, which is checked, and compute alike: another kind
of processor or GPU may round, and draw, differently.
"""

import faulthandler
import math
import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.pool import CLOSE_LIMIT, START_LIMIT, Members, Pool, Task, TaskQueue, Worker
from pixelrl.simulation.workers.process import Failure, at_most_every, prepare_process, software

AUTO = "auto"
"""The address of the cluster that this machine belongs to; where there is none, of one that is started here."""

LOOK_EVERY = 1.0
"""How long no answer comes before nodes and actors are looked at. [s]"""

Facts = Mapping[str, Any]


@contextmanager
def connect(address: str, workers: int | None, describe: Callable[[], Facts]) -> Iterator["RayPool"]:
    """Yield a pool on a cluster for as long as it is needed; a cluster that was started for this ends with it.

    Args:
        address: `HOST:PORT` of a cluster that this machine belongs to, or `AUTO`.
        workers: how many simulators work at once; None: one for each CPU of the cluster.
        describe: called on each node, to tell what it is.

    Raises:
        SimulationError: Ray is not installed, or there is no such cluster, or it has fewer CPUs.
    """
    try:
        ray = _ray()
    except ImportError as error:
        raise SimulationError("the engine ray needs Ray: pip install 'pixelrl[ray]' here and on every node") from error
    try:
        if address != AUTO:
            _check_listening(address)
        ray.init(
            None if address == AUTO else address, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, ...: Ray has no one way to fail
        reason = " ".join(str(error).split())[:300]
        raise SimulationError(f"Ray, at the address {address}: no cluster that can be joined ({reason})") from error
    try:
        yield RayPool(workers, describe)
    finally:
        ray.shutdown()


class RayPool(Pool):
    """Workers on the nodes of the Ray cluster that this process has joined; see `connect`.

    Attributes:
        workers: how many work at once.
        nodes: id of each node that has worked -> its `address`, and what `describe` told there.
    """

    def __init__(self, workers: int | None, describe: Callable[[], Facts]) -> None:
        """Look at the nodes.

        Raises:
            SimulationError: they have fewer CPUs.
        """
        self.describe, self.software = describe, software()
        total = sum(int(node["Resources"].get("CPU", 0)) for node in _alive())
        self.workers = total if workers is None else workers
        if not 1 <= self.workers <= total:
            raise SimulationError(f"--workers {self.workers}: this Ray cluster has {total} CPUs, one for each worker")
        self.nodes: dict[str, dict[str, Any]] = {}

    def members(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> "_ActorHandles":
        """Return what starts and watches the actors."""
        return _ActorHandles(self, queue, sent, time_limit)

    def add_node(self, facts: Facts) -> None:
        """Note a node, if its software is ours.

        Raises:
            SimulationError: it has other versions.
        """
        for name, ours in self.software.items():
            if facts["software"][name] != ours:
                theirs = f"{name} {facts['software'][name]} on {facts['node']['address']}"
                raise SimulationError(f"{theirs}, but {ours} here: have the same on every node of the Ray cluster")
        self.nodes[facts["id"]] = facts["node"]


@dataclass(kw_only=True)
class _ActorHandle(Worker):
    """An actor, and what it was asked for.

    Attributes:
        actor: Ray's handle.
        place: its answer where it is, which comes as soon as it has a CPU.
        call: the answer that is waited for; None: it is idle.
        node: the id of its node, once that is known.
    """

    actor: Any
    place: Any
    call: Any
    node: str | None = None


class _ActorHandles(Members[_ActorHandle]):
    """The actors of a pool at one `run`."""

    def __init__(self, pool: RayPool, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> None:
        super().__init__(queue, sent, time_limit)
        self._pool, self._ray = pool, _ray()
        self._sent = self._ray.put(sent)
        environment = {
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            "OMP_NUM_THREADS": "1",  # a core each
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # or Ray hides the GPUs, on which pictures are drawn
        }
        self._actor = self._ray.remote(_RayWorker).options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )

    def spawn(self, number: int) -> None:
        """Start an actor; it waits for a CPU."""
        actor = self._actor.remote(self._pool.describe, self._sent, number, self.time_limit)
        place, self._heard = actor.node.remote(), time.monotonic()  # calls are answered in their order
        self.workers[number] = _ActorHandle(actor=actor, place=place, call=actor.open.remote(), deadline=math.inf)

    def send(self, worker: _ActorHandle, task: Task[Any]) -> None:
        """Have an actor begin a job."""
        worker.call = worker.actor.do.remote(task.name, task.job)

    def listen(self) -> None:
        """Wait a little for an answer; where none comes, look for actors that cannot answer any more."""
        calls = {worker.call: number for number, worker in self.workers.items() if worker.call is not None}
        answered, _ = self._ray.wait(list(calls), num_returns=1, timeout=LOOK_EVERY)
        for call in answered:
            self._heard = time.monotonic()
            self._take(calls[call])
        if not answered:
            self._look_for_lost()

    def close(self) -> None:
        """End all actors; those that are idle may close their environments."""
        with suppress(Exception):  # Ray itself may be gone
            closing = [worker.actor.close.remote() for worker in self.workers.values() if worker.call is None]
            if closing:
                self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_LIMIT)
        for worker in self.workers.values():
            self._kill(worker)

    def _take(self, number: int) -> None:
        """Take the answer of an actor, or replace it.

        Raises:
            SimulationError: the job failed or was lost too often, the actor cannot start or its software is not ours.
        """
        worker = self.workers[number]
        try:
            answer = self._ray.get(worker.call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            self._replace(number, lines[-1] if lines else "unknown")
            return
        worker.call = None
        if worker.task is not None:
            self.finished(worker, answer)
        else:
            self._pool.add_node(answer)
            self.opened(worker)

    def _look_for_lost(self) -> None:
        """Replace the actors whose node is gone, and those that have a CPU and do not open in time.

        Ray itself fails the calls of an actor that dies; but not always where its whole node is lost at once.

        Raises:
            SimulationError: the cluster has had no CPU for any of them for too long.
        """
        alive, now, limit = {node["NodeID"] for node in _alive()}, time.monotonic(), START_LIMIT * self.time_limit
        for number, worker in list(self.workers.items()):
            if worker.node is None and self._ray.wait([worker.place], timeout=0)[0]:
                with suppress(self._ray.exceptions.RayError):  # it is lost, which its other call will tell
                    worker.node = self._ray.get(worker.place)
                    worker.deadline = now + limit + LOOK_EVERY  # its own watch comes first
            if worker.node is not None and worker.node not in alive:
                self._replace(number, f"the node {worker.node[:12]} is gone")
            elif not worker.ready and worker.deadline < now:
                self._replace(number, f"it did not open within {limit:g} s")
        if all(worker.node is None for worker in self.workers.values()) and now - self._heard > limit:
            message = f"no worker of the Ray cluster started within {limit:g} s"
            raise SimulationError(f"{message}; are its CPUs taken by other jobs?")

    def _replace(self, number: int, reason: str) -> None:
        self._kill(self.workers[number])
        self.replace(number, f"lost with its worker or its whole node: {reason}")

    def _kill(self, worker: _ActorHandle) -> None:
        with suppress(Exception):  # it may be gone already, or out of reach
            self._ray.kill(worker.actor)


class _RayWorker:
    """A worker on a node, a Ray actor: it does one job at a time."""

    def __init__(self, describe: Callable[[], Facts], sent: bytes, number: int, time_limit: float) -> None:
        self._ray, self._describe = _ray(), describe
        self._address: str = self._ray.util.get_node_ip_address()
        self._sent, self._time_limit, self._stack = sent, time_limit, ExitStack()
        prepare_process(number)

    def node(self) -> str:
        """Return the id of the node that this is on."""
        found: str = self._ray.get_runtime_context().get_node_id()
        return found

    def open(self) -> Facts:
        """Open what jobs need, and return what this node is."""
        with self._watched(START_LIMIT * self._time_limit, "a worker cannot be started"):
            self._work = self._stack.enter_context(pickle.loads(self._sent)())
        node = {"address": self._address, **self._describe()}
        return {"id": self.node(), "software": software(), "node": node}

    def do(self, name: str, job: Any) -> Any:
        """Return the result of a job."""
        with self._watched(self._time_limit, name) as watch:
            return self._work(job, at_most_every(watch))

    @contextmanager
    def _watched(self, time_limit: float, name: str) -> Iterator[Callable[[], None]]:
        """End this process if the block, or what follows a call of what is yielded, takes longer than the limit [s].

        Raises:
            SimulationError: instead of any exception; it surely travels, and names the job and the node.
        """

        def watch() -> None:
            faulthandler.dump_traceback_later(time_limit, exit=True, file=sys.__stderr__ or 2)

        watch()
        try:
            yield watch
        except Exception as error:
            raise Failure.of(error).error(f"{name}, on {self._address}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Close the environment."""
        self._stack.close()


def _ray() -> Any:
    """Return Ray, which need not be installed."""
    import ray

    return ray


def _alive() -> list[dict[str, Any]]:
    """Return the nodes of the cluster that are there."""
    return [node for node in _ray().nodes() if node["Alive"]]


def _check_listening(address: str) -> None:
    """Raise unless there is something that listens: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT, as `ray start --head` tells it")
    socket.create_connection((host, int(port)), timeout=5).close()

"""The same jobs on a Ray cluster, with the same results: a worker is an actor; one that is lost is replaced.

Ray's own retries are not used: it spends them within a second while a node dies (so they would have to be endless),
a job is bound to its actor, which waits for a CPU that others hold, and nobody can tell how often a job was begun.

A policy travels by value, weights and all, and so do jobs and results; no node reads a file of another. Ray pickles
what its processes say to each other; nothing is unpickled from a file.

Bits are those of one machine where the nodes have the same software, which is checked, and compute alike: another kind
of processor or GPU may round, and draw, differently.
"""

import faulthandler
import hashlib
import os
import pickle
import platform
import socket
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pixelrl
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.jobs import ATTEMPTS, TIME_LIMIT, Done, Job, OpenWorker, Result, Task, TaskQueue
from pixelrl.simulation.workers.pool import CLOSE_LIMIT, START_LIMIT, pickled
from pixelrl.simulation.workers.process import Failure, at_most_every, prepare_process

AUTO = "auto"
"""The address of the cluster that this machine belongs to; where there is none, of one that is started here."""

PACKAGES = ("ray", "numpy", "mujoco", "robosuite", "gymnasium", "torch", "onnxruntime")
"""What decides results, besides Python and our own code."""

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
        raise SimulationError("the engine ray needs Ray: pip install '.[ray]' here and on every node") from error
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


class RayPool:
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
        self._ray = _ray()
        self._describe, self._software = describe, software()
        total = sum(int(node["Resources"].get("CPU", 0)) for node in self._alive())
        self.workers = total if workers is None else workers
        if not 1 <= self.workers <= total:
            raise SimulationError(f"--workers {self.workers}: this Ray cluster has {total} CPUs, one for each worker")
        self.nodes: dict[str, dict[str, Any]] = {}

    def run(
        self,
        open_worker: OpenWorker[Job, Result],
        jobs: Iterable[tuple[str, Job]],
        *,
        ordered: bool = False,
        time_limit: float = TIME_LIMIT,
    ) -> Generator[Done[Result], None, None]:
        """Yield what comes of each job, as `WorkerPool.run` does."""
        queue: TaskQueue[Job, Result] = TaskQueue(jobs, ordered=ordered, ahead=2 * self.workers)
        sent = self._ray.put(pickled(open_worker))

        def start(number: int, failed: int = 0) -> _Member:
            actor = self._actor().remote(self._describe, sent, number, time_limit)
            return _Member(number, actor, actor.open.remote(), failed=failed)

        members = {number: start(number) for number in range(queue.look_ahead(self.workers))}
        try:
            while True:
                _assign(queue, members.values())
                while (done := queue.fetch()) is not None:
                    yield done
                    _assign(queue, members.values())
                if all(member.ready and member.task is None for member in members.values()) and not queue.look_ahead(1):
                    break
                member = self._first(members.values(), START_LIMIT * time_limit)
                if not self._take(member, queue):
                    members[member.number] = start(member.number, member.failed)
            closing = [member.actor.close.remote() for member in members.values()]
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_LIMIT) if closing else None
        finally:
            for member in members.values():
                self._kill(member)

    def _first(self, members: Iterable["_Member"], patience: float) -> "_Member":
        """Return the actor whose call is done first."""
        calls = {member.call: member for member in members if member.call is not None}
        at_work = any(member.task is not None for member in calls.values())
        done, _ = self._ray.wait(list(calls), num_returns=1, timeout=None if at_work else patience)
        if not done:
            message = f"no worker of the Ray cluster started within {patience:g} s"
            raise SimulationError(f"{message}; are its CPUs taken by other jobs?")
        return calls[done[0]]

    def _take(self, member: "_Member", queue: TaskQueue[Any, Any]) -> bool:
        """Take what came of a call; return False if the actor is lost.

        Raises:
            SimulationError: the job failed or was lost too often, the actor cannot start or its software is not ours.
        """
        try:
            result = self._ray.get(member.call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._kill(member)
            reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown")
            if member.task is not None:
                queue.lose(member.task, f"lost with its worker or its whole node: {reason}")
            elif (failed := member.failed + 1) < ATTEMPTS:
                member.failed = failed
            else:
                raise SimulationError(
                    f"a worker of the Ray cluster cannot start, tried {ATTEMPTS} times: {reason}"
                ) from error
            return False
        if member.task is None:
            self._welcome(result)
            member.failed, member.ready = 0, True
        else:
            queue.finish(member.task, result)
        member.task = member.call = None
        return True

    def _kill(self, member: "_Member") -> None:
        with suppress(Exception):  # it may be gone already, or out of reach
            self._ray.kill(member.actor)

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _actor(self) -> Any:
        """Return Ray's class of workers."""
        environment = {
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            "OMP_NUM_THREADS": "1",  # a core each
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # or Ray hides the GPUs, on which pictures are drawn
        }
        return self._ray.remote(_RayWorker).options(
            num_cpus=1,
            max_restarts=0,
            scheduling_strategy="SPREAD",
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


@dataclass
class _Member:
    """An actor: what it was asked for last, its job if that is one, and how many before it did not start."""

    number: int
    actor: Any
    call: Any
    task: Task[Any] | None = None
    ready: bool = False
    failed: int = 0


def _assign(queue: TaskQueue[Any, Any], members: Iterable[_Member]) -> None:
    """Give idle actors something to do."""
    for member in members:
        if member.call is None and (task := queue.take()) is not None:
            member.task, member.call = task, member.actor.do.remote(task.name, task.job)


class _RayWorker:
    """A worker on a node, a Ray actor: it does one job at a time."""

    def __init__(self, describe: Callable[[], Facts], sent: bytes, number: int, time_limit: float) -> None:
        self._ray, self._describe = _ray(), describe
        self._address: str = self._ray.util.get_node_ip_address()
        self._sent, self._time_limit, self._stack = sent, time_limit, ExitStack()
        prepare_process(number)

    def open(self) -> Facts:
        """Open what jobs need, and return what this node is."""
        with self._watched(START_LIMIT * self._time_limit, "a worker cannot be started"):
            self._work = self._stack.enter_context(pickle.loads(self._sent)())
        node = {"address": self._address, **self._describe()}
        return {"id": self._ray.get_runtime_context().get_node_id(), "software": software(), "node": node}

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


def software() -> dict[str, str]:
    """Return the versions of whatever decides results, and a hash of our own code, which changes between versions."""
    found = {"Python": platform.python_version(), "pixelrl": pixelrl.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(missing)"
    root = Path(pixelrl.__file__).parent
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found | {"pixelrl's code": code.hexdigest()[:16]}


def _check_listening(address: str) -> None:
    """Raise unless somebody listens there: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT, as `ray start --head` tells it")
    socket.create_connection((host, int(port)), timeout=5).close()

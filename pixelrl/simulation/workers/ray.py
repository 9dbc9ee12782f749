"""The same jobs on a Ray cluster, with the same results; Ray itself restarts workers and repeats jobs that are lost.

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
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pixelrl
from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.jobs import ATTEMPTS, TIME_LIMIT, Done, Job, OpenWorker, Result, Task, TaskQueue
from pixelrl.simulation.workers.pool import START_LIMIT, pickled
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
        sent, attempts = self._ray.put(pickled(open_worker)), self._attempts()
        numbers = range(queue.look_ahead(self.workers))
        actors = [self._actor().remote(self._describe, sent, number, time_limit, attempts) for number in numbers]
        calls: dict[Any, tuple[Any, Task[Job] | None]] = {actor.hello.remote(): (actor, None) for actor in actors}
        idle: list[Any] = []
        try:
            while calls:
                call = self._first(list(calls), patience=None if _at_work(calls) else START_LIMIT * time_limit)
                actor, task = calls.pop(call)
                said = self._result(call, task)
                if said is None:  # it has closed its environment
                    self._ray.kill(actor)
                    continue
                facts, restarts, result = said
                self._welcome(facts)
                idle.append(actor)
                if task is not None:
                    task.restarts = restarts
                    queue.finish(task, result)
                self._assign(queue, idle, calls)
                while (done := queue.fetch()) is not None:
                    yield done
                    self._assign(queue, idle, calls)
        finally:
            for actor in [*actors, attempts]:
                with suppress(Exception):  # it may be gone already
                    self._ray.kill(actor)

    def _assign(self, queue: TaskQueue[Job, Any], idle: list[Any], calls: dict[Any, Any]) -> None:
        """Give idle actors something to do; those that are not needed any more make room for others."""
        while idle and (task := queue.take()) is not None:
            actor = idle.pop()
            calls[actor.do.remote(task.index, task.name, task.job)] = (actor, task)
        while idle and not queue.look_ahead(1):  # else one that is restarted might wait for a CPU for ever
            actor = idle.pop()
            calls[actor.close.remote()] = (actor, None)

    def _first(self, calls: list[Any], patience: float | None) -> Any:
        """Return the call that is done first."""
        done, _ = self._ray.wait(calls, num_returns=1, timeout=patience)
        if not done:
            message = f"no worker of the Ray cluster started within {patience:g} s"
            raise SimulationError(f"{message}; are its CPUs taken by other jobs?")
        return done[0]

    def _result(self, call: Any, task: Task[Any] | None) -> Any:
        """Return what came of a call."""
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown")
            what = "a worker of the Ray cluster cannot start" if task is None else task.name
            raise SimulationError(f"{what}: {reason}") from error

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _attempts(self) -> Any:
        """Start the counter of attempts on this node, which cannot be lost without us."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = strategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(_Attempts).options(num_cpus=0, scheduling_strategy=here).remote()

    def _actor(self) -> Any:
        """Return Ray's class of workers."""
        environment = {
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            "OMP_NUM_THREADS": "1",  # a core each
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # or Ray hides the GPUs, on which pictures are drawn
        }
        return self._ray.remote(_RayWorker).options(
            num_cpus=1,
            max_restarts=-1,
            max_task_retries=-1,  # Ray uses them up within a second while a node dies; `_Attempts` counts what begins
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


class _Attempts:
    """Counts how often each job was begun; it lives on the node of the pool, as workers forget what they lose."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        """Return how often a job was begun before."""
        self._begun[index] += 1
        return self._begun[index] - 1


class _RayWorker:
    """A worker on a node, a Ray actor: it does one job at a time."""

    def __init__(
        self, describe: Callable[[], Facts], sent: bytes, number: int, time_limit: float, attempts: Any
    ) -> None:
        self._ray = _ray()
        self._address: str = self._ray.util.get_node_ip_address()
        node = {"address": self._address, **describe()}
        self._facts = {"id": self._ray.get_runtime_context().get_node_id(), "software": software(), "node": node}
        prepare_process(number)
        self._sent, self._time_limit, self._attempts = sent, time_limit, attempts
        self._stack = ExitStack()
        self._work: Any = None

    def hello(self) -> tuple[Facts, int, None]:
        """Return what this node is."""
        return self._facts, 0, None

    def do(self, index: int, name: str, job: Any) -> tuple[Facts, int, Any]:
        """Return what the node is, how often the job was lost before, and its result."""
        restarts = self._ray.get(self._attempts.begin.remote(index))
        if restarts == ATTEMPTS:
            raise SimulationError(f"{name}: lost with its worker or its whole node {ATTEMPTS} times")
        try:
            if self._work is None:
                self._watch(START_LIMIT * self._time_limit)
                self._work = self._stack.enter_context(pickle.loads(self._sent)())
            self._watch(self._time_limit)
            return self._facts, restarts, self._work(job, at_most_every(lambda: self._watch(self._time_limit)))
        except Exception as error:
            raise Failure.of(error).error(f"{name}, on {self._address}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, time_limit: float) -> None:
        """End this process unless it is watched anew, or the job is done, within the time limit [s]."""
        faulthandler.dump_traceback_later(time_limit, exit=True, file=sys.__stderr__ or 2)

    def close(self) -> None:
        """Close the environment."""
        self._stack.close()


def _at_work(calls: Mapping[Any, tuple[Any, Any]]) -> bool:
    return any(task is not None for _, task in calls.values())


def _ray() -> Any:
    """Return Ray, which need not be installed."""
    import ray
    import ray.util.scheduling_strategies

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

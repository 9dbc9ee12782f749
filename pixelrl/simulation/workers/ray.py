"""The same jobs on a Ray cluster, with the same results: a job is a task, which Ray begins anew where it is lost.

A process opens what jobs need at its first one and keeps it for those that follow. One that hangs ends itself.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers.pool import ATTEMPTS, START_LIMIT, Pool, Task, TaskQueue
from pixelrl.simulation.workers.process_pool import Failure, at_most_every, prepare_process
from pixelrl.version import __version__

AUTO = "auto"
"""The address of the cluster that this machine belongs to; where there is none, of one that is started here."""

RETRY_DELAY = 5
"""How long Ray waits before it begins a lost job anew: at once, it would begin it on the node that is dying. [s]"""

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
    os.environ.setdefault("RAY_task_retry_delay_ms", str(1000 * RETRY_DELAY))  # read when Ray is imported
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
    """Processes on the nodes of the Ray cluster that this process has joined; see `connect`.

    Attributes:
        workers: how many jobs are done at once.
        nodes: id of each node that has done a job -> its `address`, and what `describe` told there.
    """

    def __init__(self, workers: int | None, describe: Callable[[], Facts]) -> None:
        """Look at the nodes, or raise a `SimulationError` if they have fewer CPUs."""
        self.describe, self.software = describe, software()
        total = sum(int(node["Resources"].get("CPU", 0)) for node in _ray().nodes() if node["Alive"])
        self.workers = total if workers is None else workers
        if not 1 <= self.workers <= total:
            raise SimulationError(f"--workers {self.workers}: this Ray cluster has {total} CPUs, one for each worker")
        self.nodes: dict[str, dict[str, Any]] = {}

    def members(self, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> "_Calls":
        """Return what has Ray do the jobs."""
        return _Calls(self, queue, sent, time_limit)


class _Calls:
    """The jobs that Ray is doing for a pool at one `run`."""

    def __init__(self, pool: RayPool, queue: TaskQueue[Any, Any], sent: bytes, time_limit: float) -> None:
        self._pool, self._queue, self._time_limit, self._ray = pool, queue, time_limit, _ray()
        self._tasks: dict[Any, Task[Any]] = {}
        environment = {
            "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
            "OMP_NUM_THREADS": "1",  # a core each
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1",  # or Ray hides the GPUs, on which pictures are drawn
        }
        self._remote: Any = self._ray.remote(
            num_cpus=1,
            max_retries=ATTEMPTS - 1,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )(_do)
        self._common = (self._ray.put(sent), pool.describe, pool.software, time_limit)

    def assign(self) -> None:
        while len(self._tasks) < self._pool.workers and (task := self._queue.take()) is not None:
            call = self._remote.options(name=task.name).remote([*self._common], task.name, task.job)
            self._tasks[call] = task

    def busy(self) -> bool:
        return bool(self._tasks)

    def listen(self) -> None:
        limit = None if self._pool.nodes else 2 * START_LIMIT * self._time_limit
        answered, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=limit)
        if not answered:
            message = f"no job was done on the Ray cluster within {limit:g} s"
            raise SimulationError(f"{message}; are its CPUs taken by other jobs?")
        task = self._tasks.pop(answered[0])
        try:
            node, attempt, result = self._ray.get(answered[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["unknown"]
            message = f"{task.name}: lost with its worker or its whole node: {lines[0]}"
            raise SimulationError(f"{message}; it was begun {ATTEMPTS} times") from None
        self._pool.nodes[node["id"]] = {name: value for name, value in node.items() if name != "id"}
        task.restarts = attempt
        self._queue.finish(task, result)

    def close(self) -> None:
        for call in self._tasks:
            with suppress(Exception):  # Ray itself may be gone
                self._ray.cancel(call, force=True)


_opened: dict[str, tuple[ExitStack, Callable[..., Any], Facts]] = {}
"""In a process of Ray's: what it opened for the last `run`, by the id of what was sent."""


def _do(common: list[Any], name: str, job: Any) -> tuple[Facts, int, Any]:
    """Return the node, how often the job was begun before, and its result; Ray calls this in its processes."""
    sent, describe, expected, time_limit = common
    ray = _ray()
    address = ray.util.get_node_ip_address()
    if sent.hex() not in _opened:
        _check_software(expected, address)
        for stack, *_ in _opened.values():
            stack.close()
        _opened.clear()
        with _watched(START_LIMIT * time_limit, f"a worker cannot be started, on {address}"):
            prepare_process(os.getpid())
            stack = ExitStack()
            work = stack.enter_context(pickle.loads(ray.get(sent))())
            node = {"id": ray.get_runtime_context().get_node_id(), "address": address, **describe()}
            _opened[sent.hex()] = stack, work, node
    _, work, facts = _opened[sent.hex()]
    with _watched(time_limit, f"{name}, on {address}") as watch:
        result = work(job, at_most_every(watch))
    return facts, ray._private.worker.global_worker.core_worker.get_current_task_attempt_number(), result


def software() -> dict[str, str]:
    """Return the versions of all that decides results, and a hash of our own code, which changes between versions."""
    found = {"Python": platform.python_version(), "pixelrl": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "(missing)"
    root = Path(__file__).resolve().parents[2]
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found | {"pixelrl's code": code.hexdigest()[:16]}


def _check_software(expected: dict[str, str], address: str) -> None:
    """Raise unless this node has the versions of the machine that asks."""
    for name, found in software().items():
        if found != expected[name]:
            theirs = f"{name} {found} on {address}"
            ours = f"{expected[name]} here"
            raise SimulationError(f"{theirs}, but {ours}: have the same on every node of the Ray cluster")


@contextmanager
def _watched(time_limit: float, where: str) -> Iterator[Callable[[], None]]:
    """End this process if the block, or what follows a call of what is yielded, takes longer than the limit [s].

    Any exception becomes a `SimulationError`, which surely travels, and names the job and the node.
    """

    def watch() -> None:
        faulthandler.dump_traceback_later(time_limit, exit=True, file=sys.__stderr__ or 2)

    watch()
    try:
        yield watch
    except Exception as error:
        raise Failure.of(error).error(where) from None
    finally:
        faulthandler.cancel_dump_traceback_later()


def _ray() -> Any:
    """Return Ray, which need not be installed."""
    import ray

    return ray


def _check_listening(address: str) -> None:
    """Raise unless there is something that listens: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT, as `ray start --head` tells it")
    socket.create_connection((host, int(port)), timeout=5).close()

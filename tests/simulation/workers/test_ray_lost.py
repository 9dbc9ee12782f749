"""What a pool on a Ray cluster does about calls that Ray never answers; Ray itself is stood in for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.workers import ray
from pixelrl.simulation.workers.pool import Heartbeat
from pixelrl.simulation.workers.process import software


class Answer:
    """What a call gives: a value, or nothing ever."""

    def __init__(self, value: Any = None, *, comes: bool = True) -> None:
        self.value, self.comes = value, comes


class StandIn:
    """A cluster of two nodes with a CPU each; the first actor is on `doomed`, all others are on `safe`.

    Attributes:
        placed, opens: whether actors get a CPU, and answer `open`.
    """

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=ValueError)

    def __init__(self, *, placed: bool = True, opens: bool = True) -> None:
        self.alive, self.placed, self.opens = {"doomed", "safe"}, placed, opens
        self.actors: list[str] = []
        self.killed: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": name in self.alive, "Resources": {"CPU": 1.0}} for name in ("doomed", "safe")]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.spawn))

    def spawn(self, *_: Any) -> Any:
        node = "doomed" if not self.actors else "safe"
        self.actors.append(node)
        facts = {"id": node, "software": software(), "node": {"address": node}}

        def do(name: str, job: int) -> Answer:
            self.alive -= {node} & {"doomed"}
            return Answer(job**2, comes=node == "safe")

        calls = {"node": lambda: Answer(node, comes=self.placed), "open": lambda: Answer(facts, comes=self.opens)}
        methods = {name: SimpleNamespace(remote=call) for name, call in {**calls, "do": do, "close": Answer}.items()}
        return SimpleNamespace(name=node, **methods)

    def wait(self, calls: list[Answer], **_: Any) -> tuple[list[Answer], list[Answer]]:
        answered = [call for call in calls if call.comes][:1]
        return answered, [call for call in calls if call not in answered]

    def get(self, call: Answer) -> Any:
        return call.value

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.name)


@contextmanager
def nothing() -> Iterator[Callable[[int, Heartbeat], int]]:
    """Be opened in no worker: there is none."""
    yield lambda job, heartbeat: job


def run(cluster: StandIn, patch: pytest.MonkeyPatch, **options: Any) -> list[tuple[int, int]]:
    """Square numbers; return the results in their order, and how often each was begun anew."""
    patch.setattr(ray, "_ray", lambda: cluster)
    patch.setattr(ray, "LOOK_EVERY", 0.0)
    pool = ray.RayPool(2, dict)
    jobs = ((f"number {number}", number) for number in (1, 2, 3))
    return [(done.result, done.restarts) for done in pool.run(nothing, jobs, ordered=True, **options)]


def test_job_on_a_lost_node_is_done_elsewhere_though_its_call_never_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = StandIn()
    assert run(cluster, monkeypatch) == [(1, 1), (4, 0), (9, 0)]
    assert cluster.killed[0] == "doomed" and len(cluster.killed) == len(cluster.actors) == 3


def test_actors_that_never_open_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulationError, match=r"3 workers in a row .* the last one: .*it did not open within 0\.01 s"):
        run(StandIn(opens=False), monkeypatch, time_limit=0.001)


def test_cluster_without_a_free_cpu_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulationError, match=r"no worker of the Ray cluster started within 0\.01 s; are its CPUs"):
        run(StandIn(placed=False, opens=False), monkeypatch, time_limit=0.001)

"""Ray actors that share out jobs: those that are lost are replaced, and their unfinished jobs done again."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pixelrl.runtime.errors import SimulationError
from pixelrl.simulation.evaluation.rollout import ATTEMPTS

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Seat:
    """A place for an actor.

    Attributes:
        node: the node's id in the cluster; the actor goes elsewhere if that is gone.
        number: of the seat, among those of its node.
        room: how many jobs the actor does at once, with a CPU each.
    """

    node: str
    number: int
    room: int


@dataclass
class _Task:
    """A job on its way: its number, its name, and how often it was lost with an actor."""

    index: int
    name: str
    job: Any
    losses: int = 0


@dataclass
class _Member:
    """An actor, what it was asked for (reference -> task; None: what it is), and how many on its seat did not start."""

    actor: Any
    seat: Seat
    calls: dict[Any, _Task | None]
    ready: bool = False
    failures: int = 0


@dataclass(kw_only=True)
class Fleet:
    """Actors with jobs in hand. Leaving the context ends them all.

    Attributes:
        ray: the module, connected to a cluster.
        hire: returns an actor for a seat, with methods `hello() -> Facts` and `do(name, job) -> result`, which raise
            a `SimulationError` with the name in it.
        welcome: looks at what an actor says of itself before it is given work; it may raise.
        patience: how long to wait for an actor to start while none is at work. [s]
        parting: how long actors have to `close()` before they are killed; 0: they have nothing to close. [s]
    """

    ray: Any
    hire: Callable[[Seat], Any]
    welcome: Callable[[Facts], None]
    patience: float
    parting: float = 0.0
    _members: list[_Member] = field(default_factory=list)
    _again: deque[_Task] = field(default_factory=deque)

    def __enter__(self) -> Self:
        """Return the fleet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all actors, whatever they are doing."""
        try:
            leaving = [member for member in self._members if member.ready and self.parting]
            if closing := [member.actor.close.remote() for member in leaving]:
                self.ray.wait(closing, num_returns=len(closing), timeout=self.parting)
        finally:
            for member in self._members:
                with suppress(Exception):  # it may be gone already
                    self.ray.kill(member.actor)

    def run(
        self, seats: Iterable[Seat], jobs: Iterable[tuple[str, Any]], *, window: int
    ) -> Generator[tuple[int, Any, int], None, None]:
        """Yield the number of each job, its result, and how often it was lost, as they are done.

        Args:
            seats: for the actors.
            jobs: name, for error messages, and job; they are taken when somebody is free.
            window: no job is begun so many or more behind one that is not done.

        Raises:
            SimulationError: an actor raised one; a job was lost `ATTEMPTS` times; or no actor could start.
        """
        self._members = [self._seated(seat) for seat in seats]
        coming = (_Task(index, name, job) for index, (name, job) in enumerate(jobs))
        following = next(coming, None)
        while True:
            for member in self._free():
                begun = [task.index for each in self._members for task in each.calls.values() if task]
                if self._again:
                    self._give(member, self._again.popleft())
                elif following is not None and following.index - min(begun, default=following.index) < window:
                    self._give(member, following)
                    following = next(coming, None)
            if not self._again and following is None and not any(map(_at_work, self._members)):
                return
            yield from self._hear()

    def _seated(self, seat: Seat, failures: int = 0) -> _Member:
        """Hire an actor, and ask what it is."""
        actor = self.hire(seat)
        return _Member(actor, seat, {actor.hello.remote(): None}, failures=failures)

    def _free(self) -> Iterator[_Member]:
        """Yield each actor that is ready once for each job that it has room for; those with most room first."""
        for taken in range(max((member.seat.room for member in self._members), default=0)):
            yield from [each for each in self._members if each.ready and len(each.calls) == taken < each.seat.room]

    def _give(self, member: _Member, task: _Task) -> None:
        member.calls[member.actor.do.remote(task.name, task.job)] = task

    def _hear(self) -> Iterator[tuple[int, Any, int]]:
        """Wait until something is done, started or lost; yield what is done."""
        calls = {reference: member for member in self._members for reference in member.calls}
        patience = None if any(map(_at_work, self._members)) else self.patience
        done, _ = self.ray.wait(list(calls), num_returns=1, timeout=patience)
        if not done:
            raise SimulationError(
                f"no worker of the Ray cluster started within {self.patience:g} s; are its CPUs taken by other jobs?"
            )
        member = calls[done[0]]
        try:
            result = self.ray.get(done[0])
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            self._replace(member, error)
            return
        task = member.calls.pop(done[0])
        if task is None:
            self.welcome(result)
            member.ready = True
        else:
            yield task.index, result, task.losses

    def _replace(self, member: _Member, error: Exception) -> None:
        """Hire another actor for a lost one, and have its jobs done again, before all others."""
        with suppress(Exception):
            self.ray.kill(member.actor)  # it may live on, out of reach
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown")
        failures = 0 if member.ready else member.failures + 1
        if failures == ATTEMPTS:
            raise SimulationError(f"a worker of the Ray cluster cannot start, tried {ATTEMPTS} times: {reason}")
        for task in filter(None, member.calls.values()):
            task.losses += 1
            if task.losses == ATTEMPTS:
                raise SimulationError(f"{task.name}: lost with its worker or its whole node {ATTEMPTS} times: {reason}")
            self._again.append(task)
        self._members[self._members.index(member)] = self._seated(member.seat, failures)


def _at_work(member: _Member) -> bool:
    return any(task is not None for task in member.calls.values())

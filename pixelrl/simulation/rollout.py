"""Try a policy: whole episodes, in parallel worker processes, from a fixed set of starts."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelrl.errors import SimulationError
from pixelrl.history import History
from pixelrl.interfaces import Policy, Sensors
from pixelrl.seeding import derive
from pixelrl.simulation.crew import Answer, AnyEnv, Begin, Crew, Order, failure
from pixelrl.simulation.state import State

ROWS = 16
"""How many rows a policy sees in a call, whatever the number of workers.

Matrix products round differently for different batch sizes, and a contact-rich episode amplifies the last bit: with
a fixed size, one worker and fifty give the same outcomes.
"""

ATTEMPTS = 3
"""How often an episode is begun: one that loses so many workers is itself to blame."""

TIME_LIMIT = 60.0
"""How long a step or a reset may take before its worker counts as hung. [s]"""

Judge = Callable[[Sensors], NDArray[np.float32]]
"""What E critics think of the `ROWS` rows that a policy sees, float32 `[ROWS, E]`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An episode to be played.

    Attributes:
        index: its number in the evaluation, from 0.
        seed: what its environment is reset with.
        start: the state that it begins in, if not in one that the seed decides.
        film: height and width of the pictures that are kept of it for people [px]; 0: none.
    """

    index: int
    seed: int
    start: State | None = None
    film: int = 0

    @property
    def order(self) -> Begin:
        """Return what a worker is told."""
        options = None if self.start is None else {"state": self.start}
        return Begin(seed=self.seed, options=options, film=self.film)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one episode went.

    Attributes:
        index: its number in the evaluation, from 0.
        seed: what its environment was reset with: `derive(evaluation's seed, "evaluate", index)`.
        success: `info["success"]` of its last step.
        return_: the undiscounted sum of its rewards.
        length: its steps.
        frames: uint8 `[length + 1, S, S, 3]`, from the start to the end, if it was filmed.
        values: float32 `[length, E]`, what E critics thought before each step, if any were asked.
        restarts: how often its worker was lost, and it was begun anew; that changes nothing else.
    """

    index: int
    seed: int
    success: bool
    return_: float
    length: int
    frames: NDArray[np.uint8] | None = None
    values: NDArray[np.float32] | None = None
    restarts: int = field(default=0, compare=False)


class Engine(Protocol):
    """Whatever plays episodes: processes on this machine (`play`), or a cluster."""

    def __call__(
        self, policy: Policy, make: Callable[[], AnyEnv], jobs: Sequence[Job], *, history: int, judge: Judge | None
    ) -> Generator[Outcome, None, None]:
        """Yield the outcome of each job when it ends, in any order; each is a function of the arguments alone."""
        ...


def rollout(
    policy: Policy,
    make: Callable[[], AnyEnv],
    *,
    episodes: int,
    seed: int,
    workers: int,
    history: int = 1,
    films: int = 0,
    film_size: int = 256,
    only: Sequence[int] | None = None,
    judge: Judge | None = None,
    starts: Sequence[State] = (),
    time_limit: float = TIME_LIMIT,
    engine: Engine | None = None,
) -> Generator[Outcome, None, None]:
    """Play `episodes` episodes and yield each one's outcome when it ends, so not in the order of their indices.

    Episode i starts from the same seed whichever worker plays it, and every episode that starts is finished and
    yielded: the set of outcomes depends neither on the number of workers nor on which episodes are short.
    The policy must be a function of what it is given: its rows change owners, and their histories are kept here.

    Args:
        policy: acts for `ROWS` rows at once, in this process; some rows may be idle.
        make: makes an environment in a worker.
        episodes: how many to play.
        seed: the evaluation's seed.
        workers: how many processes play them.
        history: how many pictures of each camera the policy sees, the last ones of the episode, along the channels.
        films: the first so many episodes are filmed, by the environment's `picture(film_size)`.
        film_size: height and width of the films [px].
        only: play these of the episodes again, and no others.
        judge: critics who look on; the actions do not depend on them.
        starts: states to begin in, one an episode, of a `RobosuiteEnv`; their seeds are then the episodes'.
        time_limit: how long a step or a reset may take before its worker is replaced [s].
        engine: plays the episodes instead of processes on this machine; `workers` and `time_limit` are then its own.

    Raises:
        SimulationError: an environment failed, an episode lost its worker time and again, or an action is not finite
            or of the wrong shape.
    """
    if episodes < 1 or workers < 1:
        raise SimulationError(f"episodes and workers must be at least 1; got {episodes} and {workers}")
    if not time_limit > 0:
        raise SimulationError(f"the time limit of a step is {time_limit:g} s; it must be above 0")
    if starts and episodes > len(starts):
        raise SimulationError(f"{episodes} episodes are to begin from {len(starts)} starts; ask for at most so many")
    jobs = []
    for index in range(episodes) if only is None else only:
        start = starts[index] if starts else None
        begun_with = start.seed if start else derive(seed, "evaluate", index)
        jobs.append(Job(index=index, seed=begun_with, start=start, film=film_size if index < films else 0))
    engine = engine or partial(play, workers=workers, time_limit=time_limit)
    yield from engine(policy, make, jobs, history=history, judge=judge)


def play(
    policy: Policy,
    make: Callable[[], AnyEnv],
    jobs: Sequence[Job],
    *,
    history: int,
    judge: Judge | None = None,
    workers: int,
    time_limit: float = TIME_LIMIT,
) -> Generator[Outcome, None, None]:
    """Play episodes in processes on this machine: the local `Engine`.

    A worker that dies or hangs is replaced. Its episode is begun anew, by whoever is free, from the same start.
    """
    with Crew(make, min(workers, len(jobs)), time_limit) as crew:
        yield from play_on(crew, policy, deque(jobs), history=history, judge=judge)


def play_on(
    crew: Crew, policy: Policy, waiting: deque[Job], *, history: int, judge: Judge | None
) -> Generator[Outcome, None, None]:
    """Play episodes with a crew until none are waiting; others may be added meanwhile, by another thread too."""
    losses: Counter[int] = Counter()
    playing: dict[int, _Take] = {}  # worker -> its episode
    past = History(history)
    while waiting or playing:
        free = [worker for worker in crew.ready(or_wait=not playing) if worker not in playing]
        fresh = {worker: _Take(job=waiting.popleft()) for worker in free if waiting}
        playing |= fresh
        _tell(crew, {worker: take.job.order for worker, take in fresh.items()}, playing, waiting, losses)
        if not playing:
            continue
        seen = past(crew.sensors, np.array([worker in fresh for worker in range(crew.seats)]))
        actions = _act(policy, seen, playing, (crew.seats, *crew.action_shape))
        if judge is not None:
            values = np.concatenate([judge(rows)[:count] for _, count, rows in _batches(seen, crew.seats)])
            for worker, take in playing.items():
                take.values.append(values[worker])
        _tell(crew, {worker: actions[worker] for worker in playing}, playing, waiting, losses)
        for worker in [worker for worker, take in playing.items() if take.over]:
            take = playing.pop(worker)
            yield take.outcome(losses[take.job.index])


@dataclass(kw_only=True)
class _Take:
    """An episode that is being played."""

    job: Job
    return_: float = 0.0
    length: int = -1  # the first answer is that of the start
    over: bool = False
    success: bool = False
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    values: list[NDArray[np.float32]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"episode {self.job.index} (seed {self.job.seed}), after {max(0, self.length)} steps"

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.return_ += answer.reward
        self.length += 1
        self.over, self.success = answer.terminated or answer.truncated, answer.success
        if answer.picture is not None:
            self.frames.append(answer.picture)

    def outcome(self, restarts: int) -> Outcome:
        """Close the books."""
        return Outcome(
            index=self.job.index,
            seed=self.job.seed,
            success=self.success,
            return_=self.return_,
            length=self.length,
            frames=np.stack(self.frames) if self.frames else None,
            values=np.stack(self.values) if self.values else None,
            restarts=restarts,
        )


def _tell(
    crew: Crew, orders: Mapping[int, Order], playing: dict[int, _Take], waiting: deque[Job], losses: Counter[int]
) -> None:
    """Have workers do something, and book their answers; the episode of one that is lost waits to be begun anew."""
    for worker, answer in crew.do(orders).items():
        take = playing[worker]
        if isinstance(answer, Answer) and answer.error:
            raise failure(str(take), answer)
        if isinstance(answer, Answer):
            take.add(answer)
            continue
        losses[take.job.index] += 1
        if losses[take.job.index] == ATTEMPTS:
            raise SimulationError(f"{take}: {answer.reason}; the episode was begun {ATTEMPTS} times")
        waiting.appendleft(playing.pop(worker).job)


def _act(policy: Policy, sensors: Sensors, playing: Mapping[int, _Take], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Ask for the action of every worker, `shape` = `[workers, A]`, in batches of `ROWS` padded with zeros."""
    workers = shape[0]
    actions = np.zeros(shape, np.float32)
    for start, count, rows in _batches(sensors, workers):
        answer = np.asarray(policy(rows))
        if answer.shape != (ROWS, *shape[1:]):
            raise SimulationError(f"the policy's actions have shape {answer.shape}, not {(ROWS, *shape[1:])}")
        actions[start : start + count] = answer[:count]
    for worker, take in playing.items():
        if not np.isfinite(actions[worker]).all():
            raise SimulationError(f"{take}: the policy's action is not finite: {actions[worker].tolist()}")
    return actions


def _batches(sensors: Sensors, workers: int) -> Iterator[tuple[int, int, Sensors]]:
    """Yield the workers' readings in batches of `ROWS`, padded with zeros: the first worker, how many, the rows."""
    for start in range(0, workers, ROWS):
        count = min(ROWS, workers - start)
        rows = {key: np.zeros((ROWS, *value.shape[1:]), value.dtype) for key, value in sensors.items()}
        for key, value in sensors.items():
            rows[key][:count] = value[start : start + count]
        yield start, count, rows

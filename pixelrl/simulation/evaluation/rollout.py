"""Try a policy: whole episodes, in parallel worker processes, from a fixed set of starts."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import SimulationError
from pixelrl.runtime.frame_stack import History
from pixelrl.runtime.interfaces import Policy, Sensors
from pixelrl.runtime.seeding import derive
from pixelrl.simulation.envs.state import State
from pixelrl.simulation.evaluation.crew import Answer, AnyEnv, Begin, Crew, failure

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
    pasts = [History(history) for _ in range(crew.seats)]
    while waiting or playing:
        free = [worker for worker in crew.ready(or_wait=not playing) if worker not in playing]
        fresh = {worker: _Take(job=waiting.popleft()) for worker in free if waiting}
        playing |= fresh
        crew.tell({worker: take.job.order for worker, take in fresh.items()})
        heard = _hear(crew, playing, waiting, losses)  # whoever is done goes on, and waits for nobody's reset
        going = {worker: playing[worker] for worker in heard if not playing[worker].over}
        seen = {worker: _look(crew.sensors, worker, pasts[worker], take) for worker, take in going.items()}
        for rows, workers in _batches(seen):
            crew.tell(_act(policy, rows, {worker: going[worker] for worker in workers}, crew.action_shape))
            if judge is not None:
                for worker, values in zip(workers, judge(rows), strict=False):
                    going[worker].values.append(values)
        for worker in heard:
            if worker not in going:
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


def _hear(crew: Crew, playing: dict[int, _Take], waiting: deque[Job], losses: Counter[int]) -> list[int]:
    """Wait for answers, book them, and return whose they are; the episode of a lost worker waits to be begun anew."""
    heard = []
    for worker, answer in crew.hear().items():
        take = playing[worker]
        if isinstance(answer, Answer) and answer.error:
            raise failure(str(take), answer)
        if isinstance(answer, Answer):
            take.add(answer)
            heard.append(worker)
            continue
        losses[take.job.index] += 1
        if losses[take.job.index] == ATTEMPTS:
            raise SimulationError(f"{take}: {answer.reason}; the episode was begun {ATTEMPTS} times")
        waiting.appendleft(playing.pop(worker).job)
    return heard


def _look(sensors: Sensors, worker: int, past: History, take: _Take) -> Sensors:
    """Return what a worker senses, `[1, ...]`, with the pictures that came before."""
    if take.length == 0:
        past.reset()
    return past({key: value[worker : worker + 1] for key, value in sensors.items()})


def _batches(seen: Mapping[int, Sensors]) -> Iterator[tuple[Sensors, list[int]]]:
    """Yield readings in batches of `ROWS`, padded with zeros, and whose they are."""
    for start in range(0, len(seen), ROWS):
        workers = list(seen)[start : start + ROWS]
        rows = {key: np.zeros((ROWS, *one.shape[1:]), one.dtype) for key, one in seen[workers[0]].items()}
        for row, worker in enumerate(workers):
            for key, value in seen[worker].items():
                rows[key][row] = value[0]
        yield rows, workers


def _act(
    policy: Policy, rows: Sensors, takes: Mapping[int, _Take], shape: tuple[int, ...]
) -> dict[int, NDArray[np.float32]]:
    """Ask for the actions, of this shape each, of the workers whose readings lie in the first rows."""
    answer = np.asarray(policy(rows))
    if answer.shape != (ROWS, *shape):
        raise SimulationError(f"the policy's actions have shape {answer.shape}, not {(ROWS, *shape)}")
    for action, take in zip(answer, takes.values(), strict=False):
        if not np.isfinite(action).all():
            raise SimulationError(f"{take}: the policy's action is not finite: {action.tolist()}")
    return dict(zip(takes, answer, strict=False))

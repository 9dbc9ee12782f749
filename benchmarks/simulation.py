"""`pixelrl bench simulation`: control steps a second, beside stock robosuite's, alone and by several workers."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.ledger import case_record
from benchmarks.race import Clock, Contender, Result, Work, load, race
from benchmarks.workers import together
from pixelrl.runtime.env_args import TASK_NAMES
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.video import Row, contact_sheet
from pixelrl.simulation.envs.robosuite_env import default_env_args, make_robosuite_env
from pixelrl.simulation.envs.robosuite_import import robosuite

STOCK, FAST, SLOW = "robosuite", "pixelrl fast", "pixelrl stock"

LOOKS = 4
"""In how many states of an episode the two drawings are compared."""

SHOWN = 128
"""Size of the pictures that people are shown. [px]"""

WATCHED = 7
"""Of so many steps one is timed by parts, not the first, which compiles; no divisor of an episode's length."""

PARTS = ("physics", "controller", "drawing")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is simulated; both sides share control rate, size and camera.

    Attributes:
        task: one of ours, or a robosuite name.
        size: height and width of the pictures [px].
        steps: after so many, an episode begins anew.
    """

    task: str
    size: int
    steps: int

    def env_args(self, drawing: str) -> dict[str, Any]:
        """Return the description of pixelrl's environment: one camera."""
        view = {"camera_names": ["agentview"], "horizon": self.steps}
        return default_env_args(self.task, size=self.size, drawing=drawing, **view)


@dataclass(kw_only=True)
class Parts:
    """A stopwatch for the parts of a step, which it takes of some of the steps only, as looking at it costs too.

    Attributes:
        seconds: of the processor, by part.
        running: whether it is.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PARTS, "step"), 0.0))
    running: bool = False

    def watch(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is taken; what it calls of other parts would be counted twice."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if not self.running:
                return function(*args, **kwargs)
            start = time.process_time()
            result = function(*args, **kwargs)
            self.seconds[part] += time.process_time() - start
            return result

        return watched


def work(scene: Scene | None, drawing: str | None) -> Work:
    """Step an environment with random actions, from the same start again and again.

    Args:
        scene: what; None only loads the libraries.
        drawing: of pixelrl's environment; None: robosuite's, with its own observations of the same camera.
    """
    robosuite()
    if scene is None:
        return Work(unit=lambda: None)
    begin = time.perf_counter()
    if drawing is None:
        env = raw = _robosuites(scene)
        reset: Callable[[], object] = env.reset
    else:
        env = make_robosuite_env(scene.env_args(drawing))
        raw, reset = env.robosuite, partial(env.reset, seed=0)
    made = time.perf_counter()
    reset()
    facts: dict[str, Any] = {"make_seconds": made - begin, "reset_seconds": time.perf_counter() - made}
    facts["action_dim"] = raw.action_dim
    actions = np.random.default_rng(0).uniform(-1, 1, (scene.steps, raw.action_dim))
    start = raw.sim.get_state().flatten()
    if drawing is not None:
        facts["pictures"] = _pictures(env, actions)
    parts = Parts()
    for name, part in {"step1": "physics", "step2": "physics", "forward": "physics", "render": "drawing"}.items():
        setattr(raw.sim, name, parts.watch(part, getattr(raw.sim, name)))
    raw._pre_action = parts.watch("controller", raw._pre_action)
    step, turn = parts.watch("step", env.step), count()

    def unit() -> None:
        index = next(turn)
        if index % scene.steps == 0:
            raw.sim.set_state_from_flattened(start)
        parts.running = index % WATCHED == 2
        step(actions[index % scene.steps])

    return Work(unit=unit, facts=facts | {"parts": parts.seconds})


def _robosuites(scene: Scene) -> Any:
    """Return robosuite's own environment, made as its users make it."""
    args = scene.env_args("stock")
    options = args["env_kwargs"] | {"has_renderer": False, "renderer": "mujoco", "ignore_done": True, "seed": 0}
    return robosuite().make(args["env_name"], **options)


def _pictures(env: Any, actions: NDArray[np.float64]) -> dict[int, NDArray[np.uint8]]:
    """Return size -> pictures `[LOOKS, S, S, 3]` along the beginning of an episode."""
    sizes = {next(iter(env.cameras.values()))[0], SHOWN}
    seen: dict[int, list[NDArray[np.uint8]]] = {size: [] for size in sizes}
    for action in actions[:LOOKS]:
        env.step(action)
        for size in sizes:
            seen[size].append(env.picture(size))
    env.reset(seed=0)
    return {size: np.stack(pictures) for size, pictures in seen.items()}


def chosen_tasks(names: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks of these names, or ours and Lift.

    Raises:
        SimulationError: there is no such task.
    """
    for name in names:
        default_env_args(name)
    return tuple(names) or (*TASK_NAMES, "Lift")


def bench_simulation(
    scenes: Sequence[Scene],
    *,
    clock: Clock,
    rounds: int,
    turn_seconds: float,
    workers: int,
    picture: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Measure every scene, print, and draw the two drawings side by side if asked for; return JSON, a case a scene.

    Raises:
        PixelrlError: fewer than two workers.
    """
    if workers < 2:
        raise PixelrlError(f"--workers is {workers}; it must be at least 2, which one is compared with")
    records, rows = {}, []
    for scene in scenes:
        with console.status(scene.task) as status:

            def progress(text: str, show: Any = status, task: str = scene.task) -> None:
                show.update(f"{task}: {text}")

            contenders = {
                name: Contender(make=work, arguments=(scene, drawing), rehearsal=(None, None))
                for name, drawing in {STOCK: None, SLOW: "stock", FAST: "fast"}.items()
            }
            results = race(contenders, rounds=rounds, turn_seconds=turn_seconds, progress=progress)
            crews = together(
                scene.env_args("fast"),
                results[FAST].facts["action_dim"],
                workers=(1, workers),
                turns=rounds,
                progress=progress,
            )
        record = _record(scene, results, crews, clock)
        print_scene(scene, record, console)
        records[scene.task] = record
        stock, fast = (results[name].facts["pictures"][SHOWN][-1] for name in (SLOW, FAST))
        caption = f"{scene.task}: {record['drawings_apart']:.0f} of 255 apart at {scene.size} px, "
        caption += " and ".join(f"{record['contenders'][name]['ms']['drawing']:.2g}" for name in (SLOW, FAST)) + " ms"
        rows.append(Row(caption, [stock, fast, _difference(stock, fast)], None))
    if picture is not None:
        contact_sheet(picture, rows, title="0: stock   1: fast   2: how far they are apart", height=SHOWN)
        console.print(f"{picture}: the two drawings side by side")
    return records


def _record(
    scene: Scene, results: Mapping[str, Result], crews: Mapping[int, Mapping[str, float]], clock: Clock
) -> dict[str, Any]:
    """Return the JSON of a scene: what each contender took, its parts in `ms` of the processor, and ratios of costs."""
    record = case_record(results, {"fast / robosuite": (FAST, STOCK), "fast / stock": (FAST, SLOW)}, clock)
    for name, row in record["contenders"].items():
        parts, _ = row.pop("parts"), row.pop("pictures", None)
        milliseconds = 1000 * results[name].cpu
        row["ms"] = {part: milliseconds * parts[part] / parts["step"] for part in PARTS}
        row["ms"] |= {"rest": milliseconds - sum(row["ms"].values())}
    few, many = crews
    record["contenders"] |= {f"rollouts by {count}": dict(row) for count, row in crews.items()}
    record["ratios"][f"{many} workers / {few} (wall)"] = crews[many]["wall_seconds"] / crews[few]["wall_seconds"]
    record["transport_and_resets_ms"] = 1000 * (crews[few][f"{clock}_seconds"] - results[FAST].seconds(clock))
    stock, fast = (results[name].facts["pictures"][scene.size] for name in (SLOW, FAST))
    record["drawings_apart"] = float(_difference(stock, fast).mean())
    return record | {"load_per_core": load(), "case": asdict(scene)}


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return how far each value is from the other's."""
    apart: NDArray[np.uint8] = np.abs(one.astype(np.int16) - other).astype(np.uint8)
    return apart


def print_scene(scene: Scene, record: Mapping[str, Any], console: Console) -> None:
    """Print a table of who took what, then the ratios."""
    table = Table(title=f"{scene.task}, {scene.size} px: one control step", title_justify="left")
    for label in ("", "steps/s", "a CPU s", "CPU ms", *PARTS, "rest"):
        table.add_column(label, justify="left" if not label else "right")
    for name, row in record["contenders"].items():
        parts = [f"{value:.3g}" for value in row.get("ms", {}).values()]
        rates = (f"{row['per_second']:,.0f}", f"{1 / row['cpu_seconds']:,.0f}", f"{1000 * row['cpu_seconds']:.3g}")
        table.add_row(name, *rates, *parts)
    console.print(table)
    for label, value in record["ratios"].items():
        console.print(f"  {label}: {value:.3g} (1 / {1 / value:.3g})")
    beside, apart = record["transport_and_resets_ms"], record["drawings_apart"]
    console.print(f"  transport and resets: {beside:.3g} ms; drawings {apart:.3g} of 255 apart")

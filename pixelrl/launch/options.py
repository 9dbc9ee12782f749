"""What the options of several commands have in common: workers, KEY=VALUE words, and refusals in one line."""

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from pixelrl.launch.provenance import cores, machine, processor
from pixelrl.runtime.errors import PixelrlError

if TYPE_CHECKING:
    from pixelrl.simulation.workers.pool import Pool

Drawing = Literal["stock", "fast"]


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options of a command that simulates."""

    workers: int | None = None
    """simulator processes; default: one a core. One that dies or hangs is replaced, its episode begun anew"""
    engine: Literal["local", "ray"] = "local"
    """ray: on a Ray cluster, by default on all of its CPUs; takes pip install 'pixelrl[ray]' on every node"""
    ray_address: str = "auto"
    """HOST:PORT of that cluster; auto: the one that this machine belongs to, else one of this machine"""

    @property
    def usual_workers(self) -> int:
        """Return how many workers there are on this machine where nobody says it."""
        return cores()

    @contextmanager
    def pool(self, console: Console) -> Iterator["Pool"]:
        """Yield what does the work: processes on this machine, or a Ray cluster.

        Raises:
            PixelrlError: no workers; or Ray is missing, there is no such cluster, or it has fewer CPUs than workers.
        """
        count = worker_count(self.usual_workers if self.workers is None else self.workers)
        if self.engine == "local":
            from pixelrl.simulation.workers.process_pool import WorkerPool

            yield WorkerPool(count)
            return
        from pixelrl.simulation.workers.ray import connect

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
        with connect(self.ray_address, self.workers, machine) as cluster:
            yield cluster
            different = {node["processor"] for node in cluster.nodes.values()} - {processor()}
        if different:
            console.print(
                f"warning: some nodes have another processor ({', '.join(sorted(different))}) than this machine "
                f"({processor()}); they may round differently, so the same seeds need not give the same bits here.",
                style="bold yellow",
            )


def nodes_of(pool: "Pool") -> dict[str, Any]:
    """Return which nodes of a cluster a result comes from, as JSON values; nothing for this machine."""
    nodes = getattr(pool, "nodes", None)
    return {} if nodes is None else {"nodes": list(nodes.values())}


def worker_count(workers: int | None, option: str = "--workers") -> int:
    """Return how many workers an option asks for: as many as cores by default."""
    if workers is not None and workers < 1:
        raise PixelrlError(f"{option} is {workers}; it must be at least 1")
    return cores() if workers is None else workers


def key_values(option: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return KEY=VALUE words as a dictionary; values are read as JSON, or else as text.

    Raises:
        PixelrlError: a word that is none, a key twice, or a number that is not finite.
    """
    result: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise PixelrlError(f"{option}: {word!r} is not KEY=VALUE")
        if key in result:
            raise PixelrlError(f"{option}: {key!r} is given twice; give one value")
        try:
            result[key] = json.loads(value)
        except ValueError:
            result[key] = value
        try:
            json.dumps(result[key], allow_nan=False)
        except ValueError as error:
            raise PixelrlError(f"{option}: {word!r} is no finite number, which a record could not hold") from error
    return result


@contextmanager
def told_in_a_line(where: str) -> Iterator[None]:
    """Turn what tyro says of options that cannot be, a box, into a `PixelrlError` that says `where` they stand."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            yield
    except PixelrlError as error:
        raise PixelrlError(f"{where}: {error}") from error
    except SystemExit as error:
        plain = re.sub("[╭╮╰╯│─]|-{4,}", " ", said.getvalue()).partition("Perhaps you meant")[0]
        raise PixelrlError(f"{where}: {' '.join(plain.split())[:300]}") from error

"""Choose what collects, draws and plays: processes on this machine, or a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from pixelrl.launch.provenance import machine, processor

if TYPE_CHECKING:  # the command line looks in here before it knows what is asked for
    from pixelrl.simulation.workers.ray import RayPool

Engine = Literal["local", "ray"]


@contextmanager
def cluster_for(engine: Engine, address: str, workers: int | None, console: Console) -> Iterator[RayPool | None]:
    """Yield the Ray cluster to work on; None for this machine. Nothing of Ray is imported unless it is asked for.

    Raises:
        PixelrlError: Ray is missing, there is no such cluster, or it has fewer CPUs than workers.
    """
    if engine == "local":
        yield None
        return
    from pixelrl.simulation.workers.ray import connect

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
    with connect(address, workers, machine) as cluster:
        yield cluster
        different = {node["processor"] for node in cluster.nodes.values()} - {processor()}
    if different:
        console.print(
            f"warning: some nodes have another processor ({', '.join(sorted(different))}) than this machine "
            f"({processor()}); they may round differently, so the same seeds need not give the same bits here.",
            style="bold yellow",
        )


def nodes_of(cluster: RayPool | None) -> dict[str, Any]:
    """Return which nodes a result comes from, as JSON values; nothing for this machine."""
    return {} if cluster is None else {"nodes": list(cluster.nodes.values())}

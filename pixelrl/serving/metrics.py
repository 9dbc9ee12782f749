"""What a server counts, in Prometheus' text, and its log: one JSON object a line."""

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Bounds of the histograms' bins [s]."""


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"pixelrl_{name}", says, labels, registry=self.registry)

        def histogram(name: str, says: str) -> Histogram:
            return Histogram(f"pixelrl_{name}_seconds", says, registry=self.registry, buckets=SECONDS)

        self.replies = counter("replies", "Actions that were sent")
        self.refused = counter("refused", "Messages that were answered by an error", "reason")
        self.rejected = counter("rejected", "Connections that were refused", "reason")
        self.dropped = counter("dropped", "Connections that were ended by the server", "reason")
        self.clipped = counter("clipped", "Actions that were beyond the contract's range", "dim")
        self.unrecorded = counter("unrecorded", "Replies that the recording had no time for")
        self.connections = Gauge("pixelrl_connections", "Peers that are connected", registry=self.registry)
        self.infer = histogram("infer", "Computing an action")
        self.queue = histogram("queue", "Waiting for the computation to begin")

    def text(self) -> str:
        """Return all figures."""
        return generate_latest(self.registry).decode()


class Log:
    """Write events as JSON lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def __call__(self, event: str, **fields: Any) -> None:
        """Write one event."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(json.dumps({"time": stamp, "event": event, **fields}), file=self._stream, flush=True)

"""The statistics that a LeRobotDataset carries, of every episode and of the whole; here they are exact.

Pictures count as numbers in [0, 1], each channel apart, over all their pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

Stats = dict[str, dict[str, Any]]
"""Feature -> name of a statistic -> nested lists: `[D]` of a vector, `[C, 1, 1]` of pictures."""


class Statistics:
    """Statistics of episodes as they come; a histogram of 256 bins says all there is to say of bytes."""

    def __init__(self) -> None:
        self._vectors: dict[str, list[NDArray[np.float32]]] = {}
        self._pictures: dict[str, tuple[NDArray[np.int64], int]] = {}

    def add(self, vectors: Mapping[str, NDArray[Any]], pictures: Mapping[str, NDArray[np.uint8]]) -> Stats:
        """Take an episode in, `[N]` or `[N, D]` and `[N, H, W, C]`, and return its own statistics."""
        stats: Stats = {}
        for name, values in vectors.items():
            rows = values.reshape(len(values), -1)
            self._vectors.setdefault(name, []).append(rows.astype(np.float32))
            stats[name] = _of_vectors(rows)
        for name, frames in pictures.items():
            counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(frames, -1, 0)])
            before = self._pictures.get(name, (np.zeros_like(counts), 0))
            self._pictures[name] = before[0] + counts, before[1] + len(frames)
            stats[name] = _of_pictures(counts, len(frames))
        return stats

    def total(self) -> Stats:
        """Return the statistics of all episodes."""
        vectors = {name: _of_vectors(np.concatenate(parts)) for name, parts in self._vectors.items()}
        return vectors | {name: _of_pictures(*held) for name, held in self._pictures.items()}


def _of_vectors(rows: NDArray[Any]) -> dict[str, Any]:
    """Describe `[N, D]`."""
    rows = rows.astype(np.float64)
    named = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    quantiles = dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=0), strict=True))
    return {name: value.tolist() for name, value in (named | quantiles).items()} | {"count": [len(rows)]}


def _of_pictures(counts: NDArray[np.int64], frames: int) -> dict[str, Any]:
    """Describe the pictures that have these counts of bytes, `[C, 256]`."""
    values = np.arange(256) / 255
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    below = np.cumsum(shares, axis=1)
    named = {
        "min": values[(counts > 0).argmax(1)],
        "max": values[255 - (counts[:, ::-1] > 0).argmax(1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(shares @ values**2 - mean**2, 0)),
    }
    named |= {name: values[(below >= share - 1e-12).argmax(1)] for name, share in QUANTILES.items()}
    return {name: value.reshape(-1, 1, 1).tolist() for name, value in named.items()} | {"count": [frames]}

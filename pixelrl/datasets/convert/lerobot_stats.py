"""The statistics of a column that meta/stats.json of a LeRobotDataset holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ColumnStats:
    """What meta/stats.json says of a column: its rows `[N, D]` are added as they come; pictures count in [0, 1]."""

    def __init__(self) -> None:
        self.calls = self.count = 0
        self.low: Any = np.inf
        self.high: Any = -np.inf
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows; those of pictures are their pixels, a call a picture."""
        rows = rows.astype(np.float64)
        self.calls, self.count = self.calls + 1, self.count + len(rows)
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))
        self.sum, self.squares = self.sum + rows.sum(axis=0), self.squares + (rows**2).sum(axis=0)

    def result(self, *, picture: bool) -> dict[str, Any]:
        """Return the statistics as nested lists: `[D]` of a vector, `[C, 1, 1]` of pictures."""
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(0, self.squares / self.count - mean**2))
        named = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shape = (-1, 1, 1) if picture else (-1,)
        count = [self.calls if picture else self.count]
        return {name: value.reshape(shape).tolist() for name, value in named.items()} | {"count": count}

"""What a policy is, and what it sees: numpy only, since simulators and robots import this."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError

Sensors = Mapping[str, NDArray[Any]]
"""Observation key (robomimic's names) -> array: what an environment, a file and a robot speak of.

Pictures are uint8 `[..., H, W, C]`, upright; everything else is float32 `[..., D]`.
"""


class Policy(Protocol):
    """Whatever acts: a training run, an exported artefact, a script.

    `[B]` sensor readings in, float32 `[B, A]` actions in [-1, 1] out.
    """

    def __call__(self, sensors: Sensors) -> NDArray[np.float32]:
        """Return one action for each of the B rows."""
        ...


class History:
    """The last k pictures of each of B rows, one behind the other along the channels, the oldest first.

    Where fewer than k were seen, the first one stands for those that are missing, as it does in training.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._stacks: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, sensors: Sensors, fresh: NDArray[np.bool_] | None = None) -> Sensors:
        """Return B readings with `[B, H, W, k C]` for each picture `[B, H, W, C]`; the rest is as it came.

        Args:
            sensors: what is sensed now, one reading a row.
            fresh: bool `[B]`, the rows for which an episode begins; all of them after a `reset`.

        Raises:
            PixelrlError: another number of rows, or of another size, than before.
        """
        if self.length == 1:
            return sensors
        stacked: dict[str, NDArray[Any]] = dict(sensors)
        for key, now in sensors.items():
            if now.dtype != np.uint8 or now.ndim != 4:
                continue
            stack = np.tile(now, self.length)
            before = self._stacks.get(key)
            if before is not None:
                if before.shape != stack.shape:
                    raise PixelrlError(f"{key} is {list(now.shape)} after {list(before.shape)}: call reset() first")
                goes_on = slice(None) if fresh is None else ~fresh
                stack[goes_on, ..., : -now.shape[-1]] = before[goes_on, ..., now.shape[-1] :]
            self._stacks[key] = stacked[key] = stack
        return stacked

    def reset(self) -> None:
        """Forget all pictures: an episode begins."""
        self._stacks.clear()

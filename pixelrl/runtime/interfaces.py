"""What a policy is, and what it sees: numpy only, since simulators and robots import this."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

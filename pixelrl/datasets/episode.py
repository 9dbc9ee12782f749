"""One recorded episode: what a collector yields, and what a file holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Episode:
    """N steps and the N + 1 instants around them.

    Attributes:
        sensors: observation key -> `[N + 1, ...]`: uint8 pictures `[H, W, C]`, upright; float32 vectors `[D]`.
        actions: float32 `[N, A]` in [-1, 1].
        rewards: float32 `[N]`; 1 for a step that ends in the goal, else 0.
        dones: bool `[N]`; true where the step ends in the goal (a true end); a time-out is not an end.
        states: float64 `[N + 1, D]`, MuJoCo's time, qpos and qvel; None where nobody knows them.
        attributes: robomimic's own notes on a demo, as text: `model_file` (MJCF), `ep_meta`.
        notes: whatever else is worth keeping (the seed, the part, success), as JSON values.
    """

    sensors: Mapping[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    states: NDArray[np.float64] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return N."""
        return len(self.actions)

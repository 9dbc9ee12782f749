"""The doors of the house, as protocols: whatever fits through one may be exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # simulators and robots come through here too, and need no torch
    from torch import Tensor, nn

    from pixelrl.learning.batch import Observation, Spec

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


class Encoder(Protocol):
    """A module that turns an observation into features `[B, D]`; `features` is D."""

    features: int

    def __call__(self, obs: Observation) -> Tensor:
        """Encode."""
        ...


class EncoderConfig(Protocol):
    """A frozen description of an encoder; `encoders/` holds several."""

    def build(self, spec: Spec) -> nn.Module:
        """Return a fresh `Encoder` for observations of these shapes."""
        ...

"""What a policy takes under each observation key, and whether it is what came: numpy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors


@dataclass(frozen=True)
class InputSpec:
    """What a policy takes under one observation key.

    Attributes:
        dtype: `uint8` for pictures, `float32` for everything else.
        shape: of one reading, without the batch: (H, W, C) or (D,).
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join(str(size) for size in self.shape)
        meaning = "bytes from 0 to 255, RGB, upright" if self.dtype == "uint8" else "finite, in the robot's units"
        return f"{self.dtype} [B, {sizes}] ({meaning})"


def check_sensors(
    sensors: Sensors, inputs: Mapping[str, InputSpec], *, single: bool = False
) -> dict[str, NDArray[Any]]:
    """Return the readings that a policy takes, `[B, ...]` each, and no others; `single`: they came without B.

    Raises:
        PixelrlError: a key is missing, or an array has another shape or type, or is not finite.
    """
    rows: int | None = None
    for key, spec in inputs.items():
        if key not in sensors:
            raise PixelrlError(f"the policy needs {key!r}, {spec}; it was given {', '.join(sensors) or 'nothing'}")
    for key, spec in inputs.items():
        value = sensors[key]
        if not isinstance(value, np.ndarray):
            raise PixelrlError(f"{key} is a {type(value).__name__}; the policy takes a NumPy array, {spec}")
        expected = spec.shape if single else (*value.shape[:1], *spec.shape)
        if value.dtype != spec.dtype or value.shape != expected:
            raise PixelrlError(f"{key} is {value.dtype} {list(value.shape)}; the policy takes {spec}")
        if not single and rows is not None and len(value) != rows:
            raise PixelrlError(f"{key} has {len(value)} rows and {next(iter(inputs))} has {rows}; give both the same")
        rows = len(value)
        if spec.dtype != "uint8" and not np.isfinite(value).all():  # bytes always are, and asking takes its time
            raise PixelrlError(f"{key} holds NaN or an infinity; the policy takes {spec}")
    return {key: sensors[key][np.newaxis] if single else sensors[key] for key in inputs}

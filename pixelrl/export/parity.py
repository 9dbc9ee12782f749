"""Prove that an exported policy acts as its checkpoint does, on recorded frames and on random ones.

The checkpoint sees pictures of the size that it was trained on. Where the robot's camera gives another size, they are
resized by the artefact's own weights in torch, once every pixel was found to be torch's antialiased interpolation in
float64, rounded. On the edge between two levels (x.5) both are right; taking the artefact's choice there keeps such a
pixel from being counted as a wrong action.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pixelrl.export.checkpoint_policy import CheckpointPolicy
from pixelrl.export.runtime import ExportedPolicy
from pixelrl.learning.batch import Spec
from pixelrl.runtime.actions import ActionDim, action_limits, to_units
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.interfaces import Sensors
from pixelrl.runtime.seeding import derive

LIMIT = 1e-4
"""The largest difference that passes, in normalised units: of half a dimension's range."""

FLOAT32 = 8 * 2.0**-23
"""How far arithmetic may move an action in the robot's units, as a part of it: 90 degrees may be 90.00001."""

EDGE = 0.01
"""How near to x.5 a resized pixel must be for both neighbouring levels to be right. [levels of 255]"""

CHUNK = 16
"""Frames computed at a time: a robot's pictures are large."""

RANDOM = 32
"""Random frames of each kind."""


def check_parity(
    exported: ExportedPolicy,
    checkpoint: CheckpointPolicy,
    resize: Mapping[str, Callable[[Tensor], Tensor]],
    sizes: Mapping[str, tuple[int, int]],
    frames: Sensors,
) -> dict[str, Any]:
    """Compare actions, and return the largest differences.

    Args:
        exported: what is to be proved.
        checkpoint: what it must act like.
        resize: camera -> the artefact's map from uint8 `[B, C, H0, W0]` to `[B, C, H, W]`.
        sizes: camera -> (H0, W0), what the artefact takes.
        frames: recorded readings `[N, ...]`, N > 0, pictures of the camera's size or any other, with their histories.

    Returns:
        `limit`, and for `data` and `random` each: `frames`, and `normalised` and `robot`, the largest differences.

    Raises:
        PixelrlError: a difference above 1e-4 of half a dimension's range, or not a number; or pictures are not resized
            as they should be.
    """
    figures: dict[str, Any] = {"limit": LIMIT}
    recorded = {key: frames[key] for key in checkpoint.inputs}
    for source, readings in {"data": recorded, "random": random_frames(checkpoint.spec, sizes)}.items():
        count = len(next(iter(readings.values())))
        errors = []
        for part in parts(readings):
            sensed = part | {key: at_size(part[key], size) for key, size in sizes.items()}
            seen = sensed | {key: at_trained_size(key, sensed[key], shrink) for key, shrink in resize.items()}
            errors.append(differences(exported, checkpoint, sensed, seen))
        normalised, robot = np.concatenate(errors, axis=1)
        largest = np.maximum(normalised, robot / half_ranges(checkpoint.spec.action))
        figures[source] = {"frames": count, "normalised": float(normalised.max()), "robot": float(robot.max())}
        _check(largest, source, checkpoint.spec)
    return figures


def parts(frames: Sensors) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield frames a few at a time."""
    for start in range(0, min(map(len, frames.values())), CHUNK):
        yield {key: np.ascontiguousarray(value[start : start + CHUNK]) for key, value in frames.items()}


def differences(
    exported: ExportedPolicy, checkpoint: CheckpointPolicy, sensed: Sensors, seen: Sensors
) -> NDArray[np.float64]:
    """Return |exported - checkpoint|, `[2, B, A]`, of chunks `[2, B h, A]`: in normalised units and in the robot's.

    `sensed` is what the robot gives, `seen` the same in the size of the data. A history is given to the exported
    policy frame by frame, as a robot gives it.
    """
    expected = checkpoint(seen).astype(np.float64)
    expected_robot = to_units(expected, *action_limits(checkpoint.spec.action))
    exported.reset()
    history = checkpoint.spec.history
    for back in range(history):
        frames = {key: np.split(sensed[key], history, axis=-1)[back] for key in checkpoint.spec.images}
        action = exported.act({**sensed, **frames})
    error: NDArray[np.float64] = np.stack([exported(sensed) - expected, action - expected_robot])
    return np.abs(error).reshape(2, -1, error.shape[-1])


def half_ranges(dims: Sequence[ActionDim]) -> NDArray[np.float64]:
    """Return what 1 means in each dimension, in the robot's units `[A]`, and so much more that roundings pass."""
    low, high = action_limits(dims)
    roundings = FLOAT32 * np.maximum(np.abs(low), np.abs(high))
    return np.maximum((high - low) / 2 + roundings / LIMIT, np.finfo(np.float32).tiny)


def random_frames(spec: Spec, sizes: Mapping[str, tuple[int, int]]) -> dict[str, NDArray[Any]]:
    """Return uniform noise: pictures of the camera's size, and proprioception within three deviations of its mean.

    Noise turns grey when it is shrunk, so half of the pictures are noise in the size of the data, then enlarged.
    """
    random = np.random.default_rng(derive(0, "parity"))

    def noise(height: int, width: int, channels: int) -> NDArray[np.uint8]:
        return random.integers(0, 256, (RANDOM, height, width, channels), dtype=np.uint8)

    frames: dict[str, NDArray[Any]] = {
        key: np.concatenate([noise(*sizes[key], c), at_size(noise(h, w, c), sizes[key])])
        for key, (c, h, w) in spec.stacks.items()
    }
    mean, std = np.array(spec.proprio_mean), np.array(spec.proprio_std)
    vectors = (mean + std * random.uniform(-3, 3, (2 * RANDOM, spec.proprio_dim))).astype(np.float32)
    edges = np.cumsum(list(spec.proprio.values()))[:-1]
    return frames | dict(zip(spec.proprio, np.split(vectors, edges, axis=1), strict=False))


def at_size(pictures: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return pictures `[B, H, W, C]` as a camera of another size might have taken them."""
    if pictures.shape[1:3] == size:
        return pictures
    exact = _interpolate(_channels_first(pictures), size)
    return _channels_last(exact.round().to(torch.uint8))


def at_trained_size(key: str, pictures: NDArray[np.uint8], shrink: Callable[[Tensor], Tensor]) -> NDArray[np.uint8]:
    """Return pictures `[B, H, W, C]` in the size of the data, once torch's interpolation agrees.

    Raises:
        PixelrlError: a pixel is not the interpolated value rounded to one of its nearest levels.
    """
    before = _channels_first(pictures)
    after = shrink(before)
    error = float((after - _interpolate(before, tuple(after.shape[2:]))).abs().max())
    if error > 0.5 + EDGE:
        raise PixelrlError(f"export: resized pictures of {key} are off by {error:.3f} levels of 255; 0.5 is rounding")
    return _channels_last(after)


def _check(error: NDArray[np.float64], source: str, spec: Spec) -> None:
    """Raise if a difference `[N, A]` is too large or not a number, and name the worst."""
    frame, dim = np.unravel_index(error.argmax(), error.shape)
    if not error[frame, dim] <= LIMIT:
        raise PixelrlError(
            f"export: the exported policy differs from the checkpoint by {error[frame, dim]:.2e} "
            f"of half the range in action {spec.action[dim].name!r} on frame {frame} of the {source} frames; "
            f"at most {LIMIT:.0e} passes. Nothing was written"
        )


def _interpolate(pictures: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return torch's antialiased bilinear interpolation, float64 `[B, C, H, W]`."""
    return interpolate(pictures.double(), list(size), mode="bilinear", antialias=True)


def _channels_first(pictures: NDArray[np.uint8]) -> Tensor:
    return rearrange(torch.from_numpy(np.ascontiguousarray(pictures)), "b h w c -> b c h w")


def _channels_last(pictures: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = rearrange(pictures, "b c h w -> b h w c").numpy()
    return array

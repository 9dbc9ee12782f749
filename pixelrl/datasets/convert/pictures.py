"""Pictures as PNG and as H.264, for formats that keep them so, and back."""

import io
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pixelrl.datasets.convert.dataset_stream import Budget, reading
from pixelrl.runtime.errors import DataError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels -> Pillow's name for them."""


def encode_png(picture: NDArray[np.uint8], level: int = 6) -> bytes:
    """Return a picture, uint8 `[H, W, C]`, as PNG: lossless; level 1 is fast, 9 small."""
    held = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(
        held, format="PNG", compress_level=level
    )
    return held.getvalue()


def decode_pictures(
    coded: Sequence[bytes], place: str, budget: Budget, shape: tuple[int, ...] | None = None
) -> NDArray[np.uint8]:
    """Return the pictures, uint8 `[N, H, W, C]`, of PNGs or JPEGs, all of this shape, or of that of the first.

    Raises:
        DataError: what `decode_picture` raises, or more bytes than the file can hold.
    """
    if shape is None:
        try:
            with Image.open(io.BytesIO(coded[0]), formats=("PNG", "JPEG")) as first:
                shape = (first.height, first.width, {mode: size for size, mode in MODES.items()}[first.mode])
        except (OSError, SyntaxError, ValueError, EOFError, LookupError, Image.DecompressionBombError) as error:
            raise DataError(f"{place}: no picture ({str(error)[:80]}); expected PNG or JPEG") from error
    budget.spend(len(coded) * math.prod(shape))
    return np.stack([decode_picture(data, shape, f"{place}[{row}]") for row, data in enumerate(coded)])


def decode_picture(data: bytes, shape: tuple[int, ...], place: str) -> NDArray[np.uint8]:
    """Return the picture, uint8 `[H, W, C]`, of a PNG or a JPEG that should have this shape.

    Raises:
        DataError: damaged, another format, or another shape; nothing of another size is unpacked.
    """
    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.size != (width, height) or picture.mode != MODES.get(channels):
                came = f"{picture.mode} {picture.height} x {picture.width}"
                raise DataError(f"{place}: a picture {came}; expected {MODES.get(channels)} {height} x {width}")
            return np.asarray(picture).reshape(shape)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        what = "no format that is known" if isinstance(error, UnidentifiedImageError) else str(error)[:80]
        raise DataError(f"{place}: a damaged picture ({what}); expected PNG or JPEG") from error


def encode_video(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Write frames, uint8 `[N, H, W, 3]` with even sides, as H.264; every second frame is one to jump to."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode(None))


def decode_video(path: Path, times: NDArray[np.float64], shape: tuple[int, ...], fps: float) -> NDArray[np.uint8]:
    """Return the frames at these times [s], uint8 `[N, H, W, 3]`.

    Raises:
        DataError: no video, a damaged one, another size, or no frame within half a period of a time.
    """
    import av

    missing = np.ones(len(times), bool)
    damage = (av.FFmpegError, IndexError, ValueError, OverflowError, MemoryError)
    if not path.exists():
        raise DataError(f"{path}: no such video; info.json promises it")
    with reading(f"{path}: not a video, or a damaged one", damage), av.open(str(path)) as container:
        stream = container.streams.video[0]
        if (stream.height, stream.width, 3) != shape:
            came = f"{stream.height} x {stream.width}"
            raise DataError(f"{path}: a video of {came}; expected {shape[0]} x {shape[1]}")
        frames = np.empty((len(times), *shape), np.uint8)
        base = stream.time_base or Fraction(1, 1)
        container.seek(max(0, round((times[0] - 0.5 / fps) / base)), stream=stream, backward=True)
        for frame in container.decode(stream):
            now = float((frame.pts or 0) * base)
            if now > times[-1] + 0.5 / fps:
                break
            here = np.flatnonzero(np.abs(times - now) < 0.5 / fps)
            if len(here):
                frames[here] = frame.to_ndarray(format="rgb24")
                missing[here] = False
    if missing.any():
        came = f"no frame at {times[missing][0]:.3f} s"
        raise DataError(f"{path}: {came}; expected {len(times)} from {times[0]:.3f} s on")
    return frames

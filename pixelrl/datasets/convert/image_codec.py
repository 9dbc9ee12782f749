"""Pictures as PNG and back, for formats that keep them so."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pixelrl.runtime.errors import DataError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels -> Pillow's name for them."""


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture, uint8 `[H, W, C]`, as PNG: lossless."""
    held = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(held, format="PNG")
    return held.getvalue()


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
        raise DataError(f"{place}: a damaged picture ({str(error)[:80]}); expected PNG or JPEG") from error

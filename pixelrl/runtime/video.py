"""Pictures for people: videos of episodes, and contact sheets of many."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pixelrl.runtime.files import atomic_path

Frames = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""T pictures, each uint8 `[H, W, 3]`, upright."""


def write_video(path: Path, frames: Frames, fps: float) -> None:
    """Write an MP4 (H.264, yuv420p) that browsers play, atomically; odd sizes gain a row or a column.

    Raises:
        ValueError: there are no frames, or they are not all uint8 `[H, W, 3]` of one size.
    """
    import av

    first = _checked(frames)[0]
    height, width = first.shape[0] + first.shape[0] % 2, first.shape[1] + first.shape[1] % 2
    with atomic_path(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
        how = {"crf": "18", "x264-params": "mbtree=0"}  # with mbtree x264 now and then writes other bytes for the same
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=how)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            margin = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
            picture = av.VideoFrame.from_ndarray(np.pad(frame, margin, mode="edge"), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def mosaic(videos: Sequence[Frames], columns: int = 4, gap: int = 4) -> Frames:
    """Play videos side by side, each resting on its last picture: uint8 `[T, H, W, 3]`, T that of the longest."""
    length = max(len(video) for video in videos)
    arrays = [np.asarray(video) for video in videos]
    held = [np.pad(video, ((0, length - len(video)), (0, 0), (0, 0), (0, 0)), mode="edge") for video in arrays]
    framed = [np.pad(video, ((0, 0), (gap, gap), (gap, gap), (0, 0))) for video in held]
    columns = min(columns, len(framed))
    framed += [np.zeros_like(framed[0])] * (-len(framed) % columns)
    rows = rearrange(np.stack(framed), "(row column) t h w c -> t (row h) (column w) c", column=columns)
    return np.asarray(rows)


class Row(NamedTuple):
    """One episode of a contact sheet; `ok` colours it: green, red, or grey where nobody knows.

    Pillow's own font draws the caption: it knows Latin letters and the middle dot, but no dashes and no ticks.
    `steps` are those to show, by default spread evenly; those `marked` stand in yellow.
    """

    caption: str
    frames: Frames
    ok: bool | None = None
    steps: Sequence[int] | None = None
    marked: Sequence[int] = ()


BACKGROUND = (250, 250, 248)
INK = (38, 40, 46)
COLOURS = {True: (30, 138, 78), False: (200, 56, 52), None: (112, 116, 124)}
MARK = (255, 196, 0)
MARGIN, GAP, CAPTION, TITLE = 20, 4, 28, 52
"""Around the strips, around pictures, and the heights of a caption and of the title [px]."""


def contact_sheet(path: Path, rows: Sequence[Row], *, title: str = "", columns: int = 8, height: int = 144) -> None:
    """Write a PNG with a strip of pictures for each episode, from its start to its end, atomically.

    Args:
        path: where.
        rows: the episodes, from top to bottom.
        title: a line above them all.
        columns: how many pictures a strip has; a shorter episode shows all that it has.
        height: about how high they are [px]; small ones grow by a whole factor, so that their pixels stay square.

    Raises:
        ValueError: there are no rows, or the frames of one are not all uint8 `[H, W, 3]` of one size.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    strips = [_strip(row, columns, height) for row in rows]
    font = ImageFont.load_default(24)
    width = max(round(font.getlength(title)), *(strip.width for strip in strips))
    top = TITLE if title else MARGIN
    sheet = Image.new("RGB", (width + 2 * MARGIN, top + sum(strip.height + MARGIN for strip in strips)), BACKGROUND)
    ImageDraw.Draw(sheet).text((MARGIN, TITLE // 2), title, INK, font, anchor="lm")
    for strip in strips:
        sheet.paste(strip, (MARGIN, top))
        top += strip.height + MARGIN
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _strip(row: Row, columns: int, height: int) -> Image.Image:
    """Draw one episode: its caption on a tab, and below it its pictures, each with the step it was taken at."""
    frames = _checked(row.frames)
    steps = np.unique(np.linspace(0, len(frames) - 1, columns).round().astype(int) if row.steps is None else row.steps)
    pictures = [_resized(frames[step], height) for step in steps]
    font, colour = ImageFont.load_default(17), COLOURS[row.ok]
    width, height = pictures[0].size
    tab = round(font.getlength(row.caption)) + 20
    band = len(pictures) * (width + GAP) + GAP
    strip = Image.new("RGB", (max(tab, band), CAPTION + height + 2 * GAP), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    draw.rounded_rectangle((0, 0, tab - 1, CAPTION + GAP), 6, colour, corners=(True, True, False, False))
    draw.rectangle((0, CAPTION, band - 1, strip.height - 1), colour)
    draw.text((10, CAPTION // 2 + 1), row.caption, "white", font, anchor="lm")
    small = ImageFont.load_default(13)
    for column, (step, picture) in enumerate(zip(steps, pictures, strict=True)):
        left, top = GAP + column * (width + GAP), CAPTION + GAP
        if step in row.marked:
            draw.rectangle((left - GAP, top - GAP, left + width + GAP - 1, top + height + GAP - 1), MARK)
        strip.paste(picture, (left, top))
        corner = (left + 5, top + height - 5)
        draw.text(corner, str(step), "white", small, anchor="lb", stroke_width=2, stroke_fill=INK)
    return strip


def _resized(frame: NDArray[np.uint8], height: int) -> Image.Image:
    """Bring a picture to about this height [px]."""
    picture = Image.fromarray(frame)
    if picture.height < height:
        factor = round(height / picture.height)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)


def _checked(frames: Frames) -> Frames:
    """Return the frames, or raise a `ValueError` unless they can be shown."""
    kinds = {(str(frame.dtype), frame.shape) for frame in frames}
    if len(kinds) != 1:
        raise ValueError(f"frames must be one or more pictures of one size; got {sorted(kinds) or 'none'}")
    dtype, shape = kinds.pop()
    if dtype != "uint8" or len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"frames must be uint8 [H, W, 3]; got {dtype} {list(shape)}")
    return frames

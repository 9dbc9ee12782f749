"""Videos decode to the frames that were written; sheets show the right pictures in the right colours."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixelrl.runtime.video import COLOURS, Row, contact_sheet, write_video


def greys(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return pictures of one grey each, from black to white."""
    shades = np.linspace(0, 255, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3)).copy()


@pytest.mark.parametrize(("height", "width", "even"), [(64, 64, (64, 64)), (49, 47, (50, 48))])
def test_a_film_decodes_to_its_frames_and_leaves_nothing_beside_it(
    tmp_path: Path, height: int, width: int, even: tuple[int, int]
) -> None:
    path = tmp_path / "video.mp4"
    frames = greys(9, height, width)
    write_video(path, frames, fps=2.5)
    assert list(tmp_path.iterdir()) == [path]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == 2.5
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 9
    for picture, frame in zip(decoded, frames, strict=True):
        assert picture.shape == (*even, 3)
        assert abs(picture.astype(int) - int(frame[0, 0, 0])).max() < 12


@pytest.mark.parametrize("frames", [[], np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8)])
def test_what_is_no_film_is_refused_and_leaves_nothing(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="frames must be"):
        write_video(tmp_path / "video.mp4", frames, fps=5)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_samples_each_row_from_its_start_to_its_end_in_its_colour(tmp_path: Path) -> None:
    rows = [
        Row("episode 0 · success · 40 steps", greys(41, 48, 48), True),
        Row("episode 1 · failure · 2 steps", greys(3, 48, 48), False),
        Row("demo_2", greys(1, 48, 48)),
    ]
    contact_sheet(tmp_path / "sheet.png", rows, columns=5, height=144)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    for index, (row, shades) in enumerate(zip(rows, [[0, 63, 127, 191, 255], [0, 127, 255], [0]], strict=True)):
        top = 20 + index * (28 + 144 + 2 * 4 + 20) + 28  # margin, rows above, caption
        assert tuple(sheet[top + 1, 21]) == COLOURS[row.ok]
        centres = [20 + 4 + column * (144 + 4) + 72 for column in range(len(shades))]
        assert sheet[top + 4 + 72, centres, 0].tolist() == shades


def test_a_sheet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet(tmp_path / "sheet.png", [])


def test_the_same_frames_become_the_same_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (40, 96, 161, 3), np.uint8) // 4
    written = set()
    for _ in range(8):
        write_video(tmp_path / "video.mp4", frames, fps=10)
        written.add((tmp_path / "video.mp4").read_bytes())
    assert len(written) == 1

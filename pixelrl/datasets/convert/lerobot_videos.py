"""The films of a LeRobotDataset: many episodes in one MP4, found again by their times."""

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.lerobot_format import FILES, VIDEO_MB, VIDEO_PATH
from pixelrl.runtime.errors import DataError


class Films:
    """The films of a camera: episodes one after another in H.264, every second frame one to jump to."""

    def __init__(self, root: Path, key: str, shape: tuple[int, ...], fps: float, stack: ExitStack) -> None:
        self.root, self.key, self.shape, self.stack = root, key, shape, stack
        self.rate = Fraction(fps).limit_denominator(1000)
        self.number, self.frames, self.bytes = -1, 0, 0
        self.container: Any = None
        self.stream: Any = None

    def write(self, frames: NDArray[np.uint8]) -> dict[str, Any]:
        """Append an episode, and return in which film it lies, and where [s]."""
        if self.container is None or self.bytes > VIDEO_MB * 2**20:
            self._next()
        for frame in frames:
            packets = self.stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"))
            self.bytes += sum(packet.size for packet in packets)
            self.container.mux(packets)
        begin, self.frames = self.frames, self.frames + len(frames)
        times = {"from_timestamp": float(begin / self.rate), "to_timestamp": float(self.frames / self.rate)}
        place = {"chunk_index": self.number // FILES, "file_index": self.number % FILES}
        return {f"videos/{self.key}/{name}": value for name, value in (place | times).items()}

    def info(self) -> dict[str, Any]:
        """Return what LeRobot notes about films."""
        height, width, channels = self.shape
        sizes = {"video.height": height, "video.width": width, "video.channels": channels}
        kind = {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "has_audio": False}
        return sizes | kind | {"video.fps": float(self.rate)}

    def _next(self) -> None:
        """Open the next film."""
        height, width, channels = self.shape
        if height % 2 or width % 2 or channels != 3:
            came = " x ".join(map(str, self.shape))
            raise DataError(f"{self.key}: pictures {came}; films want even sides and three channels: choose png")
        self.finish()
        self.number, self.frames, self.bytes = self.number + 1, 0, 0
        place = {"chunk_index": self.number // FILES, "file_index": self.number % FILES}
        path = self.root / VIDEO_PATH.format(video_key=self.key, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.container = self.stack.enter_context(av.open(str(path), "w"))
        self.stream = self.container.add_stream("libx264", rate=self.rate, options={"crf": "18", "g": "2"})
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, "yuv420p"

    def finish(self) -> None:
        """Write what the encoder holds back."""
        if self.container is not None:
            self.container.mux(self.stream.encode(None))
            self.container.close()


def read_film(path: Path, times: NDArray[np.float64], shape: tuple[int, ...], fps: float) -> NDArray[np.uint8]:
    """Return the frames at these times [s], uint8 `[N, H, W, 3]`.

    Raises:
        DataError: no film, a damaged one, another size, or no frame within half a period of a time.
    """
    missing = np.ones(len(times), bool)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if (stream.height, stream.width, 3) != shape:
                raise DataError(f"{path}: a film of {stream.height} x {stream.width}; expected {shape[0]} x {shape[1]}")
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
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such film; info.json promises it") from error
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise DataError(f"{path}: not a film, or a damaged one ({str(error)[:80]})") from error
    if missing.any():
        raise DataError(
            f"{path}: no frame at {times[missing][0]:.3f} s; expected {len(times)} from {times[0]:.3f} s on"
        )
    return frames

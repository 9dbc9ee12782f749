"""LeRobotDataset v3.0: where its files lie, and how its parquet files grow."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pixelrl.runtime.errors import PixelrlError

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
TASKS_PATH = "meta/tasks.parquet"
INFO_PATH = "meta/info.json"

PICTURE = "observation.images."
"""How the names of cameras begin."""

PRIVILEGED = "privileged.state"
"""What only a simulator knows; its name keeps LeRobot's policies from learning from it."""

INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The columns that every data set has."""

DATA_MB, VIDEO_MB, FILES = 100, 200, 1000
"""How large a parquet file and a film may grow, and how many of them a chunk holds: LeRobot's own limits."""


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module.

    Raises:
        PixelrlError: they are not installed, or do not fit this numpy.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        why = str(error).splitlines()[0]
        raise PixelrlError(f"LeRobot's format needs pyarrow ({why}): pip install 'pixelrl[lerobot]'") from error
    return pyarrow, pyarrow.parquet


class ParquetFiles:
    """Parquet files, one after another as they fill; each write is a row group."""

    def __init__(self, root: Path, pattern: str, limit: int, stack: ExitStack) -> None:
        self.root, self.pattern, self.limit, self.stack = root, pattern, limit * 2**20, stack
        self.number = -1
        self.path = root
        self.writer: Any = None

    def write(self, table: Any, prefix: str) -> dict[str, int]:
        """Write a table, and return in which file it lies."""
        _, parquet = arrow()
        if self.writer is None or self.path.stat().st_size + table.nbytes > self.limit:
            if self.writer is not None:
                self.writer.close()
            self.number += 1
            place = {"chunk_index": self.number // FILES, "file_index": self.number % FILES}
            self.path = self.root / self.pattern.format(**place)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer = self.stack.enter_context(parquet.ParquetWriter(self.path, table.schema))
        self.writer.write_table(table)
        return {f"{prefix}chunk_index": self.number // FILES, f"{prefix}file_index": self.number % FILES}

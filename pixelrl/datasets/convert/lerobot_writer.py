"""Write a LeRobotDataset v3.0: its file format directly, without the lerobot package.

    meta/info.json, meta/stats.json, meta/tasks.parquet, meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet      a row a frame; pictures in them as PNG, or
    videos/<camera>/chunk-000/file-000.mp4
    meta/pixelrl.hdf5                    what the format has no room for (see lerobot_sidecar.py)

https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.interchange import Interchange
from pixelrl.datasets.convert.lerobot_videos import Films
from pixelrl.datasets.convert.lerobot_format import (
    DATA_MB,
    DATA_PATH,
    EPISODES_PATH,
    FILES,
    INDICES,
    PICTURE,
    PRIVILEGED,
    TASKS_PATH,
    VERSION,
    VIDEO_MB,
    VIDEO_PATH,
    ParquetFiles,
    arrow,
)
from pixelrl.datasets.convert.lerobot_sidecar import NAME, SidecarWriter
from pixelrl.datasets.convert.lerobot_stats import Statistics
from pixelrl.datasets.convert.image_codec import MODES, encode_png
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.files import write_json

INDEX = "__index_level_0__"
PANDAS = {
    "index_columns": [INDEX],
    "column_indexes": [],
    "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": INDEX, "pandas_type": "unicode", "numpy_type": "object"},
    ],
    "pandas_version": "2.2.0",
}
"""The note by which pandas, with which LeRobot reads the tasks, finds its index."""

EPISODES_AT_ONCE = 100
"""How many rows of meta/episodes are held in memory."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which sensor goes where; what is named nowhere goes into the sidecar alone.

    Attributes:
        pictures: key -> (H, W, C), as `observation.images.<key>`.
        state: float vector -> length, side by side in `observation.state`.
        privileged: the same for what only the simulator knows (`object...`), in `privileged.state`.
    """

    pictures: Mapping[str, tuple[int, ...]]
    state: Mapping[str, int]
    privileged: Mapping[str, int]


def write_recording(
    root: Path, recording: Interchange, *, fps: float, task: str | None = None, video: bool = False
) -> frozenset[str]:
    """Write a data set into the folder `root`, and return the names of the arrays that lose something (films do).

    Args:
        root: a folder that does not exist yet.
        recording: episodes that all have the shapes of the first.
        fps: how often the robot acted [Hz].
        task: what it was told to do; default: what an episode's notes or `ep_meta` say, or the environment's name.
        video: keep pictures as H.264 films, which are small and not exact.

    Raises:
        DataError: no episodes, numbers that are not finite, or films of pictures with odd sides or other than three
            channels.
    """
    (root / "meta").mkdir(parents=True)
    writer: _Writer | None = None
    with ExitStack() as stack:
        for episode in recording.episodes():
            if writer is None:
                writer = _Writer(root, recording, layout_of(episode), fps, video, stack)
            writer.add(episode, _task(episode, recording, task))
        if writer is None:
            raise DataError(f"{root}: no episodes came to be written; expected one or more")
        writer.finish()
    return frozenset(f"sensors/{key}" for key in writer.layout.pictures) if video else frozenset()


def layout_of(episode: Episode) -> Layout:
    """Sort the sensors of an episode."""
    sensors = episode.sensors
    vectors = {key: value.shape[1] for key, value in sensors.items() if value.ndim == 2 and value.dtype.kind == "f"}
    return Layout(
        pictures={
            key: value.shape[1:]
            for key, value in sensors.items()
            if value.ndim == 4 and value.dtype == np.uint8 and value.shape[3] in MODES
        },
        state={key: size for key, size in vectors.items() if not key.startswith("object")},
        privileged={key: size for key, size in vectors.items() if key.startswith("object")},
    )


def _task(episode: Episode, recording: Interchange, told: str | None) -> str:
    """Return what the robot was to do."""
    try:
        meta = json.loads(episode.attributes.get("ep_meta", "{}"))
    except ValueError:
        meta = {}
    said = (told, episode.notes.get("task"), meta.get("lang") if isinstance(meta, dict) else None)
    return next((str(text) for text in said if text), str(recording.env_args.get("env_name", "")))


class _Writer:
    """The open files of a data set that is being written."""

    def __init__(
        self, root: Path, recording: Interchange, layout: Layout, fps: float, video: bool, stack: ExitStack
    ) -> None:
        self.root, self.recording, self.layout, self.video = root, recording, layout, video
        self.fps: int | float = int(fps) if float(fps).is_integer() else fps
        self.episodes = self.frames = 0
        self.tasks: dict[str, int] = {}
        self.statistics = Statistics()
        self.columns = {*layout.pictures, *layout.state, *layout.privileged}
        names = {"state": layout.state, "privileged": layout.privileged}
        self.sidecar = stack.enter_context(SidecarWriter(root / NAME, recording, names))
        films = layout.pictures if video else {}
        self.films = {key: Films(root, PICTURE + key, shape, self.fps, stack) for key, shape in films.items()}
        self.data = ParquetFiles(root, DATA_PATH, DATA_MB, stack)
        self.index = ParquetFiles(root, EPISODES_PATH, DATA_MB, stack)
        self.rows: list[dict[str, Any]] = []

    def add(self, episode: Episode, task: str) -> None:
        """Write an episode."""
        steps = len(episode)
        vectors = self._vectors(episode, self.tasks.setdefault(task, len(self.tasks)))
        for name, values in vectors.items():
            if not np.isfinite(values).all():
                place = f"{self.root.name}: episode {self.episodes}, {name}"
                raise DataError(f"{place}: NaN or infinity, in float32; LeRobot's statistics need finite numbers")
        frames = {PICTURE + key: episode.sensors[key][:-1] for key in self.layout.pictures}
        stats = self.statistics.add(vectors, frames)
        row: dict[str, Any] = {"episode_index": self.episodes, "tasks": [task], "length": steps}
        row |= self.data.write(self._table(vectors, {} if self.video else frames), "data/")
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps}
        for key, films in self.films.items():
            row |= films.write(episode.sensors[key][:-1])
        row |= {f"stats/{name}/{kind}": value for name, held in stats.items() for kind, value in held.items()}
        self.rows.append(row)
        self.sidecar.add(self.episodes, episode, self.columns)
        self.episodes, self.frames = self.episodes + 1, self.frames + steps
        if len(self.rows) == EPISODES_AT_ONCE:
            self._flush()

    def finish(self) -> None:
        """Write what is said of the whole."""
        self._flush()
        for films in self.films.values():
            films.finish()
        pa, parquet = arrow()
        tasks = pa.table({"task_index": list(self.tasks.values()), INDEX: list(self.tasks)})
        parquet.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(PANDAS)}), self.root / TASKS_PATH)
        write_json(self.root / "meta/stats.json", self.statistics.total())
        info = {
            "codebase_version": VERSION,
            "robot_type": self.recording.env_args.get("env_name") or None,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.video else None,
            "features": self._features(),
        }
        write_json(self.root / "meta/info.json", info)

    def _flush(self) -> None:
        pa, _ = arrow()
        if self.rows:
            held = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            self.index.write(pa.Table.from_pylist([row | held for row in self.rows]), "")
        self.rows = []

    def _vectors(self, episode: Episode, task: int) -> dict[str, NDArray[Any]]:
        """Return the columns of numbers, `[N]` or `[N, D]`."""
        steps = len(episode)
        columns: dict[str, NDArray[Any]] = {}
        for name, keys in (("observation.state", self.layout.state), (PRIVILEGED, self.layout.privileged)):
            if keys:
                parts = [episode.sensors[key][:-1].astype(np.float32) for key in keys]
                columns[name] = np.concatenate(parts, axis=1)
        columns |= {"action": episode.actions.astype(np.float32), "next.reward": episode.rewards.astype(np.float32)}
        order = np.arange(steps)
        return columns | {
            "next.done": episode.dones,
            "timestamp": (order / self.fps).astype(np.float32),
            "frame_index": order,
            "episode_index": np.full(steps, self.episodes),
            "index": order + self.frames,
            "task_index": np.full(steps, task),
        }

    def _table(self, vectors: Mapping[str, NDArray[Any]], frames: Mapping[str, NDArray[np.uint8]]) -> Any:
        """Return the rows of an episode, with the note by which Hugging Face's readers know pictures."""
        pa, _ = arrow()
        columns: dict[str, Any] = {}
        kinds: dict[str, Any] = {}
        for name, pictures in frames.items():
            pngs = pa.array([encode_png(picture) for picture in pictures], pa.binary())
            paths = pa.array([f"frame-{index:06d}.png" for index in range(len(pictures))], pa.string())
            columns[name] = pa.StructArray.from_arrays([pngs, paths], names=["bytes", "path"])
            kinds[name] = {"_type": "Image"}
        for name, values in vectors.items():
            number = {"dtype": str(values.dtype), "_type": "Value"}
            size = values.shape[1] if values.ndim == 2 else 1
            flat = pa.array(np.ascontiguousarray(values).ravel())
            columns[name] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
            kinds[name] = number if size == 1 else {"feature": number, "length": size, "_type": "List"}
        return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})

    def _features(self) -> dict[str, Any]:
        """Return what each column is."""
        features: dict[str, Any] = {}
        for key, shape in self.layout.pictures.items():
            kind = {"dtype": "video" if self.video else "image", "shape": list(shape)}
            features[PICTURE + key] = kind | {"names": ["height", "width", "channels"]}
            if self.video:
                features[PICTURE + key]["info"] = self.films[key].info()
        for name, keys in (("observation.state", self.layout.state), (PRIVILEGED, self.layout.privileged)):
            names = [f"{key}_{index}" if size > 1 else key for key, size in keys.items() for index in range(size)]
            if names:
                features[name] = {"dtype": "float32", "shape": [len(names)], "names": names}
        names = [dim.name for dim in self.recording.action_dims]
        features["action"] = {"dtype": "float32", "shape": [len(names)], "names": names}
        kinds = {"next.reward": "float32", "next.done": "bool", "timestamp": "float32"}
        for name in ("next.reward", "next.done", *INDICES):
            features[name] = {"dtype": kinds.get(name, "int64"), "shape": [1], "names": None}
        return features

"""Write a LeRobotDataset v3.0: its file format directly, without the lerobot package.

    meta/info.json, meta/stats.json, meta/tasks.parquet, meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet      a row a frame; pictures in them as PNG, or
    videos/<camera>/chunk-000/file-000.mp4
    meta/pixelrl.parquet                 what the format has no room for, for the way back

https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions, describe
from pixelrl.datasets.convert.lerobot_info import (
    DATA_PATH,
    EPISODES_PATH,
    EXTRAS_PATH,
    INDICES,
    OBJECT,
    PICTURE,
    PRIVILEGED,
    TASKS_PATH,
    VERSION,
    VIDEO_PATH,
    ColumnStats,
    arrow,
    digest,
)
from pixelrl.datasets.convert.pictures import MODES, encode_png, encode_video
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.env_args import control_freq_of
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import write_json

EPISODES_PER_FILE = 50
"""So many episodes share a parquet file; each has a row group of its own."""

FILES_PER_CHUNK = 1000

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


def fit_lerobot(stream: DatasetStream, dropped: DroppedFields) -> DatasetStream:
    """Return what LeRobot's format can hold: pictures of bytes and float32 vectors; the rest is counted as dropped."""

    def float32(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32)
        if (rounded != values).any():
            dropped[f"{name}, beyond the precision of float32"] += 1
        return rounded

    def episodes() -> Iterator[Episode]:
        for episode in stream.episodes():
            sensors: dict[str, NDArray[Any]] = {}
            for key, values in episode.sensors.items():
                if values.ndim == 4 and values.dtype == np.uint8 and values.shape[3] in MODES:
                    sensors[key] = values
                elif values.ndim == 2 and values.dtype.kind == "f" and values.shape[1]:
                    sensors[key] = float32(f"sensors/{key}", values)
                else:
                    dropped[f"sensors/{key}, {values.dtype} {values.shape[1:]}: no picture, and no float vector"] += 1
            yield replace(
                episode,
                sensors=sensors,
                actions=float32("actions", episode.actions),
                rewards=float32("rewards", episode.rewards),
                states=None if episode.states is None else episode.states.astype(np.float64),
            )

    return replace(stream, episodes=episodes)


def write_lerobot(root: Path, stream: DatasetStream, options: FormatOptions) -> frozenset[str]:
    """Write a data set into the folder `root`, and return the names of the arrays that lose something (videos do).

    Args:
        root: a folder that does not exist yet.
        stream: episodes that all have the shapes of the first, and what `fit_lerobot` leaves.
        options: `images`, `fps`, `task`.

    Raises:
        PixelrlError: how often the robot acted is not known.
        DataError: no episodes, numbers that are not finite, or videos of pictures with odd sides or other than three
            channels.
    """
    fps = options.fps or control_freq_of(stream.env_args)
    if fps is None or not 0 < fps < float("inf"):
        what = "how often the robot acted is not known, and LeRobot needs it"
        raise PixelrlError(f"{root.name}: {what}: say it with --fps [Hz]")
    (root / "meta").mkdir(parents=True)
    with ExitStack() as stack:
        writer: _Writer | None = None
        for episode in stream.episodes():
            writer = writer or _Writer(root, stream, episode, fps, options.pictures == "video", stack)
            writer.add(episode, _task(episode, stream, options.task))
        if writer is None:
            raise DataError(f"{root}: no episodes came to be written; expected one or more")
        writer.finish()
    return frozenset(f"sensors/{key}" for key in writer.cameras) if writer.video else frozenset()


def _task(episode: Episode, stream: DatasetStream, told: str | None) -> str:
    """Return what the robot was to do: as told, as an episode's notes or `ep_meta` say, or the environment's name."""
    try:
        meta = json.loads(episode.attributes.get("ep_meta", "{}"))
    except ValueError:
        meta = {}
    said = (told, episode.notes.get("task"), meta.get("lang") if isinstance(meta, dict) else None)
    return next((str(text) for text in said if text), str(stream.env_args.get("env_name", "")))


class _Writer:
    """The files of a data set while they grow."""

    def __init__(
        self, root: Path, stream: DatasetStream, first: Episode, fps: float, video: bool, stack: ExitStack
    ) -> None:
        self.root, self.stream, self.fps, self.video, self.stack = root, stream, fps, video, stack
        self.cameras = {key: held.shape[1:] for key, held in first.sensors.items() if held.ndim == 4}
        vectors = {key: held.shape[1] for key, held in first.sensors.items() if held.ndim == 2}
        self.state = {key: size for key, size in vectors.items() if not key.startswith(OBJECT)}
        self.privileged = {key: size for key, size in vectors.items() if key.startswith(OBJECT)}
        for key, (height, width, channels) in self.cameras.items() if video else ():
            if height % 2 or width % 2 or channels != 3:
                came = f"{height} x {width} x {channels}"
                raise DataError(f"{key}: pictures {came}; videos need even sides and three channels: choose png")
        self.frames = 0
        self.rows: list[dict[str, Any]] = []
        self.tasks: dict[str, int] = {}
        self.stats: dict[str, ColumnStats] = {}
        self.data: Any = None
        self.extras: Any = None

    def add(self, episode: Episode, task: str) -> None:
        """Write an episode."""
        number, steps = len(self.rows), len(episode)
        columns = self._columns(episode, number, self.tasks.setdefault(task, len(self.tasks)))
        for name, values in columns.items():
            if not np.isfinite(values).all():
                what = "NaN or infinity, in float32; LeRobot's statistics need finite numbers"
                raise DataError(f"{self.root}: episode {number}, {name}: {what}")
            self.stats.setdefault(name, ColumnStats()).add(values.reshape(steps, -1))
        place = _place(number // EPISODES_PER_FILE)
        row: dict[str, Any] = {"episode_index": number, "tasks": [task], "length": steps}
        row |= {f"data/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps}
        for key in self.cameras:
            frames = episode.sensors[key][:-1]
            for frame in frames:
                self.stats.setdefault(PICTURE + key, ColumnStats()).add(frame.reshape(-1, frame.shape[-1]) / 255)
            if self.video:
                video, name = _place(number), PICTURE + key
                encode_video(self.root / VIDEO_PATH.format(video_key=name, **video), frames, self.fps)
                times = {"from_timestamp": 0.0, "to_timestamp": steps / self.fps}
                row |= {f"videos/{name}/{part}": value for part, value in (video | times).items()}
        table = self._table(columns, episode)
        if number % EPISODES_PER_FILE == 0:
            self.data = self._open(DATA_PATH.format(**place), table.schema, self.data)
        self.data.write_table(table)
        vectors = [columns[name] for name in ("observation.state", PRIVILEGED) if name in columns]
        self._add_extras(number, episode, digest(episode.actions, *vectors))
        self.rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self.frames += steps

    def finish(self) -> None:
        """Write what is said of the whole."""
        pa, parquet = arrow()
        (self.root / EPISODES_PATH.format(**_place(0))).parent.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(self.rows), self.root / EPISODES_PATH.format(**_place(0)))
        tasks = pa.table({"task_index": list(self.tasks.values()), INDEX: list(self.tasks)})
        parquet.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(PANDAS)}), self.root / TASKS_PATH)
        stats = {name: held.result(picture=name.startswith(PICTURE)) for name, held in self.stats.items()}
        write_json(self.root / "meta/stats.json", stats)
        info = {
            "codebase_version": VERSION,
            "robot_type": self.stream.env_args.get("env_name") or None,
            "total_episodes": len(self.rows),
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,  # LeRobot's own limits, for what it may add
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.video else None,
            "features": self._features(),
        }
        write_json(self.root / "meta/info.json", info)

    def _open(self, name: str, schema: Any, before: Any = None) -> Any:
        """Open a parquet file, and close the one before it."""
        if before is not None:
            before.close()
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return self.stack.enter_context(arrow()[1].ParquetWriter(self.root / name, schema))

    def _columns(self, episode: Episode, number: int, task: int) -> dict[str, NDArray[Any]]:
        """Return the columns of numbers, `[N]` or `[N, D]`."""
        order = np.arange(len(episode))
        columns: dict[str, NDArray[Any]] = {}
        for name, keys in (("observation.state", self.state), (PRIVILEGED, self.privileged)):
            if keys:
                columns[name] = np.concatenate([episode.sensors[key][:-1] for key in keys], axis=1)
        return columns | {
            "action": episode.actions,
            "next.reward": episode.rewards,
            "next.done": episode.dones,
            "timestamp": (order / self.fps).astype(np.float32),
            "frame_index": order,
            "episode_index": np.full(len(order), number),
            "index": order + self.frames,
            "task_index": np.full(len(order), task),
        }

    def _table(self, columns: Mapping[str, NDArray[Any]], episode: Episode) -> Any:
        """Return the rows of an episode, with the note by which Hugging Face's readers know pictures."""
        pa, _ = arrow()
        arrays: dict[str, Any] = {}
        kinds: dict[str, Any] = {}
        for key in () if self.video else self.cameras:
            pngs = [encode_png(picture) for picture in episode.sensors[key][:-1]]
            paths = [f"frame-{index:06d}.png" for index in range(len(pngs))]
            parts = [pa.array(pngs, pa.binary()), pa.array(paths, pa.string())]
            arrays[PICTURE + key] = pa.StructArray.from_arrays(parts, names=["bytes", "path"])
            kinds[PICTURE + key] = {"_type": "Image"}
        for name, values in columns.items():
            number = {"dtype": str(values.dtype), "_type": "Value"}
            size = values.shape[1] if values.ndim == 2 else 1
            flat = pa.array(np.ascontiguousarray(values).ravel())
            arrays[name] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
            kinds[name] = number if size == 1 else {"feature": number, "length": size, "_type": "List"}
        return pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": kinds}})})

    def _add_extras(self, number: int, episode: Episode, told_by: str) -> None:
        """Write what the parquet rows of an episode do not hold; see `EXTRAS_PATH`."""
        pa, _ = arrow()
        fields = {"episode_index": pa.int64(), "length": pa.int64(), "notes": pa.string(), "attributes": pa.string()}
        fields |= {"digest": pa.string(), "states": pa.list_(pa.list_(pa.float64()))}
        fields |= {f"last/{key}": pa.binary() for key in self.cameras}
        fields |= {f"last/{key}": pa.list_(pa.float32()) for key in (*self.state, *self.privileged)}
        row: dict[str, Any] = {"episode_index": number, "length": len(episode), "digest": told_by}
        row |= {"notes": json.dumps(dict(episode.notes)), "attributes": json.dumps(dict(episode.attributes))}
        row |= {"states": None if episode.states is None else episode.states[:-1].tolist()}
        row |= {f"last/{key}": encode_png(episode.sensors[key][-1]) for key in self.cameras}
        row |= {f"last/{key}": episode.sensors[key][-1].tolist() for key in (*self.state, *self.privileged)}
        if self.extras is None:
            about = describe(self.stream) | {"state": self.state, "privileged": self.privileged}
            self.extras = self._open(EXTRAS_PATH, pa.schema(fields, metadata={"pixelrl": json.dumps(about)}))
        self.extras.write_table(pa.Table.from_pylist([row], schema=self.extras.schema))

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for key, (height, width, channels) in self.cameras.items():
            feature = {"dtype": "video" if self.video else "image", "shape": [height, width, channels]}
            features[PICTURE + key] = feature | {"names": ["height", "width", "channels"]}
            if self.video:
                sizes = {"video.height": height, "video.width": width, "video.channels": channels}
                kind = {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.is_depth_map": False}
                features[PICTURE + key]["info"] = sizes | kind | {"video.fps": self.fps, "has_audio": False}
        for name, keys in (("observation.state", self.state), (PRIVILEGED, self.privileged)):
            names = [f"{key}_{index}" if size > 1 else key for key, size in keys.items() for index in range(size)]
            if names:
                features[name] = {"dtype": "float32", "shape": [len(names)], "names": names}
        names = [dim.name for dim in self.stream.action_dims]
        features["action"] = {"dtype": "float32", "shape": [len(names)], "names": names}
        kinds = {"next.reward": "float32", "next.done": "bool", "timestamp": "float32"}
        for name in ("next.reward", "next.done", *INDICES):
            features[name] = {"dtype": kinds.get(name, "int64"), "shape": [1], "names": None}
        return features


def _place(number: int) -> dict[str, int]:
    """Return in which chunk and file something lies, by its number."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}

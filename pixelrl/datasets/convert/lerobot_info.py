"""LeRobotDataset v3.0, and v2: where its files lie, what meta/info.json says of their columns, and meta/stats.json."""

import hashlib
import json
import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import DroppedFields, reading
from pixelrl.datasets.convert.pictures import MODES
from pixelrl.runtime.actions import ActionDim, unnamed_dims
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.extras import missing_extra

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
TASKS_PATH = "meta/tasks.parquet"
INFO_PATH = "meta/info.json"

OLD_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
OLD_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
OLD_EPISODES_PATH = "meta/episodes.jsonl"
"""Of v2.0 and v2.1, which have a file an episode; `episode_chunk` is `episode_index // chunks_size`."""

EXTRAS_PATH = "meta/pixelrl.parquet"
"""What the format has no room for, a row an episode: the frame after the last step, states, notes, attributes, and the
`digest` of the episode that they belong to; in its schema `env_args`, what actions mean, masks, and which sensors stand
side by side. LeRobot does not look at it."""

PICTURE = "observation.images."
"""How the names of cameras begin."""

PRIVILEGED = "privileged.state"
"""What only a simulator knows; its name keeps LeRobot's policies from learning from it."""

OBJECT = "object"
"""What a sensor is called that only a simulator has; pixelrl learns from none that begins so."""

CHUNKS_SIZE = 1000

LARGEST_ACTION = 10_000
"""No robot has more dimensions than this."""

INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""The columns that every data set has."""


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module.

    Raises:
        PixelrlError: they are not installed, or do not fit this numpy.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        why = missing_extra(error) or f"pyarrow cannot be imported ({str(error).splitlines()[0]})"
        raise PixelrlError(f"LeRobot's format: {why}") from error
    return pyarrow, pyarrow.parquet


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a data set."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: Any
    depth: bool = False


@dataclass(frozen=True, kw_only=True)
class Info:
    """What meta/info.json says, checked; `pictures` and `vectors` are features by the names of their sensors."""

    root: Path
    old: bool
    total_episodes: float
    chunks_size: int
    fps: float
    robot: str
    data_path: str
    video_path: str
    features: Mapping[str, Feature]
    action: Feature
    pictures: Mapping[str, Feature]
    vectors: Mapping[str, Feature]
    splits: Mapping[str, str]

    def data_file(self, row: Mapping[str, Any]) -> Path:
        """Return the parquet file of an episode, of which `row` tells what meta/episodes says."""
        if self.old:
            return self._path(self.data_path, **self._old_place(row))
        place = {name: row.get(f"data/{name}") for name in ("chunk_index", "file_index")}
        return self._path(self.data_path, **place)

    def video_file(self, row: Mapping[str, Any], name: str) -> tuple[Path, float]:
        """Return the video of an episode, and when the episode begins in it [s]."""
        if self.old:
            return self._path(self.video_path, video_key=name, **self._old_place(row)), 0.0
        try:
            chunk, file, begin = (
                row[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index", "from_timestamp")
            )
            return self._path(self.video_path, video_key=name, chunk_index=chunk, file_index=file), float(begin)
        except (KeyError, TypeError) as error:
            where = f"{self.root / 'meta/episodes'}: no videos/{name}/chunk_index and the like"
            raise DataError(f"{where}; expected it") from error

    def _old_place(self, row: Mapping[str, Any]) -> dict[str, int]:
        return {"episode_chunk": row["episode_index"] // self.chunks_size, "episode_index": row["episode_index"]}

    def _path(self, template: str, **fields: Any) -> Path:
        """Return a file of the data set by one of the two patterns.

        Raises:
            DataError: a pattern that is not like LeRobot's own, or leads out of the data set.
        """
        try:
            parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
            known = all(name in fields and re.fullmatch(r"(0?\d?d)?", spec or "") for name, spec, _ in parts)
            path = Path(template.format(**fields)) if known else Path("/")
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.root / INFO_PATH}: {template[:80]!r} does not take {fields} ({error})") from error
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{self.root / INFO_PATH}: a path {template[:80]!r}; expected one like {DATA_PATH!r}")
        return self.root / path


def read_info(root: Path) -> Info:
    """Read and check meta/info.json."""
    path = root / INFO_PATH
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a LeRobotDataset {VERSION}")
    with reading(f"{path}: not the description of a LeRobotDataset"):
        said = json.loads(path.read_text(encoding="utf-8"))
        version = str(said["codebase_version"])
    old = re.fullmatch(r"v2\.[01]", version) is not None
    if not old and version.split(".")[0] != VERSION.split(".")[0]:
        raise DataError(f"{path}: a LeRobotDataset {version[:20]}; expected {VERSION}, v2.1 or v2.0")
    with reading(f"{path}: fps or features are missing, or not as {VERSION} has them"):
        fps, chunks_size = float(said["fps"]), int(said.get("chunks_size", CHUNKS_SIZE))
        features = {name: _feature(name, held) for name, held in said["features"].items()}
    if not (math.isfinite(fps) and fps > 0 and chunks_size > 0):
        raise DataError(f"{path}: fps is {fps}, chunks_size {chunks_size}; expected positive numbers")
    action = features.get("action", features.get("actions"))  # the second is openpi's
    fits = action is not None and len(action.shape) == 1 and 0 < action.shape[0] <= LARGEST_ACTION
    if action is None or not fits or not action.dtype.startswith("float"):
        held = f"{action.dtype} {action.shape}" if action else "nothing"
        raise DataError(f"{path}: action is {held}; expected floats (A,)")
    pictures = _named(path, [f for f in features.values() if f.dtype in ("image", "video") and not f.depth])
    vectors = [f for f in features.values() if f.dtype.startswith("float") and len(f.shape) == 1]
    ours = any(name.startswith("observation.") for name in features)  # openpi's scripts have names without it
    spared = ("action", "actions", *INDICES)
    vectors = [
        f
        for f in vectors
        if (f.name.startswith("observation.") if ours else "." not in f.name and f.name not in spared)
        or f.name == PRIVILEGED
    ]
    if not pictures:
        raise DataError(f"{path}: no pictures among {', '.join(features)[:200]}; pixelrl learns from pixels")
    for feature in pictures.values():
        if len(feature.shape) != 3 or feature.shape[2] not in MODES:
            raise DataError(f"{path}: {feature.name} has shape {feature.shape}; expected height, width, channels")
    promised = said.get("total_episodes")
    return Info(
        root=root,
        old=old,
        total_episodes=promised if isinstance(promised, int | float) else 0,
        chunks_size=chunks_size,
        fps=fps,
        robot=str(said.get("robot_type") or root.name),
        data_path=str(said.get("data_path") or (OLD_DATA_PATH if old else DATA_PATH)),
        video_path=str(said.get("video_path") or (OLD_VIDEO_PATH if old else VIDEO_PATH)),
        features=features,
        action=action,
        pictures=pictures,
        vectors=_named(path, vectors),
        splits=said["splits"] if isinstance(said.get("splits"), dict) else {},
    )


def _feature(name: str, held: Mapping[str, Any]) -> Feature:
    """Return a feature, pictures with their channels last, as the files have them."""
    shape, names = tuple(int(side) for side in held["shape"]), held.get("names")
    first = names[0] if isinstance(names, list) and names else ""
    if held["dtype"] in ("image", "video") and len(shape) == 3 and str(first).startswith("channel"):
        shape = (*shape[1:], shape[0])
    about = {**(held.get("video_info") or {}), **(held.get("info") or {})}
    depth = bool(about.get("is_depth_map") or about.get("video.is_depth_map"))
    return Feature(name=name, dtype=str(held["dtype"]), shape=shape, names=names, depth=depth)


def _named(path: Path, features: list[Feature]) -> dict[str, Feature]:
    named: dict[str, Feature] = {}
    for feature in features:
        key = feature.name.removeprefix(PICTURE).removeprefix("observation.")
        key = OBJECT if feature.name in (PRIVILEGED, "observation.environment_state") else key
        if not key or "/" in key or key in named:
            raise DataError(f"{path}: a feature {feature.name!r}; expected one camera or vector a name, and no '/'")
        named[key] = feature
    return named


def action_dims(feature: Feature) -> tuple[ActionDim, ...]:
    """Return what the actions mean, as far as they are named."""
    names = feature.names
    if isinstance(names, dict) and len(names) == 1:
        (names,) = names.values()
    fits = isinstance(names, list) and len(names) == feature.shape[0] and len(set(map(str, names))) == len(names)
    return tuple(ActionDim(name=str(name)) for name in names) if fits else unnamed_dims(feature.shape[0])


def splits(info: Info, count: int, dropped: DroppedFields) -> dict[str, tuple[int, ...]]:
    """Return the splits of a data set, `train: 0:40` and the like, as filters; one of all episodes is none."""
    masks = {}
    for name, said in info.splits.items():
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", str(said))
        if found is None or not re.fullmatch(r"\w{1,60}", name):
            dropped[f"the split {name[:40]!a}, which is {str(said)[:40]!a} (known: FIRST:END)"] += 0
        elif (rows := range(count)[int(found[1]) : int(found[2])]) and len(rows) < count:
            masks[name] = tuple(rows)
    return masks


def digest(*columns: NDArray[Any]) -> str:
    """Return by what an episode is told from others: SHA-256 of its actions and vectors, `[N, D]`, as float32."""
    return hashlib.sha256(b"".join(values.astype(np.float32).tobytes() for values in columns)).hexdigest()


class ColumnStats:
    """What meta/stats.json says of a column: its rows `[N, D]` are added as they come; pictures count in [0, 1]."""

    def __init__(self) -> None:
        self.calls = self.count = 0
        self.low: Any = np.inf
        self.high: Any = -np.inf
        self.sum: Any = 0.0
        self.squares: Any = 0.0

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows; those of pictures are their pixels, a call a picture."""
        rows = rows.astype(np.float64)
        self.calls, self.count = self.calls + 1, self.count + len(rows)
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))
        self.sum, self.squares = self.sum + rows.sum(axis=0), self.squares + (rows**2).sum(axis=0)

    def result(self, *, picture: bool) -> dict[str, Any]:
        """Return the statistics as nested lists: `[D]` of a vector, `[C, 1, 1]` of pictures."""
        mean = self.sum / self.count
        std = np.sqrt(np.maximum(0, self.squares / self.count - mean**2))
        named = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shape = (-1, 1, 1) if picture else (-1,)
        count = [self.calls if picture else self.count]
        return {name: value.reshape(shape).tolist() for name, value in named.items()} | {"count": count}

"""Read a LeRobotDataset v3.0: its file format directly, without the lerobot package.

LeRobot keeps N frames of N steps: the picture after the last action is not there. A data set that pixelrl wrote keeps
it beside the data (lerobot_sidecar.py) and comes back as it was.
https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.hdf5.access import open_file
from pixelrl.datasets.convert.interchange import Interchange, Losses
from pixelrl.datasets.convert.lerobot_videos import read_film
from pixelrl.datasets.convert.lerobot_format import INDICES, VERSION, arrow
from pixelrl.datasets.convert.lerobot_info import OBJECT, Feature, Info, action_dims, read_info
from pixelrl.datasets.convert.lerobot_sidecar import NAME, Sidecar
from pixelrl.datasets.convert.image_codec import decode_picture
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError

LastStep = Literal["drop", "repeat"]
"""What becomes of the last step, whose next picture is not there: it goes, or its own picture stands for the next."""

ROWS = 256
"""How many rows are read at a time."""


def read_recording(root: Path, losses: Losses, *, last_step: LastStep = "drop") -> Interchange:
    """Open a data set; `losses` fills while the episodes are read.

    Raises:
        DataError: another version, files that are missing, cut or do not fit, no pictures; names the file.
        PixelrlError: pyarrow is not installed.
    """
    info = read_info(root)
    rows = _episode_rows(root)
    beside = root / NAME if (root / NAME).is_file() else None
    read = {feature.name for feature in (*info.pictures.values(), *info.vectors.values())}
    for name in info.features:
        if name not in read | set(INDICES) | {"action", "next.reward", "next.done"}:
            losses[name] += 0
    if beside is None:
        for name in ("next.reward", "next.done"):
            if name not in info.features:
                losses[f"{name}, which is not there: 0 is written"] += 0

    def episodes() -> Iterator[Episode]:
        with ExitStack() as stack:
            sidecar = Sidecar(stack.enter_context(open_file(beside)), len(rows)) if beside else None
            for row, table in _tables(info, rows):
                episode = _episode(info, row, table, losses)
                if sidecar is None:
                    yield _closed(episode, last_step, f"{root}: episode {row['episode_index']}", losses)
                else:
                    yield sidecar.restore(row["episode_index"], _parts(episode, sidecar.layout))

    if beside is not None:
        with open_file(beside) as file:
            held = Sidecar(file, len(rows))
            about, dims, masks = held.env_args, held.action_dims, held.masks
    else:
        state = {name: feature.names for name, feature in info.vectors.items()}
        about = {"env_name": info.robot, "env_kwargs": {"control_freq": info.fps}, "lerobot": {"names": state}}
        dims, masks = action_dims(info.features["action"]), {}
    return Interchange(episodes=episodes, count=len(rows), env_args=about, action_dims=dims, masks=masks)


def _episode_rows(root: Path) -> list[dict[str, Any]]:
    """Return what meta/episodes says of each episode, in the order of the data."""
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{root / 'meta/episodes'}: no parquet files; expected chunk-000/file-000.parquet")
    rows: list[dict[str, Any]] = []
    for path in paths:
        with _opened(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows += file.read(columns=names).to_pylist()
    try:
        rows.sort(key=lambda row: int(row["dataset_from_index"]))
        if [row["episode_index"] for row in rows] != list(range(len(rows))) or any(row["length"] < 1 for row in rows):
            raise DataError(f"{paths[0].parent.parent}: episodes do not count from 0 without a gap, or are empty")
    except (KeyError, TypeError) as error:
        raise DataError(f"{paths[0]}: lacks {error}; expected what {VERSION} says of an episode") from error
    if not rows:
        raise DataError(f"{paths[0]}: no episodes; expected one or more")
    return rows


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a parquet file; turn what goes wrong in it into a `DataError`."""
    pa, parquet = arrow()
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; meta/episodes promises it") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a parquet file, or a damaged one ({why})") from error


def _tables(info: Info, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield each episode's row of meta/episodes and its rows of data, a few of them in memory at a time."""
    pa, _ = arrow()
    columns = [f.name for f in (*info.pictures.values(), *info.vectors.values()) if f.dtype != "video"]
    columns += [name for name in ("action", "next.reward", "next.done", *INDICES) if name in info.features]
    for place, held in groupby(rows, key=lambda row: (row.get("data/chunk_index"), row.get("data/file_index"))):
        path = info.path(info.data_path, chunk_index=place[0], file_index=place[1])
        with _opened(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path}: no column {missing[0]!r}, which info.json promises")
            batches = file.iter_batches(batch_size=ROWS, columns=columns)
            left = file.schema_arrow.empty_table().select(columns)
            for row in held:
                while len(left) < row["length"] and (batch := next(batches, None)) is not None:
                    left = pa.concat_tables([left, pa.Table.from_batches([batch])])
                table, left = left.slice(0, row["length"]), left.slice(row["length"])
                numbers = table["episode_index"].to_pylist()
                if numbers != [row["episode_index"]] * row["length"]:
                    came = f"{numbers.count(row['episode_index'])} of its rows"
                    raise DataError(
                        f"{path}: episode {row['episode_index']}: {came} in their place; expected {row['length']}"
                    )
                yield row, table


def _episode(info: Info, row: dict[str, Any], table: Any, losses: Losses) -> Episode:
    """Return N frames of N steps: an `Episode` that still lacks the last frame."""
    steps, place = len(table), f"{info.root}: episode {row['episode_index']}"
    times = _numbers(table, "timestamp", 1, place)[:, 0] if "timestamp" in table.column_names else None
    even = np.arange(steps) / info.fps
    if times is not None and np.abs(times - even).max() > 0.1 / info.fps:
        losses["timestamps, which are not those of even steps"] += 1
    if len(row.get("tasks") or ()) > 1:
        losses["all tasks of an episode but its first"] += 1
    sensors: dict[str, NDArray[Any]] = {}
    for key, feature in info.pictures.items():
        if feature.dtype == "image":
            sensors[key] = _pictures(table, feature, place)
        else:
            sensors[key] = _film(info, feature, row, even if times is None else times)
    for key, feature in info.vectors.items():
        sensors[key] = _numbers(table, feature.name, feature.shape[0], place)
    action = info.features["action"]
    scalars = {name: np.zeros((steps, 1), np.float32) for name in ("next.reward", "next.done")}
    scalars |= {name: _numbers(table, name, 1, place) for name in scalars if name in info.features}
    return Episode(
        sensors=sensors,
        actions=_numbers(table, "action", action.shape[0], place),
        rewards=scalars["next.reward"][:, 0],
        dones=scalars["next.done"][:, 0].astype(bool),
        notes={"task": task} if (task := (row.get("tasks") or [""])[0]) else {},
    )


def _numbers(table: Any, name: str, size: int, place: str) -> NDArray[Any]:
    """Return a column of numbers as `[N, size]`."""
    pa, _ = arrow()
    column = table[name].combine_chunks()
    while (
        pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type) or pa.types.is_large_list(column.type)
    ):
        column = column.flatten()
    if column.null_count or len(column) != len(table) * size:
        raise DataError(f"{place}: {name} holds {len(column)} numbers; expected {len(table)} x {size}, none missing")
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub":
        raise DataError(f"{place}: {name} has type {column.type}; expected numbers")
    return np.asarray(values).reshape(len(table), size)


def _pictures(table: Any, feature: Feature, place: str) -> NDArray[np.uint8]:
    """Return the pictures of a column, `[N, H, W, C]`."""
    column = table[feature.name]
    try:
        held = [row["bytes"] for row in column.to_pylist()]
    except (TypeError, KeyError) as error:
        raise DataError(f"{place}: {feature.name} has type {column.type}; expected pictures (bytes, path)") from error
    if not all(isinstance(data, bytes) for data in held):
        raise DataError(f"{place}: {feature.name} names files; expected the pictures themselves in the parquet file")
    places = (f"{place}, {feature.name}, frame {index}" for index in range(len(held)))
    return np.stack([decode_picture(data, feature.shape, where) for data, where in zip(held, places, strict=True)])


def _film(info: Info, feature: Feature, row: dict[str, Any], times: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the pictures of an episode from its film."""
    prefix = f"videos/{feature.name}/"
    try:
        chunk, file, begin = (row[prefix + name] for name in ("chunk_index", "file_index", "from_timestamp"))
        path = info.path(info.video_path, video_key=feature.name, chunk_index=chunk, file_index=file)
        return read_film(path, float(begin) + times.astype(np.float64), feature.shape, info.fps)
    except (KeyError, TypeError) as error:
        raise DataError(f"{info.root / 'meta/episodes'}: no {prefix}chunk_index and the like; expected it") from error


def _closed(episode: Episode, last_step: LastStep, place: str, losses: Losses) -> Episode:
    """Return an episode of which nobody knows the last frame."""
    if last_step == "repeat":
        losses["the picture after the last step: it was not recorded, and the last one is repeated"] += 1
        return replace(episode, sensors={key: np.concatenate([v, v[-1:]]) for key, v in episode.sensors.items()})
    if len(episode) < 2:
        raise DataError(f"{place}: one frame; expected two or more, or --last-step repeat")
    paid = " and its reward (--last-step repeat keeps them)" if episode.rewards[-1] else ""
    losses[f"the last step{paid}: the picture after it was not recorded"] += 1
    return replace(episode, actions=episode.actions[:-1], rewards=episode.rewards[:-1], dones=episode.dones[:-1])


def _parts(episode: Episode, layout: Mapping[str, Mapping[str, int]]) -> Episode:
    """Take the vectors apart that the writer laid side by side."""
    sensors = dict(episode.sensors)
    for name, keys in (("state", layout.get("state", {})), (OBJECT, layout.get("privileged", {}))):
        ends = np.cumsum(list(keys.values()))
        if keys and name in sensors and sensors[name].shape[1] == ends[-1]:
            sensors |= dict(zip(keys, np.split(sensors.pop(name), ends[:-1], axis=1), strict=True))
    return replace(episode, sensors=sensors)

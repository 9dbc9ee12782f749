"""Read a LeRobotDataset v3.0, v2.1 or v2.0: its file format directly, without the lerobot package.

LeRobot keeps N frames of N steps: the picture after the last action is not there. A data set that pixelrl wrote keeps
it, and more, in meta/pixelrl.parquet, and comes back as it was.
https://huggingface.co/docs/lerobot/lerobot-dataset-v3; the old layout is that which lerobot's
src/lerobot/datasets/v30/convert_dataset_v21_to_v30.py reads.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert.dataset_stream import DatasetStream, DroppedFields, FormatOptions, described, reading
from pixelrl.datasets.convert.lerobot_info import (
    EXTRAS_PATH,
    INDICES,
    INFO_PATH,
    OBJECT,
    OLD_EPISODES_PATH,
    VERSION,
    Feature,
    Info,
    action_dims,
    arrow,
    digest,
    read_info,
    splits,
)
from pixelrl.datasets.convert.pictures import decode_picture, decode_video
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import flags
from pixelrl.runtime.errors import DataError

REWARD = "next.reward"

ROWS = 256
"""How many rows are read at a time."""


def read_lerobot(root: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a data set; `dropped` fills while the episodes are read.

    Raises:
        DataError: another version, files that are missing, cut or do not fit, no pictures; names the file.
        PixelrlError: pyarrow is not installed.
    """
    info, reward = read_info(root), options.reward_key or REWARD
    rows = _old_episode_rows(root) if info.old else _episode_rows(root)
    if options.reward_key is not None and reward not in info.features:
        raise DataError(f"{root / INFO_PATH}: no {reward!r} among {', '.join(info.features)}")
    own = _Extras.read(root, rows) if (root / EXTRAS_PATH).is_file() else None
    if own is None and {*options.keys} <= {*info.pictures, *info.vectors}:  # what nobody wants is not decoded
        pictures = {key: each for key, each in info.pictures.items() if options.wants(key)}
        vectors = {key: each for key, each in info.vectors.items() if options.wants(key)}
        info = replace(info, pictures=pictures, vectors=vectors)
    _check_claimed(info, rows)
    read = {feature.name for feature in (*info.pictures.values(), *info.vectors.values())}
    for name in info.features:
        if name not in read | set(INDICES) | {info.action.name, reward, "next.done"}:
            dropped[name] += 0
    for name in (reward, "next.done"):
        if name not in info.features:
            dropped[f"{name}, which is not there: 0 is written (--reward and --dones say more)"] += 0

    def episodes() -> Iterator[Episode]:
        for (row, table), extra in zip(_tables(info, rows, reward), own.rows() if own else repeat(None), strict=False):
            episode, place = _episode(info, row, table, reward, dropped), f"{root}: episode {row['episode_index']}"
            yield episode if own is None or extra is None else own.restore(episode, extra, place)

    if own is not None:
        return DatasetStream(episodes=episodes, count=len(rows), **own.about)
    names = {name: feature.names for name, feature in info.vectors.items()}
    env_args = {"env_name": info.robot, "env_kwargs": {"control_freq": info.fps}, "lerobot": {"names": names}}
    about: dict[str, Any] = {"env_args": env_args, "action_dims": action_dims(info.action)}
    return DatasetStream(episodes=episodes, count=len(rows), masks=splits(info, len(rows), dropped), **about)


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
        whole = all(type(row["length"]) is int and row["length"] > 0 for row in rows)
        if [row["episode_index"] for row in rows] != list(range(len(rows))) or not whole:
            raise DataError(f"{paths[0].parent.parent}: episodes do not count from 0 without a gap, or are empty")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{paths[0]}: lacks {error}; expected what {VERSION} says of an episode") from error
    if not rows:
        raise DataError(f"{paths[0]}: no episodes; expected one or more")
    return rows


def _old_episode_rows(root: Path) -> list[dict[str, Any]]:
    """Return what meta/episodes.jsonl says of each episode."""
    path = root / OLD_EPISODES_PATH
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a line an episode")
    with reading(f"{path}: not as LeRobot writes it"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        numbers = [row["episode_index"] for row in rows]
        whole = all(type(row["length"]) is int and row["length"] > 0 for row in rows)
    if not rows or numbers != list(range(len(rows))) or not whole:
        raise DataError(f"{path}: episodes do not count from 0 without a gap, or are empty")
    return rows


def _check_claimed(info: Info, rows: list[dict[str, Any]]) -> None:
    """Raise where there are more episodes or files of data than are described."""
    if info.total_episodes > len(rows):
        what = f"total_episodes is {info.total_episodes}; expected {len(rows)}, as many as are described in meta"
        raise DataError(f"{info.root / INFO_PATH}: {what}")
    named = set(map(info.data_file, rows))
    if others := sorted(path for path in info.root.glob("data/*/[!.]*.parquet") if path not in named):
        raise DataError(
            f"{others[0]}: holds no episode of meta; expected {len(named)} files, there are {len(others)} more"
        )


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
        why = ascii(" ".join(str(error).split()))[1:-1][:120]
        raise DataError(f"{path}: not a parquet file, or a damaged one ({why})") from error


def _tables(info: Info, rows: list[dict[str, Any]], reward: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield each episode's row of meta/episodes and its rows of data, a few of them in memory at a time."""
    pa, _ = arrow()
    columns = [f.name for f in (*info.pictures.values(), *info.vectors.values()) if f.dtype != "video"]
    columns += [name for name in (info.action.name, reward, "next.done", *INDICES) if name in info.features]
    for path, group in groupby(rows, key=info.data_file):
        held = list(group)
        with _opened(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{path}: no column {missing[0]!r}, which info.json promises")
            claimed, there = sum(row["length"] for row in held), file.metadata.num_rows
            if there > claimed:
                raise DataError(f"{path}: {there - claimed} of {there} rows belong to no episode; expected {claimed}")
            batches = file.iter_batches(batch_size=ROWS, columns=columns)
            left = file.schema_arrow.empty_table().select(columns)
            for row in held:
                while len(left) < row["length"] and (batch := next(batches, None)) is not None:
                    left = pa.concat_tables([left, pa.Table.from_batches([batch])])
                table, left = left.slice(0, row["length"]), left.slice(row["length"])
                own = table["episode_index"].to_pylist().count(row["episode_index"])
                if not own == len(table) == row["length"]:
                    came = f"{own} of its rows in their place"
                    raise DataError(f"{path}: episode {row['episode_index']}: {came}; expected {row['length']}")
                _check_order(table, f"{path}: episode {row['episode_index']}")
                yield row, table


def _check_order(table: Any, place: str) -> None:
    """Raise unless the rows of an episode count from 0, where they are counted."""
    if "frame_index" in table.column_names:
        numbers = _numbers(table, "frame_index", 1, place)[:, 0]
        odd = np.flatnonzero(numbers != np.arange(len(numbers)))
        if len(odd):
            raise DataError(
                f"{place}: frame_index of row {odd[0]} is {numbers[odd[0]]}; expected {odd[0]}, rows in order"
            )


def _episode(info: Info, row: dict[str, Any], table: Any, reward: str, dropped: DroppedFields) -> Episode:
    """Return N frames of N steps: an `Episode` that still lacks the last frame."""
    steps, place = len(table), f"{info.root}: episode {row['episode_index']}"
    times = _numbers(table, "timestamp", 1, place)[:, 0] if "timestamp" in table.column_names else None
    even = np.arange(steps) / info.fps
    if times is not None and np.abs(times - even).max() > 0.1 / info.fps:
        dropped["timestamps, which are not those of even steps"] += 1
    if len(row.get("tasks") or ()) > 1:
        dropped["all tasks of an episode but its first"] += 1
    sensors: dict[str, NDArray[Any]] = {}
    for key, feature in info.pictures.items():
        if feature.dtype == "image":
            sensors[key] = _pictures(table, feature, place)
        else:
            path, begin = info.video_file(row, feature.name)
            taken = begin + (even if times is None else times).astype(np.float64)
            sensors[key] = decode_video(path, taken, feature.shape, info.fps)
    for key, feature in info.vectors.items():
        sensors[key] = _numbers(table, feature.name, feature.shape[0], place)
    scalars = {name: np.zeros((steps, 1), np.float32) for name in (reward, "next.done")}
    scalars |= {name: _numbers(table, name, 1, place) for name in scalars if name in info.features}
    return Episode(
        sensors=sensors,
        actions=_numbers(table, info.action.name, info.action.shape[0], place),
        rewards=scalars[reward][:, 0],
        dones=flags(scalars["next.done"][:, 0], f"{info.data_file(row)}: episode {row['episode_index']}: next.done"),
        notes={"task": task} if (task := (row.get("tasks") or [""])[0]) else {},
    )


def _numbers(table: Any, name: str, size: int, place: str) -> NDArray[Any]:
    """Return a column of numbers as `[N, size]`."""
    pa, _ = arrow()
    column = table[name].combine_chunks()
    while hasattr(column, "flatten") and pa.types.is_nested(column.type) and not pa.types.is_struct(column.type):
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


class _Extras:
    """What pixelrl wrote beside LeRobot's files; it is believed only where it agrees with them."""

    CHANGED = "the data were changed since: remove this file to convert what is left"

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, described(about)
        self.layout = dict(about["state"]), dict(about["privileged"])

    @classmethod
    def read(cls, root: Path, rows: list[dict[str, Any]]) -> "_Extras":
        """Open the file and compare it with what meta/episodes says."""
        path = root / EXTRAS_PATH
        with _opened(path) as file, reading(f"{path}: not as pixelrl writes it"):
            extras = cls(path, json.loads(file.schema_arrow.metadata[b"pixelrl"]))
            lengths = file.read(columns=["length"])["length"].to_pylist()
        if lengths != [row["length"] for row in rows]:
            told = f"describes {len(lengths)} episodes of {sum(filter(None, lengths))} steps"
            held = f"there are {len(rows)} of {sum(row['length'] for row in rows)}"
            raise DataError(f"{path}: {told} where {held}; {cls.CHANGED}")
        return extras

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, one in memory at a time."""
        with _opened(self.path) as file:
            for batch in file.iter_batches(batch_size=1):
                yield batch.to_pylist()[0]

    def restore(self, episode: Episode, row: Mapping[str, Any], place: str) -> Episode:
        """Return an episode as it was: sensors apart, and with their last frame; data sets of old lack the digest."""
        sensors = dict(episode.sensors)
        vectors = [sensors[name] for name in ("state", OBJECT) if name in sensors]
        if row.get("digest") not in (None, digest(episode.actions, *vectors)):
            raise DataError(
                f"{self.path}: {place}: has other actions or vectors than it was written for; {self.CHANGED}"
            )
        for name, keys in zip(("state", OBJECT), self.layout, strict=True):
            if keys and name in sensors:
                ends = np.cumsum(list(keys.values()))
                sensors |= dict(zip(keys, np.split(sensors.pop(name), ends[:-1], axis=1), strict=True))
        with reading(f"{self.path}: {place}: not as pixelrl writes it"):
            for key, held in sensors.items():
                last = row[f"last/{key}"]
                picture = held.dtype == np.uint8 and held.ndim == 4
                frame = decode_picture(last, held.shape[1:], place) if picture else np.array(last, np.float32)
                sensors[key] = np.concatenate([held, frame[None]])
            states = None if row["states"] is None else np.array(row["states"], np.float64)
            states = states if states is None else np.concatenate([states, states[-1:]])
            attributes = {name: str(text) for name, text in json.loads(row["attributes"]).items()}
            notes = dict(json.loads(row["notes"]))
        return replace(episode, sensors=sensors, states=states, attributes=attributes, notes=notes)

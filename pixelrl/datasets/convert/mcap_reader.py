"""What `pixelrl serve --record NAME.mcap` wrote, as `mcap_layout` says; MCAP of others is refused.

A recording whose server was killed is read up to where it was cut.
"""

import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.convert import mcap_layout
from pixelrl.datasets.convert.dataset_stream import (
    NO_REWARDS,
    Budget,
    DatasetStream,
    DroppedFields,
    FormatOptions,
    described,
    reading,
)
from pixelrl.datasets.convert.mcap_layout import ABOUT, ACTION, CAMERA, EPISODE, LAYOUT, PART, SUFFIX, VECTORS
from pixelrl.datasets.convert.pictures import MODES, decode_pictures
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.access import DEFLATED
from pixelrl.runtime.errors import DataError

if TYPE_CHECKING:
    from mcap.records import Message

MOST = 100_000
"""Episodes of a file."""

OURS = "expected a recording of `pixelrl serve --record NAME.mcap`"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(kw_only=True)
class _Run:
    """Steps of an episode that follow one another.

    Attributes:
        steps: their numbers.
        chunks: where they lie: the place and length of each record.
        notes: what is said of them: the peer's connection, the episode's number in the file, what ended it.
    """

    steps: range
    chunks: list[tuple[int, int]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


def is_mcap(path: Path) -> bool:
    """Tell whether something is MCAP, by its name."""
    return path.name.endswith((SUFFIX, SUFFIX + PART))


def read_mcap(path: Path, dropped: DroppedFields, options: FormatOptions = FormatOptions()) -> DatasetStream:
    """Open a recording.

    Raises:
        DataError: no recording of ours, one of chunks of actions, a damaged one, or one without two steps.
    """
    if options.reward_key is not None:
        raise DataError(f"{path}: no rewards under {options.reward_key!r}; a recording of a server has none")
    shapes, said = _about(path)
    recording = _McapFile(path, shapes, len(said["action_dims"]))
    runs = recording.index(dropped)
    dropped[NO_REWARDS] += 0
    if single := sum(len(run.steps) < 2 for run in runs):
        dropped["whole episodes of one step, which lead nowhere"] += single
    runs = [run for run in runs if len(run.steps) > 1]
    if not runs:
        raise DataError(f"{path}: no episode of two steps or more")

    def episodes() -> Iterator[Episode]:
        budget = Budget(path, DEFLATED)
        for run in runs:
            yield recording.episode(run, budget, options)

    return DatasetStream(episodes=episodes, count=len(runs), **said)


class _McapFile:
    """A file, its sensors' shapes, and how many numbers an action has."""

    def __init__(self, path: Path, shapes: Shapes, actions: int) -> None:
        self.path, self.shapes, self.actions = path, shapes, actions
        self._topics = dict[int, str]()
        self._commas = 64 + 2 * actions + sum(shape[0] for shape in shapes.values() if len(shape) == 1)

    def index(self, dropped: DroppedFields) -> list[_Run]:
        """Read the file once, and return the episodes that are in it; what is missing is told."""
        from mcap.opcode import Opcode

        runs, latest, ended, whole, place = list[_Run](), dict[int, _Run](), dict[int, str](), False, 0
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            for kind, start, length in mcap_layout.records(file, size):
                place, whole = start + length, kind == Opcode.FOOTER
                if whole:
                    break
                for topic, message in self._messages(file, (start, length)) if kind == Opcode.CHUNK else ():
                    if topic == ACTION:
                        self._note(self._parsed(message), (start, length), runs, latest)
                    elif topic == EPISODE:
                        said = self._parsed(message)
                        if (number := self._number(said, "episode")) in latest:
                            ended[number] = str(said.get("ended"))[:200]
        if not whole:
            what = "the recording's end, which is missing: its server was killed, or the file was cut"
            dropped[f"{what} ({size - place} bytes behind the last whole record)"] += 0
        for run in runs:
            last = latest[run.notes["episode"]] is run
            run.notes["ended"] = ended.get(run.notes["episode"], "the recording was cut") if last else "steps are lost"
        return runs

    def episode(self, run: _Run, budget: Budget, options: FormatOptions) -> Episode:
        """Read an episode: N instants, and the N actions that were taken there."""
        rows: dict[str, list[Any]] = {key: [] for key in self.shapes if options.wants(key)}
        actions = list[NDArray[np.float32]]()
        with self.path.open("rb") as file:
            for chunk in run.chunks:
                budget.spend(chunk[1])
                for said, seen in self._steps(file, chunk):
                    if said.get("episode") == run.notes["episode"] and said.get("step") in run.steps:
                        actions.append(self._numbers(said["actions"][0].get("normalised"), self.actions, ACTION))
                        self._collect(seen, rows)
        place = f"{self.path}: episode {run.notes['episode']}"
        sensors = {
            key: decode_pictures(each, f"{place}: {key}", budget, self.shapes[key])
            if len(self.shapes[key]) == 3
            else np.stack(each)
            for key, each in rows.items()
        }
        zeros = np.zeros(len(actions), np.float32)
        return Episode(sensors=sensors, actions=np.stack(actions), rewards=zeros, dones=zeros > 0, notes=run.notes)

    def _note(self, said: dict[str, Any], chunk: tuple[int, int], runs: list[_Run], latest: dict[int, _Run]) -> None:
        """Add a step to the run that it goes on with, or to a new one."""
        episode, step, connection = (self._number(said, key) for key in ("episode", "step", "connection"))
        each = said.get("actions")
        if not isinstance(each, list) or len(each) != 1 or not isinstance(each[0], dict):
            self._fail(f"{ACTION}: not one action in an answer")
        run = latest.get(episode)
        if run is None or step != run.steps.stop:
            run = latest[episode] = _Run(steps=range(step, step), notes={"connection": connection, "episode": episode})
            runs.append(run)
            if len(runs) > MOST:
                self._fail(f"more than {MOST} episodes")
        run.steps = range(run.steps.start, step + 1)
        if chunk not in run.chunks[-1:]:
            run.chunks.append(chunk)

    def _steps(self, file: BinaryIO, chunk: tuple[int, int]) -> Iterator[tuple[dict[str, Any], dict[str, "Message"]]]:
        """Yield what is said with each action of a chunk, and the messages by topic of what was seen before it."""
        seen = dict[str, "Message"]()
        for topic, message in self._messages(file, chunk):
            if topic == ACTION:
                same = {key: each for key, each in seen.items() if each.sequence == message.sequence}
                yield self._parsed(message), same
                seen.clear()
            else:
                seen[topic] = message

    def _collect(self, seen: Mapping[str, "Message"], rows: dict[str, list[Any]]) -> None:
        """Add what was seen at an instant: pictures as PNG, vectors."""
        if VECTORS not in seen:
            self._fail(f"no {VECTORS} beside an action")
        vectors = self._parsed(seen[VECTORS]).get("vectors")
        for key, held in rows.items():
            shape, topic = self.shapes[key], f"{CAMERA}{key}"
            if len(shape) == 1:
                held.append(self._numbers(vectors.get(key) if isinstance(vectors, dict) else None, shape[0], key))
                continue
            data = self._parsed(seen[topic]).get("data") if topic in seen else None
            try:
                held.append(binascii.a2b_base64(str(data), strict_mode=True))
            except ValueError:
                self._fail(f"{topic}: no picture in base64 beside an action")

    def _number(self, said: Mapping[str, Any], key: str) -> int:
        value = said.get(key)
        if type(value) is not int or not 0 <= value < 2**53:
            self._fail(f"{key} {str(value)[:20]!r} of a message; expected a number from 0 on")
        return value

    def _numbers(self, values: Any, size: int, name: str) -> NDArray[np.float32]:
        """Return a list of numbers as float32 `[size]`."""
        try:
            with np.errstate(over="ignore"):
                numbers = np.array(values, np.float64).astype(np.float32)
        except (TypeError, ValueError, OverflowError):
            numbers = np.empty(0, np.float32)
        if numbers.shape != (size,) or not np.isfinite(numbers).all():
            self._fail(f"{name}: expected a list of {size} finite numbers")
        return numbers

    def _messages(self, file: BinaryIO, chunk: tuple[int, int]) -> Iterator[tuple[str, "Message"]]:
        return mcap_layout.messages(self.path, file, chunk, self._topics)

    def _parsed(self, message: "Message") -> dict[str, Any]:
        """Return the JSON object of a message; one of many items is none of ours, and would fill the memory."""
        value = mcap_layout.parsed(message.data) if message.data.count(b",") <= self._commas else None
        if not isinstance(value, dict):
            self._fail("a message that is no JSON object as we write it")
        return value

    def _fail(self, what: str) -> NoReturn:
        raise DataError(f"{self.path}: {what}")


def _about(path: Path) -> tuple[Shapes, dict[str, Any]]:
    """Return the shapes of an instant, and the fields of a `DatasetStream` that the recording names.

    Raises:
        DataError: it is none of ours, or one of chunks.
    """
    with path.open("rb") as file:
        if not mcap_layout.begins_as_mcap(file):
            raise DataError(f"{path}: not MCAP; {OURS}")
        record = mcap_layout.metadata(path, file, ABOUT)
    if record is None:
        raise DataError(f"{path}: MCAP without a metadata record {ABOUT!r}; {OURS}")
    if record.get("layout") != LAYOUT:
        came = f"layout {str(record.get('layout'))[:20]!r}"
        raise DataError(f"{path}: {came}; expected {LAYOUT!r}, as this pixelrl writes it")
    names = ("inputs", "env_args", "action_dims", "chunk")
    with reading(f"{path}: the metadata record {ABOUT!r} is damaged"):
        said = {name: mcap_layout.parsed(record[name].encode()) for name in names}
        shapes = {str(key): tuple(shape) for key, shape in said["inputs"].items()}
        fields = described({**said, "masks": {}})
        json.dumps(fields["env_args"], allow_nan=False)
        known = all(type(side) is int and 0 < side < 2**16 for shape in shapes.values() for side in shape)
        known &= all(key.isprintable() for key in shapes)
        images = all(len(shape) == 1 or (len(shape) == 3 and shape[2] in MODES) for shape in shapes.values())
    if not (known and images and fields["action_dims"]):
        raise DataError(f"{path}: the metadata record {ABOUT!r} names no shapes or no action")
    if said["chunk"] != 1:
        what = "how many of each were carried out, and what was seen between them, is not recorded"
        raise DataError(f"{path}: answers are chunks of {str(said['chunk'])[:20]} actions, which are no steps: {what}")
    return shapes, fields

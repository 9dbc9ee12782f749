"""Convert data sets between formats, and prove by hash that what arrived is what was sent."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pixelrl.runtime.env_args import control_freq_of
from pixelrl.datasets.convert import cog
from pixelrl.datasets.convert import lerobot_reader
from pixelrl.datasets.convert import lerobot_sidecar
from pixelrl.datasets.convert import lerobot_writer
from pixelrl.datasets.convert import minari as minari_hdf5
from pixelrl.datasets.convert import robomimic as recorded_hdf5
from pixelrl.datasets.convert.interchange import Fingerprint, Interchange, Losses, check_kinds
from pixelrl.datasets.convert.lerobot_format import INFO_PATH, VERSION
from pixelrl.datasets.convert.lerobot_reader import LastStep
from pixelrl.datasets.episode import Episode
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import atomic_tree, write_json
from pixelrl.launch.console import progress_bar
from pixelrl.launch.provenance import Provenance

Format = Literal["hdf5", "lerobot", "minari", "cog"]
NAMES = {
    "hdf5": "robomimic's HDF5",
    "lerobot": f"LeRobotDataset {VERSION}",
    "minari": "Minari's HDF5",
    "cog": "COG's .npy",
}

BESIDE = {
    "lerobot": f"{lerobot_sidecar.NAME} keeps what LeRobot has no room for: last pictures, states, notes, float64",
    "minari": "states, notes, attributes and masks lie under 'pixelrl', where Minari does not look",
}
"""What else is in a data set of these formats, for the way back."""

Tick = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What some of the formats leave open.

    Attributes:
        images: how LeRobot is to keep pictures: exact PNG, or films.
        compress: gzip the pictures of an HDF5 file, one frame a chunk.
        fps: for LeRobot, how often the robot acted [Hz]; None: what `env_args` say.
        task: for LeRobot, what the robot was told; None: what the data say.
        last_step: from LeRobot, what becomes of the step without a next picture.
    """

    images: Literal["png", "video"] = "png"
    compress: bool = False
    fps: float | None = None
    task: str | None = None
    last_step: LastStep = "drop"


def convert(
    source: Path,
    target: Path,
    *,
    source_format: Format | None = None,
    target_format: Format | None = None,
    options: Options | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write `source` in another format at `target`, and `OUT.convert.json` beside it.

    `target` appears when it is whole, was read back, and holds what was sent; after an interruption there is nothing.

    Raises:
        PixelrlError: a format that cannot be guessed or written, a target that exists, an option that is missing.
        DataError: data that do not fit, or that did not arrive as they were sent.
    """
    provenance, options = Provenance(), options or Options()
    kind, aim = source_format or guess_source(source), target_format or guess_target(target)
    if aim == "cog":
        raise PixelrlError(f"{target}: COG's .npy is read only; choose hdf5, lerobot or minari with --to-format")
    if target.exists():
        raise PixelrlError(f"{target}: exists already; choose another name, or remove it")
    console.print(f"{source}: {NAMES[kind]}{_guessed(source_format)}", highlight=False, soft_wrap=True)
    console.print(f"{target}: {NAMES[aim]}{_guessed(target_format)}", highlight=False, soft_wrap=True)
    losses: Losses = Counter()
    with progress_bar(console) as bar, atomic_tree(target) as temporary:
        job = bar.add_task("read", total=None, note=str(source.name))

        def tick(done: int, total: int) -> None:
            bar.update(job, completed=done, total=total)

        recording = open_recording(source, kind, options, losses, tick)
        sent = Fingerprint(recording)
        bar.update(job, description="convert", completed=0, total=recording.count)
        tapped = replace(recording, episodes=lambda: _tapped(source, recording, sent, tick))
        lossy = _write(temporary, aim, tapped, options)
        bar.update(job, description="verify", completed=0, total=recording.count)
        arrived = _verify(temporary, aim, sent, lossy, tick)
        differences = _differences(source, kind, temporary, aim, options, lossy)
    arrays = [
        {"name": name, "kind": sent.shapes.get(name, "text"), "sha256": digest, "arrived": arrived[name]}
        | ({"mean_difference": differences[name]} if name in differences else {})
        for name, digest in sent.digests().items()
    ]
    result: dict[str, Any] = {
        "from": {"path": str(source), "format": NAMES[kind]},
        "to": {"path": str(target), "format": NAMES[aim]},
        "episodes": recording.count,
        "arrays": arrays,
        "dropped": [{"what": what, "episodes": count or "all"} for what, count in sorted(losses.items())],
    }
    if aim in BESIDE:
        result["beside"] = BESIDE[aim]
    name = target.stem if aim == "hdf5" else target.name
    write_json(target.with_name(f"{name}.convert.json"), result | provenance.record())
    _print(result, console)
    return result


def guess_source(path: Path) -> Format:
    """Tell the format of what is there."""
    if path.suffix == ".npy":
        return "cog"
    if path.suffix in (".hdf5", ".h5"):
        return "hdf5"
    if (path / INFO_PATH).is_file():
        return "lerobot"
    if (path / minari_hdf5.METADATA).is_file():
        return "minari"
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    raise PixelrlError(
        f"{path}: an unknown format; expected .npy (COG), .hdf5, a folder with {INFO_PATH} (LeRobot) or with "
        f"{minari_hdf5.METADATA} (Minari), or say it with --from-format"
    )


def guess_target(path: Path) -> Format:
    """Tell the format that a name asks for: a file is HDF5, `NAME-v0` Minari's, and any other folder LeRobot's."""
    if path.suffix in (".hdf5", ".h5"):
        return "hdf5"
    if re.fullmatch(r".*-v\d+", path.name):
        return "minari"
    if not path.suffix:
        return "lerobot"
    raise PixelrlError(f"{path}: an unknown format; expected NAME.hdf5, NAME-v0 (Minari) or NAME (LeRobot)")


def _guessed(told: Format | None) -> str:
    return "" if told else " (guessed from the name)"


def open_recording(path: Path, kind: Format, options: Options, losses: Losses, tick: Tick | None = None) -> Interchange:
    """Open a data set."""
    if kind == "cog":
        return cog.read_recording(path, losses, tick)
    if kind == "lerobot":
        return lerobot_reader.read_recording(path, losses, last_step=options.last_step)
    if kind == "minari":
        return minari_hdf5.read_recording(path, losses)
    return recorded_hdf5.read_recording(path, losses)


def _write(path: Path, aim: Format, recording: Interchange, options: Options) -> frozenset[str]:
    """Write a data set, and return the names of the arrays that lose something."""
    if aim == "lerobot":
        fps = options.fps or control_freq_of(recording.env_args)
        if fps is None or not 0 < fps < float("inf"):
            raise PixelrlError(
                f"{path.name}: nobody knows how often the robot acted, and LeRobot wants to: say it with --fps [Hz]"
            )
        video = options.images == "video"
        return lerobot_writer.write_recording(path, recording, fps=fps, task=options.task, video=video)
    if aim == "minari":
        minari_hdf5.write_recording(path, recording)
    else:
        recorded_hdf5.write_recording(path, recording, compress=options.compress)
    return frozenset()


def _tapped(source: Path, recording: Interchange, sent: Fingerprint, tick: Tick) -> Iterator[Episode]:
    """Yield the episodes, and take the fingerprint of each as it passes."""
    first: Episode | None = None
    for index, episode in enumerate(recording.episodes()):
        first = first or episode
        check_kinds(episode, first, f"{source}: episode {index}")
        sent.add(episode)
        yield episode
        tick(index + 1, recording.count)


def _verify(path: Path, aim: Format, sent: Fingerprint, lossy: frozenset[str], tick: Tick) -> dict[str, str]:
    """Read back what was written, and return its hashes.

    Raises:
        DataError: it is not what was sent.
    """
    losses: Losses = Counter()
    recording = open_recording(path, aim, Options(), losses)
    arrived = Fingerprint(recording)
    for index, episode in enumerate(recording.episodes()):
        arrived.add(episode)
        tick(index + 1, recording.count)
    before, after = sent.digests(), arrived.digests()
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in lossy]
    if changed or +losses:
        what = ", ".join([*changed, *losses])
        raise DataError(f"{path.name}: read back, it does not hold what was sent ({what}); nothing was kept of it")
    return after


def _differences(
    source: Path, kind: Format, path: Path, aim: Format, options: Options, lossy: frozenset[str]
) -> dict[str, float]:
    """Return the mean absolute difference of the arrays that lose something, over all their numbers."""
    if not lossy:
        return {}
    sums, counts = Counter[str](), Counter[str]()
    before, after = open_recording(source, kind, options, Counter()), open_recording(path, aim, Options(), Counter())
    for one, other in zip(before.episodes(), after.episodes(), strict=True):
        for name in lossy:
            key = name.removeprefix("sensors/")
            a, b = one.sensors[key].astype(np.int16), other.sensors[key].astype(np.int16)
            sums[name] += int(np.abs(a - b).sum())
            counts[name] += a.size
    return {name: sums[name] / counts[name] for name in lossy}


def _print(result: dict[str, Any], console: Console) -> None:
    """Print what arrived and what did not."""
    table = Table("array", "type and shape", "SHA-256", "read back")
    for array in result["arrays"]:
        verdict = "the same" if array["sha256"] == array["arrived"] else ""
        if "mean_difference" in array:
            verdict = f"differs by {array['mean_difference']:.2f} of 255 on average"
        table.add_row(escape(array["name"]), escape(array["kind"]), array["sha256"][:16], verdict)
    console.print(table)
    for item in result["dropped"]:
        console.print(
            escape(f"left behind: {item['what']} ({item['episodes']} episodes)"), highlight=False, soft_wrap=True
        )
    beside = f"; {result['beside']}" if "beside" in result else ""
    console.print(f"{result['to']['path']}: {result['episodes']} episodes{beside}", highlight=False, soft_wrap=True)

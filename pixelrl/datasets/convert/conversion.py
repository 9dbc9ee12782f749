"""Convert data sets between formats, and prove by hash that what arrived is what was sent."""

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelrl.datasets.convert.dataset_stream import (
    DatasetStream,
    DroppedFields,
    Fingerprint,
    FormatOptions,
    episode_arrays,
    leaving_out,
)
from pixelrl.datasets.convert.formats import FORMATS, Format
from pixelrl.datasets.convert.rules import RewardSums, apply_rules, total
from pixelrl.datasets.episode import Episode
from pixelrl.datasets.hdf5.episode_checks import check_form, form_of
from pixelrl.runtime.errors import DataError, PixelrlError
from pixelrl.runtime.files import atomic_tree

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEPT = "nothing was kept of it, and the source is as it was"


def convert_dataset(
    source: Path,
    target: Path,
    source_format: str,
    target_format: str,
    *,
    options: FormatOptions = FormatOptions(),
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write `source` in another format at `target`, and return what arrived and what was dropped, as JSON values.

    `target` appears when it is whole, was read back, and holds what was sent; after an interruption there is nothing.

    Raises:
        PixelrlError: a format that cannot be written, a target that exists, an option that is missing.
        DataError: data that do not fit, or that did not arrive as they were sent.
    """
    given, wanted = FORMATS[source_format], FORMATS[target_format]
    if wanted.write is None:
        raise PixelrlError(f"{target}: {wanted.title} is read only; choose hdf5, lerobot or minari with --to-format")
    if options.leave_out and source_format not in ("hdf5", "libero", "isaaclab"):
        raise PixelrlError(f"--leave-out: {source} is {given.title}; expected one HDF5 file of demo_0, demo_1, ...")
    if target.exists():
        raise PixelrlError(f"{target}: exists already; choose another name, or remove it")
    dropped, sums = Counter[str](), RewardSums()

    def opened(dropped: DroppedFields, sums: RewardSums) -> DatasetStream:
        return wanted.fit(apply_rules(given.read(source, dropped, options), options, source, dropped, sums), dropped)

    with _told_in_a_line(target), atomic_tree(target) as temporary:
        stream = opened(dropped, sums)
        sent = Fingerprint(stream)
        passing = replace(stream, episodes=lambda: _recorded(source, stream, sent, progress))
        with _named_as_in(source, stream, temporary, sent):
            lossy = wanted.write(temporary, passing, options)
        arrived, rewards = _verify(temporary, wanted, sent, lossy, progress)
        again = opened(Counter(), RewardSums()) if lossy else stream
        differences = _differences(again, wanted.read(temporary, Counter(), FormatOptions()), lossy)
    arrays = [
        {"name": name, "kind": sent.shapes.get(name, "text"), "sha256": digest, "arrived": arrived[name]}
        | ({"mean_difference": differences[name]} if name in differences else {})
        for name, digest in sent.digests().items()
    ]
    result: dict[str, Any] = {
        "from": {"path": str(source), "format": given.title},
        "to": {"path": str(target), "format": wanted.title},
        "episodes": stream.count,
        "arrays": arrays,
        "rewards": asdict(sums) | {"written": rewards},
        "dropped": [{"what": what, "episodes": count or "all"} for what, count in sorted(dropped.items())],
    }
    return result | ({"beside": wanted.extras} if wanted.extras else {})


@contextmanager
def _told_in_a_line(target: Path) -> Iterator[None]:
    """Say of a full disk which file it kept from being written, whatever wrote it."""
    try:
        yield
    except (OSError, DataError) as error:
        full = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(full, OSError) or full.errno not in FULL:
            raise
        raise DataError(f"{target}: could not be written ({os.strerror(full.errno)}); {KEPT}") from error


@contextmanager
def _named_as_in(source: Path, stream: DatasetStream, temporary: Path, sent: Fingerprint) -> Iterator[None]:
    """Let a writer's error about the episode that it was given last name the source's, which can be mended."""
    try:
        yield
    except DataError as error:
        told = re.sub(rf"{re.escape(str(temporary))}: (demo_|episode )\d+[:,] ", "", str(error))
        if told == str(error):
            raise
        name = stream.name(sent.episodes - 1)
        with leaving_out(stream.names, name):
            raise DataError(f"{source}: {name}: {told}") from error


def _recorded(source: Path, stream: DatasetStream, sent: Fingerprint, progress: Progress) -> Iterator[Episode]:
    """Yield the episodes, and take the fingerprint of each as it passes."""
    before: dict[str, str] = {}
    progress("convert", 0, stream.count)
    for index, episode in enumerate(stream.episodes()):
        form = form_of(episode_arrays(replace(episode, states=None)))
        place = f"{source}: {stream.name(index)}"
        with leaving_out(stream.names, stream.name(index)):
            check_form(form, before or form, place)
        before = form
        sent.add(episode)
        yield episode
        progress("convert", index + 1, stream.count)


def _verify(
    path: Path, written: Format, sent: Fingerprint, lossy: frozenset[str], progress: Progress
) -> tuple[dict[str, str], float]:
    """Read back what was written, and return its hashes and the sum of its rewards.

    Raises:
        DataError: it is not what was sent.
    """
    dropped: DroppedFields = Counter()
    stream = written.read(path, dropped, FormatOptions())
    arrived, rewards = Fingerprint(stream), 0.0
    for index, episode in enumerate(stream.episodes()):
        arrived.add(episode)
        rewards += total(episode)
        progress("verify", index + 1, stream.count)
    before, after = sent.digests(), arrived.digests()
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name) and name not in lossy]
    if changed or +dropped:
        what = ", ".join([*changed, *dropped])
        raise DataError(f"{path.name}: read back, it does not hold what was sent ({what}); nothing was kept of it")
    if written.check is not None:
        written.check(path)
    return after, rewards


def _differences(before: DatasetStream, after: DatasetStream, lossy: frozenset[str]) -> dict[str, float]:
    """Return the mean absolute difference of the arrays that lose something, over all their numbers."""
    sums, counts = Counter[str](), Counter[str]()
    for one, other in zip(before.episodes(), after.episodes(), strict=True) if lossy else ():
        for name in lossy:
            key = name.removeprefix("sensors/")
            a, b = one.sensors[key].astype(np.int16), other.sensors[key].astype(np.int16)
            sums[name] += int(np.abs(a - b).sum())
            counts[name] += a.size
    return {name: sums[name] / counts[name] for name in lossy}

"""From files to a mixture: open them, bring their frames to where the memory plan says, and read their numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelrl.datasets.buffer.frames import FrameIndex, Progress, place_frames
from pixelrl.datasets.buffer.memory_plan import Memory
from pixelrl.datasets.buffer.mixture import CPU, Mixture
from pixelrl.datasets.buffer.recorded_file import RecordedFile, open_recorded_file
from pixelrl.datasets.buffer.sources import Source, check_together
from pixelrl.datasets.buffer.transition_table import TransitionTable, read_transitions
from pixelrl.datasets.hdf5.reader import FileContents
from pixelrl.learning.batch import Spec
from pixelrl.runtime.actions import ActionRange, unnamed_dims
from pixelrl.runtime.env_args import order_of_arms
from pixelrl.runtime.errors import DataError
from pixelrl.runtime.seeding import derive

REORDER = ": robosuite 1.5 changed their order, and `pixelrl render` brings recordings of 1.4 into it"
STD_FLOOR = 1e-3


def load_dataset(
    sources: Sequence[Source],
    *,
    batch_size: int,
    seed: int,
    history: int = 1,
    chunk: int = 1,
    images: Sequence[str] | None = None,
    proprio: Sequence[str] | None = None,
    actions: ActionRange = "unit",
    memory: Memory = "auto",
    cache_dir: Path | None = None,
    device: torch.device = CPU,
    workers: int = 1,
    progress: Progress | None = None,
    copies: int = 1,
    **sampling: Any,
) -> Mixture:
    """Open the files of all sources, and return their mixture.

    Args:
        sources: what to mix.
        batch_size: B, of all ranks together.
        seed: of the batches, and of sources' random fractions.
        history: frames that an observation shows; before an episode's first frame that one is repeated.
        chunk: successive actions that count as one.
        images: observation keys of the cameras, as `read_contents` takes them.
        proprio: those of the proprioception.
        actions: as `read_transitions` takes them.
        memory: where frames live.
        cache_dir: where a cache is kept; None: beside each file.
        device: the learner's. Frames may live there; otherwise batches for CUDA lie in page-locked memory.
        workers: how many processes may build a cache.
        progress: watches the frames come in.
        copies: how many processes on this machine open the same.
        sampling: `gamma`, and whatever else `Mixture` takes.

    Raises:
        DataError: sources that cannot be mixed, or files that cannot be read.
    """
    check_together(sources)
    ends = sampling.get("ends", "never")
    opened = [
        [open_recorded_file(path, source.selection(ends, images, proprio), cache_dir) for path in source.paths()]
        for source in sources
    ]
    check_alike([file.contents for files in opened for file in files])
    used = [choose_demos(files, source, seed) for source, files in zip(sources, opened, strict=True)]
    index = FrameIndex(file for files in used for file in files)
    plan, pictures = place_frames(
        index, memory=memory, device=device, copies=copies, batch_size=batch_size, workers=workers, progress=progress
    )
    for file in (file for files in opened for file in files) if plan.place == "cache" else ():
        file.keep_numbers()
    task = next((number for number, source in enumerate(sources) if source.reward_scale), 0)  # whose rewards count
    table = read_transitions(sources, used, index, pictures, actions=actions)
    return Mixture(
        table,
        sources,
        spec=replace(_spec(table, opened[0][0].contents, sources), history=history, chunk=chunk),
        env_args=opened[task][0].contents.env_args,
        plan=plan,
        ignored=_ignored(sources, opened),
        batch_size=batch_size,
        seed=seed,
        home=device if plan.place == "gpu" else CPU,
        pin=device.type == "cuda",
        **sampling,
    )


def _ignored(sources: Sequence[Source], opened: Sequence[Sequence[RecordedFile]]) -> dict[str, str]:
    """Return the observation keys that are not learned from, and why; with the sources, where not all have it."""
    found: dict[str, dict[str, str]] = {}
    for source, files in zip(sources, opened, strict=True):
        for key, why in (item for file in files for item in file.contents.ignored.items()):
            found.setdefault(key, {}).setdefault(source.name, why)
    return {
        key if len(some) == len(sources) else f"{key} of {', '.join(some)}": next(iter(some.values()))
        for key, some in found.items()
    }


def choose_demos(files: Sequence[RecordedFile], source: Source, seed: int) -> list[RecordedFile]:
    """Return the files with a source's fraction of their demos, counted over all; those without any are left out."""
    demos = [(number, name) for number, file in enumerate(files) for name in file.contents.demos]
    count = max(1, int(source.fraction * len(demos) + 0.5))
    order = np.arange(len(demos))
    if source.pick == "random":
        order = np.random.default_rng(derive(seed, "fraction", source.name)).permutation(len(demos))
    chosen = {demos[place] for place in order[:count]}
    parts = []
    for number, file in enumerate(files):
        some = {name: steps for name, steps in file.contents.demos.items() if (number, name) in chosen}
        if some:
            parts.append(replace(file, contents=replace(file.contents, demos=some)))
    return parts


def check_alike(files: Sequence[FileContents]) -> None:
    """Raise unless files that are read together hold the same keys, shapes and actions, as far as these are known.

    Raises:
        DataError: names the first file that differs from the first one, and in what.
    """
    orders = {order: file.path for file in files if (order := order_of_arms(file.env_args))}
    if len(orders) > 1:
        (one, here), (two, there), *_ = orders.items()
        raise DataError(f"{there}: a two-armed robot's actions are {two}; expected {one}, as in {here}{REORDER}")
    first = files[0]
    expected = _traits(first)
    for other in files[1:]:
        came = _traits(other)
        for key in expected | came:
            if expected.get(key) != came.get(key):
                raise DataError(
                    f"{other.path}: {key} is {came.get(key, 'missing')}; expected {expected.get(key, 'no such key')}, "
                    f"as in {first.path}{_remedy(first, other, key)}"
                )


def _remedy(first: FileContents, other: FileContents, key: str) -> str:
    """Return what may help where two files differ in a trait."""
    if not key.startswith("action "):
        both = key in _traits(first) and key in _traits(other)
        return "" if both else " (--task-rename or --prior-rename OLD=NEW where it is called otherwise)"
    silent = [file.path for file in (first, other) if file.action == unnamed_dims(len(file.action))]
    if len(first.action) != len(other.action) or len(silent) != 1:
        return ""
    return (
        f" ({silent[0]} does not say what its actions are; if they are the same, give its /data the attribute env_args "
        "or action_dims of the other)"
    )


def _traits(contents: FileContents) -> dict[str, str]:
    """Return what files that are read together must share."""
    action = {f"action {i}": str(dim) for i, dim in enumerate(contents.action)}
    return {key: f"{shape}" for key, shape in {**contents.pictures, **contents.vectors}.items()} | action


def _spec(table: TransitionTable, contents: FileContents, sources: Sequence[Source]) -> Spec:
    readings = table.proprio.numpy()
    return Spec(
        images={key: (c, h, w) for key, (h, w, c) in contents.pictures.items()},
        proprio=contents.vectors,
        action=table.dims,
        sources=tuple(source.name for source in sources),
        proprio_mean=tuple(readings.mean(axis=0, dtype=np.float64).tolist()),
        proprio_std=tuple(readings.std(axis=0, dtype=np.float64).clip(min=STD_FLOOR).tolist()),
    )

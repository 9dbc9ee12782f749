"""From files to a mixture: open them, bring their frames to where the memory plan says, and read their numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelrl.learning.batch import Spec
from pixelrl.datasets.buffer.frame_storage import Progress, place_frames
from pixelrl.datasets.buffer.read_transitions import check_alike, read_transitions
from pixelrl.datasets.buffer.mixture import CPU, Mixture
from pixelrl.datasets.buffer.frame_index import lay_out
from pixelrl.datasets.buffer.memory_plan import Memory, MemoryPlan
from pixelrl.datasets.buffer.recorded_file import RecordedFile, Request, open_recorded_file
from pixelrl.datasets.hdf5.reader import FileContents
from pixelrl.datasets.buffer.sources import Source, check_together
from pixelrl.datasets.buffer.transition_table import ActionRange, TransitionTable
from pixelrl.runtime.seeding import derive

STD_FLOOR = 1e-3


def load_dataset(
    sources: Sequence[Source],
    *,
    seed: int,
    history: int = 1,
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
        seed: of the batches, and of sources' random fractions.
        history: frames that an observation shows; before an episode's first frame that one is repeated.
        images: observation keys of the cameras, as `read_contents` takes them.
        proprio: those of the proprioception.
        actions: as `read_transitions` takes them.
        memory: where frames live.
        cache_dir: where a cache is kept; None: beside each file.
        device: the learner's. Frames may live there; otherwise batches for CUDA lie in page-locked memory.
        workers: how many processes may build a cache.
        progress: watches the frames come in.
        copies: how many processes on this machine open the same.
        sampling: whatever else `Mixture` takes.

    Raises:
        DataError: sources that cannot be mixed, or files that cannot be read.
    """
    recordings = _open(sources, images, proprio, cache_dir)
    used = [choose_demos(each, source, seed) for source, each in zip(sources, recordings, strict=True)]
    parts, frames = lay_out(recording for each in used for recording in each)
    files = [*parts.values()]
    plan, pictures = place_frames(
        files, frames, memory=memory, device=device, workers=workers, progress=progress, copies=copies
    )
    table = read_transitions(used, parts, pictures, actions=actions)
    if plan.place == "cache":
        for recording in (recording for each in recordings for recording in each if recording.kept is None):
            recording.keep_numbers()
    task = next((index for index, source in enumerate(sources) if source.reward_scale), 0)
    return Mixture(
        table,
        sources,
        spec=_spec(table, recordings[0][0].contents, sources, history),
        env_args=recordings[task][0].contents.env_args,
        seed=seed,
        home=device if plan.place == "gpu" else CPU,
        pin=device.type == "cuda",
        plan=plan,
        **sampling,
    )


def choose_demos(recordings: Sequence[RecordedFile], source: Source, seed: int) -> list[RecordedFile]:
    """Return the files with a source's fraction of their demos, counted over all; those without any are left out."""
    demos = [(index, name) for index, recording in enumerate(recordings) for name in recording.contents.demos]
    count = max(1, int(source.fraction * len(demos) + 0.5))
    order = np.arange(len(demos))
    if source.pick == "random":
        order = np.random.default_rng(derive(seed, "fraction", source.name)).permutation(len(demos))
    kept = {demos[place] for place in order[:count]}
    parts = []
    for index, recording in enumerate(recordings):
        some = {name: steps for name, steps in recording.contents.demos.items() if (index, name) in kept}
        if some:
            parts.append(replace(recording, contents=replace(recording.contents, demos=some)))
    return parts


def _open(
    sources: Sequence[Source], images: Sequence[str] | None, proprio: Sequence[str] | None, cache_dir: Path | None
) -> list[list[RecordedFile]]:
    """Open the files of all sources, and check that they may be mixed."""
    check_together(sources)
    recordings = []
    for source in sources:
        request = Request(mask=source.mask, images=images, proprio=proprio)
        recordings.append([open_recorded_file(path, request, cache_dir) for path in source.paths()])
    check_alike([recording.contents for each in recordings for recording in each])
    return recordings


def _spec(table: TransitionTable, contents: FileContents, sources: Sequence[Source], history: int) -> Spec:
    """Return the shapes and scales of a table."""
    readings = table.proprio.numpy()
    return Spec(
        images={key: (c, h, w) for key, (h, w, c) in contents.pictures.items()},
        proprio=contents.vectors,
        action=table.dims,
        sources=tuple(source.name for source in sources),
        proprio_mean=tuple(readings.mean(axis=0, dtype=np.float64).tolist()),
        proprio_std=tuple(readings.std(axis=0, dtype=np.float64).clip(min=STD_FLOOR).tolist()),
        history=history,
    )

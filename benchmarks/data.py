"""`pixelrl bench data`: how fast frames come, from every place for them, beside robomimic's loader and a bare copy."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich.console import Console

from benchmarks.ledger import case_record, print_case
from benchmarks.race import Clock, Contender, Work, load, race
from benchmarks.robomimic_cql import quiet_robomimic
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.memory_plan import Place
from pixelrl.datasets.buffer.prefetch import Prefetcher
from pixelrl.datasets.buffer.sources import Source
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A file to read, and the batches that are read from it.

    Attributes:
        demos: how many.
        steps: transitions of each.
        size: height and width of the pictures [px].
        cameras: how many.
        batch_size: transitions a batch.
    """

    demos: int
    steps: int
    size: int
    cameras: int
    batch_size: int

    @property
    def keys(self) -> tuple[str, ...]:
        """The cameras' observation keys."""
        return tuple(f"camera{index}_image" for index in range(self.cameras))

    @property
    def picture(self) -> int:
        """Bytes of a picture."""
        return 3 * self.size**2

    @property
    def batch_bytes(self) -> int:
        """Bytes of the pictures of a batch, obs and next_obs."""
        return 2 * self.batch_size * self.cameras * self.picture

    @property
    def unique_bytes(self) -> int:
        """Bytes of all pictures, each once."""
        return self.demos * (self.steps + 1) * self.cameras * self.picture


def write_frames(path: Path, frames: Frames) -> None:
    """Write random pictures as robomimic's own scripts do: obs and next_obs in full, contiguous, uncompressed."""
    random = np.random.default_rng(derive(0, "bench frames"))
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = frames.demos * frames.steps
        data.attrs["env_args"] = "{}"
        for index in range(frames.demos):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = frames.steps
            demo["actions"] = random.uniform(-0.9, 0.9, (frames.steps, 7)).astype(np.float32)
            demo["rewards"] = np.ones(frames.steps, dtype=np.float32)
            demo["dones"] = np.zeros(frames.steps, dtype=np.int64)
            for key in frames.keys:
                shape = (frames.steps + 1, frames.size, frames.size, 3)
                pictures = random.integers(0, 256, shape, dtype=np.uint8)
                demo[f"obs/{key}"], demo[f"next_obs/{key}"] = pictures[:-1], pictures[1:]


PLACES: tuple[Place, ...] = ("gpu", "ram", "cache", "file")
"""Where frames may lie; the first one only where there is a GPU."""


def chosen_places(names: Sequence[str]) -> tuple[Place, ...]:
    """Return the places of these names, or all that this machine has.

    Raises:
        PixelrlError: there is no such place.
    """
    if unknown := [name for name in names if name not in PLACES]:
        raise PixelrlError(f"--places: there is no place {unknown[0]!r}, but: {', '.join(PLACES)}")
    there = PLACES if torch.cuda.is_available() else PLACES[1:]
    return tuple(place for place in there if not names or place in names)


def from_place(path: Path, frames: Frames, place: Place, threads: int = 0) -> Work:
    """Load with pixelrl, every frame once in a place; a cache is built first, which only getting ready tells.

    `threads` load ahead, as with `pixelrl train --loader-threads`.
    """
    source = Source(name="task", files=(path,))
    device = torch.device("cuda" if place == "gpu" else "cpu")
    size, keys = frames.batch_size, frames.keys
    mixture = load_dataset([source], seed=0, images=keys, memory=place, device=device, batch_size=size, gamma=0.99)
    steps = count()
    batch_at = Prefetcher(mixture.batch, sys.maxsize, threads=threads)  # its threads end with the process
    wait = torch.cuda.synchronize if place == "gpu" else lambda: None
    return Work(unit=lambda: batch_at(next(steps)), wait=wait)


def bare_copy(path: Path, frames: Frames) -> Work:
    """Gather the same bytes from pictures in memory into the same buffers again and again: as fast as it gets."""
    rows = frames.demos * (frames.steps + 1)
    random = np.random.default_rng(derive(0, "bench copy"))
    stores = [random.integers(0, 256, (rows, frames.picture), dtype=np.uint8) for _ in frames.keys]
    out = np.empty((2 * frames.batch_size, frames.picture), dtype=np.uint8)

    def unit() -> None:
        index = random.integers(rows - 1, size=frames.batch_size)
        both = np.concatenate([index, index + 1])
        for store in stores:
            np.take(store, both, axis=0, out=out, mode="clip")

    return Work(unit=unit)


def robomimics(path: Path, frames: Frames, cache: str) -> Work:
    """Load with robomimic 0.3.0's SequenceDataset and torch's DataLoader, as its training script does, no workers.

    Raises:
        PixelrlError: robomimic is not installed.
    """
    from torch.utils.data import DataLoader

    with quiet_robomimic():
        from robomimic.utils import obs_utils
        from robomimic.utils.dataset import SequenceDataset

        obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": list(frames.keys), "low_dim": []}})
        dataset = SequenceDataset(
            hdf5_path=str(path),
            obs_keys=frames.keys,
            dataset_keys=("actions", "rewards", "dones"),
            hdf5_cache_mode=cache,
            hdf5_use_swmr=True,
            load_next_obs=True,
        )
    loader = DataLoader(dataset, batch_size=frames.batch_size, shuffle=True, num_workers=0, drop_last=True)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()
    return Work(unit=lambda: next(batches))


def bench_data(
    frames: Frames,
    places: Sequence[str],
    *,
    clock: Clock,
    rounds: int,
    turn_seconds: float,
    skip: Sequence[str],
    console: Console,
) -> dict[str, Any]:
    """Measure on a file that is made for it, print, and return the JSON of the one case.

    Raises:
        PixelrlError: a file of fewer transitions than a batch.
    """
    if frames.demos * frames.steps < frames.batch_size:
        raise PixelrlError(
            f"--demos {frames.demos} x --steps {frames.steps} are fewer transitions than a batch of {frames.batch_size}"
        )
    with tempfile.TemporaryDirectory(prefix="pixelrl-bench-") as folder, console.status("writing") as status:
        path, small = Path(folder) / "frames.hdf5", Path(folder) / "few.hdf5"
        few = replace(frames, demos=2, steps=5, size=16, batch_size=4)
        write_frames(path, frames)
        write_frames(small, few)
        jobs: dict[str, tuple[Callable[..., Work], tuple[Any, ...]]] = {}
        jobs |= {f"pixelrl {place}": (from_place, (place,)) for place in places}
        if "ram" in places:
            jobs |= {"pixelrl ram, 2 threads": (from_place, ("ram", 2))}
        jobs |= {"bare copy": (bare_copy, ())}
        jobs |= {f"robomimic {cache}": (robomimics, (cache,)) for cache in ("all", "low_dim")}
        contenders = {
            name: Contender(make=make, arguments=(path, frames, *options), rehearsal=(small, few, *options))
            for name, (make, options) in jobs.items()
            if name not in skip
        }
        results = race(contenders, rounds=rounds, turn_seconds=turn_seconds, progress=status.update)
    others = ("bare copy", "robomimic all", "robomimic low_dim")
    ours = [name for name in jobs if name.startswith("pixelrl")]
    pairs = {f"{name.removeprefix('pixelrl ')} / {other}": (name, other) for name in ours for other in others}
    record = case_record(results, pairs, clock)
    sizes = {"batch_bytes": frames.batch_bytes, "unique_bytes": frames.unique_bytes}
    for row in record["contenders"].values():
        row["bytes_per_second"] = row["per_second"] * frames.batch_bytes
        for name in ("held", "peak"):
            row[f"{name}_over_unique"] = row[f"{name}_mib"] * 1024**2 / frames.unique_bytes
    record |= {"load_per_core": load(), "case": asdict(frames) | sizes}
    name = f"{frames.cameras} x {frames.size} px, batch {frames.batch_size}"
    print_case(name, record, console, rows=frames.batch_size, unit="batches")
    for label, row in record["contenders"].items():
        memory = f"holds {row['held_over_unique']:.3g} x the unique frames, peak {row['peak_over_unique']:.3g} x"
        figures = f"{row['bytes_per_second'] / 1e9:.3g} GB/s, {memory}"
        console.print(f"  {label}: {figures}")
    return {name: record}

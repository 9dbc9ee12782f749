"""`python -m benchmarks.data`: how fast frames come from every place, beside robomimic's loader and a bare copy."""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from tyro.conf import OmitArgPrefixes

from benchmarks.ledger import case_record, command_line, print_case, write_ledger
from benchmarks.robomimic_cql import quiet_robomimic
from benchmarks.turns import DEFAULTS, Contender, Options, Work, take_turns
from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.memory_plan import Place
from pixelrl.datasets.buffer.prefetch import Prefetcher
from pixelrl.datasets.buffer.sources import Source
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.seeding import derive

COLUMNS = {
    "batches/s": "per_second",
    "GB/s": "gigabytes_per_second",
    "CPU s": "cpu_seconds",
    "until ready [s]": "seconds_until_ready",
    "held / unique frames": "held_over_unique",
    "peak / unique frames": "peak_over_unique",
}


@dataclass(frozen=True, kw_only=True)
class Frames:
    """A file of demos, and the batches that are read from it."""

    demos: int = 40
    """demos of the file"""
    steps: int = 100
    """transitions of each demo"""
    size: int = 84
    """height and width of the pictures [px]"""
    cameras: int = 2
    """how many"""
    batch_size: int = 256
    """transitions a batch, which holds obs and next_obs of all cameras"""

    @property
    def keys(self) -> tuple[str, ...]:
        """The cameras' observation keys."""
        return tuple(f"camera{index}_image" for index in range(self.cameras))

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pictures of all cameras at one moment."""
        return 3 * self.size**2 * self.cameras


DEFAULT_FRAMES = Frames()
SMALL = Frames(demos=2, steps=5, size=16, batch_size=4)


def main(frames: OmitArgPrefixes[Frames] = DEFAULT_FRAMES, options: OmitArgPrefixes[Options] = DEFAULTS) -> None:
    """Measure how fast batches are loaded, each contender in its own process; ratios are costs.

    The file is made anew, as robomimic writes it, and deleted in the end; it lies in the page cache. Its cache of
    frames is built beforehand, so `until ready` of `cache` is what opening takes.

    Raises:
        PixelrlError: a file of fewer transitions than a batch.
    """
    provenance, clock = Provenance(seed=0), options.clock or "wall"
    if options.quick:
        frames, options = SMALL, replace(options, rounds=1, turn_seconds=0.01)
    if frames.demos * frames.steps < frames.batch_size:
        held = f"--demos {frames.demos} x --steps {frames.steps}"
        raise PixelrlError(f"{held} are fewer transitions than a batch of {frames.batch_size}")
    places: list[Place] = ["gpu"] if torch.cuda.is_available() else []
    places += ["ram", "cache", "file"]
    ours: dict[str, tuple[Any, ...]] = {place: (load_ours, place, 0) for place in places}
    ours["ram, 2 threads"] = (load_ours, "ram", 2)
    others: dict[str, tuple[Any, ...]] = {f"robomimic {cache}": (load_robomimic, cache) for cache in ("all", "low_dim")}
    others["bare copy"] = (copy_bare,)
    with tempfile.TemporaryDirectory(prefix="pixelrl-bench-") as folder:
        path, small = Path(folder) / "frames.hdf5", Path(folder) / "small.hdf5"
        write_frames(path, frames)
        write_frames(small, SMALL)
        load_ours(path, frames, "cache", 0)
        contenders = {
            name: Contender(make=make, arguments=(path, frames, *rest), rehearsal=(small, SMALL, *rest))
            for name, (make, *rest) in (ours | others).items()
        }
        results = take_turns("data", contenders, options)
    batch_bytes = 2 * frames.batch_size * frames.frame_bytes
    unique_bytes = frames.demos * (frames.steps + 1) * frames.frame_bytes
    record = case_record(results, {f"{one} / {other}": (one, other) for one in ours for other in others}, clock)
    for row in record["contenders"].values():
        row["gigabytes_per_second"] = row["per_second"] * batch_bytes / 1e9
        for name in ("held", "peak"):
            row[f"{name}_over_unique"] = row[f"{name}_mib"] * 1024**2 / unique_bytes
    record["case"] = asdict(frames) | {"batch_bytes": batch_bytes, "unique_bytes": unique_bytes}
    name = f"{frames.cameras} x {frames.size} px, batch {frames.batch_size}"
    print_case(name, record, COLUMNS)
    write_ledger("data", {name: record}, options, clock, provenance)


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


def load_ours(path: Path, frames: Frames, place: Place, threads: int) -> Work:
    """Load with pixelrl, every frame once in a place; `threads` load ahead, as with `--loader-threads`."""
    source = Source(name="task", files=(path,))
    device = torch.device("cuda" if place == "gpu" else "cpu")
    size, keys = frames.batch_size, frames.keys
    mixture = load_dataset([source], seed=0, images=keys, memory=place, device=device, batch_size=size, gamma=0.99)
    steps = count()
    batch_at = Prefetcher(mixture.batch, sys.maxsize, threads=threads)  # its threads end with the process
    wait = torch.cuda.synchronize if place == "gpu" else lambda: None
    return Work(unit=lambda: batch_at(next(steps)), wait=wait)


def copy_bare(path: Path, frames: Frames) -> Work:
    """Gather the same bytes from pictures in memory into the same buffer again and again: as fast as it gets."""
    rows = frames.demos * (frames.steps + 1)
    random = np.random.default_rng(derive(0, "bench copy"))
    stores = [random.integers(0, 256, (rows, 3 * frames.size**2), dtype=np.uint8) for _ in frames.keys]
    out = np.empty((2 * frames.batch_size, 3 * frames.size**2), dtype=np.uint8)

    def unit() -> None:
        index = random.integers(rows - 1, size=frames.batch_size)
        both = np.concatenate([index, index + 1])
        for store in stores:
            np.take(store, both, axis=0, out=out, mode="clip")

    return Work(unit=unit)


def load_robomimic(path: Path, frames: Frames, cache: str) -> Work:
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


if __name__ == "__main__":
    command_line(main)

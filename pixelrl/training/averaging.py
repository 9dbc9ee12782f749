"""Averaged weights: a run whose snapshots are means over those of another run."""

from collections.abc import Sequence
from pathlib import Path

import torch

from pixelrl.runtime.errors import PixelrlError
from pixelrl.training.checkpoint import read, write
from pixelrl.training.run_directory import checkpoint_path, read_run, snapshot_steps


def average_snapshots(run: Path, out: Path, steps: Sequence[int], window: int) -> None:
    """Write a run that can be tried and probed, whose snapshot of a step is the mean of `run`'s over a window.

    All snapshots from `step - window` to `step` weigh alike (stochastic weight averaging, arXiv 1803.05407, without
    its own learning rate). What is no float, a counter say, is the last one's.

    Raises:
        PixelrlError: no such run, or it has no snapshot of a step.
    """
    known = snapshot_steps(run)
    for step in steps:
        if step not in known:
            have = ", ".join(map(str, known)) or "no step"
            raise PixelrlError(f"{run}: has no snapshot of step {step} to average, but of {have}")
        found = [read(checkpoint_path(run, at))[0] for at in known if step - window <= at <= step]
        mean = {
            key: torch.stack([each[key] for each in found]).mean(0) if last.is_floating_point() else last
            for key, last in found[-1].items()
        }
        write(checkpoint_path(out, step), mean, {"step": step})
    read_run(run).write(out)

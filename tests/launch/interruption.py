"""A training that is interrupted and goes on, as one that is not."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pixelrl.training import loop
from pixelrl.training.loop import Report
from tests import Pixelrl


def check_resume(pixelrl: Pixelrl, command: Sequence[object], folder: Path, step: int) -> None:
    """Train into `folder/whole`, and with Ctrl-C at a step and --resume into `folder/parts`: the same weights."""
    assert pixelrl(*command, "--out", folder / "whole")[0] == 0
    steps = loop.train

    def interrupted(*args: object, **options: object) -> Iterator[Report]:
        for report in steps(*args, **options):  # type: ignore[arg-type]
            if report.step == step:
                signal.raise_signal(signal.SIGINT)  # as Ctrl-C does, in the middle of things
            yield report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", interrupted)
        code, said = pixelrl(*command, "--out", folder / "parts")
    assert code == 130 and f"kept at step {step}" in said
    assert pixelrl(*command, "--out", folder / "parts", "--resume")[0] == 0
    whole, parts = (load_file(folder / name / "last.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        np.testing.assert_array_equal(value, parts[key], err_msg=key)

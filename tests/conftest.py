"""What every test stands on: no display, one thread each, and CUDA tests that say why they skip."""

import os

import pytest
import torch

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)  # two workers share two cores; threads that wait for each other take ten times as long


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))
